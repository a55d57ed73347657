import json
from dataclasses import replace
from pathlib import Path

import pytest

from components.blessed_models.records import BlessedRecord, RecordError, find_record, write_record


def record(root: Path, name: str, examples: str = "examples") -> BlessedRecord:
    model = root / "models" / name
    model.mkdir(parents=True, exist_ok=True)
    return BlessedRecord(str(model), f"{root}/{examples}", pushed_version="1")


def test_finds_nothing_before_the_first_run(tmp_path: Path) -> None:
    assert find_record(str(tmp_path / "records")) is None


def test_finds_the_newest(tmp_path: Path) -> None:
    records = str(tmp_path / "records")
    for name in ("monday", "tuesday"):
        write_record(records, record(tmp_path, name))
    assert find_record(records) == record(tmp_path, "tuesday")


def test_a_model_is_not_held_against_itself(tmp_path: Path) -> None:
    records = str(tmp_path / "records")
    monday, tuesday = record(tmp_path, "monday"), record(tmp_path, "tuesday")
    for one in (monday, tuesday):
        write_record(records, one)
    assert find_record(records, except_model=tuesday.model_uri) == monday


def test_a_fit_does_not_go_on_from_one_on_the_same_examples(tmp_path: Path) -> None:
    records = str(tmp_path / "records")
    monday = record(tmp_path, "monday", "span-1")
    for one in (monday, record(tmp_path, "tuesday", "span-2")):
        write_record(records, one)
    assert find_record(records, except_examples=f"{tmp_path}/span-2") == monday


def test_a_model_that_is_pushed_again_keeps_its_place(tmp_path: Path) -> None:
    records = str(tmp_path / "records")
    monday, tuesday = record(tmp_path, "monday"), record(tmp_path, "tuesday")
    for one in (monday, tuesday, monday):
        write_record(records, one)
    assert find_record(records) == tuesday
    assert len(list(Path(records).iterdir())) == 2


def test_a_record_that_is_being_written_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "incoming-00000000000000000001.json").write_text("{")
    assert find_record(str(tmp_path)) is None


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"model_uri": "m"})])
def test_an_unreadable_record_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "00000000000000000001.json").write_text(content)
    with pytest.raises(RecordError, match=r"0001\.json is not a record"):
        find_record(str(tmp_path))


def test_a_model_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    gone = BlessedRecord(str(tmp_path / "gone"), "examples", "1")
    write_record(str(tmp_path / "records"), gone)
    with pytest.raises(RecordError, match=r"gone, which is gone"):
        find_record(str(tmp_path / "records"))


def test_an_old_day_that_was_run_again_does_not_become_the_newest(tmp_path: Path) -> None:
    records = str(tmp_path / "records")
    found = {}
    for name, span in (("ninth", 9), ("anew", 9), ("fifth", 5)):
        found[name] = replace(record(tmp_path, name), span=span)
        write_record(records, found[name])
    assert find_record(records, before_span=10) == found["anew"]
    # The one that was blessed last stays what a new model is held against.
    assert find_record(records) == found["fifth"]
