"""Finds the model that was blessed last, and the data that it was judged on."""

from collections.abc import Mapping, Sequence

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.components.common.resolver import ResolverStrategy
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import (
    LatestBlessedModelStrategy,
)
from tfx.types.artifact import Artifact

MODEL_KEY = "model"
MODEL_BLESSING_KEY = "model_blessing"
EXAMPLES_KEY = "examples"
INGEST_REPORT_KEY = "ingest_report"

_Event = metadata_store_pb2.Event
_GIVEN = (_Event.INPUT, _Event.DECLARED_INPUT)
_MADE = (_Event.OUTPUT, _Event.DECLARED_OUTPUT)


class BlessedModelStrategy(ResolverStrategy):
    """Resolves the last blessed model with what belongs to it.

    LatestBlessedModelStrategy gives the model and its blessing. Whoever serves the model again
    also needs the Examples of its evaluation and the report of their ingestion, and these are not
    always the latest.

    ```python
    blessed_model = Resolver(
        strategy_class=BlessedModelStrategy,
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
        examples=Channel(type=Examples),
        ingest_report=Channel(type=IngestReport),
    )
    ```
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[Artifact]]
    ) -> dict[str, list[Artifact]]:
        """Returns one artifact for each key, or none for any where no model was blessed."""
        nothing: dict[str, list[Artifact]] = {key: [] for key in input_dict}
        found = LatestBlessedModelStrategy().resolve_artifacts(
            store, {key: input_dict[key] for key in (MODEL_KEY, MODEL_BLESSING_KEY)}
        )
        if not found or not found[MODEL_KEY]:
            return nothing
        [blessing] = found[MODEL_BLESSING_KEY]
        examples = _related(store, blessing, _MADE, _GIVEN, input_dict[EXAMPLES_KEY])
        if not examples:
            return nothing
        report = _related(store, examples[0], _MADE, _MADE, input_dict[INGEST_REPORT_KEY])
        if not report:
            return nothing
        return {**found, EXAMPLES_KEY: examples[:1], INGEST_REPORT_KEY: report[:1]}


def _related(
    store: mlmd.MetadataStore,
    artifact: Artifact,
    role: Sequence[int],
    other_role: Sequence[int],
    among: Sequence[Artifact],
) -> list[Artifact]:
    """Returns the artifacts that an execution of `artifact` has in another role."""
    by_id: Mapping[int, Artifact] = {other.id: other for other in among}
    executions = [
        event.execution_id
        for event in store.get_events_by_artifact_ids([artifact.id])
        if event.type in role
    ]
    if not executions:
        return []
    return [
        by_id[event.artifact_id]
        for event in store.get_events_by_execution_ids(executions)
        if event.type in other_role and event.artifact_id in by_id
    ]
