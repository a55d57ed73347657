"""What a backend tells a step, completed to what TFX's container entrypoint reads."""

import json
from collections.abc import Sequence
from typing import Any

_INPUT_FLAG = "--json_serialized_invocation_args"
_INPUTS_SPEC_FLAG = "--json_serialized_inputs_spec_args"
# The launcher adds it to the declared outputs where it keeps logs, which it does unless it is told
# otherwise, and writes it itself. TFX would look for a class of its type, `system.Artifact`.
_LOGS_KEY = "executor-logs"


def complete(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of a step with the types of all artifacts, and without the log.

    Kubeflow Pipelines sends the types of inputs empty: `Schema: ""` in
    `GetOutputArtifactsByExecutionId`, backend/src/v2/metadata/client.go. The declarations, which
    the compiler has put beside the input, say what they are.

    Args:
        arguments: Flags and values, each a word.
    """
    completed = list(arguments)
    executor_input = _executor_input(completed)
    declared: dict[str, Any] = {}
    if _INPUTS_SPEC_FLAG in completed:
        spec = json.loads(completed[completed.index(_INPUTS_SPEC_FLAG) + 1])
        declared = spec.get("artifacts", {})
    for key, given in executor_input.get("inputs", {}).get("artifacts", {}).items():
        for artifact in given.get("artifacts", ()):
            # One of instanceSchema, schemaTitle, schemaUri.
            if key in declared and not any((artifact.get("type") or {}).values()):
                artifact["type"] = declared[key]["artifactType"]
    executor_input.get("outputs", {}).get("artifacts", {}).pop(_LOGS_KEY, None)
    if executor_input:
        completed[completed.index(_INPUT_FLAG) + 1] = json.dumps(executor_input)
    return completed


def output_uris(arguments: Sequence[str]) -> list[str]:
    """Returns where a step leaves its outputs, from its arguments."""
    given = _executor_input(arguments).get("outputs", {}).get("artifacts", {}).values()
    return [artifact["uri"] for one in given for artifact in one.get("artifacts", ())]


def _executor_input(arguments: Sequence[str]) -> dict[str, Any]:
    if _INPUT_FLAG not in arguments:
        return {}
    read: dict[str, Any] = json.loads(arguments[arguments.index(_INPUT_FLAG) + 1])
    return read
