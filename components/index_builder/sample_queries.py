"""Real queries to tune an index and to judge it, and what was held out of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.index_builder.recall import Indices, Vectors
from models.features.spec import FeatureSpec
from models.input.raw_examples import read_timelines
from models.towers.saved_towers import SavedTowers

_QUERIES_A_BATCH = 256


@dataclass(frozen=True)
class IndexQuestions:
    """Embedded queries, those that tune apart from those that judge.

    Attributes:
        tuning: `[num_tuning, dimension]`.
        judging: `[num_judging, dimension]`.
        target_rows: Judging query of each held-out event, `[num_events]`.
        targets: Its candidate's index, -1 where the catalogue lacks it, `[num_events]`.
    """

    tuning: Vectors
    judging: Vectors
    target_rows: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]


def read_questions(
    towers: SavedTowers,
    files: Sequence[str],
    spec: FeatureSpec,
    ids: Iterable[pa.Array],
    count: int,
) -> IndexQuestions:
    """Embeds the first queries of a split: every other one judges, the rest tunes.

    Args:
        towers: Of the model.
        files: GZIP TFRecords of timelines.
        spec: Ids and features.
        ids: The catalogue's, block by block, in the order of the index.
        count: Queries of each kind; where the split has fewer than twice as many, half of them.
    """
    vectors: list[Vectors] = []
    rows: list[npt.NDArray[np.int64]] = []
    wanted: list[bytes] = []
    num_read = 0
    for batch in read_timelines(files, spec, _QUERIES_A_BATCH):
        vectors.append(towers.embed_queries(batch.inputs))
        rows.append(batch.targets.value_rowids().numpy() + num_read)
        wanted += batch.targets.values.numpy().tolist()
        num_read += len(vectors[-1])
        if num_read >= 2 * count:
            break
    queries = np.concatenate(vectors)[: 2 * count]
    target_rows = np.concatenate(rows)
    judged = (target_rows < len(queries)) & (target_rows % 2 == 0)
    return IndexQuestions(
        tuning=queries[1::2],
        judging=queries[0::2],
        target_rows=target_rows[judged] // 2,
        targets=_places(ids, wanted)[judged],
    )


def hit_rate(questions: IndexQuestions, found: Indices) -> float:
    """Returns the share of the held-out events whose candidate was found; NaN without events.

    Events whose candidate the catalogue lacks do not count: no search finds them.

    Args:
        questions: With their events.
        found: Candidates for each judging query, `[num_judging, k]`.
    """
    known = questions.targets >= 0
    if not known.any():
        return float("nan")
    answers = found[questions.target_rows[known]]
    return float((answers == questions.targets[known, None]).any(axis=1).mean())


def _places(ids: Iterable[pa.Array], wanted: list[bytes]) -> npt.NDArray[np.int64]:
    """Returns the index of each wanted candidate, -1 where there is none."""
    place_of: dict[bytes, int] = dict.fromkeys(wanted, -1)
    keys = pa.array(list(place_of), pa.binary())
    first = 0
    for block in ids:
        # As Python objects only those that are wanted: a catalogue can have many millions.
        found = np.flatnonzero(pa.compute.is_in(block, keys).to_numpy(zero_copy_only=False))
        for place in found:
            place_of[block[place].as_py()] = first + int(place)
        first += len(block)
    return np.array([place_of[candidate] for candidate in wanted], np.int64)
