"""Records of blessed and pushed models, as files under the pipeline root.

On a cluster a step cannot reach ML Metadata, so a run writes a record for later runs: one JSON
file per model, never changed, with a name that sorts by time.
"""

import json
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from components import files
from components.errors import RecordError
from components.interactions.splits.held_out import HeldOut, why_seen

log = logging.getLogger(__name__)

_SUFFIX = ".json"


@dataclass(frozen=True)
class BlessedRecord:
    """A model that passed every gate.

    Attributes:
        model_uri: URI of Trainer's Model artifact.
        examples_uri: URI of the transformed Examples that the model was fitted on.
        pushed_version: The version under which it was pushed.
        span: Number of the newest span in its data; None if the data has no spans.
        held_out: What was held out of it (`HeldOut.to_json`); empty if that is not known.
    """

    model_uri: str
    examples_uri: str
    pushed_version: str
    span: int | None = None
    held_out: str = ""


def write_record(directory: str, record: BlessedRecord) -> None:
    """Add a record, unless the model has one."""
    if all(known.model_uri != record.model_uri for known in read_records(directory)):
        path = os.path.join(directory, f"{time.time_ns():020d}{_SUFFIX}")
        files.write_text(path, json.dumps(asdict(record), indent=2) + "\n")


def read_records(directory: str) -> list[BlessedRecord]:
    """Return the records in a folder, newest first; empty if it does not exist.

    Raises:
        RecordError: A record cannot be read.
    """
    records = []
    for name in reversed(files.list_folder(directory)):
        if not name.removesuffix(_SUFFIX).isdecimal():
            continue
        path = os.path.join(directory, name)
        try:
            records.append(BlessedRecord(**json.loads(files.read_text(path))))
        except (TypeError, ValueError) as error:
            raise RecordError(f"{path} is not a record of a blessed model: {error}") from error
    return records


def warm_start_record(
    newest_first: Iterable[BlessedRecord], span: int | None, held_out: str
) -> BlessedRecord | None:
    """Return the newest model that cannot have been trained on the events that are held out now.

    `newest_first` has models that were fitted on other Examples, `span` is the newest span of the
    data, and `held_out` the result of `HeldOut.to_json`. With spans, only models of earlier spans
    are considered, and the newest model is the one of the latest span.
    """
    if span is not None:
        earlier = [found for found in newest_first if found.span is not None and found.span < span]
        newest_first = sorted(earlier, key=lambda found: found.span or 0, reverse=True)
    now = HeldOut.parse(held_out)
    for record in newest_first:
        problem = why_seen(now, HeldOut.parse(record.held_out))
        if not problem:
            return record
        log.warning("the fit does not start from %s: %s", record.model_uri, problem)
    return None
