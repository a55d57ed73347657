"""The settings of one use, and what must fit together in them."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from components.drift_gate.config import DistanceConfig, DriftConfig
from components.index_builder.config import IndexConfig
from components.interactions.config import (
    DataConfig,
    IngestConfig,
    SplitConfig,
    check_newest_span,
    check_order,
    has_spans,
)
from components.retrieval_evaluator.config import EvaluationConfig
from components.serving_validator.config import ServingConfig
from models.features.spec import (
    ALLOW_PREFIX,
    EVENT_TYPE_KEY,
    RATING_KEY,
    ColumnsConfig,
    FeaturesConfig,
    FeatureSpec,
)
from models.input.event_weights import weight_source
from models.settings import Settings
from models.training.config import ModelConfig, TrainingConfig
from models.training.holdout_metric import LOSS, HoldoutMetric
from models.tuning.config import TuningConfig
from models.tuning.search_space import check_space
from pipeline.config.did_you_mean import did_you_mean
from pipeline.config.metadata import MetadataConfig
from pipeline.skew.config import SkewConfig


class SchemaConfig(Settings):
    """The curated schema that the data is held against."""

    file: str | None = Field(
        None, description="schema.pbtxt; `schema/NAME/schema.pbtxt` beside `configs/` if absent."
    )


class BeamConfig(Settings):
    """How Beam runs the data stages."""

    runner: str = Field("DirectRunner", description="Any Beam runner by name.")
    workers: int = Field(
        1, ge=1, description="DirectRunner processes; one is faster up to some million events."
    )
    options: tuple[str, ...] = Field((), description="More Beam options, as on a command line.")

    @property
    def has_only_remote_workers(self) -> bool:
        """Whether no worker can see a file of this machine."""
        return self.runner.rpartition(".")[2].lower() == "dataflowrunner"

    @property
    def pipeline_args(self) -> list[str]:
        """The settings as Beam's command-line arguments; none where they are Beam's defaults.

        As soon as there is one, TFX packs itself for remote workers, three seconds a component.
        """
        if self.runner == "DirectRunner" and self.workers == 1:
            return list(self.options)
        args = [f"--runner={self.runner}"]
        if self.runner == "DirectRunner":
            args += [f"--direct_num_workers={self.workers}"]
            args += ["--direct_running_mode=multi_processing"]
        return [*args, *self.options]


class PipelineConfig(Settings):
    """Everything that one use of the pipeline needs to know."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="Of the use.")
    data: DataConfig
    columns: ColumnsConfig
    features: FeaturesConfig = Field(default_factory=FeaturesConfig)
    split: SplitConfig = Field(default_factory=SplitConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    tuning: TuningConfig = Field(default_factory=TuningConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    drift: DriftConfig = Field(default_factory=DriftConfig)
    index: IndexConfig = Field(default_factory=IndexConfig)
    skew: SkewConfig = Field(default_factory=SkewConfig)
    serving: ServingConfig = Field(default_factory=ServingConfig)
    data_schema: SchemaConfig = Field(default_factory=SchemaConfig, alias="schema")
    beam: BeamConfig = Field(default_factory=BeamConfig)
    metadata: MetadataConfig = Field(default_factory=MetadataConfig)
    runs: str = Field("runs", description="Folder of artifacts, metadata, logs and versions.")
    root: Path = Field(description="What relative paths start from; set by `load`.")

    @field_validator("root")
    @classmethod
    def _root_is_absolute(cls, root: Path) -> Path:
        return root.resolve()

    @field_validator("runs")
    @classmethod
    def _runs_are_files(cls, runs: str) -> str:
        if "://" in runs:
            raise ValueError(
                f"must be a folder of this machine or mounted on it, for locks, SQLite and logs, "
                f"got {runs!r}. In a bucket may lie served versions, `serving.directory`, and "
                "artifacts with `two-tower compile --runner kubeflow` or `vertex`"
            )
        return runs

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "PipelineConfig":
        FeatureSpec(columns=self.columns, features=self.features)
        if self.columns.timestamp is None and self.split.method == "temporal":
            raise ValueError(
                "`split.method: temporal` needs `columns.timestamp`; name it, or use random or "
                "leave_last_out"
            )
        check_newest_span(self.data, self.split)
        check_order(self.data, self.columns)
        if self.data.min_rating is not None and self.columns.rating is None:
            raise ValueError("`data.min_rating` needs `columns.rating`")
        weight_source(self.columns, self.training.event_weights)
        if self.features.query and not self.data.queries:
            raise ValueError(
                "`features.query` needs the file that holds them: set `data.queries`, or remove "
                f"{', '.join(self.features.query)}"
            )
        if self.features.candidate and not self.data.candidates:
            raise ValueError(
                "`features.candidate` needs the file that holds them: set `data.candidates`, or "
                f"remove {', '.join(self.features.candidate)}"
            )
        if self.evaluation.split not in self.split.split_names:
            raise ValueError(
                f"`evaluation.split: {self.evaluation.split}` needs a split that `split` does not "
                f"make; it makes {', '.join(self.split.split_names)}"
            )
        self._check_filters()
        self._check_drift()
        self._check_skew()
        check_space(self.tuning, self.model, self.training)
        if self.tuning.enabled:
            self._check_metric(self.tuning_metric, "tuning.metric")
        if self.training.validation_fraction:
            self._check_metric(self.watched_metric, "training.early_stopping_metric")
        for name in self.evaluation.slices:
            feature = self.features.query.get(name)
            if feature is None or feature.kind != "categorical" or feature.is_multivalued:
                raise ValueError(
                    f"`evaluation.slices` needs categorical query features without `separator`; "
                    f"{name!r} is none"
                )
        if self.columns.timestamp is None and "recent_popularity" in (
            self.evaluation.baselines or ()
        ):
            raise ValueError("baseline `recent_popularity` needs `columns.timestamp`")
        if not self.model.candidate_id_embedding and not self.features.candidate:
            raise ValueError(
                "`model.candidate_id_embedding: false` without `features.candidate` leaves the "
                "candidate tower without an input"
            )
        return self

    def _check_filters(self) -> None:
        candidate = self.features.candidate
        known = [name for name, feature in candidate.items() if feature.kind == "categorical"]
        taken = {self.columns.query_id, self.columns.candidate_id, *self.features.query}
        for name in self.index.filters:
            if name not in known:
                raise ValueError(
                    f"`index.filters` must name categorical candidate features, got {name!r}"
                    f"{did_you_mean(name, known)}; there are: {', '.join(known) or 'none'}"
                )
            if ALLOW_PREFIX + name in taken:
                raise ValueError(
                    f"`index.filters: {name}` makes an input {ALLOW_PREFIX + name!r}, which is "
                    "the name of a query feature or an id already; rename that"
                )
        if len(set(self.index.filters)) < len(self.index.filters):
            raise ValueError("`index.filters` names a feature twice")

    def _check_drift(self) -> None:
        if self.drift.action == "off":
            return
        if not has_spans(self.data.interactions):
            raise ValueError(
                "`drift` compares spans, and `data.interactions` has none: {SPAN}, or {YYYY}, {MM} "
                "and {DD}"
            )
        if self.data.queried:
            raise ValueError(f"`drift` reads files, and `data.{self.data.queried[0]}` is a query")
        kinds = {n: f.kind for n, f in {**self.features.query, **self.features.candidate}.items()}
        kinds[self.columns.candidate_id] = "categorical"
        if self.columns.rating is not None:
            kinds[RATING_KEY] = "numeric"
        if self.columns.event_type is not None:
            kinds[EVENT_TYPE_KEY] = "categorical"
        _check_distances("drift", self.drift.distances, kinds)

    def _check_skew(self) -> None:
        kinds = {name: feature.kind for name, feature in self.features.query.items()}
        kinds[self.columns.candidate_id] = "categorical"
        _check_distances("skew", self.skew.distances, kinds)

    def _check_metric(self, name: str, setting: str) -> None:
        try:
            if name != LOSS:
                HoldoutMetric.parse(name)
        except ValueError as error:
            raise ValueError(
                f"{error}: `evaluation.baseline_metric` cannot be measured while a model is "
                f"fitted; set `{setting}`"
            ) from error

    @property
    def tuning_metric(self) -> str:
        """What a search judges its trials by."""
        return self.tuning.metric or self.evaluation.baseline_metric

    @property
    def watched_metric(self) -> str:
        """What a fit is stopped by."""
        return self.training.early_stopping_metric or self.evaluation.baseline_metric

    @property
    def spec(self) -> FeatureSpec:
        """Ids and features, for the code below the pipeline."""
        return FeatureSpec(columns=self.columns, features=self.features)

    def resolve(self, path: str) -> str:
        """Returns `path` against the root, or unchanged where it is absolute or a URI."""
        return path if "://" in path else str(self.root / path)

    @property
    def ingest(self) -> IngestConfig:
        """What ingestion needs to know, with absolute paths or URIs."""
        paths = {
            name: self.resolve(path)
            for name in ("interactions", "candidates", "queries")
            if (path := getattr(self.data, name)) is not None and name not in self.data.queried
        }
        data = self.data.model_copy(update=paths)
        return IngestConfig(data=data, split=self.split, spec=self.spec)

    @property
    def run_dir(self) -> Path:
        """The folder of this use's artifacts, metadata and logs."""
        return Path(self.resolve(self.runs)) / self.name

    @property
    def serving_dir(self) -> str:
        """Base path of the served versions."""
        if self.serving.directory is not None:
            return self.resolve(self.serving.directory)
        return str(self.run_dir / "serving" / self.serving.model_name)

    @property
    def schema_file(self) -> str:
        """The curated schema."""
        return self.resolve(self.data_schema.file or f"schema/{self.name}/schema.pbtxt")


def _check_distances(
    section: str, distances: Mapping[str, DistanceConfig], kinds: Mapping[str, str]
) -> None:
    for name, distance in distances.items():
        if name not in kinds:
            raise ValueError(
                f"`{section}.distances` must name features, got {name!r}"
                f"{did_you_mean(name, list(kinds))}; there are: {', '.join(kinds)}"
            )
        if kinds[name] == "numeric" and distance.l_infinity is not None:
            raise ValueError(
                f"`{section}.distances.{name}` is numeric: give `jensen_shannon`, not `l_infinity`"
            )
