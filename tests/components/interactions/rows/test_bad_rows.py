"""Rows and files that cannot be used, through a real Beam pipeline."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.interactions.buckets import Sizing
from components.interactions.errors import BadRowsError, NoInputError, UnreadableFileError
from tests.components.interactions.conftest import EVENTS, FEATURES

BAD = (
    b'q,c,t,note\nu,a,1,x\n\nu,b,2,"x\n\ny"\nu,,3,\nv,a,noon,\nv,b\nv,\xff,4,\n'
    b"v,c,nan,\nu,c,5,x,y\nv,d,6,\nv,e,7,\n"
)


@pytest.mark.parametrize("sizing", [Sizing(), Sizing(block_bytes=20, bucket_bytes=30)])
def test_bad_rows_stop_the_run_or_are_kept_and_counted(ingestion: Any, sizing: Sizing) -> None:
    ingestion.write("events.csv", BAD)
    with pytest.raises(BadRowsError) as caught:
        ingestion("events.csv", sizing=sizing)
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("6 bad rows in the input: ")
    assert "2 not a time" in first
    assert "1 missing" in first
    assert lines[:5] == [
        "  events.csv line 7: c = '' (missing)",
        "  events.csv line 8: t = 'noon' (not a time)",
        "  events.csv line 9: '2 values instead of 4: v,b' (wrong number of values)",
        "  events.csv line 10: c = '\\\\xff' (not UTF-8)",
        "  events.csv line 11: t = 'nan' (not a time)",
    ]
    assert "line 12" not in str(caught.value)
    assert not list(ingestion.folder.glob("run-*/examples/*"))

    found = ingestion("events.csv", bad_rows="reject", sizing=sizing)
    rejected = found.rejected()
    assert [row["line"] for row in rejected] == [7, 8, 9, 10, 11, 12]
    assert rejected[1] == {
        "source": "interactions",
        "file": "events.csv",
        "line": 8,
        "column": "t",
        "value": "noon",
        "reason": "not a time",
    }
    reasons = {"not a time": 2, "wrong number of values": 2, "missing": 1, "not UTF-8": 1}
    assert found.report["rejected_rows"] == reasons
    assert (found.report["files"][0]["rows"], found.report["files"][0]["rejected"]) == (10, 6)
    assert found.report["events"] == 4


def test_contradicting_catalogue_rows_are_bad_rows(ingestion: Any):
    ingestion.write("events.csv", EVENTS)
    ingestion.write("films.csv", "c,title,kinds,more\na,A,x,1\nb,B,,1\na,A,x,2\na,Other,x,1\n")
    ingestion.write("users.csv", "q,age,country\nu,1,X\nu,2,X\nv,old,X\n")
    files: Any = {"features": FEATURES, "candidates": "films.csv", "queries": "users.csv"}
    with pytest.raises(BadRowsError) as caught:
        ingestion("events.csv", **files)
    assert str(caught.value).splitlines()[1:4] == [
        "  users.csv line 3: q = 'u' (contradicts an earlier row with this ID)",
        "  users.csv line 4: age = 'old' (not a finite number)",
        "  films.csv line 5: c = 'a' (contradicts an earlier row with this ID)",
    ]
    found = ingestion("events.csv", bad_rows="reject", **files)
    titles = {e["c"][0]: e["title"] for e in found.examples("candidates")}
    assert titles == {"a": ["A"], "b": ["B"]}
    assert {e["q"][0]: e["age"] for e in found.examples("train")} == {"u": [1], "v": [], "w": []}
    assert found.report["repeated_candidate_rows"] == 1
    assert [row["file"] for row in found.rejected()] == ["users.csv", "users.csv", "films.csv"]


def test_lines_of_parquet_are_rows(ingestion: Any):
    table = pa.table({"q": ["u", "u", None, "u"], "c": [1, 2, 3, 4], "t": [1, None, 3, 4]})
    pq.write_table(table, ingestion.folder / "events.parquet", row_group_size=2)
    with pytest.raises(
        BadRowsError, match=r"events\.parquet line 2: t = '' \(missing\)\n.* line 3"
    ):
        ingestion("events.parquet")


def test_an_empty_file_among_others_is_reported(ingestion: Any):
    ingestion.write("1.csv", "")
    ingestion.write("2.csv", EVENTS)
    ingestion.write("3.csv", "q,c,t\n")
    found = ingestion("*.csv")
    assert [file["rows"] for file in found.report["files"]] == [0, 7, 0]


def test_rejecting_every_event_is_an_error(ingestion: Any):
    ingestion.write("events.csv", "q,c,t\nu,a,x\nu,b,y\n")
    with pytest.raises(NoInputError, match=r"rejected every event.*2 not a time"):
        ingestion("events.csv", bad_rows="reject")


def test_unreadable_file_is_one_error_and_leaves_nothing(ingestion: Any):
    ingestion.write("events.csv", 'q,c,t\nu,a,1\nu,"b,2\n')
    with pytest.raises(
        UnreadableFileError, match=r"events\.csv cannot be read as CSV after line 2"
    ):
        ingestion("events.csv")
    assert not list(ingestion.folder.glob("run-*/examples/*"))
