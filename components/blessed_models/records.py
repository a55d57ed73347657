"""Records of the models that were blessed and pushed, as files below the pipeline's root.

On a cluster ML Metadata is out of a step's reach, so a run leaves a record that later runs find:
one JSON file each, written once and never changed, whose name sorts by time.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from tfx.dsl.io import fileio
from tfx.utils import io_utils

log = logging.getLogger(__name__)

_SUFFIX = ".json"
_INCOMING_PREFIX = "incoming-"


class RecordError(Exception):
    """A record cannot be used; running again does not help until it is removed."""


@dataclass(frozen=True)
class BlessedRecord:
    """A model that every gate let pass.

    Attributes:
        model_uri: Of the Model artifact that Trainer left.
        examples_uri: Of the transformed Examples that it was fitted on.
        pushed_version: Under which it was pushed.
        span: Number of the newest span that it saw; None: its data has no spans.
        held_out: What was held out of it, see `HeldOut.to_json`; empty where it is not known.
    """

    model_uri: str
    examples_uri: str
    pushed_version: str
    span: int | None = None
    held_out: str = ""


def write_record(directory: str, record: BlessedRecord) -> None:
    """Adds a record, unless the model has one."""
    fileio.makedirs(directory)
    if any(known.model_uri == record.model_uri for _, known in _records(directory)):
        return
    name = f"{time.time_ns():020d}{_SUFFIX}"
    # Names that begin otherwise are no records: a reader never sees half a file.
    aside = os.path.join(directory, _INCOMING_PREFIX + name)
    io_utils.write_string_file(aside, json.dumps(asdict(record), indent=2) + "\n")
    fileio.rename(aside, os.path.join(directory, name))


def find_record(
    directory: str,
    *,
    except_model: str | None = None,
    except_examples: str | None = None,
    before_span: int | None = None,
    why_not: Callable[[BlessedRecord], str] = lambda record: "",
) -> BlessedRecord | None:
    """Returns the newest record, or None where there is none.

    Of models of spans before `before_span` that is the one of the latest span, and of several the
    one that was written last.

    Args:
        directory: Of the records; it need not exist.
        except_model: Uri of a model that does not count.
        except_examples: Uri of Examples; a model that was fitted on them does not count.
        before_span: A model that saw this span or later ones does not count, nor does one without.
        why_not: Why a model does not count else; empty where it does. The log has it.

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
            log.warning("%s is passed over: %s", record.model_uri, problem)
            continue
        if not fileio.exists(record.model_uri):
            raise RecordError(
                f"{path} names the model {record.model_uri}, which is gone; bring it back, or "
                "remove the record to do without it"
            )
        return record
    return None


def _records(directory: str) -> "list[tuple[str, BlessedRecord]]":
    """Newest first."""
    if not fileio.exists(directory):
        return []
    names = sorted(
        (name for name in fileio.listdir(directory) if name.removesuffix(_SUFFIX).isdecimal()),
        reverse=True,
    )
    return [(path, _read(path)) for path in (os.path.join(directory, name) for name in names)]


def _read(path: str) -> BlessedRecord:
    try:
        return BlessedRecord(**json.loads(io_utils.read_string_file(path)))
    except (TypeError, ValueError) as error:
        raise RecordError(f"{path} is no record of a blessed model: {error}") from error
