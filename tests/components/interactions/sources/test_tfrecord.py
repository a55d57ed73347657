"""Rows that come as TFRecords of `tf.train.Example`."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tensorflow as tf

from components.interactions.buckets import Sizing
from components.interactions.config import SplitConfig
from components.interactions.errors import ColumnError, NoInputError, UnreadableFileError
from components.interactions.sources.files import SourceFile, find_files, read_blocks
from components.interactions.sources.tfrecord import frame
from models.features.spec import FeatureConfig, FeaturesConfig
from tests import builders
from tests.components.interactions.conftest import FEATURES

TINY = Sizing(block_bytes=256, bucket_bytes=96, batch_events=3)
EVENTS = [
    {"q": f"user {number % 7}", "c": f"é{number * 5 % 11}", "t": 1000 - number, "r": number % 5}
    for number in range(60)
]


def example(row: Mapping[str, Any]) -> bytes:
    """A list becomes several values, None no feature."""
    present = {name: value for name, value in row.items() if value is not None}
    return builders.example({n: v if isinstance(v, list) else [v] for n, v in present.items()})


def write(path: Path, records: Iterable[Mapping[str, Any] | bytes], compression: str = "") -> Path:
    """Writes with TensorFlow's own writer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression)) as writer:
        for record in records:
            writer.write(record if isinstance(record, bytes) else example(record))
    return path


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [
        ",".join(
            "|".join(value) if isinstance(value, list) else "" if value is None else str(value)
            for value in (row.get(name) for name in names)
        )
        for row in rows
    ]
    path.write_text("\n".join([",".join(names), *lines]) + "\n", encoding="utf-8")


def written(found: Any) -> dict[str, Any]:
    """All Examples in their order; a Protobuf map has none, so bytes may differ."""
    return {split: found.examples(split) for split in ("train", "eval", "candidates")}


@pytest.mark.parametrize(
    ("name", "compression"), [("events.tfrecord", ""), ("events.tfrecords.gz", "GZIP")]
)
def test_examples_are_those_of_csv(ingestion: Any, tmp_path: Path, name: str, compression: str):
    users = [{"q": f"user {i}", "age": 20.5 + i, "country": "DE"} for i in range(5)]
    films: list[dict[str, Any]] = [
        {"c": f"é{i}", "title": f"The {i}", "kinds": ["war", "drama"][: i % 3]} for i in range(9)
    ]
    films += [{"c": "é9", "title": None, "kinds": None}, {"c": "é10", "title": "Ten"}]
    users[2]["age"], users[3]["country"] = None, None
    for folder, suffix in (("as_csv", ".csv"), ("as_tfrecord", ".tfrecord")):
        (tmp_path / folder).mkdir()
        for role, rows in (("users", users), ("films", films)):
            (write_csv if suffix == ".csv" else write)(tmp_path / folder / (role + suffix), rows)
    write_csv(tmp_path / "as_csv" / "events.csv", EVENTS)
    write(tmp_path / "as_tfrecord" / name, EVENTS, compression)
    split = SplitConfig(method="temporal", eval_fraction=0.2)
    options = {"rating": "r", "features": FEATURES}

    def ingest(folder: str, events: str, suffix: str) -> Any:
        files = {"queries": f"{folder}/users{suffix}", "candidates": f"{folder}/films{suffix}"}
        return ingestion(f"{folder}/{events}", split, **files, **options)

    of_csv = ingest("as_csv", "events.csv", ".csv")
    of_tfrecord = ingest("as_tfrecord", name, ".tfrecord")
    assert written(of_tfrecord) == written(of_csv)
    assert of_tfrecord.report["events"] == 60


def test_files_of_a_glob_are_read_block_by_block(ingestion: Any, tmp_path: Path):
    write_csv(tmp_path / "events.csv", EVENTS)
    for part in range(3):
        rows = EVENTS[part * 20 : part * 20 + 20]
        write(tmp_path / f"part-{part}.tfrecord.gz", rows, "GZIP")
    write(tmp_path / "part-3.tfrecord", [])
    expected = ingestion("events.csv")
    found = ingestion("part-*", sizing=TINY)
    assert found.timelines("train") == expected.timelines("train")
    assert found.timelines("eval") == expected.timelines("eval")
    assert [file["rows"] for file in found.report["files"]] == [20, 20, 20, 0]


def test_feature_that_only_some_examples_have_is_an_empty_value(ingestion: Any, tmp_path: Path):
    write(tmp_path / "events.tfrecord", EVENTS)
    # The first file knows of no title, and the ids of the second are numbers.
    write(tmp_path / "films-1.tfrecord", [{"c": "é1"}, {"c": "é2", "extra": 1}])
    write(tmp_path / "films-2.tfrecord", [{"c": 3, "title": []}, {"c": 4, "title": "Four"}])
    features = FeaturesConfig(candidate={"title": FeatureConfig(kind="text")})
    found = ingestion("events.tfrecord", candidates="films-*.tfrecord", features=features)
    titles = {row["c"][0]: row["title"] for row in found.examples("candidates")}
    assert (titles["é1"], titles["3"], titles["4"]) == ([], [], ["Four"])
    assert found.report["ignored_columns"]["candidates"] == ["extra"]


BAD = [
    *EVENTS[:3],
    {"q": "u", "c": 7, "t": 1},  # 4
    {"q": "u", "c": "a"},
    {"q": ["u", "v"], "c": "a", "t": 1},
    {"q": b"\xff", "c": "a", "t": 1},
    b"\x0a\x05no",  # 8
    *EVENTS[3:6],
    {"q": "u", "c": "a", "t": 2.5},  # 12
    {"q": "u", "c": "a", "t": 1, "r": None},
    *EVENTS[6:9],
]


@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
def test_bad_rows_are_kept_with_their_record_number(
    ingestion: Any, tmp_path: Path, block_bytes: int
):
    write(tmp_path / "events.tfrecord.gz", BAD, "GZIP")
    sizing = Sizing(block_bytes=block_bytes, bucket_bytes=1 << 20, batch_events=100)
    found = ingestion("events.tfrecord.gz", rating="r", bad_rows="reject", sizing=sizing)
    places = [(row["line"], row["column"], row["value"], row["reason"]) for row in found.rejected()]
    assert places == [
        (4, "c", "7", "int64 instead of bytes"),
        (5, "t", "", "missing"),
        (6, "q", "u, v", "more than one value"),
        (7, "q", r"\xff", "not UTF-8"),
        (8, "", "\n\x05no", "not a tf.train.Example"),
        (12, "t", "2.5", "float instead of int64"),
        (13, "r", "", "missing"),
    ]
    assert found.report["events"] == 9
    assert {row["file"] for row in found.rejected()} == {"events.tfrecord.gz"}


def test_lists_that_cannot_be_split_again_are_bad_rows(ingestion: Any, tmp_path: Path):
    write(tmp_path / "events.tfrecord", EVENTS)
    films = [
        {"c": "a", "kinds": ["x", "y"], "land": "CH"},
        {"c": "b", "kinds": ["rock|roll", "x"], "land": "CH"},
        {"c": "d", "kinds": "v|w", "land": ["CH", "FR"]},
        {"c": "e", "kinds": "v|w", "land": None},
        {"c": "f", "kinds": [b"x", b"\xff"]},
        {"c": "g"},
    ]
    write(tmp_path / "films.tfrecord", films)
    features = FeaturesConfig(
        candidate={
            "genres": FeatureConfig(kind="categorical", separator="|", column="kinds"),
            "land": FeatureConfig(kind="categorical"),
        }
    )
    found = ingestion(
        "events.tfrecord", candidates="films.tfrecord", features=features, bad_rows="reject"
    )
    assert [(row["line"], row["value"], row["reason"]) for row in found.rejected()] == [
        (2, "rock|roll, x", "a value of the list contains the separator"),
        (3, "CH, FR", "more than one value"),
        (5, r"x, \xff", "not UTF-8"),
    ]
    kept = {row["c"][0]: (row["genres"], row["land"]) for row in found.examples("candidates")}
    assert kept["a"] == (["x", "y"], ["CH"])
    assert kept["e"] == (["v", "w"], [])
    assert kept["g"] == ([], [])


def test_empty_shards_without_a_suffix_are_kept_with_no_rows(ingestion: Any, tmp_path: Path):
    write(tmp_path / "events-00001-of-00003", EVENTS)
    ingestion.write("events-00000-of-00003", b"")
    ingestion.write("events-00002-of-00003", gzip.compress(b""))
    found = ingestion("events-*")
    assert [file["rows"] for file in found.report["files"]] == [0, 60, 0]
    write(tmp_path / "events-00001-of-00003", [])
    with pytest.raises(NoInputError, match="not a single row"):
        ingestion("events-*")
    ingestion.write("events-00001-of-00003", b"text")
    with pytest.raises(UnreadableFileError, match="events-00001-of-00003: the suffix does not"):
        ingestion("events-*")


def test_an_empty_file_takes_the_format_of_its_siblings(ingestion: Any, tmp_path: Path):
    ingestion.write("events-1", gzip.compress(b""))
    ingestion.write("events-2.csv", "q,c,t\nu,a,1\nu,b,2\n")
    files = find_files(ingestion.config("events-*"))
    assert [(file.format, file.header) for file in files] == [("csv", ()), ("csv", ("q", "c", "t"))]


def test_a_compressed_file_has_the_same_size_under_any_name(ingestion: Any, tmp_path: Path):
    plain = write(tmp_path / "plain", EVENTS)
    ingestion.write("packed", gzip.compress(plain.read_bytes()))
    ingestion.write("named.tfrecord.gz", gzip.compress(plain.read_bytes()))
    for name, ratio in (("plain", 0.25), ("packed", 1), ("named.tfrecord.gz", 1)):
        (file,) = find_files(ingestion.config(name))
        assert file.csv_bytes / file.size_bytes == pytest.approx(ratio, abs=0.01)


def test_records_that_are_half_of_another_kind_are_not_slow_nor_lost(tmp_path: Path):
    rows = [{"a": str(i)} if i % 3 else {"a": i} for i in range(1, 3001)]
    path = write(tmp_path / "rows.tfrecord", rows)
    schema = pa.schema([("a", pa.binary())])
    file = SourceFile("interactions", 0, str(path), path.name, 1, "tfrecord", ("a",), None, schema)
    blocks = list(read_blocks(file, ["a"], 10_000))
    assert len(blocks) > 3
    good = [
        (row, value)
        for block in blocks
        for row, value in zip(block.lines, block.columns["a"].to_pylist(), strict=True)
    ]
    assert good == [(i, str(i).encode()) for i in range(1, 3001) if i % 3]
    assert [row.line for block in blocks for row in block.malformed] == list(range(3, 3001, 3))


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-3], r"after record 5\d: the file ends inside record 60"),
        (lambda content: flip(content, -6), "the checksum of record 60 is wrong"),
        (lambda content: content + b"more than that", "record 61 does not begin with a length"),
    ],
)
@pytest.mark.parametrize("is_packed", [False, True])
def test_damaged_file_is_an_error_that_names_the_record(
    ingestion: Any, tmp_path: Path, change: Any, message: str, is_packed: bool
):
    content = change(write(tmp_path / "events.tfrecord", EVENTS).read_bytes())
    ingestion.write("events.tfrecord", gzip.compress(content) if is_packed else content)
    for sizing in (Sizing(), TINY):
        with pytest.raises(UnreadableFileError, match=message):
            ingestion("events.tfrecord", sizing=sizing)
    assert not list(tmp_path.glob("run-*/examples/*"))


def test_truncated_gzip_is_an_error(ingestion: Any, tmp_path: Path):
    rows = [{**row, "noise": random.Random(i).randbytes(900)} for i, row in enumerate(EVENTS)]
    path = write(tmp_path / "events.tfrecord.gz", rows, "GZIP")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UnreadableFileError, match=r"cannot be read as .*ended before"):
        ingestion("events.tfrecord.gz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"q,c,t\nu,a,1\n", "as tfrecord: record 1 does not begin with a length"),
        (b"short", "as tfrecord: the file ends inside record 1"),
        (frame(b"\x0a\x05no") * 3, r"none of its first \d records is a tf.train.Ex"),
        (frame(example({})) * 2, r"none of its first \d records is a tf.train.Ex"),
    ],
)
def test_a_file_without_examples_is_an_error(ingestion: Any, content: bytes, message: str):
    ingestion.write("events.tfrecord", content)
    with pytest.raises(UnreadableFileError, match=message):
        find_files(ingestion.config("events.tfrecord"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"q": "u", "c": "a", "tt": 1},
            r"first 1,000 records\) has no column 't'; did you mean 'tt'",
        ),
        ({"q": 1.5, "c": "a", "t": 1}, "column 'q' is float, which cannot be read as id"),
        ({"q": "u", "c": "a", "t": 1.5}, "column 't' is float, whose 24 bits"),
    ],
)
def test_unusable_features_fail(ingestion: Any, tmp_path: Path, row: dict[str, Any], message: str):
    write(tmp_path / "events.tfrecord", [row])
    with pytest.raises(ColumnError, match=message):
        find_files(ingestion.config("events.tfrecord"))


def test_the_first_record_decides_the_format_without_a_suffix(ingestion: Any, tmp_path: Path):
    write(tmp_path / "events-00000-of-00003", EVENTS)
    write(tmp_path / "events-00001-of-00003.gz", EVENTS, "GZIP")
    write(tmp_path / "events-00002-of-00003", EVENTS, "GZIP")
    files = find_files(ingestion.config("events-*"))
    assert [file.format for file in files] == ["tfrecord"] * 3
    for file in files:
        (block,) = read_blocks(file, ["c"], 1 << 20)
        assert block.columns["c"].to_pylist() == [row["c"].encode() for row in EVENTS]


def test_format_can_be_set(ingestion: Any, tmp_path: Path):
    write(tmp_path / "events.csv", EVENTS)
    (file,) = find_files(ingestion.config("events.csv", format="tfrecord"))
    assert (file.format, file.header) == ("tfrecord", ("c", "q", "r", "t"))
