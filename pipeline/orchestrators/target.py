"""The interface between the pipeline's definition and the place where a pipeline runs."""

from typing import Any, Protocol

from tfx.dsl.components.base.base_node import BaseNode
from tfx.types.channel import BaseChannel

from components.interactions.config import IngestConfig

# IDs of the nodes that find an earlier model; their output is `model`.
LAST_BLESSED_MODEL = "LastBlessedModel"
PREVIOUS_MODEL = "PreviousModel"


class Target(Protocol):
    """A place that runs pipelines, such as this machine or a cluster.

    Attributes:
        ingest: Settings of the ingestion.
        ingestion_parameters: Arguments of TimelineExampleGen that are only known at run time.
        epochs: Number of epochs if it is only known at run time, else None.
        profiles_dir: Folder with profiles of accepted spans; empty if ML Metadata has them.
        schema_file: Path of the schema at run time.
        checkpoint_dir: Folder for checkpoints, from which training continues after it was killed.
        serving_dir: Base path of the served versions.
    """

    ingest: IngestConfig
    ingestion_parameters: dict[str, Any]
    epochs: Any
    profiles_dir: str
    schema_file: str
    checkpoint_dir: str
    serving_dir: str

    @property
    def input_fingerprint(self) -> str:
        """Hash of the input files, for the cache."""

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
