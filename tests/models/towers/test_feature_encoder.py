from __future__ import annotations

import numpy as np
import tensorflow as tf

from models.features.spec import FeatureConfig
from models.towers.feature_encoder import FeatureEncoder, keep_mask

FEATURES = {
    "genres": FeatureConfig(kind="categorical", separator="|"),
    "year": FeatureConfig(kind="numeric"),
    "title": FeatureConfig(kind="text"),
}
SIZES = {"genres": 4, "title": 6}
DIMENSION = 3
NAN = float("nan")
# Many values, one, none; a number and none; a word twice.
INPUTS = {
    "genres": tf.constant([[0, 2], [3, -1], [-1, -1]]),
    "year": tf.constant([[2.0], [NAN], [-1.0]]),
    "title": tf.constant([[5, 5, 1], [0, -1, -1], [-1, -1, -1]]),
}


def encoder(dropout: float = 0.0) -> FeatureEncoder:
    made = FeatureEncoder(FEATURES, SIZES, DIMENSION, dropout)
    made(INPUTS)
    rng = np.random.default_rng(0)
    for variable in made.variables:
        # Biases too, which a missing number must not add.
        variable.assign(rng.normal(size=variable.shape))
    return made


def test_vectors_are_sums_of_means_and_directions():
    made = encoder()
    by_shape = {tuple(variable.shape): variable.numpy() for variable in made.variables}
    genres, titles = by_shape[(SIZES["genres"], DIMENSION)], by_shape[(SIZES["title"], DIMENSION)]
    kernel = by_shape[(1, DIMENSION)][0]
    bias = by_shape.get((DIMENSION,), np.zeros(DIMENSION))
    expected = [
        (genres[0] + genres[2]) / 2 + 2.0 * kernel + bias + (2 * titles[5] + titles[1]) / 3,
        # No year: neither its direction nor its bias.
        genres[3] + titles[0],
        -1.0 * kernel + bias,
    ]
    np.testing.assert_allclose(made(INPUTS), expected, rtol=1e-5, atol=1e-6)


def test_a_row_without_any_feature_is_the_zero_vector():
    missing = {
        "genres": tf.constant([[-1]]),
        "year": tf.constant([[NAN]]),
        "title": tf.zeros([1, 0], tf.int32),
    }
    np.testing.assert_array_equal(encoder()(missing), np.zeros((1, DIMENSION)))


def test_without_features_the_sum_is_zero():
    made = FeatureEncoder({}, {}, DIMENSION, 0.1)
    assert made({}) == 0.0
    assert not made.has_features


def test_shares_have_the_same_gradients():
    made = encoder()

    def gradients(inputs: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(made(inputs) ** 2)
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, made.trainable_variables)]

    for padded, shared in zip(gradients(INPUTS), gradients(made.shares(INPUTS)), strict=True):
        np.testing.assert_allclose(padded, shared, rtol=1e-4, atol=1e-5)


def test_features_are_hidden_one_by_one_and_whole_by_the_seed():
    made = encoder(dropout=0.5)
    many = {name: tf.repeat(values[:1], 200, axis=0) for name, values in INPUTS.items()}
    one, again, other = (
        made(many, seed=tf.constant(seed)).numpy() for seed in ([5, 6], [5, 6], [5, 7])
    )
    # Three features, each there or not: eight sums, and all of them come.
    assert len(np.unique(one.round(4), axis=0)) == 8
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)


def test_masks_keep_the_share_that_they_should():
    mask = keep_mask(tf.constant([20_000]), 0.3, tf.constant([1, 2])).numpy()
    assert set(mask) == {0.0, 1.0}
    # Standard deviation: √(.3 · .7 / 20,000) = .0032.
    assert abs(mask.mean() - 0.7) < 4 * 0.0032


def test_the_scale_multiplies_the_sum():
    plain, scaled = encoder(), FeatureEncoder(FEATURES, SIZES, DIMENSION, 0.0, scale=0.25)
    scaled(INPUTS)
    scaled.set_weights(plain.get_weights())
    np.testing.assert_allclose(scaled(INPUTS), 0.25 * plain(INPUTS), rtol=1e-5, atol=1e-6)
