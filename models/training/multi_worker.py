"""Command that runs one worker of a training run with `strategy: multi_worker`.

The pipeline runs as the chief: it writes the arguments to a file and runs this command for itself.
Run the command on each other machine with the TF_CONFIG of that worker:

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
    """Train as the task in TF_CONFIG; only the chief exports the model."""
    parser = argparse.ArgumentParser(description="Run one worker of a fit.")
    parser.add_argument("--arguments", required=True, help=f"{ARGUMENTS_FILE} of the chief")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    fit_and_export(FnArgs(**json.loads(Path(arguments.arguments).read_text())))


if __name__ == "__main__":
    main()
