"""Records of blessed and pushed models, as files under the pipeline root.

On a cluster a step cannot reach ML Metadata, so a run writes a record for later runs: one JSON
file per model, never changed, with a name that sorts by time.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from components import files
from components.errors import RecordError

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
    if any(known.model_uri == record.model_uri for _, known in _records(directory)):
        return
    name = f"{time.time_ns():020d}{_SUFFIX}"
    files.write_text(os.path.join(directory, name), json.dumps(asdict(record), indent=2) + "\n")


def find_record(
    directory: str,
    *,
    except_model: str | None = None,
    except_examples: str | None = None,
    before_span: int | None = None,
    why_not: Callable[[BlessedRecord], str] = lambda record: "",
) -> BlessedRecord | None:
    """Return the newest record, or None if there is none.

    With `before_span`, return the record of the latest span; if it has several, the newest of them.

    Args:
        directory: Folder of the records. It need not exist.
        except_model: URI of a model to skip.
        except_examples: URI of Examples; models that were fitted on them are skipped.
        before_span: Models whose data has this span, later spans or no spans are skipped.
        why_not: Returns the reason to skip a model, which is logged, or an empty string.

    Raises:
        RecordError: A record cannot be read, or its model is gone.
    """
    records = _records(directory)
    if before_span is not None:
        records.sort(key=lambda found: -1 if found[1].span is None else found[1].span, reverse=True)
    for path, record in records:
        if record.model_uri == except_model or record.examples_uri == except_examples:
            continue
        if before_span is not None and (record.span is None or record.span >= before_span):
            continue
        if problem := why_not(record):
            log.warning("%s is skipped: %s", record.model_uri, problem)
            continue
        if not files.exists(record.model_uri):
            raise RecordError(
                f"{path} names the model {record.model_uri}, which is gone; restore it, or remove "
                "the record to continue without it"
            )
        return record
    return None


def _records(directory: str) -> "list[tuple[str, BlessedRecord]]":
    """Return the records with their paths, newest first."""
    names = [
        name for name in files.list_folder(directory) if name.removesuffix(_SUFFIX).isdecimal()
    ]
    names.reverse()
    return [(path, _read(path)) for path in (os.path.join(directory, name) for name in names)]


def _read(path: str) -> BlessedRecord:
    try:
        return BlessedRecord(**json.loads(files.read_text(path)))
    except (TypeError, ValueError) as error:
        raise RecordError(f"{path} is not a record of a blessed model: {error}") from error
