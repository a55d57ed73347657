"""Read the file of the queries to answer, with the reader of `queries.file`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from components.beam_results import MakePipeline
from components.errors import BatchError
from components.interactions.buckets import Sizing
from components.interactions.config import IngestConfig
from components.interactions.errors import NoInputError
from components.interactions.ingest import read_sources
from components.interactions.sources.files import find_files, fingerprint
from models.features.spec import FeatureConfig


class RequestedQueries:
    """A file of queries, with a column of query IDs like that of `queries.file`.

    Features of queries are read from the file too. If it has none of them, they are read from
    `queries.file`, unless that is a BigQuery query.

    Raises:
        BatchError: The file is missing or empty.
        IngestError: The file has no column of query IDs, or cannot be read.
    """

    def __init__(self, path: str, config: IngestConfig) -> None:
        # The settings of formats are those of `queries.file`.
        formats: dict[str, Any] = {
            "format": "auto",
            "delimiter": None,
            "formats": {},
            "delimiters": {},
        }
        data = config.data.model_copy(update={"queries": path, **formats})
        self._of_file = config.model_copy(update={"data": data, "chosen_spans": None})
        self._config = config
        try:
            header = find_files(_with_features(self._of_file, {}), ["queries"])[0].header
        except NoInputError as error:
            # The message names the setting `queries.file`, which is not at fault.
            reason = str(error).partition(": ")[2]
            raise BatchError(f"the queries to answer must be in a file, but {reason}") from None
        self._own = {
            name: feature
            for name, feature in config.spec.query_features.items()
            if (feature.column or name) in header
        }
        self.fingerprint = fingerprint(_with_features(self._of_file, {}), ["queries"])

    def read(self, num_buckets: int, folder: str, make_pipeline: MakePipeline) -> "QueryTables":
        """Partition the queries into buckets, in the same way as the timelines in Examples.

        Raises:
            IngestError: A row cannot be read.
        """

        def read(config: IngestConfig) -> Mapping[int, str]:
            sizing = Sizing(num_buckets=num_buckets)
            _, facts = read_sources(config, ["queries"], folder, make_pipeline, sizing)
            return facts.bucket_paths()["queries"]

        ids = read(_with_features(self._of_file, self._own))
        data = self._config.data
        if self._own or data.queries is None or "queries" in data.queried:
            return QueryTables(ids, ids)
        return QueryTables(ids, read(self._config))


class QueryTables(NamedTuple):
    """Paths of tables (`components.interactions.buckets`) with queries and features, by bucket."""

    queries: Mapping[int, str]
    features: Mapping[int, str]


def _with_features(config: IngestConfig, features: Mapping[str, FeatureConfig]) -> IngestConfig:
    of_queries = config.spec.features.model_copy(update={"query": dict(features)})
    spec = config.spec.model_copy(update={"features": of_queries})
    return config.model_copy(update={"spec": spec})
