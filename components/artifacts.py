"""Artifact types of this package, and the properties that components read from artifacts."""

from tfx.types.artifact import Artifact

# Properties of Examples that were made of spans: the newest span as people write it, and the
# version of each span.
LAST_SPAN_PROPERTY = "last_span"
SPANS_PROPERTY = "spans"
# Properties of a SpanProfile: the newest span of the run, and the project.
SPAN_PROPERTY = "span"
PROJECT_PROPERTY = "use"


class CandidateEmbeddings(Artifact):
    """A folder with `embeddings-*.parquet` (`components.candidate_embedder.embedding_files`)."""

    TYPE_NAME = "components.CandidateEmbeddings"


class IndexReport(Artifact):
    """A folder with `index_report.json`, and `trade_off.svg` if the index was tuned."""

    TYPE_NAME = "components.IndexReport"


class IngestReport(Artifact):
    """A folder with `ingest_report.json`, which says what ingestion read, dropped and wrote.

    `added_candidates.parquet` has the IDs that only training events have.
    """

    TYPE_NAME = "components.IngestReport"


class RejectedRows(Artifact):
    """A folder with `rejected.parquet`: the rejected rows, if any."""

    TYPE_NAME = "components.RejectedRows"


class SpanProfile(Artifact):
    """A folder with the statistics and candidates of spans, and the drift gate's report."""

    TYPE_NAME = "components.SpanProfile"
