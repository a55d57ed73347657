"""Interface between the definition of the pipeline and the environment that runs it."""

from typing import Any, Protocol

from tfx.dsl.components.base.base_node import BaseNode
from tfx.types.channel import BaseChannel

from components.interactions.config import IngestConfig

# IDs of the nodes that find an earlier model; their output key is `model`.
LAST_BLESSED_MODEL = "LastBlessedModel"
PREVIOUS_MODEL = "PreviousModel"


class Target(Protocol):
    """An environment that runs pipelines, such as the local machine or a cluster.

    Attributes:
        ingest: Settings of ingestion.
        ingestion_parameters: Arguments of TimelineExampleGen that are set when a run starts.
        epochs: Placeholder for the number of epochs if it is set when a run starts, else None.
        profiles_dir: Folder for the profiles of accepted spans; empty if ML Metadata records them.
        schema_file: Path of the curated schema at run time.
        checkpoint_dir: Folder for checkpoints, which training resumes from if it was killed.
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
        """Hash of the input files for cache keys, or "" if it is not needed."""

    def previous_model(self, examples: BaseChannel, fitted_examples: BaseChannel) -> BaseNode:
        """Return the node that finds a model of earlier examples for a warm start."""

    def last_blessed_model(self, current: BaseChannel) -> BaseNode:
        """Return the node that finds the last blessed model, to compare `current` with."""

    def after_push(
        self,
        model: BaseChannel,
        examples: BaseChannel,
        fitted_examples: BaseChannel,
        pushed_model: BaseChannel,
    ) -> list[BaseNode]:
        """Return the nodes to run after a model was pushed."""
