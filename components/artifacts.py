"""Artifact types, names of artifact properties, and checks of blessings."""

import os
from typing import TypeAlias

from tfx.components.util import model_utils
from tfx.types.artifact import Artifact

from components import files
from components.errors import NotBlessedError

# The inputs or outputs of an executor.
Artifacts: TypeAlias = dict[str, list[Artifact]]

# Properties of Examples that were made from spans: the newest span as text, such as a date, and the
# version of each span.
LAST_SPAN_PROPERTY = "last_span"
SPANS_PROPERTY = "spans"
# Properties of a SpanProfile: the newest span, and the project.
SPAN_PROPERTY = "span"
PROJECT_PROPERTY = "use"
# Property of a ModelBlessing: 0 if the model's ranking stage is not served.
RANKING_PROPERTY = "serves_ranking"
# In TunerResults, next to TFX's own list of the successful trials.
TRIALS_FILE = "trials.json"


class CandidateEmbeddings(Artifact):
    """A folder with `embeddings-*.parquet` (`components.candidate_embedder.embedding_files`)."""

    TYPE_NAME = "components.CandidateEmbeddings"


class IndexReport(Artifact):
    """A folder with `index_report.json`, and `trade_off.svg` if the index was tuned."""

    TYPE_NAME = "components.IndexReport"


class IngestReport(Artifact):
    """A folder with `ingest_report.json`: the counts of what ingestion read, dropped and wrote.

    `added_candidates.parquet` lists candidates in training events that the catalogue lacks.
    """

    TYPE_NAME = "components.IngestReport"


class Recommendations(Artifact):
    """A folder with `recommendations-*.parquet` (`components.batch_recommender.answers`)."""

    TYPE_NAME = "components.Recommendations"


class RejectedRows(Artifact):
    """A folder with `rejected.parquet`, if rows were rejected."""

    TYPE_NAME = "components.RejectedRows"


class SpanProfile(Artifact):
    """A folder with the statistics and candidates of spans, and the drift gate's report."""

    TYPE_NAME = "components.SpanProfile"


def require_model_blessing(blessing: Artifact) -> None:
    """Raise NotBlessedError unless the evaluation gate blessed the model."""
    if not model_utils.is_model_blessed(blessing):
        raise NotBlessedError(f"the evaluation gate refused the model: {_reasons(blessing)}")


def serves_ranking(blessing: Artifact) -> bool:
    """Return whether the model's ranking stage, if it has one, is better than the retriever."""
    if not blessing.has_custom_property(RANKING_PROPERTY):
        return True
    return bool(blessing.get_int_custom_property(RANKING_PROPERTY))


def require_infra_blessing(blessing: Artifact) -> None:
    """Raise NotBlessedError unless ServingValidator blessed the model."""
    if not model_utils.is_infra_validated(blessing):
        raise NotBlessedError(f"the serving gate refused the model: {_reasons(blessing)}")


def _reasons(blessing: Artifact) -> str:
    for name in ("NOT_BLESSED", "INFRA_NOT_BLESSED"):
        path = os.path.join(blessing.uri, name)
        if files.exists(path):
            return "\n  ".join(files.read_text(path).strip().splitlines())
    return f"{blessing.uri} has no blessing"
