"""Settings of ingestion: files, formats, what happens to bad rows, and the splits."""

from datetime import datetime, timezone
from typing import Literal

from pydantic import Field, field_validator, model_validator

from models.features import FeatureSpec
from models.settings import Settings


class DataConfig(Settings):
    """The files and how to read them."""

    interactions: str = Field(description="File or glob of the events.")
    candidates: str | None = Field(
        None, description="File or glob of the catalogue; derived from the events if absent."
    )
    queries: str | None = Field(None, description="File or glob of the queries' features.")
    format: Literal["auto", "csv", "parquet"] = Field("auto", description="auto: by the suffix.")
    delimiter: str = Field(",", min_length=1, max_length=1, description="CSV only.")
    timestamp_unit: Literal["s", "ms", "us", "ns", "iso8601"] = Field(
        "s", description="Of the timestamp column; Examples hold epoch seconds."
    )
    bad_rows: Literal["stop", "reject"] = Field(
        "stop", description="stop: the run ends naming them; reject: they go to `rejected`."
    )
    duplicate_events: Literal["drop", "keep"] = Field(
        "drop", description="Events equal in query, candidate and timestamp: keep one, or all."
    )
    min_rating: float | None = Field(
        None,
        description="Events with a lower rating are left out of everything, as if they had not "
        "been; how many is reported.",
    )
    max_events: int = Field(
        1000,
        ge=2,
        description="Longest timeline; a longer one is cut into windows for training, its history "
        "to the newest events for evaluation.",
    )


class SplitConfig(Settings):
    """Which events are held out for prediction."""

    method: Literal["random", "temporal", "leave_last_out"] = Field(
        "temporal", description="By a hash of the event; by a global cut; each query's last event."
    )
    eval_fraction: float = Field(
        0.1, gt=0, lt=1, description="random, temporal: share of events in `eval`."
    )
    test_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="random, temporal: share of events in `test`; 0: no such split.",
    )
    with_test: bool = Field(
        False, description="leave_last_out: the last event is `test`, the one before it `eval`."
    )
    eval_from: datetime | None = Field(
        None, description="temporal: first moment of `eval` (UTC), instead of the fractions."
    )
    test_from: datetime | None = Field(None, description="temporal: first moment of `test`.")
    seed: int = Field(42, ge=0, description="random: of the hash.")

    @field_validator("eval_from", "test_from")
    @classmethod
    def _naive_is_utc(cls, moment: datetime | None) -> datetime | None:
        if moment is None or moment.tzinfo is not None:
            return moment
        return moment.replace(tzinfo=timezone.utc)

    @model_validator(mode="after")
    def _options_fit_the_method(self) -> "SplitConfig":
        if self.eval_fraction + self.test_fraction >= 1:
            raise ValueError("`eval_fraction` + `test_fraction` must leave events for training")
        if self.method != "temporal" and (self.eval_from or self.test_from):
            raise ValueError(f"`eval_from` and `test_from` are for temporal, not {self.method}")
        if self.test_from and not self.eval_from:
            raise ValueError("`test_from` needs `eval_from`")
        if self.test_from and self.eval_from and self.test_from <= self.eval_from:
            raise ValueError("`test_from` must be later than `eval_from`")
        if self.with_test and self.method != "leave_last_out":
            raise ValueError("`with_test` is for leave_last_out; set `test_fraction` instead")
        return self

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that ingestion writes, in order."""
        has_test = (
            self.with_test
            if self.method == "leave_last_out"
            else bool(self.test_from) or (self.eval_from is None and self.test_fraction > 0)
        )
        return ("train", "eval", *(("test",) if has_test else ()), "candidates")


class IngestConfig(Settings):
    """All that ingestion needs, as it crosses into the executor; paths are already resolved."""

    data: DataConfig
    split: SplitConfig = Field(default_factory=SplitConfig)
    spec: FeatureSpec

    @model_validator(mode="after")
    def _temporal_has_times(self) -> "IngestConfig":
        if self.split.method == "temporal" and self.spec.columns.timestamp is None:
            raise ValueError("`split.method: temporal` needs `columns.timestamp`")
        return self

    @model_validator(mode="after")
    def _least_rating_has_ratings(self) -> "IngestConfig":
        if self.data.min_rating is not None and self.spec.columns.rating is None:
            raise ValueError("`data.min_rating` needs `columns.rating`")
        return self
