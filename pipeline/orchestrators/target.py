"""Where a pipeline runs, and what is found in which way there."""

from typing import Any, Protocol

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
from pipeline.runs.refreshed_catalogue import refreshed_through

# The nodes that find an earlier model, and give it as `model`.
LAST_BLESSED_MODEL = "LastBlessedModel"
PREVIOUS_MODEL = "PreviousModel"


class Site(Protocol):
    """What the definition of a pipeline asks of the place it runs in."""

    @property
    def ingest(self) -> IngestConfig:
        """What ingestion needs to know."""

    @property
    def input_fingerprint(self) -> str:
        """Hash of the input files, for the cache."""

    @property
    def ingestion_parameters(self) -> dict[str, Any]:
        """Arguments of TimelineExampleGen that only a run can tell."""

    @property
    def epochs(self) -> Any:
        """The number of epochs if only a run can tell it, else None."""

    @property
    def profiles_dir(self) -> str:
        """Profiles of good spans as files; empty where ML Metadata has them."""

    @property
    def schema_file(self) -> str:
        """The curated schema, where the components find it."""

    @property
    def checkpoint_dir(self) -> str:
        """For what a killed fit needs to go on."""

    @property
    def serving_dir(self) -> str:
        """Base path of the served versions."""

    def previous_model(self, examples: BaseChannel, fitted_examples: BaseChannel) -> BaseNode:
        """Returns the node that finds the model to go on from: not one fitted on the same."""

    def last_blessed_model(self, current: BaseChannel) -> BaseNode:
        """Returns the node that finds the model to hold `current` against."""

    def after_push(
        self,
        model: BaseChannel,
        examples: BaseChannel,
        fitted_examples: BaseChannel,
        pushed_model: BaseChannel,
    ) -> list[BaseNode]:
        """Returns what is to be done once a model is pushed."""


class LocalSite:
    """A machine with the configuration's paths, and ML Metadata to look earlier models up in."""

    epochs: Any = None
    profiles_dir = ""

    def __init__(
        self, config: PipelineConfig, ingest: IngestConfig | None = None, *, ingests: bool = True
    ) -> None:
        """Takes every path from the configuration.

        Args:
            config: The use.
            ingest: With the spans that another process of the run has chosen; chosen now if absent.
            ingests: Whether this process may read the input files; where it does not, their
                fingerprint is not taken.
        """
        if ingest is None:
            through = refreshed_through(config) if ingests else None
            ingest = choose_spans(config.ingestion, catalogue_through=through)
        self.ingest = ingest
        self._ingests = ingests
        self.ingestion_parameters: dict[str, Any] = {}
        self.schema_file = config.schema_file
        self.checkpoint_dir = str(config.run_dir / "checkpoints")
        self.serving_dir = config.serving_dir

    @property
    def input_fingerprint(self) -> str:
        """Hash of the input files, for the cache."""
        return fingerprint(self.ingest) if self._ingests else ""

    def previous_model(self, examples: BaseChannel, fitted_examples: BaseChannel) -> BaseNode:
        """Returns the resolver of the model to go on from."""
        del examples  # ML Metadata knows what the transformed ones were made of.
        return Resolver(
            strategy_class=PreviousBlessedModelStrategy,
            model=Channel(type=Model),
            model_blessing=Channel(type=ModelBlessing),
            examples=fitted_examples,
        ).with_id(PREVIOUS_MODEL)

    def last_blessed_model(self, current: BaseChannel) -> BaseNode:
        """Returns the resolver of the model to hold `current` against."""
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
        """Returns nothing: ML Metadata knows already."""
        del model, examples, fitted_examples, pushed_model
        return []
