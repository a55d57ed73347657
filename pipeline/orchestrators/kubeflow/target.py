"""A cluster that runs each component in a container of its own."""

from typing import Any

from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types.channel import BaseChannel

from components.blessed_models.component import ModelFinder, ModelRecorder
from components.interactions.config import IngestConfig
from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.orchestrators.target import LAST_BLESSED_MODEL, PREVIOUS_MODEL

# Where deploy/pipeline.Dockerfile puts the code.
IMAGE_DIRECTORY = "/app"
CHECKPOINT_DIRECTORY = "/tmp/two-tower-checkpoints"
DATA_DIRECTORY_PARAMETER = "data_directory"
SPAN_PARAMETER = "span"
EPOCHS_PARAMETER = "epochs"


class ClusterSite:
    """Containers that share nothing but the pipeline's root; what they read is given to a run."""

    # The compiling machine need not see the data; ingestion is never taken from a cache.
    input_fingerprint = ""

    def __init__(
        self,
        config: PipelineConfig,
        pipeline_root: str,
        data_directory: str | None = None,
        serving_dir: str | None = None,
    ) -> None:
        """Declares a cluster.

        Args:
            config: The use.
            pipeline_root: Path or URI that every container reaches.
            data_directory: Where relative paths of `data` start unless a run says otherwise; the
                image's folder if absent.
            serving_dir: Base path of the served versions; `serving.directory` of the
                configuration, or below the root, if absent.

        Raises:
            ConfigError: The served versions would stay in a container.
        """
        root = f"{pipeline_root.rstrip('/')}/{config.name}"
        self.ingest = IngestConfig(data=config.data, split=config.split, spec=config.spec)
        # Checkpoints are written as local files: they outlive the container only below a mount.
        self.checkpoint_dir = (
            CHECKPOINT_DIRECTORY if "://" in pipeline_root else f"{root}/checkpoints"
        )
        self.records_dir = f"{root}/blessed_models"
        self.profiles_dir = f"{root}/span_profiles"
        self.serving_dir = (
            serving_dir or config.serving.directory or f"{root}/serving/{config.serving.model_name}"
        )
        if not _is_absolute(self.serving_dir):
            raise ConfigError(
                "the served versions lie outside of the steps' containers: `serving.directory` "
                f"must be a URI or an absolute path on a cluster, got {self.serving_dir}"
            )
        named = config.data_schema.file or f"schema/{config.name}/schema.pbtxt"
        self.schema_file = named if _is_absolute(named) else f"{IMAGE_DIRECTORY}/{named}"
        self.parameters: dict[str, Any] = {
            DATA_DIRECTORY_PARAMETER: data_directory or IMAGE_DIRECTORY,
            EPOCHS_PARAMETER: config.training.epochs,
        }
        if config.data.span_kind is not None:
            self.parameters[SPAN_PARAMETER] = str(config.data.spans.last)
        # Each stands for what the run is given; the values above are the defaults.
        run_time = {
            name: RuntimeParameter(name=name, ptype=type(default))
            for name, default in self.parameters.items()
        }
        self.epochs: Any = run_time.pop(EPOCHS_PARAMETER)
        self.ingestion_parameters: dict[str, Any] = run_time

    def previous_model(self, examples: BaseChannel, fitted_examples: BaseChannel) -> BaseNode:
        """Returns the component that finds the model to go on from."""
        return ModelFinder(
            records=self.records_dir, fitted_examples=fitted_examples, examples=examples
        ).with_id(PREVIOUS_MODEL)

    def last_blessed_model(self, current: BaseChannel) -> BaseNode:
        """Returns the component that finds the model to hold `current` against."""
        return ModelFinder(records=self.records_dir, current_model=current).with_id(
            LAST_BLESSED_MODEL
        )

    def after_push(
        self,
        model: BaseChannel,
        examples: BaseChannel,
        fitted_examples: BaseChannel,
        pushed_model: BaseChannel,
    ) -> list[BaseNode]:
        """Returns the component that leaves a record of the model."""
        return [
            ModelRecorder(
                records=self.records_dir,
                model=model,
                fitted_examples=fitted_examples,
                examples=examples,
                pushed_model=pushed_model,
            )
        ]


def _is_absolute(path: str) -> bool:
    return "://" in path or path.startswith("/")
