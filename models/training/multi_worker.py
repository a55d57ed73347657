"""Command of one worker of a `multi_worker` fit.

The pipeline runs as the chief, which starts this command for itself and writes a file of arguments.
Start it on each other machine with the TF_CONFIG of that worker:

    python -m models.training.multi_worker --arguments runs/NAME/checkpoints/workers.json
"""

import argparse
import json
import logging
from pathlib import Path

from tfx.components.trainer.fn_args_utils import FnArgs

from models.training.distribution import ARGUMENTS_FILE
from models.training.trainer import fit_and_export


def main() -> None:
    """Train as the task that TF_CONFIG names; only the chief exports."""
    parser = argparse.ArgumentParser(description="Run one worker of a fit.")
    parser.add_argument("--arguments", required=True, help=f"{ARGUMENTS_FILE} of the chief")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    fit_and_export(FnArgs(**json.loads(Path(arguments.arguments).read_text())))


if __name__ == "__main__":
    main()
