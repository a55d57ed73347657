"""A fit that several processes share: one process a machine, TF_CONFIG says which is which.

TensorFlow wants the cluster configured before anything else is computed, and in the pipeline's
process other components have computed. So each worker's fit has a process of its own, the chief's
too: `run_fn` starts it and waits. The others are started by whoever runs the cluster, with the same
command, the file that the chief has left, and their own TF_CONFIG:

    python -m models.training.multi_worker --arguments runs/NAME/checkpoints/workers.json
"""

import argparse
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from tfx.components.trainer.fn_args_utils import FnArgs

from models.training.fit_state import progress
from models.training.strategy import ClusterError, is_chief, require_cluster

# Beside the checkpoints, which all workers must be able to read.
ARGUMENTS_FILE = "workers.json"
_PASSED_ON = (
    "train_files",
    "eval_files",
    "transform_output",
    "serving_model_dir",
    "model_run_dir",
    "base_model",
    "hyperparameters",
    "custom_config",
)
_MODULE = "models.training.multi_worker"
_ROOT = Path(__file__).resolve().parents[2]


class WorkerFailedError(Exception):
    """The chief's process failed; its own words are in the run's log."""


def fit_as_chief(fn_args: FnArgs, folder: Path) -> None:
    """Fits in a process of its own, together with the other workers; returns when it is exported.

    Args:
        fn_args: Of `run_fn`.
        folder: Gets `ARGUMENTS_FILE` while the fit is under way.

    Raises:
        ClusterError: TF_CONFIG is missing, wrong, or makes this process another worker.
        WorkerFailedError: The process ended with an error.
    """
    kind, index = require_cluster()
    if not is_chief():
        raise ClusterError(
            f"the pipeline runs where the chief is, and TF_CONFIG makes this {kind} {index}; start "
            "the other workers with `python -m models.training.multi_worker`"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ARGUMENTS_FILE
    incoming = path.with_suffix(".incoming")
    incoming.write_text(json.dumps({name: getattr(fn_args, name) for name in _PASSED_ON}))
    os.replace(incoming, path)
    progress.info(
        "waiting for the other workers: python -m models.training.multi_worker --arguments %s", path
    )
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-m", _MODULE, "--arguments", str(path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            check=False,
        )
    finally:
        path.unlink(missing_ok=True)
    if done.returncode:
        raise WorkerFailedError(
            f"the chief's process of the fit ended with code {done.returncode}; what it said is in "
            "the run's log"
        )


def main() -> None:
    """Fits as the worker that TF_CONFIG says; the chief exports."""
    parser = argparse.ArgumentParser(description="One worker of a fit.")
    parser.add_argument("--arguments", required=True, help=f"The chief's {ARGUMENTS_FILE}.")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    from models.training.trainer import fit_and_export

    passed = json.loads(Path(arguments.arguments).read_text())
    fit_and_export(FnArgs(**passed))


if __name__ == "__main__":
    main()
