import json
from pathlib import Path

import pytest

from components.blessed_models.records import (
    BlessedRecord,
    read_records,
    warm_start_record,
    write_record,
)
from components.errors import RecordError


def test_records_are_read_newest_first_and_a_model_has_one(tmp_path: Path) -> None:
    folder = str(tmp_path / "records")
    assert read_records(folder) == []
    monday, tuesday = (BlessedRecord(day, "examples", "1") for day in ("monday", "tuesday"))
    for record in (monday, tuesday, monday):
        write_record(folder, record)
    assert read_records(folder) == [tuesday, monday]


def test_a_record_that_is_being_written_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "incoming-00000000000000000001.json").write_text("{")
    assert read_records(str(tmp_path)) == []


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"model_uri": "m"})])
def test_an_unreadable_record_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "00000000000000000001.json").write_text(content)
    with pytest.raises(RecordError, match=r"0001\.json is not a record"):
        read_records(str(tmp_path))


def test_the_newest_model_of_the_latest_earlier_span_is_taken() -> None:
    spans = {"unknown": None, "fifth": 5, "again": 9, "ninth": 9, "tenth": 10}  # newest first
    held_out = json.dumps({"method": "random", "seed": 1, "share": 0.1})
    records = [BlessedRecord(name, "", "1", span, held_out) for name, span in spans.items()]
    wanted = {None: "unknown", 11: "tenth", 10: "again", 9: "fifth", 5: None}
    for span, name in wanted.items():
        found = warm_start_record(records, span, held_out)
        assert (found and found.model_uri) == name
