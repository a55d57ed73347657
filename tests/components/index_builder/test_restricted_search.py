"""Exclusions and several filters at once, with brute force as the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.index_builder.catalogue_files import CatalogueFiles, LineIndex, read_lines
from components.index_builder.restricted_search import (
    NO_SCORE,
    AvailabilityFilter,
    CandidateFilter,
    restricted_search,
)
from components.index_builder.search_index import ExactIndex
from models.input.availability import Availability
from tests.builders import feature_spec, write_embeddings
from tests.components.index_builder.conftest import padded

NUM, DIMENSION, K = 200, 4, 5
SPEC = feature_spec(
    candidate={
        "tags": {"kind": "categorical", "separator": "|"},
        "country": {"kind": "categorical"},
        "unused": {"kind": "categorical"},
    }
)
RNG = np.random.default_rng(5)
# IDs of any bytes, including line ends and invalid UTF-8.
IDS = [b"\n", b"\r\n", b"\xff\xfe", b"\x00", b"a=b", *(b"%d" % number for number in range(195))]
TAGS = [[f"t{tag}" for tag in range(12) if RNG.random() < 0.5 / (tag + 1)] for _ in IDS]
COUNTRIES = [
    ["", "de", "f\nr", "ch"][index] for index in RNG.choice(4, NUM, p=[0.1, 0.6, 0.2, 0.1])
]
VECTORS = RNG.normal(size=(NUM, DIMENSION)).astype(np.float32)
# At time 1, every candidate is available; then fewer and fewer are, and at 101, none.
AVAILABILITY = Availability(
    np.where(RNG.random(NUM) < 0.5, -5, RNG.integers(0, 2, NUM)), RNG.integers(2, 101, NUM)
)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> CatalogueFiles:
    folder = tmp_path_factory.mktemp("catalogue")
    columns = {
        "item": IDS,
        "tags": [[*(tag.encode() for tag in row), *[b""] * (12 - len(row))] for row in TAGS],
        "country": [country.encode() for country in COUNTRIES],
        "unused": [b""] * NUM,
    }
    files = write_embeddings(folder, SPEC, (columns, VECTORS))
    return CatalogueFiles.write(files, ("tags", "country", "unused"), str(folder))


@pytest.fixture(scope="module")
def search(catalogue: CatalogueFiles) -> Any:
    index = ExactIndex(VECTORS)
    filters = {name: CandidateFilter(files) for name, files in catalogue.filters.items()}
    available = AvailabilityFilter(AVAILABILITY)

    def run(queries: Any, exclude: Any, times: Any, **requested: Any) -> Any:
        conditions = [(filters[name], filters[name].allowed(requested[name])) for name in filters]
        conditions.append((available, times))
        return restricted_search(index, queries, K, exclude, conditions)

    # Traced once, as when served, for any number of rows, exclusions and values.
    return tf.function(run, autograph=False).get_concrete_function(
        tf.TensorSpec([None, DIMENSION]),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None], tf.int64),
        **{name: tf.TensorSpec([None, None], tf.string, name) for name in filters},
    )


def expected(
    query: npt.NDArray[np.float32],
    exclude: list[int],
    tags: list[str],
    countries: list[str],
    unused: list[str],
    time: int,
) -> list[int]:
    scores = VECTORS @ query
    return [
        int(index)
        for index in np.argsort(-scores, kind="stable")
        if index not in exclude
        and (not tags or set(tags) & set(TAGS[index]))
        and (not countries or COUNTRIES[index] in countries)
        and not unused
        and AVAILABILITY.start[index] <= time < AVAILABILITY.end[index]
    ][:K]


ROW = st.tuples(
    st.integers(0, 99),
    st.lists(st.integers(0, NUM - 1), max_size=12),
    st.lists(st.sampled_from(["t0", "t1", "t7", "t11", "no such tag"]), max_size=3),
    st.lists(st.sampled_from(["de", "f\nr", "ch", "xx"]), max_size=2),
    st.sampled_from([[], [], [], ["x"]]),
    st.sampled_from([1, 1, 20, 90, 101]),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(rows=st.lists(ROW, min_size=1, max_size=4))
def test_any_exclusions_filters_and_times_give_what_brute_force_gives(search: Any, rows: list[Any]):
    queries = np.random.default_rng([row[0] for row in rows]).normal(size=(len(rows), DIMENSION))
    queries = queries.astype(np.float32)
    width = max(len(row[1]) for row in rows)
    exclude = [[*row[1], *[-1] * (width - len(row[1]))] for row in rows]
    found = search(
        tf.constant(queries),
        tf.constant(exclude, tf.int32, [len(rows), width]),
        tf.constant([row[5] for row in rows], tf.int64),
        tags=padded([row[2] for row in rows]),
        country=padded([row[3] for row in rows]),
        unused=padded([row[4] for row in rows]),
    )
    indices, scores = (part.numpy() for part in found)
    for row, (_, excluded, *requested) in enumerate(rows):
        wanted = expected(queries[row], excluded, *requested)
        found_here, missing = np.split(scores[row], [len(wanted)])
        assert indices[row][: len(wanted)].tolist() == wanted
        np.testing.assert_allclose(found_here, VECTORS[wanted] @ queries[row], rtol=1e-4)
        assert np.all(missing == NO_SCORE)


def test_ids_of_any_bytes_are_found_and_returned(catalogue: CatalogueFiles):
    assert read_lines(catalogue.ids_file).numpy().tolist() == IDS
    found = LineIndex(catalogue.ids_file, missing=-1).lookup(tf.constant([*IDS, b"", b"nothing"]))
    assert found.numpy().tolist() == [*range(NUM), -1, -1]
