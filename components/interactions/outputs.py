"""Gives what an ingestion made its final places and names."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from components.beam_results import make_folder
from components.interactions.rejects import REJECTED_FILE, FileRejects, write_rejected
from components.interactions.report import REPORT_FILE
from components.interactions.spill import read_table
from components.interactions.write_stage import ADDED_ID, SplitFile

ADDED_FILE = "added_candidates.parquet"
_NONE_ADDED = pa.table({ADDED_ID: pa.array([], pa.string())})


def publish(files: Sequence[SplitFile], splits: Sequence[str], examples_dir: str) -> None:
    """Gives the files of the splits their final places below `examples_dir`."""
    sources, targets = [], []
    for split in splits:
        folder = make_folder(FileSystems.join(examples_dir, f"Split-{split}"))
        mine = [file for file in files if file.split == split]
        for file in mine:
            name = f"data_tfrecord-{file.bucket:05d}-of-{len(mine):05d}.gz"
            sources.append(file.path)
            targets.append(FileSystems.join(folder, name))
    FileSystems.rename(sources, targets)


def write_reports(
    report: Mapping[str, Any],
    rejected: Sequence[FileRejects],
    files: Sequence[SplitFile],
    rejected_dir: str,
    report_dir: str,
) -> None:
    """Writes the bad rows, the candidates that only training events have, and the report."""
    write_rejected(rejected, FileSystems.join(make_folder(rejected_dir), REJECTED_FILE))
    make_folder(report_dir)
    _write_added(files, FileSystems.join(report_dir, ADDED_FILE))
    with FileSystems.create(FileSystems.join(report_dir, REPORT_FILE)) as stream:
        stream.write(json.dumps(report, indent=2, ensure_ascii=False).encode() + b"\n")


def _write_added(files: Sequence[SplitFile], path: str) -> None:
    """Writes the candidate ids that only training events have, for a later index refresh."""
    tables = [read_table(file.added) for file in files if file.added is not None]
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
        pq.write_table(pa.concat_tables([_NONE_ADDED, *tables]), stream)
