import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.interactions.config import SpansConfig
from components.interactions.errors import ColumnError, NoInputError, UnreadableFileError
from components.interactions.rows.checks import read_rows
from components.interactions.sources.files import find_files, fingerprint, inspect_files
from components.interactions.spans.pattern import list_files
from models.features.spec import FeatureConfig, FeaturesConfig

EVENTS = "q,c,t\nu,a,1\n"


def test_finds_the_files_of_a_pattern_in_name_order(ingestion: Any):
    for name in ("day-10.csv", "day-02.csv", "other.csv"):
        ingestion.write(name, EVENTS)
    files = find_files(ingestion.config("day-*.csv"))
    assert [(file.index, file.name) for file in files] == [(0, "day-02.csv"), (1, "day-10.csv")]


NO_ROWS = (NoInputError, r"not a single row of data in .*events\.csv")


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("other.csv", EVENTS, NoInputError, r"`events.files`: no file matches .*events\*"),
        *(
            ("events.csv", text, *NO_ROWS)
            for text in ("", "q,c,t", "q,c,t\n", "\n\n", "q,c,t\n\n\n")
        ),
        (
            "events.csv",
            "q,c,ts,other\nu,a,1,2\n",
            ColumnError,
            r"no column 't'; did you mean 'ts'\?.*q, c, ts, other",
        ),
        ("events.csv", "q,c,t,c\nu,a,1,b\n", ColumnError, "2 columns are called 'c'"),
        ("events.parquet", EVENTS, UnreadableFileError, "events.parquet cannot be read as parquet"),
        ("events.log", "hello\n", UnreadableFileError, r"suffix does not tell .* set `format`"),
        ("events.csv", b"PK\x03\x04", UnreadableFileError, "a ZIP archive or an Excel workbook"),
        ("events.csv", b"\x28\xb5\x2f\xfd", UnreadableFileError, "compressed with Zstandard"),
        ("events.csv", b"\0\1,\2\n", UnreadableFileError, "it is not text"),
        ("events.csv", '"q,c,t\nu,a,1\n', UnreadableFileError, "a quote is never closed"),
        ("events.json", '[{"q": "u"},\n{"q": "v"}]', UnreadableFileError, "one object per line"),
        ("events.csv", "q,c,T\nu,a,1\n", ColumnError, r"no column 't'; did you mean 'T'\?"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_that_names_it(
    ingestion: Any, name: str, content: str | bytes, error: type[Exception], message: str
) -> None:
    ingestion.write(name, content)
    with pytest.raises(error, match=message):
        find_files(ingestion.config("events*"))


def test_an_unknown_suffix_may_have_a_configured_format(ingestion: Any):
    ingestion.write("events.log", EVENTS)
    (file,) = find_files(ingestion.config("events.log", format="csv"))
    assert file.format == "csv"


def test_missing_feature_column_is_found_in_its_file(ingestion: Any):
    ingestion.write("events.csv", EVENTS)
    ingestion.write("films.csv", "c,titel\na,A\n")
    features = FeaturesConfig(candidate={"title": FeatureConfig(kind="text")})
    config = ingestion.config("events.csv", features=features, candidates="films.csv")
    with pytest.raises(ColumnError, match=r"films\.csv has no column 'title'; did .* 'titel'"):
        find_files(config)


def test_unknown_filesystem_is_an_error(ingestion: Any):
    config = ingestion.config("x.csv")
    data = config.data.model_copy(update={"interactions": "nowhere://bucket/x.csv"})
    with pytest.raises(NoInputError, match=r"nowhere://bucket/x\.csv cannot be listed"):
        find_files(config.model_copy(update={"data": data}))


def test_headers_of_a_pattern_must_agree(ingestion: Any):
    ingestion.write("1.csv", EVENTS)
    ingestion.write("2.csv", "c,q,t\na,u,1\n")
    assert len(find_files(ingestion.config("*.csv"))) == 2  # another order is no difference
    ingestion.write("3.csv", "q,c,t,extra\nu,a,1,2\n")
    with pytest.raises(ColumnError, match=r"only one of 3\.csv and 1\.csv has extra"):
        find_files(ingestion.config("*.csv"))
    ingestion.write("3.csv", "q,c,x y,t\nu,a,1,2\n")
    ingestion.write("2.csv", "q,c,t,X-y\nu,a,1,2\n")
    with pytest.raises(ColumnError, match="look alike"):
        find_files(ingestion.config("[23].csv"))


def test_each_source_has_its_own_delimiter_and_id_columns(ingestion: Any):
    ingestion.write("events.csv", "user id|item.no|t,s\nu|a|1\nv,w|b|2\n")
    ingestion.write("items.txt", "item.no\tx\na\t1\n")
    config = ingestion.config(
        "events.csv",
        candidates="items.txt",
        timestamp="t,s",
        formats={"candidates": "csv"},
        delimiters={"interactions": "|"},
        event_query_id_column="user id",
        event_candidate_id_column="item.no",
    )
    events, items = find_files(config)
    (good, bad), *_ = read_rows(config, events)
    assert good.select(["q", "c"]).to_pydict() == {"q": ["u", "v,w"], "c": ["a", "b"]}
    assert next(read_rows(config, items))[0]["c"].to_pylist() == ["a"]
    assert not len(bad)


@pytest.mark.parametrize("pattern", ["e", "e/", "e/*", "e/**", "e/day=*", "e/{YYYY}-{MM}-{DD}"])
def test_a_folder_stands_for_the_data_files_in_it(ingestion: Any, pattern: str):
    days = ["day=1", "day=2"] if "day" in pattern else ["2024-05-01", "2024-05-02"]
    for name in (*(f"{day}/part-{i}.csv" for day in days for i in range(2)), "_SUCCESS",
                 f"{days[0]}/.part-0.csv.crc", f"{days[1]}/_temporary/part-9.csv"):  # fmt: skip
        (ingestion.folder / "e" / name).parent.mkdir(parents=True, exist_ok=True)
        ingestion.write(f"e/{name}", EVENTS if name.endswith(".csv") else "")
    spans = SpansConfig(window="all" if "YYYY" in pattern else 1)
    found = [file.path for file in find_files(ingestion.config(pattern, spans=spans))]
    assert found == [f"{ingestion.folder}/e/{day}/part-{i}.csv" for day in days for i in range(2)]


def test_parquet_ids_must_be_exact(ingestion: Any):
    table = pa.table({"q": [1.0], "c": ["a"], "t": [1]})
    pq.write_table(table, ingestion.folder / "events.parquet")
    with pytest.raises(ColumnError, match="column 'q' is double, which cannot be read as id"):
        find_files(ingestion.config("events.parquet"))


@pytest.mark.parametrize("kind", ["categorical", "text"])
@pytest.mark.parametrize(
    "array",
    [
        pa.array([1], pa.duration("s")),
        pa.array([b"0123456789abcdef"], pa.binary(16)),
        pa.array([{"x": 1}]),
        pa.array([[["a"]]]),
        pa.array([[1]], pa.list_(pa.duration("s"))),
    ],
    ids=lambda array: str(array.type),
)
def test_types_that_have_no_text_are_refused_by_name(ingestion: Any, kind: Any, array: Any):
    ingestion.write("events.csv", EVENTS)
    pq.write_table(pa.table({"c": ["a"], "kinds": array}), ingestion.folder / "films.parquet")
    features = FeaturesConfig(candidate={"kinds": FeatureConfig(kind=kind)})
    config = ingestion.config("events.csv", features=features, candidates="films.parquet")
    shown = re.escape(str(pq.read_schema(ingestion.folder / "films.parquet").field("kinds").type))
    with pytest.raises(
        ColumnError, match=rf"column 'kinds' is {shown}, which cannot be read as {kind}"
    ):
        find_files(config)


def test_fingerprint_sees_sizes_times_and_names_but_not_the_folder(tmp_path: Path, ingestion: Any):
    def take(folder: str, modified_s: int = 1, **files: str) -> str:
        (tmp_path / folder).mkdir()
        for name, content in files.items():
            ingestion.write(f"{folder}/{name}.csv", content)
            os.utime(tmp_path / folder / f"{name}.csv", (modified_s, modified_s))
        found: str = fingerprint(ingestion.config(f"{folder}/*.csv"))
        return found

    first = take("1", a="x", b="y")
    assert take("2", a="x", b="y") == first
    others = {take("3", 2, a="x", b="y"), take("4", a="x", c="y"), take("5", a="xy", b="")}
    assert len(others | {first}) == 4


def test_a_file_that_begins_like_another_one_has_the_dialect_of_its_own_rows(tmp_path: Path):
    contents = (
        "q,c\nu,1\nv,2\n", "q,c\nu,3", 'q,c\n"u",4\n', "q,c\nu,5,\nv,6,\n", "q,c\n",
        "q;c\nu;7\n", 'q,c\nu,"\\", 8"\n', "q,c\r\nu,9\r\n", "#q,c\nu,1\n",
    )  # fmt: skip
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.csv").write_bytes(content.encode())
    pattern = f"{tmp_path}/*.csv"
    matched = [(file.path, file.size_bytes, None) for file in list_files(pattern)]
    together = inspect_files("interactions", pattern, matched, "auto", None)
    alone = [inspect_files("interactions", pattern, [m], "auto", None)[0] for m in matched]
    for found, expected in zip(together, alone, strict=True):
        assert (found.header, found.dialect) == (expected.header, expected.dialect), found.name
