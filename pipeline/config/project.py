"""The settings of one project, with checks across sections."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from components.batch_recommender.config import BatchConfig
from components.drift_gate.config import DistanceConfig, DriftConfig, SkewConfig
from components.index_builder.config import IndexConfig
from components.interactions.config import DataConfig, IngestConfig, Source, SplitConfig
from components.interactions.spans.pattern import span_kind
from components.retrieval_evaluator.config import (
    NEED_TIMES,
    EvaluationConfig,
    categorical_features,
)
from components.serving_validator.config import ServingConfig
from models.config import HoldoutMetric, ModelConfig, RangeConfig, TrainingConfig, TuningConfig
from models.features.spec import (
    ALLOW_PREFIX,
    EVENT_TYPE_KEY,
    RATING_KEY,
    ColumnsConfig,
    EventWeights,
    FeatureConfig,
    FeaturesConfig,
    FeatureSpec,
)
from models.ranking.config import RankingConfig
from models.settings import Settings
from models.tuning.search_space import check_space
from pipeline.config.inputs import (
    CandidatesConfig,
    EventsConfig,
    FilesConfig,
    IngestSettings,
    QueriesConfig,
)
from pipeline.config.metadata import MetadataConfig
from pipeline.errors import did_you_mean


class SchemaConfig(Settings):
    """The curated schema that every run validates its data against."""

    file: str | None = Field(
        None, description="Schema file; `schema/NAME/schema.pbtxt` next to `configs/` if absent."
    )


class BeamConfig(Settings):
    """The Beam runner of the data-processing components."""

    runner: str = Field("DirectRunner", description="Name of any Beam runner.")
    workers: int = Field(
        1,
        ge=1,
        description="Processes of the DirectRunner. One is faster up to a few million events.",
    )
    options: tuple[str, ...] = Field(
        (), description="Further Beam options, as on Beam's command line."
    )

    @property
    def has_only_remote_workers(self) -> bool:
        """True if all workers run on other machines, which cannot read local files."""
        return self.runner.rpartition(".")[2].lower() == "dataflowrunner"

    @property
    def pipeline_args(self) -> list[str]:
        """Beam's command-line arguments for these settings, without Beam's defaults.

        If there is any argument, TFX packages itself for remote workers, which takes three seconds
        per component.
        """
        args = []
        if self.runner != "DirectRunner":
            args = [f"--runner={self.runner}"]
        elif self.workers > 1:
            workers = f"--direct_num_workers={self.workers}"
            args = ["--runner=DirectRunner", workers, "--direct_running_mode=multi_processing"]
        return [*args, *self.options]


class PipelineConfig(Settings):
    """All settings of one project.

    `events`, `candidates`, `queries` and `ingest` describe the inputs. `ingestion` and `spec`
    contain the same settings in the form that components and models use.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="Name of the project.")
    events: EventsConfig
    candidates: CandidatesConfig = Field(default_factory=CandidatesConfig)
    queries: QueriesConfig = Field(default_factory=QueriesConfig)
    ingest: IngestSettings = Field(default_factory=IngestSettings)
    split: SplitConfig = Field(default_factory=SplitConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    tuning: TuningConfig = Field(default_factory=TuningConfig)
    ranking: RankingConfig = Field(default_factory=RankingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    drift: DriftConfig = Field(default_factory=DriftConfig)
    index: IndexConfig = Field(default_factory=IndexConfig)
    skew: SkewConfig = Field(default_factory=SkewConfig)
    serving: ServingConfig = Field(default_factory=ServingConfig)
    batch: BatchConfig = Field(default_factory=BatchConfig)
    data_schema: SchemaConfig = Field(default_factory=SchemaConfig, alias="schema")
    beam: BeamConfig = Field(default_factory=BeamConfig)
    metadata: MetadataConfig = Field(default_factory=MetadataConfig)
    runs: str = Field(
        "runs", description="Folder for artifacts, metadata, logs and served versions."
    )
    root: Path = Field(description="Folder that relative paths start from; set by `load`.")

    @field_validator("root")
    @classmethod
    def _root_is_absolute(cls, root: Path) -> Path:
        return root.resolve()

    @field_validator("runs")
    @classmethod
    def _runs_are_files(cls, runs: str) -> str:
        if "://" in runs:
            raise ValueError(
                f"must be a local or mounted folder, because it holds locks, SQLite and logs; got "
                f"{runs!r}. Served versions may be in a bucket (`serving.directory`), and so may "
                "artifacts with `two-tower compile --runner kubeflow` or `vertex`"
            )
        return runs

    @model_validator(mode="after")
    def _sections_fit_together(self) -> "PipelineConfig":
        # Constructing IngestConfig validates the inputs and the split against each other.
        spec = self.spec
        IngestConfig(data=self.data, split=self.split, spec=spec)
        for name in self.evaluation.targets:
            known = [kind for kind, weight in self.events.types.items() if weight > 0]
            what = "types with a weight above 0 in `events.types`"
            _check_known("evaluation.targets", what, name, known)
        if self.events.context and self.training.objective != "next_candidate":
            raise ValueError(
                "`events.context` belongs to the event that is predicted from those before it: set "
                f"`training.objective: next_candidate`, got {self.training.objective}"
            )
        for section, entity in (("queries", self.queries), ("candidates", self.candidates)):
            if entity.features and not entity.file:
                raise ValueError(
                    f"`{section}.features` needs the file that holds them: set `{section}.file`, "
                    f"or remove {', '.join(entity.features)}"
                )
        for name in spec.availability:
            needs = {
                "candidates.file": self.candidates.file,
                "events.timestamp": self.events.timestamp,
            }
            if missing := [need for need, given in needs.items() if given is None]:
                raise ValueError(
                    f"`candidates.{name}` needs `{missing[0]}`: set it, or remove "
                    f"`candidates.{name}`"
                )
        splits = self.split.split_names
        _check_known(
            "evaluation.split", "a split that `split` makes", self.evaluation.split, splits
        )
        self._check_filters()
        self._check_return_fields()
        kinds: dict[str, str] = {name: f.kind for name, f in spec.query_features.items()}
        kinds[spec.candidate_id] = "categorical"
        _check_distances("skew", self.skew.distances, kinds)
        if self.drift.action != "off":
            self._check_drift(kinds)
        check_space(self.tuning, self)
        if self.ranking.enabled:
            self._check_ranking()
        if self.tuning.enabled:
            self._check_tuning_metric()
        sliceable = [
            name
            for name, feature in spec.request_features.items()
            if feature.kind == "categorical" and not feature.is_multivalued
        ]
        what = "categorical query features or context without `separator`"
        for name in self.evaluation.slices:
            _check_known("evaluation.slices", what, name, sliceable)
        baselines = self.evaluation.baselines or ()
        for name in NEED_TIMES:
            if self.events.timestamp is None and name in baselines:
                raise ValueError(f"baseline `{name}` needs `events.timestamp`")
        if "content" in baselines and not categorical_features(spec):
            raise ValueError("baseline `content` needs a categorical feature of candidates")
        if not self.model.candidate_id_embedding and not spec.candidate_features:
            raise ValueError(
                "`model.candidate_id_embedding: false` needs `candidates.features`, or the "
                "candidate tower has no input"
            )
        return self

    def _check_filters(self) -> None:
        known = [n for n, f in self.candidates.features.items() if f.kind == "categorical"]
        taken = {self.events.query_id, self.events.candidate_id, *self.spec.request_features}
        for name in self.index.filters:
            _check_known("index.filters", "categorical candidate features", name, known)
            if ALLOW_PREFIX + name in taken:
                raise ValueError(
                    f"`index.filters: {name}` adds an input {ALLOW_PREFIX + name!r}, but a query "
                    "feature or an ID already has that name; rename it"
                )
        if self.batch.enabled and self.batch.k > self.index.k:
            raise ValueError(
                f"`batch.k` must be at most `index.k: {self.index.k}`, got {self.batch.k}"
            )
        for name in self.batch.filters:
            _check_known("batch.filters", "features in `index.filters`", name, self.index.filters)
        if len(set(self.index.filters)) < len(self.index.filters):
            raise ValueError("`index.filters` names a feature twice")

    def _check_return_fields(self) -> None:
        fields = self.serving.return_fields
        if fields and not self.candidates.file:
            raise ValueError(
                "`serving.return_fields` needs the file that holds them: set `candidates.file`, or "
                f"remove {', '.join(fields)}"
            )
        if len(set(fields)) < len(fields):
            raise ValueError("`serving.return_fields` names a column twice")
        vectors = [name for name, f in self.candidates.features.items() if f.kind == "vector"]
        if returned := set(fields) & set(vectors):
            raise ValueError(
                f"`serving.return_fields` must not have vectors, got {', '.join(sorted(returned))}"
            )

    def _check_drift(self, kinds: dict[str, str]) -> None:
        data = self.data
        if not span_kind(data.interactions):
            raise ValueError(
                "`drift` compares spans, and `events.files` has none: {SPAN}, or {YYYY}, {MM} "
                "and {DD}"
            )
        if data.queried:
            raise ValueError(f"`drift` reads files, and the {data.queried[0]} are a query")
        kinds = {**kinds, **{name: f.kind for name, f in self.spec.candidate_features.items()}}
        if self.events.rating is not None:
            kinds[RATING_KEY] = "numeric"
        if self.events.event_type is not None:
            kinds[EVENT_TYPE_KEY] = "categorical"
        _check_distances("drift", self.drift.distances, kinds)

    def _check_ranking(self) -> None:
        searched = self.tuning.space.get("ranking.num_candidates", ())
        numbers = [searched.min] if isinstance(searched, RangeConfig) else [*searched]
        fewest = min([self.ranking.num_candidates, *numbers])
        if fewest < self.index.k:
            raise ValueError(
                f"`ranking.num_candidates` must be at least `index.k` ({self.index.k}), because "
                f"all returned candidates are ranked, but is {fewest:g}"
            )
        needs = {
            "`events.timestamp`": self.events.timestamp is not None,
            "`training.strategy` none or mirrored": self.training.strategy != "multi_worker",
            # A warm start may have seen the events that the first retriever must not see.
            "`ranking.refit_retriever` or `training.warm_start: false`": (
                self.ranking.refit_retriever or not self.training.warm_start
            ),
        }
        for name, task in self.ranking.tasks.items():
            column = "rating" if task.event_type is None else "event_type"
            if task.column is not None and task.column == self.events.rating:
                raise ValueError(
                    f"`ranking.tasks.{name}.column: {task.column}` must not be "
                    "`events.rating`, which is the default; remove it"
                )
            if task.column is None and getattr(self.events, column) is None:
                raise ValueError(
                    f"`ranking.tasks.{name}` with `loss: {task.loss}` needs `events.{column}`"
                    f"{' or a `column`' * (column == 'rating')}; set it, or remove the task"
                )
        missing = [need for need, is_met in needs.items() if not is_met]
        if missing:
            raise ValueError(
                "`ranking.enabled` needs a retriever that has not seen the events that the ranker "
                f"learns from: set {' and '.join(missing)}, or `ranking.enabled: false`"
            )

    def _check_tuning_metric(self) -> None:
        try:
            HoldoutMetric.parse(self.tuning_metric)
        except ValueError as error:
            raise ValueError(
                f"{error}: `evaluation.baseline_metric` cannot be measured during training; set "
                "`tuning.metric`"
            ) from error

    @property
    def tuning_metric(self) -> str:
        """The metric that selects the best trial of a search."""
        return self.tuning.metric or self.evaluation.baseline_metric

    @property
    def watched_metric(self) -> str:
        """The metric that early stopping monitors.

        Metrics of lists are not measured during training, so those of their events replace them.
        """
        if self.training.early_stopping_metric is not None:
            return self.training.early_stopping_metric
        kind, _, k = self.evaluation.baseline_metric.removeprefix("query_").partition("@")
        kind = {"precision": "hit_rate", "map": "mrr"}.get(kind, kind)
        return f"{kind}@{k}"

    @property
    def columns_of_tasks(self) -> set[str]:
        """The event columns that have the labels of the ranker's tasks."""
        if not self.ranking.enabled:
            return set()
        return {
            "rating" if task.event_type is None else "event_type"
            for task in self.ranking.tasks.values()
            if task.column is None
        }

    @property
    def needs_query_vocabulary(self) -> bool:
        """True if the model knows query IDs."""
        has_tasks = self.ranking.enabled and bool(self.ranking.tasks)
        return self.model.query_id_embedding or has_tasks

    @property
    def columns(self) -> ColumnsConfig:
        """The names of the columns of events, and of the availability of candidates."""
        columns = {
            name: getattr(section, name)
            for section in (self.events, self.candidates)
            for name in ColumnsConfig.model_fields
            if hasattr(section, name)
        }
        return ColumnsConfig(**columns, labels=self.ranking.label_columns)

    @property
    def event_weights(self) -> EventWeights:
        """The weights of events in training."""
        return EventWeights(types=self.events.types, ratings=self.events.rating_weights)

    @property
    def evaluation_weights(self) -> EventWeights:
        """The weights of events in the evaluation: those in training, but only of targets."""
        return self.event_weights.of_targets(self.evaluation.targets)

    @property
    def features(self) -> FeaturesConfig:
        """The features of queries, events and candidates, and other columns that answers have."""
        declared = self.candidates.features
        returned = {
            name: FeatureConfig(kind="text", learn=False) for name in self.serving.return_fields
        }
        return FeaturesConfig(
            query=self.queries.features,
            context=self.events.context,
            candidate={**returned, **declared},
        )

    @property
    def spec(self) -> FeatureSpec:
        """The IDs and features, in the form that components and models use."""
        return FeatureSpec(columns=self.columns, features=self.features)

    @property
    def data(self) -> DataConfig:
        """The input files and their format, with paths as in the configuration."""
        sections: dict[Source, FilesConfig] = {
            "interactions": self.events,
            "candidates": self.candidates,
            "queries": self.queries,
        }
        return DataConfig(
            formats={source: s.format for source, s in sections.items() if s.format},
            delimiters={source: s.delimiter for source, s in sections.items() if s.delimiter},
            event_query_id_column=self.events.query_id_column,
            event_candidate_id_column=self.events.candidate_id_column,
            interactions=self.events.files,
            candidates=self.candidates.file,
            queries=self.queries.file,
            candidate_id_column=self.candidates.id_column,
            query_id_column=self.queries.id_column,
            only_listed=self.candidates.only_listed,
            spans=self.events.spans,
            timestamp_unit=self.events.timestamp_unit,
            rating_format=self.events.rating_format,
            min_rating=self.events.min_rating,
            collapse_within_s=self.events.collapse_within_s,
            type_order=self._type_order,
            duplicate_events=self.events.duplicates,
            max_events=self.events.max_timeline,
            **{name: getattr(self.ingest, name) for name in IngestSettings.model_fields},
        )

    @property
    def _type_order(self) -> tuple[str, ...]:
        if self.events.collapse_within_s is None:
            return ()  # Weights do not change the ingestion then.
        return tuple(sorted(self.events.types, key=self.events.types.__getitem__))

    def resolve(self, path: str) -> str:
        """Return `root` joined with `path`; an absolute path or a URI is returned unchanged."""
        return path if "://" in path else str(self.root / path)

    @property
    def ingestion(self) -> IngestConfig:
        """The configuration of ingestion, with absolute paths or URIs."""
        data = self.data
        paths = {
            name: self.resolve(path)
            for name in ("interactions", "candidates", "queries")
            if (path := getattr(data, name)) is not None and name not in data.queried
        }
        return IngestConfig(data=data.model_copy(update=paths), split=self.split, spec=self.spec)

    @property
    def run_dir(self) -> Path:
        """The folder for this project's artifacts, metadata and logs."""
        return Path(self.resolve(self.runs)) / self.name

    @property
    def serving_dir(self) -> str:
        """The path or URI of the folder for the served versions."""
        if self.serving.directory is not None:
            return self.resolve(self.serving.directory)
        return str(self.run_dir / "serving" / self.serving.model_name)

    @property
    def schema_file(self) -> str:
        """The path or URI of the curated schema."""
        return self.resolve(self.data_schema.file or f"schema/{self.name}/schema.pbtxt")


def _check_known(setting: str, what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise ValueError(
            f"`{setting}` must name {what}, got {name!r}{did_you_mean(name, known)} Known: "
            f"{', '.join(known) or 'none'}"
        )


def _check_distances(
    section: str, distances: Mapping[str, DistanceConfig], kinds: Mapping[str, str]
) -> None:
    for name, distance in distances.items():
        _check_known(f"{section}.distances", "features", name, list(kinds))
        if kinds[name] == "numeric" and distance.l_infinity is not None:
            raise ValueError(
                f"`{section}.distances.{name}` is numeric: give `jensen_shannon`, not `l_infinity`"
            )
        if kinds[name] in ("vector", "datetime"):
            raise ValueError(
                f"`{section}.distances.{name}` must not be a feature of kind {kinds[name]}, which "
                "has no distance"
            )
