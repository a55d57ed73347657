"""Read the current catalogue without reading the events again."""

from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from components import files
from components.beam_results import MakePipeline, run_and_collect
from components.interactions.buckets import IngestPlan, Segment, Sizing
from components.interactions.config import IngestConfig, Source
from components.interactions.errors import NoInputError
from components.interactions.ingest import bucket_paths, read_sources
from components.interactions.report import ADDED_FILE, make_catalogue_report, write_reports
from components.interactions.sources.bigquery import export_queries
from components.interactions.write_stage import (
    ADDED_ID,
    OrderedBuckets,
    id_segments,
    publish,
    write_candidates,
)

_SOURCES: tuple[Source, ...] = ("candidates",)


def ingest_catalogue(
    config: IngestConfig,
    trained_report_dir: str,
    examples_dir: str,
    rejected_dir: str,
    report_dir: str,
    make_pipeline: MakePipeline,
    sizing: Sizing = Sizing(),
) -> dict[str, Any]:
    """Convert the catalogue files to Examples in the split `candidates`, and return the report.

    The split has the candidates in the files, and those that occurred only in the training events.
    A candidate whose row was removed from the files is therefore dropped, while a candidate that
    never had a row is kept.

    `candidates.file` must be set. `trained_report_dir` is the folder of the report of the ingestion
    that the model was trained on. The other arguments and the errors are those of
    `components.interactions.ingest.ingest`.
    """
    if config.data.candidates is None:
        raise NoInputError(
            "reading the catalogue alone needs `candidates.file`; without it the candidates come "
            "from the events, which only a full run reads"
        )
    spill_dir = files.make_folder(f"{examples_dir}/.spill")
    try:
        config = export_queries(config, spill_dir, make_pipeline, _SOURCES)
        plan, facts = read_sources(config, _SOURCES, spill_dir, make_pipeline, sizing)
        seen = _event_candidates(plan, trained_report_dir)
        buckets = OrderedBuckets({}, {}, bucket_paths(facts, "candidates"))
        written = run_and_collect(
            make_pipeline,
            lambda pipeline: write_candidates(
                pipeline, plan, buckets, pipeline | "EventCandidates" >> beam.Create(seen)
            ),
            spill_dir,
        )
        report = make_catalogue_report(plan, facts, written)
        publish(written, _SOURCES, examples_dir)
        write_reports(report, facts.rejects, written, rejected_dir, report_dir)
    finally:
        files.remove(spill_dir)
    return report


def _event_candidates(plan: IngestPlan, trained_report_dir: str) -> list[tuple[int, Segment]]:
    path = f"{trained_report_dir}/{ADDED_FILE}"
    if not files.exists(path):
        raise NoInputError(
            f"{path} is missing, which lists the candidates that only the events had when the "
            "model was trained; run the whole pipeline once"
        )
    with files.open_to_read(path) as stream:
        ids = pq.read_table(stream).column(ADDED_ID)
    chunks = [chunk for chunk in ids.chunks if len(chunk)]
    return list(id_segments(plan, pa.concat_arrays(chunks))) if chunks else []
