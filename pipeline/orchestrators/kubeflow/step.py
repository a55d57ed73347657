"""Entry point of a step of a compiled pipeline, which adapts TFX's entrypoint to Kubeflow.

Usage: `python -m pipeline.orchestrators.kubeflow.step ARGUMENTS`, with the entrypoint's arguments.
"""

import importlib
import importlib.util
import json
import os
import runpy
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import components  # noqa: F401 - before TFX, because it makes some imports of TFX lazy
import models  # noqa: F401 - before TensorFlow, because it configures Keras and the log level
from pipeline.code_hash import application_hash

ENTRYPOINT = "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"
COMMAND = ("python", "-m", "pipeline.orchestrators.kubeflow.step")
CODE_HASH_VARIABLE = "TWO_TOWER_CODE_HASH"

_INPUT_FLAG = "--json_serialized_invocation_args"
_INPUTS_SPEC_FLAG = "--json_serialized_inputs_spec_args"
# If Kubeflow's launcher is configured to keep logs, it adds this output and writes it itself. TFX
# does not support its type, `system.Artifact`.
_LOGS_KEY = "executor-logs"
_SCHEME = "gs://"
_STORAGE_PACKAGE = "google.cloud.storage"


def main() -> None:
    """Run the step that is described by `sys.argv`."""
    compiled_with = os.environ.get(CODE_HASH_VARIABLE)
    if compiled_with not in (None, found := application_hash()):
        sys.exit(
            f"error: this image must have the code that the pipeline was compiled with (hash "
            f"{compiled_with}), but has other code ({found}). Build and push the image from that "
            "code under a new tag, and compile the pipeline for it"
        )
    sys.argv[1:] = complete_arguments(sys.argv[1:])
    outputs = output_uris(sys.argv[1:])
    # Check before the step runs, because `remove_folder_markers` needs the package afterwards.
    if any(uri.startswith(_SCHEME) for uri in outputs) and not has_storage_client():
        sys.exit(
            "error: outputs on gs:// need the package google-cloud-storage, which this image does "
            "not have: build it with --build-arg LOCK=deploy/kubeflow/requirements.lock"
        )
    try:
        runpy.run_module(ENTRYPOINT, run_name="__main__", alter_sys=True)
    except SystemExit as ended:  # The entrypoint raises it after a success too.
        if ended.code:
            raise
    remove_folder_markers(outputs)


def complete_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a step with all input types filled in, and without the log output.

    Kubeflow Pipelines leaves the types of input artifacts empty (`Schema: ""` in
    `GetOutputArtifactsByExecutionId`, backend/src/v2/metadata/client.go), but TFX needs them. They
    are copied from the declarations of the compiled pipeline, which are also in the arguments.
    Remove this function once the backend sends the types.
    """
    completed = list(arguments)
    executor_input = _value(completed, _INPUT_FLAG)
    declared = _value(completed, _INPUTS_SPEC_FLAG).get("artifacts", {})
    for key, inputs in executor_input.get("inputs", {}).get("artifacts", {}).items():
        for artifact in inputs.get("artifacts", ()):
            # A type sets one of instanceSchema, schemaTitle and schemaUri.
            if key in declared and not any((artifact.get("type") or {}).values()):
                artifact["type"] = declared[key]["artifactType"]
    executor_input.get("outputs", {}).get("artifacts", {}).pop(_LOGS_KEY, None)
    if executor_input:
        completed[completed.index(_INPUT_FLAG) + 1] = json.dumps(executor_input)
    return completed


def output_uris(arguments: Sequence[str]) -> list[str]:
    """Return the URIs of the output artifacts in the arguments of a step."""
    outputs = _value(arguments, _INPUT_FLAG).get("outputs", {}).get("artifacts", {}).values()
    return [artifact["uri"] for output in outputs for artifact in output.get("artifacts", ())]


def remove_folder_markers(uris: Iterable[str]) -> int:
    """Remove the empty objects that mark folders below gs:// URIs, and return their number.

    TensorFlow's `gfile.makedirs` creates these objects, whose names end in a slash. When Kubeflow's
    launcher downloads the inputs of the next step, it writes such an object as a file, and then
    fails with `mkdir …: not a directory` (`DownloadBlob` in backend/src/v2/objectstore). Remove
    this function once the launcher skips these objects.
    """
    folders = [uri.removeprefix(_SCHEME) for uri in uris if uri.startswith(_SCHEME)]
    if not folders:
        return 0
    # Imported here because it takes 0.3 s. Access to a bucket needs no project.
    client = importlib.import_module(_STORAGE_PACKAGE).Client(project=None)
    count = 0
    for folder in folders:
        bucket, _, key = folder.partition("/")
        prefix = f"{key.rstrip('/')}/" if key else ""
        found = client.list_blobs(bucket, prefix=prefix, fields="items(name,size),nextPageToken")
        markers = [blob for blob in found if blob.name.endswith("/") and not blob.size]
        # Another process may already have removed a marker.
        client.bucket(bucket).delete_blobs(markers, on_error=lambda _: None)
        count += len(markers)
    return count


def has_storage_client() -> bool:
    """Return whether the package google-cloud-storage is installed."""
    try:
        return importlib.util.find_spec(_STORAGE_PACKAGE) is not None
    except ModuleNotFoundError:
        return False


def _value(arguments: Sequence[str], flag: str) -> dict[str, Any]:
    """Return the JSON value of a flag; empty if the flag is missing."""
    found = arguments[arguments.index(flag) + 1] if flag in arguments else "{}"
    return dict(json.loads(found))


if __name__ == "__main__":
    main()
