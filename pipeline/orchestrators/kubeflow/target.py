"""Target for clusters, where each component runs in its own container."""

from typing import Any

from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types.channel import BaseChannel

from components.blessed_models.component import ModelFinder, ModelRecorder
from components.interactions.config import IngestConfig
from pipeline.config.project import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.orchestrators.target import LAST_BLESSED_MODEL, PREVIOUS_MODEL, Target

# deploy/pipeline.Dockerfile copies the code here.
IMAGE_DIRECTORY = "/app"
CHECKPOINT_DIRECTORY = "/tmp/two-tower-checkpoints"


class ClusterTarget(Target):
    """Target for containers that share only the pipeline root, which is a path or URI.

    The folder of the data, the number of epochs and the span are parameters of each run. The
    default of the folder is that of the code in the image. The default of the base path of the
    served versions is `serving.directory`, or a folder below the pipeline root.

    Raises:
        ConfigError: The served versions would be written inside a container.
    """

    def __init__(
        self,
        config: PipelineConfig,
        pipeline_root: str,
        data_directory: str | None = None,
        serving_dir: str | None = None,
    ) -> None:
        # There is no fingerprint: the machine that compiles may not have the data, and ingestion is
        # never cached.
        root = f"{pipeline_root.rstrip('/')}/{config.name}"
        self.ingest = IngestConfig(data=config.data, split=config.split, spec=config.spec)
        # Checkpoints are local files, so they outlive the container only on a mounted root.
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
                "on a cluster `serving.directory` must be a URI or an absolute path, because "
                f"served versions must outlive the containers; got {self.serving_dir}"
            )
        schema = config.data_schema.file or f"schema/{config.name}/schema.pbtxt"
        self.schema_file = schema if _is_absolute(schema) else f"{IMAGE_DIRECTORY}/{schema}"
        # Parameters of a run and their defaults.
        self.parameters: dict[str, Any] = {
            "data_directory": data_directory or IMAGE_DIRECTORY,
            "epochs": config.training.epochs,
        }
        if config.data.span_kind is not None:
            self.parameters["span"] = str(config.data.spans.last)
        placeholders = {
            name: RuntimeParameter(name=name, ptype=type(default))
            for name, default in self.parameters.items()
        }
        self.epochs = placeholders.pop("epochs")
        self.ingestion_parameters = placeholders

    def previous_model(self, examples: BaseChannel, fitted_examples: BaseChannel) -> BaseNode:
        """Return the component that finds the earlier model for a warm start."""
        return ModelFinder(
            records=self.records_dir, fitted_examples=fitted_examples, examples=examples
        ).with_id(PREVIOUS_MODEL)

    def last_blessed_model(self, current: BaseChannel) -> BaseNode:
        """Return the component that finds the last blessed model, to compare `current` with."""
        return ModelFinder(records=self.records_dir, current_model=current).with_id(
            LAST_BLESSED_MODEL
        )

    def after_push(self, **channels: BaseChannel) -> list[BaseNode]:
        """Return the component that records the model for later runs."""
        return [ModelRecorder(records=self.records_dir, **channels)]


def _is_absolute(path: str) -> bool:
    return "://" in path or path.startswith("/")
