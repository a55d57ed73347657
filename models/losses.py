"""Softmax losses over the catalogue, full and sampled."""

import tensorflow as tf

_MASKED = -1e9


def full_softmax(
    logits: tf.Tensor, rows: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor
) -> tf.Tensor:
    """Returns the weighted mean of -log softmax(logits)[row, target].

    Args:
        logits: `[batch, num_candidates]`.
        rows: `[num_events]` int32, the row of each event.
        targets: `[num_events]` int32, its candidate.
        weights: `[num_events]` float32.
    """
    chosen = tf.gather_nd(logits, tf.stack([rows, targets], axis=1))
    normaliser = tf.gather(tf.reduce_logsumexp(logits, axis=1), rows)
    return tf.math.divide_no_nan(
        tf.reduce_sum(weights * (normaliser - chosen)), tf.reduce_sum(weights)
    )


def sampled_softmax(
    queries: tf.Tensor,
    target_vectors: tf.Tensor,
    negative_vectors: tf.Tensor,
    targets: tf.Tensor,
    negatives: tf.Tensor,
    negative_log_expected: tf.Tensor,
    weights: tf.Tensor,
) -> tf.Tensor:
    """Returns the softmax loss against shared negatives, corrected for how they were drawn.

    Each negative's logit is lowered by the logarithm of how often it is expected among the
    negatives (logQ), which makes the sampled normaliser an unbiased estimate of the full one.
    Negatives that are the event's own target (accidental hits) do not count.

    Args:
        queries: `[num_events, dimension]`.
        target_vectors: `[num_events, dimension]`, of each event's candidate.
        negative_vectors: `[num_negatives, dimension]`.
        targets: `[num_events]` int32 indices.
        negatives: `[num_negatives]` int32 indices.
        negative_log_expected: `[num_negatives]`, log of the expected number of times that this
            candidate is drawn.
        weights: `[num_events]`.

    References:
        Bengio, Senécal. Adaptive Importance Sampling to Accelerate Training of a Neural
        Probabilistic Language Model. 2008. Eq. 12.
        Yi et al. Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations.
        RecSys 2019. Eq. 3.
    """
    positive = tf.reduce_sum(queries * target_vectors, axis=1)
    logits = tf.matmul(queries, negative_vectors, transpose_b=True)
    logits -= negative_log_expected[None, :]
    logits = tf.where(targets[:, None] == negatives[None, :], _MASKED, logits)
    normaliser = tf.reduce_logsumexp(tf.concat([positive[:, None], logits], axis=1), axis=1)
    return tf.math.divide_no_nan(
        tf.reduce_sum(weights * (normaliser - positive)), tf.reduce_sum(weights)
    )


def draw_negatives(
    targets: tf.Tensor,
    log_frequency: tf.Tensor,
    num_in_batch: int,
    num_uniform: int,
    seed: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws one step's shared negatives: from the batch's own targets, and uniform ones.

    Both sources are one mixture: a candidate's expected count is `num_in_batch * frequency +
    num_uniform / num_candidates`, whichever source it came from. Taking every target of a batch
    of long timelines would make the logits quadratic in its events.

    Args:
        targets: `[num_events]` int32, of the batch; at least one.
        log_frequency: `[num_candidates]` float32, log share of the training events.
        num_in_batch: How many to draw from `targets`, with replacement.
        num_uniform: How many more to draw with equal chances.
        seed: `[2]` int32.

    Returns:
        Indices `[num_in_batch + num_uniform]` int32 and their log expected counts.
    """
    num_candidates = tf.shape(log_frequency)[0]
    uniform = tf.random.stateless_uniform(
        [num_uniform], seed, maxval=num_candidates, dtype=tf.int32
    )
    places = tf.random.stateless_uniform(
        [num_in_batch], seed + 1, maxval=tf.shape(targets)[0], dtype=tf.int32
    )
    negatives = tf.concat([tf.gather(targets, places), uniform], axis=0)
    expected = num_in_batch * tf.exp(tf.gather(log_frequency, negatives))
    expected += num_uniform / tf.cast(num_candidates, tf.float32)
    return negatives, tf.math.log(expected)
