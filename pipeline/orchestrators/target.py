"""The interface between the pipeline's definition and the place where a pipeline runs."""

from typing import Any, Protocol

from tfx.dsl.components.base.base_node import BaseNode
from tfx.types.channel import BaseChannel

from components.interactions.config import IngestConfig

# IDs of the nodes that find an earlier model; their output is `model`.
LAST_BLESSED_MODEL = "LastBlessedModel"
PREVIOUS_MODEL = "PreviousModel"


class Target(Protocol):
    """A place that runs pipelines, such as this machine or a cluster."""

    @property
    def ingest(self) -> IngestConfig:
        """Settings of the ingestion."""

    @property
    def input_fingerprint(self) -> str:
        """Hash of the input files, for the cache."""

    @property
    def ingestion_parameters(self) -> dict[str, Any]:
        """Arguments of TimelineExampleGen that are only known at run time."""

    @property
    def epochs(self) -> Any:
        """Number of epochs if it is only known at run time, else None."""

    @property
    def profiles_dir(self) -> str:
        """Folder with profiles of accepted spans; empty if ML Metadata has them."""

    @property
    def schema_file(self) -> str:
        """Path of the schema at run time."""

    @property
    def checkpoint_dir(self) -> str:
        """Folder for checkpoints, from which training continues after it was killed."""

    @property
    def serving_dir(self) -> str:
        """Base path of the served versions."""

    def previous_model(self, examples: BaseChannel, fitted_examples: BaseChannel) -> BaseNode:
        """Return the node that finds the model for a warm start, trained on other examples."""

    def last_blessed_model(self, current: BaseChannel) -> BaseNode:
        """Return the node that finds the model to compare `current` with."""

    def after_push(
        self,
        model: BaseChannel,
        examples: BaseChannel,
        fitted_examples: BaseChannel,
        pushed_model: BaseChannel,
    ) -> list[BaseNode]:
        """Return the nodes that run after a model was pushed."""
