"""Which earlier model a fit goes on from."""

import logging

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx.components.evaluator.constants import ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY
from tfx.components.util import model_utils
from tfx.dsl.components.common.resolver import ResolverStrategy

from components.interactions.splits.held_out import HELD_OUT_PROPERTY, HeldOut, why_seen
from components.timeline_example_gen.spec import LAST_SPAN_PROPERTY

log = logging.getLogger(__name__)

MODEL_KEY = "model"
MODEL_BLESSING_KEY = "model_blessing"
EXAMPLES_KEY = "examples"


class PreviousBlessedModelStrategy(ResolverStrategy):
    """The newest blessed model that was not fitted on the given Examples.

    TFX's own LatestBlessedModelStrategy would return the model of the run before, whatever it was
    fitted on: repeating a run whose data is unchanged would fit it once more on the same events,
    for ever, and a run that was killed after its blessing would end with another model than an
    uninterrupted one. Here both find the model that the first attempt began with, so the cache
    has the rest.

    ```python
    resolver = Resolver(
        strategy_class=PreviousBlessedModelStrategy,
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
        examples=transform.outputs["transformed_examples"],
    )
    trainer = Trainer(base_model=resolver.outputs["model"], ...)
    ```

    Where the Examples are made of spans, only a model of earlier spans is taken: one that has seen
    the newest span, or those after it, may have learnt what is held out now. The newest is then
    that of the latest span: an old day that was run again is no newer for it.

    Nor is a model taken that may have seen what is held out now because the split was another one,
    or cut later (`held_out`). The log says which were passed over for that.

    Where there is no such model, `model` and `model_blessing` are empty.
    """

    def resolve_artifacts(
        self, store: MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Chooses among all models of the pipeline, as TFX asks for it.

        Args:
            store: ML Metadata.
            input_dict: Under `MODEL_KEY` and `MODEL_BLESSING_KEY` all there are, under
                `EXAMPLES_KEY` those to be fitted on.
        """
        current = {artifact.id for artifact in input_dict[EXAMPLES_KEY]}
        blessings = {
            blessing.get_int_custom_property(ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY): blessing
            for blessing in input_dict[MODEL_BLESSING_KEY]
            if model_utils.is_model_blessed(blessing)
        }
        blessed = [model for model in input_dict[MODEL_KEY] if model.id in blessings]
        inputs = {model.id: _inputs_of(store, {model.id}) for model in blessed}
        blessed = [model for model in blessed if not current & inputs[model.id]]
        span = _newest_span(store, current)
        seen = {model.id: -1 for model in blessed}
        if span is not None:
            spans = {model.id: _newest_span(store, inputs[model.id]) for model in blessed}
            # One without spans may have seen what is held out now, and so may one of later spans.
            seen = {model: found for model, found in spans.items() if found is not None}
            blessed = [model for model in blessed if seen.get(model.id, span) < span]
        now = _held_out(store, current)
        for model in sorted(blessed, key=lambda found: (seen[found.id], found.id), reverse=True):
            if problem := why_seen(now, _held_out(store, inputs[model.id])):
                log.warning("%s is not gone on from: %s", model.uri, problem)
                continue
            return {
                **input_dict,
                MODEL_KEY: [model],
                MODEL_BLESSING_KEY: [blessings[model.id]],
            }
        return {**input_dict, MODEL_KEY: [], MODEL_BLESSING_KEY: []}


def _held_out(store: MetadataStore, transformed: set[int]) -> HeldOut | None:
    """What was held out of the Examples that these were made of; None where it is not known."""
    made_of = store.get_artifacts_by_id(sorted(_inputs_of(store, transformed)))
    texts = {
        artifact.custom_properties[HELD_OUT_PROPERTY].string_value
        for artifact in made_of
        if HELD_OUT_PROPERTY in artifact.custom_properties
    }
    return HeldOut.parse(texts.pop()) if len(texts) == 1 else None


def _newest_span(store: MetadataStore, transformed: set[int]) -> int | None:
    """The newest span of the Examples that these were made of; None where they have no spans."""
    made_of = store.get_artifacts_by_id(sorted(_inputs_of(store, transformed)))
    spans = [
        artifact.properties["span"].int_value
        for artifact in made_of
        if LAST_SPAN_PROPERTY in artifact.custom_properties
    ]
    return max(spans, default=None)


def _inputs_of(store: MetadataStore, outputs: set[int]) -> set[int]:
    """Artifacts that the executions which gave the outputs were given, those from a cache too."""
    if not outputs:
        return set()
    executions = {
        event.execution_id
        for event in store.get_events_by_artifact_ids(sorted(outputs))
        if event.type == metadata_store_pb2.Event.OUTPUT
    }
    if not executions:
        return set()
    return {
        event.artifact_id
        for event in store.get_events_by_execution_ids(sorted(executions))
        if event.type == metadata_store_pb2.Event.INPUT
    }
