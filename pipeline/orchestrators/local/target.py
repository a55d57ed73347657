"""Target for the local machine, where ML Metadata is used to find earlier models."""

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
from pipeline.orchestrators.target import LAST_BLESSED_MODEL, PREVIOUS_MODEL
from pipeline.runs.history import refreshed_through


class LocalTarget:
    """Target for the local machine, with all paths from the configuration.

    Args:
        config: The configuration of the project.
        ingest: Ingestion settings with the chosen spans, if ingestion of the run is already done.
            If None, the spans are chosen now.
        reads_input: Whether this process reads the input files. If not, their fingerprint is empty.
    """

    epochs: Any = None
    profiles_dir = ""

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
        self._reads_input = reads_input
        self.ingestion_parameters: dict[str, Any] = {}
        self.schema_file = config.schema_file
        self.checkpoint_dir = str(config.run_dir / "checkpoints")
        self.serving_dir = config.serving_dir

    @property
    def input_fingerprint(self) -> str:
        """Hash of the input files for cache keys, or "" if this process does not read them."""
        return fingerprint(self.ingest) if self._reads_input else ""

    def previous_model(self, examples: BaseChannel, fitted_examples: BaseChannel) -> BaseNode:
        """Return the resolver that finds the earlier model for a warm start."""
        del examples  # ML Metadata records which examples the transformed ones were made from.
        return Resolver(
            strategy_class=PreviousBlessedModelStrategy,
            model=Channel(type=Model),
            model_blessing=Channel(type=ModelBlessing),
            examples=fitted_examples,
        ).with_id(PREVIOUS_MODEL)

    def last_blessed_model(self, current: BaseChannel) -> BaseNode:
        """Return the resolver that finds the last blessed model, to compare `current` with."""
        return Resolver(
            strategy_class=LastBlessedModelStrategy,
            current=current,
            model=Channel(type=Model),
            model_blessing=Channel(type=ModelBlessing),
        ).with_id(LAST_BLESSED_MODEL)

    def after_push(
        self,
        model: BaseChannel,
        examples: BaseChannel,
        fitted_examples: BaseChannel,
        pushed_model: BaseChannel,
    ) -> list[BaseNode]:
        """Return no nodes, because ML Metadata already records the model."""
        del model, examples, fitted_examples, pushed_model
        return []
