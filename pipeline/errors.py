"""Errors that the pipeline's code raises for its callers to report.

PipelineError
├── ConfigError: a configuration cannot be used as it is
├── InitError: `two-tower init` cannot draft a configuration from the files
└── SchemaError: the curated schema cannot be read or written
"""


class PipelineError(Exception):
    """Base class; the message says what to do, so a command prints it and exits with status 1."""


class ConfigError(PipelineError):
    """A configuration cannot be used as it is; running again does not help."""


class InitError(PipelineError):
    """`two-tower init` cannot draft a configuration from the files."""


class SchemaError(PipelineError):
    """The curated schema cannot be read or written."""
