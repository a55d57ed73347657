"""Strategies of TFX's Resolver that find an earlier blessed model in ML Metadata."""

from collections.abc import Collection

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from tfx.components.evaluator.constants import ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY
from tfx.components.util import model_utils
from tfx.dsl.components.common.resolver import ResolverStrategy
from tfx.types import Artifact
from tfx.types.standard_artifacts import PushedModel

from components.artifacts import LAST_SPAN_PROPERTY, Artifacts
from components.blessed_models.records import BlessedRecord, warm_start_record
from components.interactions.splits.held_out import HELD_OUT_PROPERTY

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

    Here and below, only models that were pushed count. A newer one may belong to an experiment, or
    a gate after the evaluation may have refused it, for example because of its catalogue. The
    Examples of its evaluation and the report of their ingestion are resolved with it, because they
    are not always the newest ones.
    """

    def resolve_artifacts(self, store: MetadataStore, input_dict: Artifacts) -> Artifacts:
        """Return one artifact per channel, or empty channels if no blessed model was pushed."""
        for model, blessing in _blessed(store, input_dict)[:1]:
            evaluated = _related(store, {blessing.id}, _OUTPUTS, _INPUTS)
            examples = [found for found in input_dict[EXAMPLES_KEY] if found.id in evaluated][:1]
            ingested = _related(store, {found.id for found in examples}, _OUTPUTS, _OUTPUTS)
            reports = [found for found in input_dict[INGEST_REPORT_KEY] if found.id in ingested]
            if reports:
                return {
                    MODEL_KEY: [model],
                    MODEL_BLESSING_KEY: [blessing],
                    EXAMPLES_KEY: examples,
                    INGEST_REPORT_KEY: reports[:1],
                }
        return {key: [] for key in input_dict}


class LastBlessedModelStrategy(ResolverStrategy):
    """Resolve the newest blessed model other than the current one, which is compared with it.

    TFX's `LatestBlessedModelStrategy` would return the current model once it is blessed. A second
    run would then compare the model with itself, and the cache would have no result for that.
    """

    def resolve_artifacts(self, store: MetadataStore, input_dict: Artifacts) -> Artifacts:
        """Return the model and its blessing, or empty channels if there is none."""
        current = {model.id for model in input_dict[CURRENT_KEY]}
        others = [found for found in _blessed(store, input_dict) if found[0].id not in current]
        return _resolved(input_dict, others[:1])


class PreviousBlessedModelStrategy(ResolverStrategy):
    """Resolve the newest blessed model that was not fitted on the given Examples, for a warm start.

    TFX's `LatestBlessedModelStrategy` would return the model of the last run. If a run were
    repeated with unchanged data, the model would then be fitted on the same events again. Here the
    repeated run starts from the same model as the first one, and its result is in the cache.

    A model that may have seen the held-out events is skipped with a warning, and so are models of
    the same and later spans (`components.blessed_models.records.warm_start_record`).
    """

    def resolve_artifacts(self, store: MetadataStore, input_dict: Artifacts) -> Artifacts:
        """Return the model and its blessing, or empty channels if there is none."""
        current = {examples.id for examples in input_dict[EXAMPLES_KEY]}
        others = {}
        for model, blessing in _blessed(store, input_dict):
            fitted_on = _related(store, {model.id}, (_Event.OUTPUT,), (_Event.INPUT,))
            if not current & fitted_on:
                span, held_out = _of_ingestion(store, fitted_on)
                name = f"{model.uri or model.id}"
                others[BlessedRecord(name, "", str(model.id), span, held_out)] = (model, blessing)
        found = warm_start_record(others, *_of_ingestion(store, current))
        return _resolved(input_dict, [] if found is None else [others[found]])


def _blessed(store: MetadataStore, input_dict: Artifacts) -> list[tuple[Artifact, Artifact]]:
    """Return each blessed model that was pushed with its blessing, newest first."""
    pushed = {found.id for found in store.get_artifacts_by_type(PushedModel.TYPE_NAME)}
    given = _related(store, pushed, _OUTPUTS, _INPUTS)
    blessings = {
        blessing.get_int_custom_property(ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY): blessing
        for blessing in input_dict[MODEL_BLESSING_KEY]
        if blessing.id in given and model_utils.is_model_blessed(blessing)
    }
    models = sorted(input_dict[MODEL_KEY], key=lambda model: int(model.id), reverse=True)
    return [(model, blessings[model.id]) for model in models if model.id in blessings]


def _resolved(input_dict: Artifacts, found: list[tuple[Artifact, Artifact]]) -> Artifacts:
    models, blessings = ([pair[part] for pair in found] for part in (0, 1))
    return {**input_dict, MODEL_KEY: models, MODEL_BLESSING_KEY: blessings}


def _of_ingestion(store: MetadataStore, transformed: Collection[int]) -> tuple[int | None, str]:
    """Return the newest span of transformed Examples, or None, and what was held out of them."""
    ingested = store.get_artifacts_by_id(
        sorted(_related(store, transformed, (_Event.OUTPUT,), (_Event.INPUT,)))
    )
    spans = [
        artifact.properties["span"].int_value
        for artifact in ingested
        if LAST_SPAN_PROPERTY in artifact.custom_properties
    ]
    held_out = {
        artifact.custom_properties[HELD_OUT_PROPERTY].string_value
        for artifact in ingested
        if HELD_OUT_PROPERTY in artifact.custom_properties
    }
    return max(spans, default=None), held_out.pop() if len(held_out) == 1 else ""


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
