"""Prints what the extra `server` of setup.py asks for, one requirement a line.

`uv pip compile setup.py --extra server` would add what the pipeline needs: TFX and Beam, which the
image of the model server must not hold.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import Distribution

from distutils.core import run_setup  # isort: skip  # Of setuptools, which has to come first.


def main() -> None:
    """Print the requirements."""
    setup_file = Path(__file__).resolve().parent.parent / "setup.py"
    distribution: Distribution = run_setup(str(setup_file), stop_after="init")
    print("\n".join(distribution.extras_require["server"]))


if __name__ == "__main__":
    main()
