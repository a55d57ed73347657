"""Errors that the pipeline's code raises for its callers to report.

PipelineError
├── ConfigError: a configuration is invalid or cannot be used
├── InitError: `two-tower init` cannot draft a configuration from the files
├── SchemaError: the curated schema cannot be read or written
├── DatasetError: a public dataset cannot be prepared
│   ├── DownloadError: its source cannot be reached
│   ├── ArchiveError: its archive is missing, incomplete or another one
│   └── DestinationError: its folder cannot be written
├── RunInProgressError: another process works on the configuration's runs
├── NoExamplesError: no run has written Examples yet
├── EvaluationError: there is no model or no data to evaluate
├── MetadataUnreachableError: the database of ML Metadata cannot be reached
├── UnknownComponentError: the pipeline has no component of that name
├── ComponentFailedError: a component failed, or a gate refused
├── CleaningError: old runs cannot be cleaned up
├── SubmitError: a compiled pipeline cannot be submitted to a cluster
├── ReleaseError: a release cannot be made as requested
└── RequestLogError: a log of requests cannot be read
"""


class PipelineError(Exception):
    """Base class; the message says what to do, so a command prints it and exits with status 1."""


class ConfigError(PipelineError):
    """A configuration is invalid or cannot be used; running again does not help."""


class InitError(PipelineError):
    """`two-tower init` cannot draft a configuration from the files."""


class SchemaError(PipelineError):
    """The curated schema cannot be read or written."""


class DatasetError(PipelineError):
    """A public dataset cannot be prepared."""


class DownloadError(DatasetError):
    """The source cannot be reached. A retry helps once the network or the mirror is back."""


class ArchiveError(DatasetError):
    """The archive is missing, incomplete or another one. A retry needs another archive."""


class DestinationError(DatasetError):
    """The dataset's folder cannot be written. A retry helps once it can be."""


class RunInProgressError(PipelineError):
    """Another process works on the configuration's runs. A retry helps once it has ended."""


class NoExamplesError(PipelineError):
    """No run has written Examples yet; run the pipeline first."""


class EvaluationError(PipelineError):
    """There is no model or no data to evaluate."""


class MetadataUnreachableError(PipelineError):
    """The database of ML Metadata does not answer, or refuses the connection."""


class UnknownComponentError(PipelineError):
    """The pipeline has no component of that name."""


class ComponentFailedError(PipelineError):
    """A component failed; what it raised, if anything, is `__cause__`.

    Attributes:
        component: Name of the component.
        reason: The message of what it raised.
    """

    def __init__(self, component: str, reason: str) -> None:
        super().__init__(f"{component}: {reason}")
        self.component = component
        self.reason = reason


class CleaningError(PipelineError):
    """Old runs cannot be cleaned up; nothing was removed."""


class SubmitError(PipelineError):
    """A compiled pipeline cannot be submitted; the message says whether a retry may help."""


class ReleaseError(PipelineError):
    """A release cannot be made as requested; the message says what would be possible."""


class RequestLogError(PipelineError):
    """A log of requests cannot be read; the message has the file and the line or record."""
