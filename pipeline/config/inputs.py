"""Settings of the inputs: events, candidates, queries, and the format of the files."""

from collections.abc import Collection, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from components.interactions.config import (
    BigQueryConfig,
    Delimiter,
    FileFormat,
    IdNormalization,
    SpansConfig,
    TimestampUnit,
)
from models.features.spec import FeatureConfig, NumberFormat, Weight
from models.settings import Settings


class FilesConfig(Settings):
    """The format of the files of one input."""

    format: FileFormat | Literal["auto"] | None = Field(
        None, description="Format of these files; `ingest.format` if absent."
    )
    delimiter: Delimiter | None = Field(
        None, description="Delimiter of these files, if they are CSV; `ingest.delimiter` if absent."
    )


class EventsConfig(FilesConfig):
    """The interaction log: its files, its columns, and filters for its events."""

    files: str = Field(
        description="File, folder or glob of the events, or `bigquery: SELECT …`. The placeholders "
        "{SPAN}, or {YYYY}, {MM} and {DD}, and {VERSION} divide the files into spans."
    )
    query_id: str = Field(
        description="Column of the query ID: the user or the session. It is also the name in "
        "requests."
    )
    candidate_id: str = Field(
        description="Column of the candidate ID: the item. It is also the name in requests."
    )
    query_id_column: str | None = Field(
        None, description="Column of the query ID, if its name differs from `events.query_id`."
    )
    candidate_id_column: str | None = Field(
        None,
        description="Column of the candidate ID, if its name differs from `events.candidate_id`.",
    )
    timestamp: str | None = Field(
        None, description="Column of the time; if absent, events keep the order of the files."
    )
    timestamp_unit: TimestampUnit = Field(
        "s",
        description="Format of the time column: s, ms, us or ns since 1970, iso8601, excel, or a "
        "pattern such as `%d.%m.%Y %H:%M`; ignored for Parquet timestamps.",
    )
    rating: str | None = Field(None, description="Column of the rating.")
    rating_format: NumberFormat | None = Field(
        None, description="Format of ratings that are text, as `number_format` of a feature."
    )
    event_type: str | None = Field(
        None, description="Column of the event type, such as view or purchase."
    )
    types: Mapping[str, Weight] = Field(
        default_factory=dict,
        description="Weight by event type, such as {view: 1, purchase: 5}, in the loss and in the "
        "metrics. Events with weight 0 are only part of histories. Default: 1.",
    )
    context: Mapping[str, FeatureConfig] = Field(
        default_factory=dict,
        description="Features of single events by name, such as device or place: in requests, "
        "those of the moment. They must be categorical, and need `training.objective: "
        "next_candidate`.",
    )
    rating_weights: Mapping[str, Weight] = Field(
        default_factory=dict,
        description="Weight by rating or dwell time, such as {1: 0.1, 5: 1}, in the loss and in "
        "the metrics; interpolated between these ratings.",
    )
    min_rating: float | None = Field(
        None, description="Ignore events with a lower rating everywhere; the summary counts them."
    )
    duplicates: Literal["drop", "keep"] = Field(
        "drop",
        description="Keep one of several events with equal query, candidate and time, or keep all.",
    )
    collapse_within_s: float | None = Field(
        None,
        ge=0,
        description="Make a funnel, such as view, cart and purchase of a candidate, one event of "
        "the type with the highest weight in `types`, if each of its events is at most this many "
        "seconds after the one before. Default: keep all events.",
    )
    max_timeline: int = Field(
        1000,
        ge=2,
        description="Longest timeline in events. Longer ones are cut into windows for training; "
        "evaluation keeps the newest events.",
    )
    spans: SpansConfig = Field(default_factory=SpansConfig)

    @model_validator(mode="after")
    def _weights_have_columns(self) -> "EventsConfig":
        for setting, column in (
            ("types", "event_type"),
            ("rating_weights", "rating"),
            ("collapse_within_s", "types"),
            ("collapse_within_s", "timestamp"),
        ):
            if getattr(self, setting) not in (None, {}) and not getattr(self, column):
                raise ValueError(f"`events.{setting}` needs `events.{column}`")
        try:
            ratings = {float(rating) for rating in self.rating_weights}
        except ValueError:
            ratings = set()
        if len(ratings) < len(self.rating_weights):
            raise ValueError(
                "the keys of `events.rating_weights` must be different numbers, got "
                f"{', '.join(self.rating_weights)}"
            )
        return self

    @property
    def event_types(self) -> tuple[str, ...]:
        """The types that the history encoder knows."""
        return tuple(self.types)

    def columns_without_effect(self, used: Collection[str] = ()) -> list[str]:
        """Return a sentence per column that changes no training or evaluation.

        `used` are names of columns that other settings use.
        """
        uses = {}
        if not self.types:
            uses["event_type"] = "`events.types` to weight events"
        if not self.rating_weights and self.min_rating is None:
            uses["rating"] = (
                "`events.min_rating` to ignore events with a low rating, or "
                "`events.rating_weights` to weight events"
            )
        return [
            f"`events.{name}: {column}` has no effect on training or evaluation. Set {use}"
            for name, use in uses.items()
            if name not in used and (column := getattr(self, name)) is not None
        ]


class CandidatesConfig(FilesConfig):
    """The catalogue: its file, its ID column and the features of the candidates."""

    file: str | None = Field(
        None,
        description="File, folder or glob of the catalogue, one row per candidate, or `bigquery: "
        "SELECT …`. If absent, the candidates are those of the training events.",
    )
    id_column: str | None = Field(
        None, description="Column of the candidate ID; that of the events if absent."
    )
    features: Mapping[str, FeatureConfig] = Field(
        default_factory=dict, description="Candidate features by name; they need `file`."
    )
    available_from: str | None = Field(
        None,
        description="Column of the time from which a candidate is available, such as its "
        "publication, in the format of `events.timestamp_unit`. Before it, the candidate is "
        "neither a negative in training, nor ranked in the evaluation, nor recommended. Default, "
        "and a missing value: always.",
    )
    available_until: str | None = Field(
        None,
        description="Column of the time from which a candidate is no longer available, such as "
        "its delisting; otherwise like `available_from`.",
    )
    only_listed: bool = Field(
        True,
        description="Recommend only candidates that have a row in `file`; others may be in "
        "histories. false: recommend those of training events too.",
    )
    max_removed: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Largest share of the candidates in service that a push may remove; 1 turns "
        "the check off.",
    )


class QueriesConfig(FilesConfig):
    """The attributes of queries: their file, its ID column and the features."""

    file: str | None = Field(
        None, description="File, folder or glob with one row per query, or `bigquery: SELECT …`."
    )
    id_column: str | None = Field(
        None, description="Column of the query ID; that of the events if absent."
    )
    features: Mapping[str, FeatureConfig] = Field(
        default_factory=dict, description="Query features by name; they need `file`."
    )


class IngestSettings(Settings):
    """Settings for reading the files of all inputs."""

    format: FileFormat | Literal["auto"] = Field(
        "auto", description="File format; auto decides by the first bytes and the suffix."
    )
    delimiter: Delimiter | None = Field(
        None, description="Delimiter of the CSV files; detected from their first rows if absent."
    )
    bad_rows: Literal["stop", "reject"] = Field(
        "stop",
        description="stop: a row that cannot be read ends the run; reject: such rows are written "
        "to the `rejected` output.",
    )
    missing_values: tuple[str, ...] = Field(
        (),
        description="Words in text columns that mean a missing value, such as NULL; in quotes.",
    )
    normalize_ids: tuple[IdNormalization, ...] = Field(
        (),
        description="Changes to the IDs of all inputs, for sources that write them differently; "
        "nfc: Unicode NFC; strip: no spaces around them; case: lower case; float_suffix: 14.0 "
        "becomes 14; leading_zeros: 0042 becomes 42. Requests must contain the changed IDs.",
    )
    max_unmatched_ids: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Highest share of the events, and of the distinct IDs in them, without a row "
        "in `candidates.file` or `queries.file`; above it the run stops.",
    )
    warn_unmatched_ids: float = Field(
        0.05, ge=0, le=1, description="Share of events or IDs without a row that gives a warning."
    )
    bigquery: BigQueryConfig | None = Field(
        None, description="BigQuery settings; required if an input is a BigQuery query."
    )

    @field_validator("missing_values", mode="before")
    @classmethod
    def _words_are_quoted(cls, words: Any) -> Any:
        if not isinstance(words, list | tuple):
            return words
        if None in words:
            raise ValueError("each word must be in quotes, because YAML reads a bare NULL as none")
        return tuple(words)  # Strict validation takes a list only directly from JSON.
