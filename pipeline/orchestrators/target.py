"""The environment that the definition of the pipeline depends on."""

from typing import Any

from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.types.channel import BaseChannel, Channel
from tfx.types.standard_artifacts import Model, ModelBlessing

from components.blessed_models.resolvers import (
    LastBlessedModelStrategy,
    PreviousBlessedModelStrategy,
)
from components.interactions.config import IngestConfig
from components.interactions.sources.files import fingerprint
from components.interactions.spans.choice import choose_spans
from pipeline.config.project import PipelineConfig
from pipeline.runs.history import refreshed_through

# IDs of the nodes that find an earlier model; their output key is `model`.
LAST_BLESSED_MODEL = "LastBlessedModel"
PREVIOUS_MODEL = "PreviousModel"


class Target:
    """The local machine, where ML Metadata is used to find earlier models.

    `ClusterTarget` replaces it in a compiled pipeline. The spans of the run are chosen now, unless
    `ingest` has those that ingestion has chosen.

    Attributes:
        ingest: Settings of ingestion.
        input_fingerprint: Hash of the input files for cache keys; empty if it is not needed.
        ingestion_parameters: Arguments of TimelineExampleGen that are set when a run starts.
        epochs: Placeholder for the number of epochs if it is set when a run starts, else None.
        profiles_dir: Folder for the profiles of accepted spans; empty if ML Metadata records them.
        schema_file: Path of the curated schema at run time.
        checkpoint_dir: Folder for checkpoints, which training resumes from if it was killed.
        serving_dir: Base path of the served versions.
    """

    input_fingerprint: str = ""
    epochs: Any = None
    profiles_dir: str = ""

    def __init__(
        self,
        config: PipelineConfig,
        ingest: IngestConfig | None = None,
        *,
        reads_input: bool = True,
    ) -> None:
        if ingest is None:
            through = refreshed_through(config) if reads_input else None
            ingest = choose_spans(config.ingestion, catalogue_through=through)
        self.ingest = ingest
        if reads_input:
            self.input_fingerprint = fingerprint(ingest)
        self.ingestion_parameters: dict[str, Any] = {}
        self.schema_file = config.schema_file
        self.checkpoint_dir = str(config.run_dir / "checkpoints")
        self.serving_dir = config.serving_dir

    def previous_model(self, examples: BaseChannel, fitted_examples: BaseChannel) -> BaseNode:
        """Return the node that finds a model of earlier examples for a warm start."""
        del examples  # ML Metadata records which examples the transformed ones were made from.
        return Resolver(
            strategy_class=PreviousBlessedModelStrategy,
            model=Channel(type=Model),
            model_blessing=Channel(type=ModelBlessing),
            examples=fitted_examples,
        ).with_id(PREVIOUS_MODEL)

    def last_blessed_model(self, current: BaseChannel) -> BaseNode:
        """Return the node that finds the last blessed model, to compare `current` with."""
        return Resolver(
            strategy_class=LastBlessedModelStrategy,
            current=current,
            model=Channel(type=Model),
            model_blessing=Channel(type=ModelBlessing),
        ).with_id(LAST_BLESSED_MODEL)

    def after_push(self, **channels: BaseChannel) -> list[BaseNode]:
        """Return the nodes to run after a model was pushed; ML Metadata needs none.

        The channels are `model`, `examples`, `fitted_examples` and `pushed_model`.
        """
        del channels
        return []
