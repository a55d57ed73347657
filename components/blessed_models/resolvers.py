"""Strategies of TFX's Resolver that find an earlier blessed model in ML Metadata."""

import logging
from collections.abc import Collection, Iterable, Iterator

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from tfx.components.evaluator.constants import ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY
from tfx.components.util import model_utils
from tfx.dsl.components.common.resolver import ResolverStrategy
from tfx.types import Artifact

from components.artifacts import LAST_SPAN_PROPERTY, Artifacts
from components.interactions.splits.held_out import HELD_OUT_PROPERTY, HeldOut, why_seen

log = logging.getLogger(__name__)

MODEL_KEY = "model"
MODEL_BLESSING_KEY = "model_blessing"
CURRENT_KEY = "current"
EXAMPLES_KEY = "examples"
INGEST_REPORT_KEY = "ingest_report"

_Event = metadata_store_pb2.Event
_INPUTS = (_Event.INPUT, _Event.DECLARED_INPUT)
_OUTPUTS = (_Event.OUTPUT, _Event.DECLARED_OUTPUT)


class NewestBlessedModelStrategy(ResolverStrategy):
    """Resolve the newest blessed model, which an index refresh serves again.

    The Examples of its evaluation and the report of their ingestion are resolved with it, because
    they are not always the newest ones.

    ```python
    blessed_model = Resolver(
        strategy_class=NewestBlessedModelStrategy,
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
        examples=Channel(type=Examples),
        ingest_report=Channel(type=IngestReport),
    )
    ```
    """

    def resolve_artifacts(self, store: MetadataStore, input_dict: Artifacts) -> Artifacts:
        """Return one artifact per channel, or empty channels if no model is blessed."""
        nothing: Artifacts = {key: [] for key in input_dict}
        for model, blessing in _newest_first(_blessed(input_dict)):
            evaluated = _related(store, {blessing.id}, _OUTPUTS, _INPUTS)
            examples = [found for found in input_dict[EXAMPLES_KEY] if found.id in evaluated]
            if not examples:
                return nothing
            ingested = _related(store, {examples[0].id}, _OUTPUTS, _OUTPUTS)
            reports = [found for found in input_dict[INGEST_REPORT_KEY] if found.id in ingested]
            if not reports:
                return nothing
            return {
                MODEL_KEY: [model],
                MODEL_BLESSING_KEY: [blessing],
                EXAMPLES_KEY: examples[:1],
                INGEST_REPORT_KEY: reports[:1],
            }
        return nothing


class LastBlessedModelStrategy(ResolverStrategy):
    """Resolve the newest blessed model other than the current one, which is compared with it.

    TFX's `LatestBlessedModelStrategy` would return the current model once it is blessed. A second
    run would then compare the model with itself, and the cache would have no result for that.

    ```python
    resolver = Resolver(
        strategy_class=LastBlessedModelStrategy,
        current=trainer.outputs["model"],
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
    )
    ```
    """

    def resolve_artifacts(self, store: MetadataStore, input_dict: Artifacts) -> Artifacts:
        """Return the model and its blessing, or empty channels if there is none."""
        current = {model.id for model in input_dict[CURRENT_KEY]}
        for model, blessing in _newest_first(_blessed(input_dict)):
            if model.id not in current:
                return {**input_dict, MODEL_KEY: [model], MODEL_BLESSING_KEY: [blessing]}
        return {**input_dict, MODEL_KEY: [], MODEL_BLESSING_KEY: []}


class PreviousBlessedModelStrategy(ResolverStrategy):
    """Resolve the newest blessed model that was not fitted on the given Examples, for a warm start.

    TFX's `LatestBlessedModelStrategy` would return the model of the last run. If a run were
    repeated with unchanged data, the model would then be fitted on the same events again. Here the
    repeated run starts from the same model as the first one, and its result is in the cache.

    ```python
    resolver = Resolver(
        strategy_class=PreviousBlessedModelStrategy,
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
        examples=transform.outputs["transformed_examples"],
    )
    trainer = Trainer(base_model=resolver.outputs["model"], ...)
    ```

    A model that may have seen the held-out events is skipped with a warning
    (`components.interactions.splits.held_out`). If the Examples are made of spans, only models of
    earlier spans are considered, and the newest model is the one of the latest span.
    """

    def resolve_artifacts(self, store: MetadataStore, input_dict: Artifacts) -> Artifacts:
        """Return the model and its blessing, or empty channels if there is none."""
        current = {examples.id for examples in input_dict[EXAMPLES_KEY]}
        span, held_out = _newest_span(store, current), _held_out(store, current)
        found = []
        for model, blessing in _blessed(input_dict):
            fitted_on = _related(store, {model.id}, (_Event.OUTPUT,), (_Event.INPUT,))
            seen = _newest_span(store, fitted_on) if span is not None else -1
            if current & fitted_on or seen is None or (span is not None and seen >= span):
                continue
            found.append((seen, model.id, model, blessing, fitted_on))
        for *_, model, blessing, fitted_on in sorted(found, key=lambda one: one[:2], reverse=True):
            if problem := why_seen(held_out, _held_out(store, fitted_on)):
                log.warning("the fit does not start from %s: %s", model.uri, problem)
                continue
            return {**input_dict, MODEL_KEY: [model], MODEL_BLESSING_KEY: [blessing]}
        return {**input_dict, MODEL_KEY: [], MODEL_BLESSING_KEY: []}


def _blessed(input_dict: Artifacts) -> Iterator[tuple[Artifact, Artifact]]:
    """Yield each blessed model with its blessing."""
    blessings = {
        blessing.get_int_custom_property(ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY): blessing
        for blessing in input_dict[MODEL_BLESSING_KEY]
        if model_utils.is_model_blessed(blessing)
    }
    for model in input_dict[MODEL_KEY]:
        if model.id in blessings:
            yield model, blessings[model.id]


def _newest_first(
    blessed: Iterable[tuple[Artifact, Artifact]],
) -> list[tuple[Artifact, Artifact]]:
    return sorted(blessed, key=lambda found: int(found[0].id), reverse=True)


def _held_out(store: MetadataStore, transformed: Collection[int]) -> HeldOut | None:
    """Return what was held out of the Examples before they were transformed, or None."""
    texts = {
        artifact.custom_properties[HELD_OUT_PROPERTY].string_value
        for artifact in _ingested(store, transformed)
        if HELD_OUT_PROPERTY in artifact.custom_properties
    }
    return HeldOut.parse(texts.pop()) if len(texts) == 1 else None


def _newest_span(store: MetadataStore, transformed: Collection[int]) -> int | None:
    """Return the newest span of transformed Examples, or None if they have no spans."""
    spans = [
        artifact.properties["span"].int_value
        for artifact in _ingested(store, transformed)
        if LAST_SPAN_PROPERTY in artifact.custom_properties
    ]
    return max(spans, default=None)


def _ingested(
    store: MetadataStore, transformed: Collection[int]
) -> list[metadata_store_pb2.Artifact]:
    made_of = _related(store, transformed, (_Event.OUTPUT,), (_Event.INPUT,))
    artifacts: list[metadata_store_pb2.Artifact] = store.get_artifacts_by_id(sorted(made_of))
    return artifacts


def _related(
    store: MetadataStore, artifacts: Collection[int], role: Collection[int], other: Collection[int]
) -> set[int]:
    """Return the artifacts that have another role in an execution of the given ones.

    An execution whose outputs came from the cache counts too.
    """
    if not artifacts:
        return set()
    executions = {
        event.execution_id
        for event in store.get_events_by_artifact_ids(sorted(artifacts))
        if event.type in role
    }
    if not executions:
        return set()
    return {
        event.artifact_id
        for event in store.get_events_by_execution_ids(sorted(executions))
        if event.type in other
    }
