"""Silence the messages that Beam prints while it is imported."""

import logging
import warnings


def silence_beam_import() -> None:
    """Silence Beam's import messages; call this before the first import of Beam.

    Beam warns about each cloud file system that is not installed, and Google's packages warn about
    the age of Python 3.10. Neither matters here: using a missing file system is an error anyway.
    """
    logging.getLogger("apache_beam.io.filesystems").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="google")
