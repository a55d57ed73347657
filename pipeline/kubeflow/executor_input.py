"""What a backend tells a step, completed to what TFX's container entrypoint reads."""

import json
from collections.abc import Sequence
from typing import Any

INPUT_FLAG = "--json_serialized_invocation_args"
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
    if INPUT_FLAG not in completed:
        return completed
    place = completed.index(INPUT_FLAG) + 1
    executor_input = json.loads(completed[place])
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
    completed[place] = json.dumps(executor_input)
    return completed
