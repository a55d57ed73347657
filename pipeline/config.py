"""The configuration of one use: the only reader of configuration files."""

import datetime
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from components.drift_gate.config import DistanceConfig, DriftConfig
from components.index_builder.config import IndexConfig
from components.retrieval_evaluator.config import EvaluationConfig
from components.serving_validator.config import ServingConfig
from components.timeline_example_gen.config import (
    DataConfig,
    IngestConfig,
    SplitConfig,
    check_newest_span,
    check_order,
    has_spans,
)
from models.config import ModelConfig, TrainingConfig
from models.event_weights import weight_source
from models.features import (
    ALLOW_PREFIX,
    EVENT_TYPE_KEY,
    RATING_KEY,
    ColumnsConfig,
    FeaturesConfig,
    FeatureSpec,
)
from models.holdout_metric import LOSS, HoldoutMetric
from models.settings import Settings
from models.tuning.config import TuningConfig
from models.tuning.search_space import check_space
from pipeline.metadata_config import MetadataConfig
from pipeline.skew.config import SkewConfig

CONFIGS_DIR = Path(__file__).resolve().parent.parent / "configs"


class ConfigError(Exception):
    """A configuration that cannot be used; running again does not help until it is changed."""


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
                    f"{_did_you_mean(name, known)}; there are: {', '.join(known) or 'none'}"
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
                f"{_did_you_mean(name, list(kinds))}; there are: {', '.join(kinds)}"
            )
        if kinds[name] == "numeric" and distance.l_infinity is not None:
            raise ValueError(
                f"`{section}.distances.{name}` is numeric: give `jensen_shannon`, not `l_infinity`"
            )


def find(name_or_path: str) -> Path:
    """Returns the file of a configuration given by path, or by name under `configs/`.

    Raises:
        ConfigError: There is no such file.
    """
    given = Path(name_or_path)
    if given.suffix in {".yaml", ".yml"}:
        if given.is_file():
            return given
        raise ConfigError(f"there is no configuration file {given}")
    for folder in (Path.cwd() / "configs", CONFIGS_DIR):
        if (folder / f"{name_or_path}.yaml").is_file():
            return folder / f"{name_or_path}.yaml"
    known = sorted(path.stem for path in CONFIGS_DIR.glob("*.yaml"))
    raise ConfigError(
        f"there is no configuration {name_or_path!r}{_did_you_mean(name_or_path, known)}; known: "
        f"{', '.join(known) or 'none'}. A path must end in .yaml"
    )


def load(name_or_path: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Reads a configuration.

    Relative paths in it start from the folder above `configs/`, or from the file's own folder
    where that is called otherwise.

    Args:
        name_or_path: `movielens_100k`, or a path that ends in .yaml.
        overrides: Settings as `section.key=value`; values are YAML.

    Raises:
        ConfigError: The file is missing or unreadable, or a setting is unknown, of a wrong type
            or impossible beside another; the message names the key, what came and what would be
            right.
    """
    path = find(name_or_path).resolve()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold sections such as data:, got {type(content).__name__}")
    for override in overrides:
        _apply(content, override)
    if "root" in content:
        raise ConfigError(f"{path}: `root` is not a setting; paths start from the file's place")
    root = path.parent.parent if path.parent.name == "configs" else path.parent
    return parse({"name": path.stem, **content, "root": root}, source=str(path))


def parse(content: Mapping[str, Any], source: str) -> PipelineConfig:
    """Validates a configuration that was already read; `source` names it in messages."""
    try:
        # Through JSON, where strict means: no "3" for 3, no 1 for true, but a list for a tuple and
        # text for a date.
        return PipelineConfig.model_validate_json(
            json.dumps(content, default=_as_text), strict=True
        )
    except ValidationError as error:
        lines = [_explain(detail) for detail in error.errors()]
        raise ConfigError(f"{source}:\n  " + "\n  ".join(lines)) from error


def _as_text(value: object) -> str:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return f"{value.isoformat()}T00:00:00"
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value)


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes section.key=value, got {override!r}")
    *sections, last = key.split(".")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise ConfigError(f"--set {override}: {section!r} is a value, not a section")
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not YAML: {error}") from error


def _explain(detail: Mapping[str, Any]) -> str:
    """One line for one error of pydantic: the key, what came, what would be right."""
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        known = _keys_at(PipelineConfig, location[:-1])
        hint = _did_you_mean(location[-1], known)
        return f"unknown key `{key}`{hint}; known here: {', '.join(known)}"
    if detail["type"] == "missing":
        return f"`{key}` is missing{_describe(location)}"
    if detail["type"] == "value_error":
        return (f"`{key}`: " if key else "") + str(detail["ctx"]["error"])
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return f"`{key}`: {message}, got {detail['input']!r}{_describe(location)}"


def _keys_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    section = _section(model, location)
    if section is None:
        return []
    return [
        field.alias or name
        for name, field in section.model_fields.items()
        if not (section is PipelineConfig and name == "root")
    ]


def _section(model: type[BaseModel], location: Sequence[str]) -> type[BaseModel] | None:
    """The settings class at a place such as features.query.age."""
    section: Any = model
    for part in location:
        if isinstance(section, type) and issubclass(section, BaseModel):
            fields = {field.alias or name: field for name, field in section.model_fields.items()}
            if part not in fields:
                return None
            section = fields[part].annotation
        else:  # Mapping[str, X]: any key leads to X
            arguments = get_args(section)
            if not arguments:
                return None
            section = arguments[-1]
    return section if isinstance(section, type) and issubclass(section, BaseModel) else None


def _describe(location: Sequence[str]) -> str:
    section = _section(PipelineConfig, location[:-1])
    if section is None:
        return ""
    for name, field in section.model_fields.items():
        if (field.alias or name) == location[-1] and field.description:
            return f" ({field.description.rstrip('.')})"
    return ""


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean `{nearest[0]}`?" if nearest else ""
