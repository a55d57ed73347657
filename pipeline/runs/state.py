"""What a run depends on, told without reading it: enough to see that nothing has changed."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.interactions.spans.pattern import ChosenSpans
from components.interactions.spans.listing import ListedFile, list_files
from components.interactions.config import query_fingerprint
from components.interactions.config import SOURCES

from components.interactions.spans.choice import choose_spans
from pipeline.code_hash import application_hash
from pipeline.config.project import PipelineConfig


@dataclass(frozen=True)
class InputState:
    """Files, settings and code.

    Attributes:
        files: Hash of the names, sizes and times of the input files.
        settings: Hash of the configuration, the schema and the code.
        span: The newest span that is read, as people write it; empty without spans.
        num_files: How many input files there are.
        catalogue: Number of the catalogue's span; empty where it has none.
    """

    files: str
    settings: str
    span: str
    num_files: int
    catalogue: str = ""


def input_state(config: PipelineConfig, catalogue_through: int | None = None) -> InputState:
    """Looks at the input files and settings of a run.

    A file that was written anew counts as changed, also where its content is the same; so does a
    query that each run executes.

    Args:
        config: The use.
        catalogue_through: See `choose_spans`.

    Raises:
        IngestError: A file or a span is missing.
    """
    ingest = choose_spans(config.ingestion, catalogue_through=catalogue_through)
    chosen = ingest.chosen_spans
    files: dict[str, list[ListedFile]] = {}
    for source in SOURCES:
        pattern = getattr(ingest.data, source)
        if pattern is None:
            continue
        if (query := query_fingerprint(ingest.data, source)) is not None:
            files[source] = [ListedFile(query, 0, 0)]
            continue
        spans = () if chosen is None else chosen.of(source)
        wanted = {file.path for span in spans for file in span.files}
        files[source] = [file for file in list_files(pattern) if not spans or file.path in wanted]
    listed = [
        [source, file.path, file.size_bytes, file.modified_ns]
        for source, found in files.items()
        for file in found
    ]
    interactions = () if chosen is None else chosen.interactions
    span = chosen.show(interactions[-1].span) if chosen is not None and interactions else ""
    # How spans are compared is no part of what comes of a run that was let pass.
    left_out: dict[str, Any] = {"events": {"spans"}, "drift": True}
    settings = [config.model_dump(mode="json", exclude=left_out), *_schema(config)]
    return InputState(
        files=_digest([listed, [span.version for span in interactions]]),
        settings=_digest([*settings, application_hash()]),
        span=span,
        num_files=len(listed),
        catalogue=_catalogue(chosen),
    )


def refresh_state(config: PipelineConfig) -> InputState:
    """Looks at what an index refresh reads: the span of its catalogue, and nothing to compare.

    Raises:
        IngestError: There is no catalogue.
    """
    chosen = choose_spans(config.ingestion, ["candidates"]).chosen_spans
    return InputState(files="", settings="", span="", num_files=0, catalogue=_catalogue(chosen))


def _catalogue(chosen: ChosenSpans | None) -> str:
    return "" if chosen is None or chosen.candidates is None else str(chosen.candidates.span)


def _schema(config: PipelineConfig) -> list[str]:
    if "://" in config.schema_file:  # held against what it was by the cache, if the run goes on
        return [config.schema_file]
    path = Path(config.schema_file)
    return [path.read_text(encoding="utf-8") if path.is_file() else ""]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
