"""What became of each held-out event, as a Parquet file."""

import pyarrow as pa
import pyarrow.parquet as pq
from tfx.dsl.io import fileio

from components.retrieval_evaluator.answers import Answers
from components.retrieval_evaluator.ranking import UNRANKED

CASES_FILE = "cases.parquet"


def write_cases(answers: Answers, path: str) -> None:
    """Writes one row a held-out event, in the order in which they were asked about.

    The file appears whole or not at all. Columns: `query_id`, `question` (number of the question:
    one with several right answers has several rows), `candidate_id` (held out),
    `in_catalogue`, `history_length`, `is_repeat` (the history holds the candidate), the query
    features of `evaluation.slices`, and for each contender `rank_NAME` and `rank_other_NAME`, from
    1, null where the candidate was not ranked; `other` treats seen candidates the other way than
    the configuration says.
    """
    columns: dict[str, pa.Array] = {
        "query_id": _text(answers.query_ids),
        "question": pa.array(answers.questions),
        "candidate_id": _text(answers.target_ids),
        "in_catalogue": pa.array(answers.targets >= 0),
        "history_length": pa.array(answers.history_lengths),
        "is_repeat": pa.array(answers.is_repeat),
    }
    for name, values in answers.features.items():
        columns[f"feature_{name}"] = _text(values)
    for prefix, ranks in (("rank", answers.ranks), ("rank_other", answers.ranks_other)):
        for name, rank in ranks.items():
            columns[f"{prefix}_{name}"] = pa.array(rank, mask=rank == UNRANKED)
    # TFX's files are none that Arrow can write to.
    content = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), content)
    partial = f"{path}.partial"
    with fileio.open(partial, "wb") as file:
        file.write(content.getvalue().to_pybytes())
    fileio.rename(partial, path, overwrite=True)


def _text(values: object) -> pa.Array:
    # What is not UTF-8 never came in: ingestion refuses it.
    return pa.array(values, pa.binary()).cast(pa.string())
