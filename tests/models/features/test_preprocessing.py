"""Through Transform itself, on the few Examples of conftest.py."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features.preprocessing import SPACE_IN_ID, hour_and_weekday, prefixes, tokens
from models.features.spec import FeatureSpec
from models.features.vocabularies import FeatureSizes, candidate_counts
from models.input.transformed_features import read_candidate_features

# Transform takes ten seconds to trace and run, however few the Examples.
pytestmark = pytest.mark.slow

ITEMS = ["a b", "ü→漢", "a", "c", "d"]


def test_every_id_has_one_index_by_falling_count_in_events_and_catalogue(transformed: Any):
    assert [transformed.index(item) for item in ITEMS] == [0, 1, 2, 3, 4]
    assert sorted(row["user"][0] for row in transformed.timelines) == [0, 1, 2, 3, 4]
    items = [row["item"] for row in transformed.timelines]
    assert items == [[0, 1, 0, 3], [1, 2, 0], [0], [2, 1], []]


def test_counts_are_those_of_the_events(transformed: Any, raw_spec: FeatureSpec):
    # a b was taken 4 times, ü→漢 3, a 2, c once, d never.
    assert candidate_counts(transformed.output, raw_spec).tolist() == [4, 3, 2, 1, 0]


def test_sizes_hold_the_out_of_vocabulary_bucket(transformed: Any, raw_spec: FeatureSpec):
    sizes = FeatureSizes.from_transform(transformed.output, raw_spec, query_vocabulary=True)
    assert (sizes.queries, sizes.candidates) == (6, 6)
    # Two countries and the bucket; two buckets of visits; words: the, thing, 1982, 東京, 物語, été;
    # genres that come twice or more: LINE_ENDS and z. Ages and years have no size.
    assert sizes.features == {
        **{"country": 3, "visits": 2, "title": 7, "genres": 3, "section": 3},
        "device": 3,
    }


def test_values_beyond_the_vocabulary_fall_into_the_last_bucket(transformed: Any):
    countries = [row["country"] for row in transformed.timelines]
    # FR comes once, CH and JP twice, and two are kept.
    assert countries[4] == [2]
    assert sorted([countries[0][0], countries[2][0]]) == [0, 1]
    # "rare" comes once, `min_count` is 2.
    genres = transformed.catalogue[2]["genres"]
    assert genres[0] == 2
    assert genres[1] < 2


def test_unknown_ids_fall_into_the_last_bucket(transformed: Any):
    raw = {"item": tf.sparse.from_dense([["never seen", "a b", "a", f"a{SPACE_IN_ID}"]])}
    layer = transformed.output.transform_features_layer()
    assert layer(raw)["item"].values.numpy().tolist() == [5, 0, 2, 5]


def test_numbers_are_bucketed_or_normalised_and_missing_ones_stay_missing(transformed: Any):
    # 1 and 2 are below the median, 30 and 40 above it.
    assert [row["visits"] for row in transformed.timelines] == [[0], [0], [1], [1], []]
    # -1.8e19 and 1.8e19: the sum of their squares is not a finite float32.
    ages = [row["age"] for row in transformed.timelines]
    assert ages == [[pytest.approx(-1.0)], [], [pytest.approx(1.0)], [], []]
    # 1980, 2000, 2020: mean 2000, standard deviation √(800 / 3).
    years = [row["year"] for row in transformed.catalogue]
    step = 20 / math.sqrt(800 / 3)
    assert years == [
        [pytest.approx(-step, rel=1e-5)],
        [pytest.approx(0.0, abs=1e-5)],
        [],
        [pytest.approx(step, rel=1e-5)],
        [],
    ]


def test_titles_become_words_of_any_script(transformed: Any):
    titles = [row["title"] for row in transformed.catalogue]
    the, thing, year = titles[0]
    assert len({the, thing, year}) == 3
    assert len(set(titles[1])) == 3
    assert titles[1][2] == the
    summer = titles[2][0]
    assert titles[2] == [summer, summer, thing, the, the]
    # No title, and one of signs only.
    assert titles[3] == titles[4] == []


def test_times_ratings_and_held_out_marks_pass_through(transformed: Any):
    assert transformed.timelines[1]["timestamp"] == [0, 1, 2]
    assert transformed.timelines[1]["rating"] == [4.0, 4.0, 4.0]
    assert transformed.timelines[1]["is_target"] == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Toy Story (1995)", ["toy", "story", "1995"]),
        ("L'été À-côté", ["l", "été", "à", "côté"]),
        ("Война и мир", ["война", "и", "мир"]),
        ("東京物語！第2話", ["東京物語", "第2話"]),
        ("  spaced   out ", ["spaced", "out"]),
        ("?!", []),
    ],
)
def test_a_word_is_a_run_of_letters_or_digits(text: str, expected: list[str]):
    words = tokens(tf.SparseTensor([[0, 0]], [text], [1, 1]))
    assert [word.decode() for word in words.values.numpy()] == expected


@settings(deadline=None, max_examples=30)
@given(st.lists(st.datetimes(timezones=st.just(timezone.utc)), min_size=1))
def test_a_time_has_its_hour_and_weekday(times: list[datetime]):
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    seconds = np.array([(time - epoch) // timedelta(seconds=1) for time in times], np.int64)
    found = hour_and_weekday(tf.RaggedTensor.from_tensor(seconds[:, None]).to_sparse())
    expected = [[time.hour, 24 + time.weekday()] for time in times]
    np.testing.assert_array_equal(tf.sparse.to_dense(found), expected)


def test_texts_keep_their_rows():
    words = tokens(tf.SparseTensor([[0, 0], [2, 0]], ["a b", "c"], [4, 1]))
    assert words.indices.numpy().tolist() == [[0, 0], [0, 1], [2, 0]]
    assert words.dense_shape.numpy()[0] == 4


def test_each_prefix_of_a_path_is_a_value(transformed: Any):
    paths = tf.SparseTensor([[0, 0], [2, 0]], ["a > b>c", ">".join("abcdefghij")], [3, 1])
    found = tf.RaggedTensor.from_sparse(prefixes(paths, ">")).to_list()
    assert found[:2] == [[b"a", b"a>b", b"a>b>c"], []]
    assert found[2] == [">".join("abcdefgh"[: level + 1]).encode() for level in range(8)]
    sections = [row["section"] for row in transformed.catalogue]
    # The more frequent value is first: film is in both.
    assert sections == [[], [], [], [0, 1], [0]]


def test_the_catalogue_is_read_in_the_order_of_the_vocabulary(
    transformed: Any, raw_spec: FeatureSpec
):
    features = read_candidate_features(transformed.catalogue_files, raw_spec, 5)
    assert features["title"].shape == (5, 5)
    assert features["year"].shape == (5, 1)
    covers = features["cover"][[transformed.index("a"), transformed.index("d")]]
    np.testing.assert_array_equal(covers, [[3.0, 0.0, 4.0], [math.nan] * 3])
    for row in transformed.catalogue:
        index = row["item"][0]
        for name in ("title", "genres"):
            assert [v for v in features[name][index] if v >= 0] == row[name]
        year = features["year"][index, 0]
        assert math.isnan(year) if not row["year"] else year == pytest.approx(row["year"][0])
