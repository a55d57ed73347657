"""Errors of the components.

ComponentError                  A component cannot do its work. Running again does not help, except
│                               where it says so.
├── NotBlessedError             A gate refused the data or the model.
│   ├── DriftError              A span differs too much from an accepted one.
│   ├── IndexRefusedError       The index fails a check of its gate.
│   └── CatalogueRefusedError   Too many candidates in service would vanish.
├── LostProfileError            The profile of an accepted span is missing.
├── AnomaliesError              The data does not fit the schema.
├── OtherSchemaError            The schema file is not the one that the pipeline was created with.
├── RecordError                 A record of a blessed model cannot be used.
├── EmbeddingError              The catalogue cannot be embedded.
├── EmbeddingFilesError         The files of an embedded catalogue are missing or incomplete.
└── BatchError                  Recommendations cannot be written to files.

Errors of ingestion are in `components.interactions.errors`.
"""

from collections.abc import Mapping
from typing import Any


class ComponentError(Exception):
    """Base class; running again with the same data and settings does not help."""


class NotBlessedError(ComponentError):
    """A gate refused the data or the model.

    Attributes:
        report: Content of the gate's report, because TFX removes the outputs of a failed component;
            empty if the report is in another artifact.
    """

    def __init__(self, message: str, report: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.report = report or {}


class DriftError(NotBlessedError):
    """A span differs too much from an accepted one."""


class IndexRefusedError(NotBlessedError):
    """The index fails a check of its gate."""


class CatalogueRefusedError(NotBlessedError):
    """Too many candidates in service would vanish, or they cannot be compared."""


class LostProfileError(ComponentError):
    """The profile of an accepted span is missing; a retry succeeds once it is restored."""


class AnomaliesError(ComponentError):
    """The data does not fit the schema. Change one of them before the next run."""


class OtherSchemaError(ComponentError):
    """The schema file does not have the given hash."""


class RecordError(ComponentError):
    """A record cannot be used until it is removed."""


class EmbeddingError(ComponentError):
    """The catalogue cannot be embedded."""


class EmbeddingFilesError(ComponentError):
    """The files of a catalogue are missing or incomplete, or cannot be written."""


class BatchError(ComponentError):
    """The model cannot answer the request, or the output cannot be written."""
