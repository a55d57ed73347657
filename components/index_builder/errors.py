"""What the index refuses."""

from collections.abc import Mapping
from typing import Any

from components.artifacts import NotBlessedError


class IndexBuildError(Exception):
    """Base of what the index refuses."""


class IndexRefusedError(IndexBuildError, NotBlessedError):
    """The index misses a threshold of its gate.

    Other settings may help, running again does not.

    Attributes:
        report: What `REPORT_FILE` would hold: TFX removes the files of a component that fails.
    """

    def __init__(self, message: str, report: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.report = report
