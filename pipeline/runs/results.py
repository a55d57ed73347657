"""Results of runs, from executions and artifacts in ML Metadata."""

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ml_metadata import MetadataStore

from pipeline.config.project import PipelineConfig
from pipeline.runs.history import RunRecord
from pipeline.runs.metadata import (
    PIPELINE_TYPE,
    RUN_TYPE,
    Artifact,
    Execution,
    component_of,
    executions_of,
    outputs_of,
)

_RESOLVER = "Resolver"
# Names of custom properties and files. The modules that define them are slow to import.
_LAST_SPAN = "last_span"
_BLESSED = "blessed"
_EVALUATION_FILE = "evaluation.json"


def component_executions(store: MetadataStore, config: str, run_id: str) -> list[dict[str, Any]]:
    """Return the component, state, duration in seconds and outputs of each execution of a run."""
    pipeline = executions_of(store, PIPELINE_TYPE, config)
    found = executions_of(store, RUN_TYPE, run_id)
    return [
        {
            "component": component_of(store, execution),
            "state": Execution.State.Name(execution.last_known_state).lower(),
            "seconds": (execution.last_update_time_since_epoch - execution.create_time_since_epoch)
            / 1000,
            "outputs": [
                {
                    "type": artifact.type,
                    "uri": artifact.uri,
                    "state": Artifact.State.Name(artifact.state).lower(),
                }
                for artifact in outputs_of(store, [number])
            ],
        }
        for number, execution in sorted(found.items())
        if number in pipeline
    ]


def live_outputs(
    config: PipelineConfig, store: MetadataStore, run_id: str
) -> dict[tuple[str, str], Artifact]:
    """Return the outputs of a run that still exist, by component and output key."""
    root = config.run_dir / "artifacts"
    pipeline = executions_of(store, PIPELINE_TYPE, config.name).keys()
    found = {}
    for artifact in outputs_of(store, _executions(store, run_id, pipeline)):
        path = Path(artifact.uri)
        if artifact.state == Artifact.LIVE and path.is_relative_to(root) and path.exists():
            component, key = path.relative_to(root).parts[:2]
            found[component, key] = artifact
    return found


def with_results(store: MetadataStore, records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return records of one project, and add results to those without a summary.

    Runs of other orchestrators, killed runs and runs in progress have no summary. Their span,
    metrics, gates and version are read from their artifacts.
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
        summary |= _evaluated(evaluation)
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
            if "newly_pushed" in pushed.custom_properties:  # Earlier releases did not write it.
                summary["newly_pushed"] = _number(pushed, "newly_pushed") == 1
    if gates:
        summary["gates"] = gates
    return replace(record, span=record.span or span, summary=summary)


def _made_in(
    store: MetadataStore, run_id: str, pipeline: Collection[int]
) -> dict[str, list[Artifact]]:
    """Return the outputs of a run, including cached ones, by type in the order of executions.

    `pipeline` contains the IDs of the project's executions, because other projects in the database
    may have runs with the same ID.
    """
    found: dict[str, list[Artifact]] = {}
    for artifact in outputs_of(store, _executions(store, run_id, pipeline)):
        # Skip the Examples of Transform, which have no span.
        if artifact.type != "Examples" or _LAST_SPAN in artifact.custom_properties:
            found.setdefault(artifact.type, []).append(artifact)
    return found


def _executions(store: MetadataStore, run_id: str, pipeline: Collection[int]) -> list[int]:
    """Return the executions of a run except those of resolvers, which output earlier artifacts."""
    return [
        number
        for number, execution in executions_of(store, RUN_TYPE, run_id).items()
        if number in pipeline and execution.type.rpartition(".")[2] != _RESOLVER
    ]


def _evaluated(evaluation: Artifact) -> dict[str, Any]:
    """Return the metrics and the gate's metric; no metrics if the file is not on this machine."""
    try:
        text = (Path(evaluation.uri) / _EVALUATION_FILE).read_text(encoding="utf-8")
        report: dict[str, Any] = json.loads(text)
    except (OSError, ValueError):
        report = {}
    # Earlier releases did not write `gate_metric`.
    return {"metrics": report.get("metrics", {}), "gate_metric": report.get("gate_metric", "")}


def _text(artifact: Artifact, name: str) -> str:
    return str(artifact.custom_properties[name].string_value)


def _number(artifact: Artifact, name: str) -> int:
    return int(artifact.custom_properties[name].int_value)
