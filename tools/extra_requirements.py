"""Prints what an extra of setup.py asks for, one requirement a line.

`uv pip compile setup.py --extra server` would add what the pipeline needs: TFX and Beam, which the
image of the model server and the environment of Airflow must not hold.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Distribution

from distutils.core import run_setup  # isort: skip  # Of setuptools, which has to come first.


def main(extra: str) -> None:
    """Print the requirements of `extra`."""
    setup_file = Path(__file__).resolve().parent.parent / "setup.py"
    distribution: Distribution = run_setup(str(setup_file), stop_after="init")
    print("\n".join(distribution.extras_require[extra]))


if __name__ == "__main__":
    main(sys.argv[1])
