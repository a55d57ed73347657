"""What runs came to by their artifacts, where their records do not tell."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from pipeline.runs.history import PIPELINE_TYPE, RUN_TYPE, RunRecord, executions_of

# What it puts out was made by another run.
_RESOLVER = "Resolver"
# Properties of TFX's artifacts and of ours. The modules that name them import TFX.
_LAST_SPAN = "last_span"
_BLESSED = "blessed"
_EVALUATION_FILE = "evaluation.json"


def with_results(store: MetadataStore, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Returns the records with span, metrics, gates and version also where they noted none.

    Those are runs of other orchestrators, which know nothing of ours, and runs that were killed
    or go on.

    Args:
        store: ML Metadata.
        records: Of one configuration.
    """
    if all(record.summary for record in records):
        return list(records)
    pipeline = executions_of(store, PIPELINE_TYPE, records[0].config).keys()
    return [record if record.summary else _filled(store, record, pipeline) for record in records]


def _filled(store: MetadataStore, record: RunRecord, pipeline: Collection[int]) -> RunRecord:
    made = _made_in(store, record.run_id, pipeline)
    span = next((_text(found, _LAST_SPAN) for found in made.get("Examples", ())), "")
    summary: dict[str, Any] = {}
    gates: dict[str, str] = {}
    if "components.SpanProfile" in made:
        gates["drift"] = "passed"
    for evaluation in made.get("ModelEvaluation", ())[-1:]:
        summary["metrics"] = _metrics(evaluation)
    for blessing in made.get("ModelBlessing", ())[-1:]:
        summary["blessed"] = _number(blessing, _BLESSED) == 1
        gates["evaluation"] = "passed" if summary["blessed"] else "refused"
    if "components.IndexReport" in made:
        gates["index"] = "passed"
    for blessing in made.get("InfraBlessing", ())[-1:]:
        gates["server"] = "passed" if _number(blessing, _BLESSED) == 1 else "refused"
    for pushed in made.get("PushedModel", ())[-1:]:
        version = _text(pushed, "pushed_version")
        if _number(pushed, "pushed") == 1 and version.isdecimal():
            summary["pushed_version"] = int(version)
            if "newly_pushed" in pushed.custom_properties:  # else of an old version of ours
                summary["newly_pushed"] = _number(pushed, "newly_pushed") == 1
    if gates:
        summary["gates"] = gates
    return replace(record, span=record.span or span, summary=summary)


def _made_in(
    store: MetadataStore, run_id: str, pipeline: Collection[int]
) -> dict[str, list[metadata_store_pb2.Artifact]]:
    """Returns what a run made or took from the cache, by type, in the order of its executions.

    Args:
        store: ML Metadata.
        run_id: Of the run; uses that share a database may have runs of the same id.
        pipeline: Executions of the use.
    """
    executions = sorted(
        number
        for number, execution in executions_of(store, RUN_TYPE, run_id).items()
        if number in pipeline and execution.type.rpartition(".")[2] != _RESOLVER
    )
    if not executions:
        return {}
    made_by = {
        event.artifact_id: event.execution_id
        for event in store.get_events_by_execution_ids(executions)
        if event.type == metadata_store_pb2.Event.OUTPUT
    }
    found: dict[str, list[metadata_store_pb2.Artifact]] = {}
    artifacts = store.get_artifacts_by_id(list(made_by)) if made_by else []
    for artifact in sorted(artifacts, key=lambda artifact: made_by[artifact.id]):
        # Transform's Examples have no spans.
        if artifact.type != "Examples" or _LAST_SPAN in artifact.custom_properties:
            found.setdefault(artifact.type, []).append(artifact)
    return found


def _metrics(evaluation: metadata_store_pb2.Artifact) -> dict[str, Any]:
    """Returns what the evaluation measured; nothing where it was removed, or lies elsewhere."""
    try:
        text = (Path(evaluation.uri) / _EVALUATION_FILE).read_text(encoding="utf-8")
        metrics: dict[str, Any] = json.loads(text)["metrics"]
    except (OSError, ValueError, KeyError):
        return {}
    return metrics


def _text(artifact: metadata_store_pb2.Artifact, name: str) -> str:
    return str(artifact.custom_properties[name].string_value)


def _number(artifact: metadata_store_pb2.Artifact, name: str) -> int:
    return int(artifact.custom_properties[name].int_value)
