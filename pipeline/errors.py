"""Errors of the pipeline, which commands report without a traceback.

PipelineError
├── ConfigError: a configuration is invalid or cannot be used
├── InitError: `two-tower init` cannot draft a configuration from the files
├── SchemaError: the curated schema cannot be read or written
├── DatasetError: a public dataset cannot be prepared
│   ├── DownloadError: its source cannot be reached
│   ├── ArchiveError: its archive is missing, incomplete or the wrong one
│   └── DestinationError: its folder cannot be written
├── RunInProgressError: another process holds the run lock of the project
├── UnknownRunError: the project has no run with that ID
├── EvaluationError: there is no model or no data to evaluate
├── MetadataUnreachableError: the database of ML Metadata cannot be reached
├── UnknownComponentError: the pipeline has no component with that name
├── ComponentFailedError: a component failed, or a gate refused the run
├── CleaningError: old runs cannot be cleaned up
├── SubmitError: a compiled pipeline cannot be submitted to a cluster
├── ReleaseError: a release cannot be made as requested
└── RequestLogError: a request log cannot be read
"""

import difflib
from collections.abc import Sequence


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return the end of a sentence: a suggestion from `known`, or "." if no word is similar."""
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean `{nearest[0]}`?" if nearest else "."


def reason_of(error: Exception) -> str:
    """Return the reason of an error without the path, for messages that start with the path."""
    return str(getattr(error, "strerror", None) or error)


class PipelineError(Exception):
    """Base class; a command prints the message, which says what to do, and exits with status 1."""


class ConfigError(PipelineError):
    """A configuration is invalid or cannot be used; a retry fails until it is changed."""


class InitError(PipelineError):
    """`two-tower init` cannot draft a configuration from the files."""


class SchemaError(PipelineError):
    """The curated schema cannot be read or written."""


class DatasetError(PipelineError):
    """A public dataset cannot be prepared."""


class DownloadError(DatasetError):
    """The source of the dataset cannot be reached; a retry may succeed."""


class ArchiveError(DatasetError):
    """The archive is missing, incomplete or the wrong one; a retry needs the right archive."""


class DestinationError(DatasetError):
    """The dataset's folder cannot be written."""


class RunInProgressError(PipelineError):
    """Another process holds the run lock of the project; retry when that process has ended."""


class UnknownRunError(PipelineError):
    """The project has no run with that ID, or several runs begin with it."""


class EvaluationError(PipelineError):
    """There is no model or no data to evaluate."""


class MetadataUnreachableError(PipelineError):
    """The database of ML Metadata does not answer, or refuses the connection."""


class UnknownComponentError(PipelineError):
    """The pipeline has no component with that name."""


class ComponentFailedError(PipelineError):
    """A component failed, or a gate refused the run; `__cause__` is the original exception."""

    def __init__(self, component: str, reason: str) -> None:
        super().__init__(f"{component}: {reason}")
        self.component = component
        self.reason = reason


class CleaningError(PipelineError):
    """Old runs cannot be cleaned up; nothing was removed."""


class SubmitError(PipelineError):
    """A compiled pipeline cannot be submitted; the message says whether a retry may help."""


class ReleaseError(PipelineError):
    """A release cannot be made as requested; the message lists the alternatives."""


class RequestLogError(PipelineError):
    """A request log cannot be read; the message names the file and the line or record."""
