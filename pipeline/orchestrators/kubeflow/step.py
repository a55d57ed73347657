"""A step of a compiled pipeline: TFX's own container entrypoint, sooner, and fit for a backend.

Usage: python -m pipeline.orchestrators.kubeflow.step ARGUMENTS, those of the entrypoint.
"""

import os
import runpy
import sys

import components  # before TFX: it makes lazy what no component of ours needs
from pipeline.code_hash import application_hash
from pipeline.orchestrators.kubeflow.executor_input import complete, output_uris
from pipeline.orchestrators.kubeflow.folder_markers import (
    NoStorageClientError,
    remove_markers,
    require_client,
)

ENTRYPOINT = "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"
COMMAND = ("python", "-m", "pipeline.orchestrators.kubeflow.step")

# The code comes with the image; settings, and hashes of code for caches, with the pipeline.
CODE_HASH_VARIABLE = "TWO_TOWER_CODE_HASH"

__all__ = ["CODE_HASH_VARIABLE", "COMMAND", "ENTRYPOINT", "components"]


def main() -> None:
    """Runs the step that `sys.argv` tells of."""
    _check_image()
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


def _check_image() -> None:
    compiled_with = os.environ.get(CODE_HASH_VARIABLE)
    if compiled_with in (None, found := application_hash()):
        return
    sys.exit(
        f"error: this image holds other code ({found}) than the pipeline was compiled with "
        f"({compiled_with}); build and push the image from the code that you compile with, under a "
        "new tag, and compile for it"
    )


if __name__ == "__main__":
    main()
