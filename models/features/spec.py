"""The declaration of IDs and features that Transform, towers, index and clients use."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from models.settings import Settings

TIMESTAMP_KEY = "timestamp"
RATING_KEY = "rating"
EVENT_TYPE_KEY = "event_type"
IS_TARGET_KEY = "is_target"
HISTORY_KEY = "history"
HISTORY_TYPES_KEY = "history_types"
EXCLUDE_KEY = "exclude"
EXCLUDE_SEEN_KEY = "exclude_seen"
# Keys of the times of the catalogue between which a candidate is available.
AVAILABLE_FROM_KEY, AVAILABLE_UNTIL_KEY = "available_from", "available_until"
# An input of the served signatures: the moment of the request.
TIME_KEY = "time"
# An input of the served signatures with this prefix filters by a candidate feature.
ALLOW_PREFIX = "allow_"
# The index of a missing value of a feature, and of padding.
MISSING_INDEX = -1
# The value of a missing time, in epoch seconds; int64 has no NaN.
MISSING_TIME = -(2**63)
# The indices of a `datetime` feature: an hour of the day and, after the hours, a day of the week.
HOURS, WEEKDAYS = 24, 7
# The largest number whose square is a finite float32. Larger ones ruin sums and norms.
LARGEST_NUMBER = 1.8e19

# Keys of Examples and of served signatures, which IDs and features must not use.
RESERVED_KEYS = frozenset(
    {TIMESTAMP_KEY, RATING_KEY, EVENT_TYPE_KEY, IS_TARGET_KEY, HISTORY_KEY, HISTORY_TYPES_KEY}
    | {EXCLUDE_KEY, EXCLUDE_SEEN_KEY, AVAILABLE_FROM_KEY, AVAILABLE_UNTIL_KEY, TIME_KEY}
    | {"candidate_ids", "scores", "retrieval_scores", "embedding"}
)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NUMBER_FORMAT = re.compile(r"([^\d+-]*)1([.,'’ _]?)234([.,])5([^\d+-]*)")

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ListFormat = Literal["json", "python"]


def number_format_parts(number_format: str) -> tuple[str, str, str, str]:
    """Return the prefix, thousands separator, decimal separator and suffix of a number format.

    Raises:
        ValueError: The text does not show the number 1234.5.
    """
    found = _NUMBER_FORMAT.fullmatch(number_format)
    if found is None or found[2] == found[3]:
        raise ValueError(
            "must show how the file writes the number 1234.5, such as '1.234,5', '1234,5 €' or "
            f"'$1,234.5', got {number_format!r}"
        )
    return found[1], found[2], found[3], found[4]


def _check_number_format(number_format: str) -> str:
    number_format_parts(number_format)
    return number_format


NumberFormat = Annotated[str, AfterValidator(_check_number_format)]


class FeatureConfig(Settings):
    """One feature of a query or of a candidate."""

    kind: Literal["categorical", "numeric", "text", "path", "vector", "datetime"] = Field(
        description="Kind of the values. path: a category in a tree, of which each prefix is a "
        "value. vector: a list of numbers, such as a pretrained embedding. datetime: a time in the "
        "format of `events.timestamp_unit`, of which the hour and the weekday (UTC) are values."
    )
    column: str | None = Field(None, description="Column in the file. Default: the feature's name.")
    separator: str | None = Field(
        None, min_length=1, description="categorical: separator of several values in one field."
    )
    path_separator: str | None = Field(
        None, min_length=1, description="path: separator of the levels, such as `>` or `/`."
    )
    dimension: int | None = Field(None, ge=1, description="vector: number of values.")
    list_format: ListFormat | None = Field(
        None,
        description="categorical: format of fields that are lists as text, such as `['a', 'b']`; "
        "`separator`, which must not occur in a value, joins the values.",
    )
    number_format: NumberFormat | None = Field(
        None,
        description="numeric: how the file writes 1234.5 as text, such as `1.234,5` or "
        "`$1,234.5`, with currency or percent sign; default: plain numbers.",
    )
    buckets: int | None = Field(
        None, ge=2, le=10_000, description="numeric: split into this many quantile buckets."
    )
    max_vocabulary: int | None = Field(
        None, ge=1, description="categorical, text, path: keep only this many most frequent values."
    )
    min_count: int = Field(
        1, ge=1, description="categorical, text, path: drop values that occur fewer times."
    )
    learn: bool = Field(
        True,
        description="false: the model does not learn from the candidate feature, which is only for "
        "`serving.return_fields` and `index.filters`.",
    )

    @model_validator(mode="after")
    def _options_fit_the_kind(self) -> "FeatureConfig":
        if self.separator is not None and self.kind != "categorical":
            raise ValueError(f"`separator` is for kind categorical, this feature is {self.kind}")
        if (self.path_separator is not None) != (self.kind == "path"):
            raise ValueError(
                f"`path_separator` is required for kind path, and only for it; got {self.kind}"
            )
        if (self.dimension is not None) != (self.kind == "vector"):
            raise ValueError(
                f"`dimension` is required for kind vector, and only for it; got {self.kind}"
            )
        if self.list_format is not None and self.separator is None:
            raise ValueError("`list_format` needs `separator`, such as '|', to join the values")
        if self.number_format is not None and self.kind != "numeric":
            raise ValueError(f"`number_format` is for kind numeric, this feature is {self.kind}")
        if self.buckets is not None and self.kind != "numeric":
            raise ValueError(f"`buckets` is for kind numeric, this feature is {self.kind}")
        if self.holds_numbers and (self.max_vocabulary is not None or self.min_count > 1):
            raise ValueError("`max_vocabulary` and `min_count` are for categorical, text and path")
        if not self.learn and (self.buckets or self.max_vocabulary or self.min_count > 1):
            raise ValueError(
                "`buckets`, `max_vocabulary` and `min_count` have no effect with `learn: false`"
            )
        return self

    @property
    def is_multivalued(self) -> bool:
        """Return True if a row holds a list of values."""
        return self.kind in ("text", "path") or self.separator is not None

    @property
    def is_list(self) -> bool:
        """Return True if a request has a list of values."""
        return self.separator is not None or self.kind == "vector"

    @property
    def holds_numbers(self) -> bool:
        """Return True if the raw values are numbers, False if they are text."""
        return self.kind in ("numeric", "vector", "datetime")

    @property
    def dtype(self) -> Literal["string", "float32", "int64"]:
        """Return the type of the raw values; those of `datetime` are epoch seconds."""
        if self.kind == "datetime":
            return "int64"
        return "float32" if self.holds_numbers else "string"

    @property
    def is_index(self) -> bool:
        """Return True if Transform converts the feature to indices, False if to numbers."""
        return not self.holds_numbers or self.buckets is not None or self.kind == "datetime"

    @property
    def fixed_size(self) -> int | None:
        """Return the number of indices if they do not depend on the data."""
        return HOURS + WEEKDAYS if self.kind == "datetime" else self.buckets


class ColumnsConfig(Settings):
    """Names of columns; the optional ones are None if the data lacks them.

    `event_types` are the types that the history encoder knows, in the order of their weights.
    `labels` are columns of numbers that the ranker predicts, and that keep their names in Examples.
    `available_from` and `available_until` are columns of the catalogue.
    """

    query_id: str
    candidate_id: str
    timestamp: str | None = None
    rating: str | None = None
    event_type: str | None = None
    event_types: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    available_from: str | None = None
    available_until: str | None = None


class FeaturesConfig(Settings):
    """Query features, candidate features and the context of events, by name."""

    query: Mapping[str, FeatureConfig] = Field(default_factory=dict)
    context: Mapping[str, FeatureConfig] = Field(default_factory=dict)
    candidate: Mapping[str, FeatureConfig] = Field(default_factory=dict)


class FeatureSpec(Settings):
    """IDs and features of a project."""

    columns: ColumnsConfig
    features: FeaturesConfig = Field(default_factory=FeaturesConfig)

    @model_validator(mode="after")
    def _names_are_valid_and_unique(self) -> "FeatureSpec":
        settings = [
            ("events.query_id", self.query_id),
            ("events.candidate_id", self.candidate_id),
            *((f"queries.features.{name}", name) for name in self.features.query),
            *((f"events.context.{name}", name) for name in self.features.context),
            *((f"candidates.features.{name}", name) for name in self.features.candidate),
            *(("the column of `ranking.tasks`", name) for name in self.columns.labels),
        ]
        unused = [name for name, feature in self.features.query.items() if not feature.learn]
        if unused:
            raise ValueError(
                f"`learn: false` is for candidate features, but is set for {', '.join(unused)}; "
                "remove the query feature"
            )
        taken: dict[str, str] = {}
        for setting, name in settings:
            rename = "rename the column in the file"
            if ".features." in setting or ".context." in setting:
                rename = "rename the feature and give the file's column in its `column`"
            problem = None
            if not _NAME.fullmatch(name):
                problem = (
                    f"{setting} must consist of letters, digits and _ and start with a letter, "
                    f"because it names an input of the model, got {name!r}"
                )
            elif name in RESERVED_KEYS:
                problem = f"{setting} must not be a name that the pipeline uses itself: {name!r}"
            elif name in taken:
                problem = f"names must be unique, but {setting} and {taken[name]} are both {name!r}"
            if problem is not None:
                raise ValueError(f"{problem}; {rename}")
            taken[name] = setting
        for name, feature in self.features.context.items():
            if feature.kind != "categorical" or feature.is_multivalued:
                raise ValueError(
                    f"`events.context.{name}` must be categorical without `separator`, because an "
                    "event has one value"
                )
        return self

    @property
    def query_id(self) -> str:
        """Return the key of the query ID, in Examples and in served signatures."""
        return self.columns.query_id

    @property
    def candidate_id(self) -> str:
        """Return the key of the candidate ID, in Examples and in served signatures."""
        return self.columns.candidate_id

    @property
    def query_features(self) -> Mapping[str, FeatureConfig]:
        """Return the query features by name, which are the same for all events of a query."""
        return self.features.query

    @property
    def context(self) -> Mapping[str, FeatureConfig]:
        """Return the features of single events by name, such as the device."""
        return self.features.context

    @property
    def request_features(self) -> Mapping[str, FeatureConfig]:
        """Return the features of a request by name: query features and context."""
        return {**self.features.query, **self.features.context}

    @property
    def candidate_features(self) -> Mapping[str, FeatureConfig]:
        """Return the candidate features that the model learns from, by name."""
        return {name: feature for name, feature in self.catalogue_features.items() if feature.learn}

    @property
    def catalogue_features(self) -> Mapping[str, FeatureConfig]:
        """Return all candidate features, also those that the model does not learn from."""
        return {**self.features.candidate, **self.availability}

    @property
    def availability(self) -> Mapping[str, FeatureConfig]:
        """Return the times between which candidates are available, as features by key."""
        columns = {
            AVAILABLE_FROM_KEY: self.columns.available_from,
            AVAILABLE_UNTIL_KEY: self.columns.available_until,
        }
        return {
            key: FeatureConfig(kind="datetime", column=column, learn=False)
            for key, column in columns.items()
            if column is not None
        }


class EventWeights(Settings):
    """Weights of events in the loss and in the metrics: the product of those below.

    Attributes:
        types: Weight by event type.
        ratings: Weight by rating, interpolated between two of them; ratings beyond them get the
            weight of the nearest.
        other_types: Weight of the event types that `types` lacks.
    """

    types: Mapping[str, Weight] = Field(default_factory=dict)
    ratings: Mapping[str, Weight] = Field(default_factory=dict)
    other_types: float = 1.0

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys of Examples that determine the weights; none if all weights are 1."""
        by_type = self.other_types != 1.0 or any(weight != 1.0 for weight in self.types.values())
        return (EVENT_TYPE_KEY,) * by_type + (RATING_KEY,) * bool(self.ratings)

    def of_targets(self, types: Sequence[str]) -> "EventWeights":
        """Return the weights with 0 for all event types except `types`, or these if it is empty."""
        if not types:
            return self
        kept = {name: self.types.get(name, self.other_types) for name in types}
        return self.model_copy(update={"types": kept, "other_types": 0.0})
