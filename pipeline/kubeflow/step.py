"""A step of a compiled pipeline: TFX's own container entrypoint, sooner, and fit for a backend.

Usage: python -m pipeline.kubeflow.step ARGUMENTS, those of the entrypoint.
"""

import runpy
import sys

import components  # before TFX: it makes lazy what no component of ours needs
from pipeline.kubeflow.executor_input import complete, output_uris
from pipeline.kubeflow.folder_markers import NoStorageClientError, remove_markers, require_client

ENTRYPOINT = "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"
COMMAND = ("python", "-m", "pipeline.kubeflow.step")

__all__ = ["COMMAND", "ENTRYPOINT", "components"]


def main() -> None:
    """Runs the step that `sys.argv` tells of."""
    sys.argv[1:] = complete(sys.argv[1:])
    outputs = output_uris(sys.argv[1:])
    try:
        require_client(outputs)
    except NoStorageClientError as error:
        sys.exit(f"error: {error}")
    try:
        runpy.run_module(ENTRYPOINT, run_name="__main__", alter_sys=True)
    except SystemExit as ended:  # as it does when all is well, too
        if ended.code:
            raise
    remove_markers(outputs)


if __name__ == "__main__":
    main()
