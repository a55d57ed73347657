"""Settings of ingestion: files, formats, bad rows, spans and splits."""

import contextlib
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from components.interactions.rows.time_formats import check_timestamp_unit
from components.interactions.spans.pattern import (
    ChosenSpans,
    SpanKind,
    query_of,
    read_span,
    span_kind,
)
from models.features.spec import FeatureSpec, NumberFormat
from models.settings import Settings

NEWEST_SPAN = "newest_span"
TimestampUnit = Annotated[str, AfterValidator(check_timestamp_unit)]
Source = Literal["interactions", "queries", "candidates"]
IdNormalization = Literal["nfc", "strip", "case", "float_suffix", "leading_zeros"]
FileFormat = Literal["csv", "jsonl", "parquet", "tfrecord"]
Delimiter = Annotated[str, Field(pattern="^[\\x01-\\x7f]$")]

# The setting that names the files of each source.
SOURCE_SETTINGS: dict[Source, str] = {
    "interactions": "events.files",
    "queries": "queries.file",
    "candidates": "candidates.file",
}
SOURCES = tuple(SOURCE_SETTINGS)


class SpansConfig(Settings):
    """The spans of the interactions that a run reads."""

    last: str | int = Field(
        "newest", description="Newest span to read: newest, a number, or a date such as 2026-11-20."
    )
    window: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        1, description="Number of spans to read, including the last one; all: every span up to it."
    )
    missing: Literal["stop", "warn"] = Field(
        "stop",
        description="Action if a span of the window is missing or has no valid event; warn: the "
        "run continues without it.",
    )


class BigQueryConfig(Settings):
    """Settings for inputs that are BigQuery queries."""

    project: str = Field(min_length=1, description="Google Cloud project to bill.")
    temp_dataset: str | None = Field(
        None,
        min_length=1,
        description="Dataset of the project for the temporary result; if absent, Beam creates one "
        "and removes it.",
    )
    execute: Literal["each_run", "new_text"] = Field(
        "each_run",
        description="each_run: execute the query and everything after it in each run; new_text: "
        "only if its text has changed since an earlier run.",
    )


class DataConfig(Settings):
    """Settings for reading the input files.

    They come from the sections `events`, `candidates`, `queries` and `ingest` of a configuration.
    """

    interactions: str
    candidates: str | None = None
    queries: str | None = None
    bigquery: BigQueryConfig | None = None
    spans: SpansConfig = Field(default_factory=SpansConfig)
    # The format and the delimiter of all sources, and those of single sources.
    format: FileFormat | Literal["auto"] = "auto"
    delimiter: Delimiter | None = None
    formats: Mapping[Source, FileFormat | Literal["auto"]] = Field(default_factory=dict)
    delimiters: Mapping[Source, Delimiter] = Field(default_factory=dict)
    # The ID columns of the events, if they differ from the keys in Examples.
    event_candidate_id_column: str | None = None
    event_query_id_column: str | None = None
    # The ID columns of the catalogue and the queries, if they differ from those of the events.
    candidate_id_column: str | None = None
    query_id_column: str | None = None
    timestamp_unit: TimestampUnit = "s"
    rating_format: NumberFormat | None = None
    bad_rows: Literal["stop", "reject"] = "stop"
    missing_values: tuple[str, ...] = ()
    normalize_ids: tuple[IdNormalization, ...] = ()
    only_listed: bool = True
    max_unmatched_ids: float = 0.5
    warn_unmatched_ids: float = 0.05
    duplicate_events: Literal["drop", "keep"] = "drop"
    min_rating: float | None = None
    collapse_within_s: float | None = None
    # Event types by ascending weight.
    type_order: tuple[str, ...] = ()
    max_events: int = Field(1000, ge=2)

    @model_validator(mode="after")
    def _queries_can_be_executed(self) -> "DataConfig":
        queries = self.queried
        if queries and self.bigquery is None:
            raise ValueError(
                f"`{SOURCE_SETTINGS[queries[0]]}` is a query: set `ingest.bigquery.project`"
            )
        if self.bigquery is not None and not queries:
            raise ValueError("`ingest.bigquery` needs an input that is `bigquery: SELECT …`")
        for source in queries:
            if (chosen := self.reading(source)[0]) != "auto":
                raise ValueError(
                    f"`format: {chosen}` is for files, and would also apply to "
                    f"`{SOURCE_SETTINGS[source]}`, which is a query; leave `auto`"
                )
            if not query_of(getattr(self, source)):
                raise ValueError(f"`{SOURCE_SETTINGS[source]}`: no query follows `bigquery:`")
        return self

    @model_validator(mode="after")
    def _spans_fit_the_patterns(self) -> "DataConfig":
        kind = self.span_kind
        if kind is None:
            if self.spans != SpansConfig():
                raise ValueError(
                    "`events.spans` needs a pattern with {SPAN}, or {YYYY}, {MM} and {DD}; "
                    f"`events.files` is {self.interactions}"
                )
        elif self.spans.last != "newest":
            try:
                read_span(self.spans.last, kind)
            except ValueError as error:
                raise ValueError(f"`events.spans.last`: {error}") from error
        return self

    def reading(self, source: Source) -> tuple[FileFormat | Literal["auto"], str | None]:
        """Return the format, and the delimiter or None, of the files of a source."""
        delimiter = self.delimiters.get(source, self.delimiter)
        return self.formats.get(source, self.format), delimiter

    @property
    def queried(self) -> list[Source]:
        """The sources that are BigQuery queries."""
        return [name for name in SOURCES if query_of(getattr(self, name) or "") is not None]

    @property
    def span_kind(self) -> SpanKind | None:
        """The kind of spans in the patterns; None if no pattern has spans.

        Raises:
            ValueError: A pattern is invalid, or two patterns have different kinds of spans.
        """
        patterns = [p for p in (self.interactions, self.candidates, self.queries) if p]
        kinds = {kind for p in patterns if (kind := span_kind(p)) is not None}
        if len(kinds) > 1:
            raise ValueError(
                "all patterns must write spans the same way, as {SPAN} or as {YYYY}, {MM} and {DD}"
            )
        return kinds.pop() if kinds else None


class SplitConfig(Settings):
    """The events that are held out for evaluation."""

    method: Literal["random", "temporal", "leave_last_out"] = Field(
        "temporal",
        description="random: by a hash of the event; temporal: by one time for all; "
        "leave_last_out: the last event of each query.",
    )
    eval_fraction: float = Field(
        0.1, gt=0, lt=1, description="random, temporal: share of events in `eval`."
    )
    test_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="random, temporal: share of events in `test`; 0: no `test` split.",
    )
    with_test: bool = Field(
        False, description="leave_last_out: the last event is `test`, the one before it `eval`."
    )
    eval_from: datetime | Literal["newest_span"] | None = Field(
        None,
        description="temporal: first time of `eval` (UTC), instead of the fractions; newest_span: "
        "the start of the newest span. For numbered spans, it is the time that best separates "
        "the events of the newest span from those of earlier ones.",
    )
    test_from: datetime | None = Field(None, description="temporal: first time of `test`.")
    seed: int = Field(42, ge=0, description="random: seed of the hash.")

    @field_validator("eval_from", "test_from", mode="before")
    @classmethod
    def _read_iso_time(cls, moment: object) -> object:
        """Read a date as its midnight, which pydantic does not, and times without a zone as UTC."""
        if isinstance(moment, str):
            with contextlib.suppress(ValueError):
                moment = datetime.fromisoformat(moment.replace("Z", "+00:00"))
        if isinstance(moment, datetime) and moment.tzinfo is None:
            return moment.replace(tzinfo=timezone.utc)
        return moment

    @model_validator(mode="after")
    def _options_fit_the_method(self) -> "SplitConfig":
        if self.eval_fraction + self.test_fraction >= 1:
            raise ValueError("`eval_fraction` + `test_fraction` must leave events for training")
        if self.method != "temporal" and (self.eval_from or self.test_from):
            raise ValueError(f"`eval_from` and `test_from` are for temporal, not {self.method}")
        if self.test_from and not self.eval_from:
            raise ValueError("`test_from` needs `eval_from`")
        if self.test_from and self.eval_from == NEWEST_SPAN:
            raise ValueError("`eval_from: newest_span` leaves nothing for `test_from`")
        eval_from = self.eval_from if isinstance(self.eval_from, datetime) else None
        if self.test_from and eval_from and self.test_from <= eval_from:
            raise ValueError("`test_from` must be later than `eval_from`")
        if self.test_fraction and self.method == "leave_last_out":
            raise ValueError("`test_fraction` is not for leave_last_out; set `with_test` instead")
        if self.test_fraction and self.eval_from:
            raise ValueError("`test_fraction` has no effect with `eval_from`; set `test_from`")
        if self.with_test and self.method != "leave_last_out":
            raise ValueError("`with_test` is for leave_last_out; set `test_fraction` instead")
        return self

    @property
    def split_names(self) -> tuple[str, ...]:
        """Names of the splits that ingestion writes, in order."""
        # The checks above allow only one of the three settings.
        has_test = self.with_test or bool(self.test_from) or self.test_fraction > 0
        return ("train", "eval", *(("test",) if has_test else ()), "candidates")


class IngestConfig(Settings):
    """The configuration of ingestion, with absolute paths."""

    data: DataConfig
    split: SplitConfig = Field(default_factory=SplitConfig)
    spec: FeatureSpec
    chosen_spans: ChosenSpans | None = Field(
        None, description="Set by `choose_spans`; None before that, and without spans."
    )
    unordered_sources: tuple[Source, ...] = Field(
        (), description="Set by `export_queries`: sources whose rows have no order."
    )

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "IngestConfig":
        data, columns = self.data, self.spec.columns
        if self.split.eval_from == NEWEST_SPAN and self.chosen_spans is None:
            if not span_kind(data.interactions):
                raise ValueError(
                    "`split.eval_from: newest_span` needs spans in `events.files`: {SPAN}, or "
                    "{YYYY}, {MM} and {DD}"
                )
            if data.spans.window == 1:
                raise ValueError(
                    "`split.eval_from: newest_span` holds out the only span of the window; set "
                    "`events.spans.window` to 2 or more"
                )
        if self.split.method == "temporal" and columns.timestamp is None:
            raise ValueError("`split.method: temporal` needs `events.timestamp`")
        if "interactions" in data.queried and columns.timestamp is None:
            raise ValueError(
                "`events.files` is a query, whose rows have no order: set `events.timestamp` to "
                "the column of the times"
            )
        if data.min_rating is not None and columns.rating is None:
            raise ValueError("`events.min_rating` needs `events.rating`")
        return self


def at_run_time(
    config: IngestConfig, data_directory: str | None = None, span: str | None = None
) -> IngestConfig:
    """Return the configuration with values that are known only at run time.

    `data_directory` is the base folder of relative paths, and `span` the value of
    `events.spans.last`. If one is None, the configured value is kept.

    Raises:
        ValidationError: The span is invalid.
    """
    data = config.data.model_dump()
    if data_directory is not None:
        for source in SOURCES:
            pattern = data[source]
            if pattern is None or query_of(pattern) is not None:
                continue
            if "://" not in pattern and not pattern.startswith("/"):
                data[source] = f"{data_directory.rstrip('/')}/{pattern}"
    if span is not None:
        data["spans"]["last"] = int(span) if span.isdecimal() else span
    return config.model_copy(update={"data": DataConfig.model_validate(data)})


def query_fingerprint(data: DataConfig, source: Source) -> str | None:
    """Return a text that identifies a query in cache keys, or None if the source is not a query.

    With `execute: each_run`, each call returns a different text, so the query is always executed.
    """
    query = query_of(getattr(data, source) or "")
    if query is None or data.bigquery is None:
        return None
    moment = time.time_ns() if data.bigquery.execute == "each_run" else 0
    return f"{data.bigquery.project}\0{query}\0{moment}"
