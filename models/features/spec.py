"""Which columns are the ids, which are features, of what kind: declared once, used everywhere."""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from models.settings import Settings

TIMESTAMP_KEY = "timestamp"
RATING_KEY = "rating"
EVENT_TYPE_KEY = "event_type"
IS_TARGET_KEY = "is_target"
HISTORY_KEY = "history"
EXCLUDE_KEY = "exclude"
# An input of the served signatures with this prefix filters by a candidate feature.
ALLOW_PREFIX = "allow_"

# Keys of Examples and of the served signatures that no column may take.
RESERVED_KEYS = frozenset(
    {
        TIMESTAMP_KEY,
        RATING_KEY,
        EVENT_TYPE_KEY,
        IS_TARGET_KEY,
        HISTORY_KEY,
        EXCLUDE_KEY,
        "candidate_ids",
        "scores",
        "embedding",
    }
)


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class FeatureConfig(Settings):
    """One feature of a query or of a candidate."""

    kind: Literal["categorical", "numeric", "text"] = Field(description="What its values are.")
    column: str | None = Field(
        None, description="Column in the file; the feature's name if absent."
    )
    separator: str | None = Field(
        None, min_length=1, description="Categorical with many values: what stands between them."
    )
    buckets: int | None = Field(
        None, ge=2, le=10_000, description="Numeric: cut into this many quantile buckets."
    )
    max_vocabulary: int | None = Field(
        None, ge=1, description="Categorical and text: keep only the most frequent values."
    )
    min_count: int = Field(1, ge=1, description="Categorical and text: drop rarer values.")

    @model_validator(mode="after")
    def _options_fit_the_kind(self) -> "FeatureConfig":
        if self.separator is not None and self.kind != "categorical":
            raise ValueError(f"`separator` is for kind categorical, this feature is {self.kind}")
        if self.buckets is not None and self.kind != "numeric":
            raise ValueError(f"`buckets` is for kind numeric, this feature is {self.kind}")
        if self.kind == "numeric" and (self.max_vocabulary is not None or self.min_count > 1):
            raise ValueError("`max_vocabulary` and `min_count` are for categorical and text")
        return self

    @property
    def is_multivalued(self) -> bool:
        """Whether one row holds a list of values (many-valued categorical, or text)."""
        return self.kind == "text" or self.separator is not None


class ColumnsConfig(Settings):
    """The columns that make a row an event."""

    query_id: str = Field(description="Who asks: the user or the session.")
    candidate_id: str = Field(description="What is retrieved: the item.")
    timestamp: str | None = Field(None, description="When; without it the file's order counts.")
    rating: str | None = Field(None, description="How much; optional.")
    event_type: str | None = Field(
        None, description="What was done, such as view or purchase; optional."
    )


class FeaturesConfig(Settings):
    """Features by name, on either side."""

    query: Mapping[str, FeatureConfig] = Field(default_factory=dict)
    candidate: Mapping[str, FeatureConfig] = Field(default_factory=dict)


class FeatureSpec(Settings):
    """Ids and features together: Transform, towers, index and clients derive from it."""

    columns: ColumnsConfig
    features: FeaturesConfig = Field(default_factory=FeaturesConfig)

    @model_validator(mode="after")
    def _names_are_unique(self) -> "FeatureSpec":
        taken: dict[str, str] = {}
        named = [
            ("events.query_id", self.query_id),
            ("events.candidate_id", self.candidate_id),
            *((f"queries.features.{name}", name) for name in self.features.query),
            *((f"candidates.features.{name}", name) for name in self.features.candidate),
        ]
        for place, name in named:
            if not _NAME.fullmatch(name):
                cure = (
                    "rename the feature and name the file's column in its `column`"
                    if ".features." in place
                    else "rename the column in the file"
                )
                raise ValueError(
                    f"{place} is called {name!r}; as the name of a model's input it must be "
                    f"letters, digits and _, and begin with a letter: {cure}"
                )
            if name in RESERVED_KEYS:
                raise ValueError(
                    f"{place} is called {name!r}, which the pipeline uses itself; "
                    "rename the feature and name the file's column in its `column`"
                )
            if name in taken:
                raise ValueError(
                    f"{place} and {taken[name]} are both called {name!r}; give one another name "
                    "and name the file's column in its `column`"
                )
            taken[name] = place
        return self

    @property
    def query_id(self) -> str:
        """Key of the query id, in Examples and in served signatures."""
        return self.columns.query_id

    @property
    def candidate_id(self) -> str:
        """Key of the candidate id, in Examples and in served signatures."""
        return self.columns.candidate_id

    @property
    def query_features(self) -> Mapping[str, FeatureConfig]:
        """Features of the query side by name."""
        return self.features.query

    @property
    def candidate_features(self) -> Mapping[str, FeatureConfig]:
        """Features of the candidate side by name."""
        return self.features.candidate
