"""Reads the catalogue anew, beside the events that a model was fitted on."""

from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.beam_results import MakePipeline, make_folder, remove_folder, run_and_collect
from components.interactions.buckets import IngestPlan, Segment, Sizing, make_plan
from components.interactions.config import IngestConfig, Source
from components.interactions.errors import NoInputError
from components.interactions.ingest import check_files
from components.interactions.read_stage import ReadFacts, read_and_order
from components.interactions.report import ADDED_FILE, make_catalogue_report, write_reports
from components.interactions.sources.bigquery import export_queries
from components.interactions.sources.files import find_files
from components.interactions.write_stage import (
    ADDED_ID,
    OrderedBuckets,
    id_segments,
    publish,
    write_candidates,
)

_SOURCES: tuple[Source, ...] = ("candidates",)
_SPLITS = ("candidates",)


def ingest_catalogue(
    config: IngestConfig,
    fitted_report_dir: str,
    examples_dir: str,
    rejected_dir: str,
    report_dir: str,
    make_pipeline: MakePipeline,
    sizing: Sizing = Sizing(),
) -> dict[str, Any]:
    """Turns the catalogue's files into the split `candidates`.

    It holds the candidates of the files, and those that only the training events had when the
    model was fitted. So a row that was removed from the files is a candidate no more, and one that
    never stood there stays.

    Args:
        config: The settings; `candidates.file` must be set.
        fitted_report_dir: The report of the ingestion that the model was fitted on.
        examples_dir: Gets the folder `Split-candidates`; temporary files lie here too.
        rejected_dir: Gets `rejected.parquet`.
        report_dir: Gets `ingest_report.json` and `added_candidates.parquet`.
        make_pipeline: Returns a new Beam pipeline; called twice, and once more for a query.
        sizing: What bounds the memory of a worker.

    Returns:
        The report.

    Raises:
        IngestError: The input cannot become Examples; the message says why.
    """
    if config.data.candidates is None:
        raise NoInputError(
            "without `candidates.file` the candidates come from the events; only a run reads them"
        )
    spill_dir = make_folder(FileSystems.join(examples_dir, ".spill"))
    try:
        config = export_queries(config, spill_dir, make_pipeline, _SOURCES)
        files = find_files(config, _SOURCES)
        plan = make_plan(config, files, spill_dir, sizing)
        facts = ReadFacts.collect(
            run_and_collect(
                make_pipeline, lambda pipeline: read_and_order(pipeline, plan), spill_dir
            )
        )
        check_files(plan, facts)
        paths = {bucket.bucket: bucket.path for bucket in facts.buckets}
        seen = _event_candidates(plan, fitted_report_dir)
        written = run_and_collect(
            make_pipeline,
            lambda pipeline: write_candidates(
                pipeline,
                plan,
                OrderedBuckets({}, {}, paths),
                pipeline | "EventCandidates" >> beam.Create(seen),
            ),
            spill_dir,
        )
        report = make_catalogue_report(plan, facts, written)
        publish(written, _SPLITS, examples_dir)
        write_reports(report, facts.rejects, written, rejected_dir, report_dir)
    finally:
        remove_folder(spill_dir)
    return report


def _event_candidates(plan: IngestPlan, fitted_report_dir: str) -> list[tuple[int, Segment]]:
    path = FileSystems.join(fitted_report_dir, ADDED_FILE)
    if not FileSystems.exists(path):
        raise NoInputError(
            f"{path} is missing, which says what candidates only the events had when the model "
            "was fitted; run the whole pipeline once"
        )
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
        ids = pq.read_table(stream).column(ADDED_ID)
    chunks = [chunk for chunk in ids.chunks if len(chunk)]
    return list(id_segments(plan, pa.concat_arrays(chunks))) if chunks else []
