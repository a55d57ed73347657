"""The sections of a project's settings, and what follows from them."""

from pathlib import Path

from pydantic import Field, field_validator

from components.batch_recommender.config import BatchConfig
from components.drift_gate.config import DriftConfig, SkewConfig
from components.index_builder.config import IndexConfig
from components.interactions.config import DataConfig, IngestConfig, Source, SplitConfig
from components.retrieval_evaluator.config import EvaluationConfig
from components.serving_validator.config import ServingConfig
from models.config import ModelConfig, TrainingConfig, TuningConfig
from models.features.spec import (
    ColumnsConfig,
    EventWeights,
    FeatureConfig,
    FeaturesConfig,
    FeatureSpec,
)
from models.ranking.config import RankingConfig
from models.settings import Settings
from pipeline.config.inputs import (
    CandidatesConfig,
    EventsConfig,
    FilesConfig,
    IngestSettings,
    QueriesConfig,
)
from pipeline.config.metadata import MetadataConfig


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


class Sections(Settings):
    """All settings of one project, each section checked on its own.

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
