"""What the index refuses."""

from components.blessings import NotBlessedError


class IndexBuildError(Exception):
    """Base of what the index refuses."""


class IndexRefusedError(IndexBuildError, NotBlessedError):
    """The index misses a threshold of its gate.

    Other settings may help, running again does not.
    """
