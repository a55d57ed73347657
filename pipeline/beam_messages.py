"""Suppression of the log messages and warnings that importing Beam causes."""

import logging
import warnings


def silence_beam_import() -> None:
    """Suppress Beam's import messages; call this before the first import of Beam.

    Beam warns about each cloud file system that is not installed, and Google's packages warn that
    support for Python 3.10 ends. Neither needs action: using a missing file system raises an error.
    """
    logging.getLogger("apache_beam.io.filesystems").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")
