"""State of the inputs, settings and code that a run depends on, without reading the data.

Runs with equal states have the same result, so a run is skipped if the state has not changed.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.interactions.config import SOURCES, query_fingerprint
from components.interactions.spans.choice import choose_spans
from components.interactions.spans.pattern import ChosenSpans, list_files
from pipeline.code_hash import application_hash
from pipeline.config.project import PipelineConfig


@dataclass(frozen=True)
class InputState:
    """Hashes of the files, settings and code that a run depends on, and its newest spans.

    Attributes:
        files: Hash of the names, sizes and modification times of the input files.
        settings: Hash of the configuration, the schema and the code.
        span: Newest span of the events, as text; empty if they have no spans.
        catalogue: Number of the catalogue's span, as text; empty if it has none.
    """

    files: str
    settings: str
    span: str
    num_files: int
    catalogue: str = ""


def input_state(config: PipelineConfig, catalogue_through: int | None = None) -> InputState:
    """Return the state of the inputs of a run.

    A rewritten file is considered changed, even if its content is the same. A BigQuery query is
    considered changed if its fingerprint has changed. For `catalogue_through`, see `choose_spans`.

    Raises:
        IngestError: A file or a span is missing.
    """
    ingest = choose_spans(config.ingestion, catalogue_through=catalogue_through)
    chosen = ingest.chosen_spans
    listed: list[list[Any]] = []
    for source in SOURCES:
        pattern = getattr(ingest.data, source)
        if pattern is None:
            continue
        if (query := query_fingerprint(ingest.data, source)) is not None:
            listed.append([source, query])
            continue
        spans = () if chosen is None else chosen.of(source)
        wanted = {file.path for span in spans for file in span.files}
        listed += [
            [source, file.path, file.size_bytes, file.modified_ns]
            for file in list_files(pattern)
            if not spans or file.path in wanted
        ]
    interactions = () if chosen is None else chosen.interactions
    span = chosen.show(interactions[-1].span) if chosen is not None and interactions else ""
    # `events.spans` only selects files; `drift` and `candidates.max_removed` only accept runs. None
    # of them changes the result.
    excluded: dict[str, Any] = {"events": {"spans"}, "candidates": {"max_removed"}, "drift": True}
    settings = [config.model_dump(mode="json", exclude=excluded), _schema(config)]
    return InputState(
        files=_digest([listed, [span.version for span in interactions]]),
        settings=_digest([*settings, application_hash()]),
        span=span,
        num_files=len(listed),
        catalogue=_catalogue(chosen),
    )


def refresh_state(config: PipelineConfig) -> InputState:
    """Return the state of an index refresh, which only contains the span of the catalogue.

    Raises:
        IngestError: There is no catalogue.
    """
    chosen = choose_spans(config.ingestion, ["candidates"]).chosen_spans
    return InputState(files="", settings="", span="", num_files=0, catalogue=_catalogue(chosen))


def _catalogue(chosen: ChosenSpans | None) -> str:
    return "" if chosen is None or chosen.candidates is None else str(chosen.candidates.span)


def _schema(config: PipelineConfig) -> str:
    if "://" in config.schema_file:
        return config.schema_file  # Not read here; TFX's cache detects changes of its content.
    path = Path(config.schema_file)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
