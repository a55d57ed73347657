"""A step of a compiled pipeline: TFX's own container entrypoint, sooner.

Usage: python -m pipeline.kubeflow.step ARGUMENTS, those of the entrypoint.
"""

import runpy
import sys

import components  # before TFX: it makes lazy what no component of ours needs
from pipeline.kubeflow.executor_input import complete

ENTRYPOINT = "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"
COMMAND = ("python", "-m", "pipeline.kubeflow.step")

__all__ = ["COMMAND", "ENTRYPOINT", "components"]

if __name__ == "__main__":
    sys.argv[1:] = complete(sys.argv[1:])
    runpy.run_module(ENTRYPOINT, run_name="__main__", alter_sys=True)
