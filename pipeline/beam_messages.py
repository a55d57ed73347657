"""Keeps what Beam says while it is imported off the terminal."""

import logging
import warnings


def silence_beam_import() -> None:
    """Call before the first import of Beam.

    It tells of each cloud filesystem that is not installed, and google's packages of Python 3.10's
    age; neither matters to a reader of local files, who gets an error where one is needed.
    """
    logging.getLogger("apache_beam.io.filesystems").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")
