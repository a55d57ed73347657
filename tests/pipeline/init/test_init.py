import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import typer
import yaml
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder
from typer.testing import CliRunner

from components.interactions.sources.sample import count_rows
from components.interactions.sources.tfrecord import frame
from models.features.spec import ColumnsConfig
from pipeline.cli.init import init
from pipeline.config.file import load
from pipeline.errors import InitError
from pipeline.init.draft import read_sample
from pipeline.init.written_config import default_output, write_config
from pipeline.source_lookup import describe_candidates, query_history

APP = typer.Typer()
APP.command()(init)
ROWS = 200


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ratings of 40 users for 30 items, files of both sides, and the working directory."""
    folder = tmp_path / "shop"
    folder.mkdir()
    events = [(u, (u * 7 + i) % 30, 1 + i % 5, 1_700_000_000 + i) for u in range(40) for i in
              range(6)]  # fmt: skip
    pl.DataFrame(events, ["user", "item", "stars", "time"], orient="row").write_csv(
        folder / "events.csv"
    )
    pl.DataFrame(
        {
            "item": range(30),
            "rating": [i / 7 for i in range(30)],
            "country": [["DE", "FR", "ES"][i % 3] for i in range(30)],
            "title": [f"A chair called {i}" for i in range(30)],
        }
    ).write_parquet(folder / "items.parquet")
    pl.DataFrame(
        {"user": range(40), "country": ["DE", "FR"] * 20, "page": [f"/u/{i}" for i in range(40)]}
    ).write_csv(folder / "users.csv")
    monkeypatch.chdir(tmp_path)
    return folder


def _arguments(shop: Path, *more: str) -> list[str]:
    events = str(shop / "events.csv")
    return ["--events", events, "--query-id", "user", "--candidate-id", "item", *more]


def _draft(output: Path, events: Path, candidates: Path | None = None, **columns: str) -> Any:
    """Write a configuration for files with the columns `user` and `item`."""
    files = {"events": str(events)} | ({"candidates": str(candidates)} if candidates else {})
    names = {"query_id": "user", "candidate_id": "item", **columns}
    return write_config(files, ColumnsConfig(**names), output)


def test_writes_a_configuration_that_loads(shop: Path, tmp_path: Path) -> None:
    items, users = str(shop / "items.parquet"), str(shop / "users.csv")
    result = CliRunner().invoke(
        APP,
        _arguments(
            shop, "--candidates", items, "--queries", users, "--timestamp", "time",
            "--rating", "stars",
        ),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "next: two-tower run --config shop" in result.output
    config = load("shop")
    assert config.root == tmp_path
    assert config.data.interactions == "shop/events.csv"
    assert config.data.timestamp_unit == "s"
    assert config.split.method == "temporal"
    assert config.training.objective == "next_candidate"
    assert config.evaluation.min_lift == 0.9
    assert set(config.features.query) == {"country"}
    # `rating` is the pipeline's own key, and `country` the users'.
    candidate = config.features.candidate
    assert {name: feature.column for name, feature in candidate.items()} == {
        "candidate_rating": "rating",
        "candidate_country": "country",
        "title": None,
    }
    assert Path(config.schema_file) == tmp_path / "schema/shop/schema.pbtxt"
    assert Path(config.schema_file).is_file()
    text = (tmp_path / "configs/shop.yaml").read_text()
    assert "# left out: page, URLs or paths" in text


def test_names_the_likely_time_and_the_unused_columns(shop: Path) -> None:
    result = CliRunner().invoke(APP, _arguments(shop))
    assert result.exit_code == 0, result.output
    assert "hint: column 'time' looks like the time" in result.output
    assert "nothing uses these columns of the events: stars." in result.output
    config = load("shop")
    assert config.split.method == "leave_last_out"
    assert load("shop", ["tuning.enabled=true"]).tuning.space["recipe"][1]["model.kind"] == "svd"
    assert not config.features.query
    assert not config.features.candidate


def test_names_declared_columns_that_have_no_effect_yet(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    rows = [f"{n % 5},{n % 3},{n % 4},{['no', 'view', '1e3'][n % 3]}" for n in range(30)]
    file.write_text("\n".join(["user,item,stars,on", *rows]) + "\n")
    output = str(tmp_path / "shop.yaml")
    arguments = ["--events", str(file), "--query-id", "user", "--candidate-id", "item"]
    result = CliRunner().invoke(
        APP, [*arguments, "--rating", "stars", "--event-type", "on", "--output", output]
    )
    assert "`events.rating: stars` has no effect" in result.output
    text = Path(output).read_text()
    # The drafted comments are settings that give the columns an effect.
    for setting in ("min_rating", "rating_weights"):
        text = text.replace(f"# {setting}:", f"{setting}:")
    Path(output).write_text(text)
    config = load(output)
    assert config.events.min_rating == 1
    assert config.events.rating_weights == {"1": 1}
    assert config.events.types == {"no": 1, "view": 1, "1e3": 1}
    assert config.events.columns_without_effect() == []


@pytest.mark.parametrize(("num_sessions", "ranked"), [(9, False), (10_000, True)])
def test_events_with_times_learn_the_next_candidate(
    tmp_path: Path, num_sessions: int, ranked: bool
) -> None:
    # Every session: a, b, a within two minutes, so a third of the events returns to a candidate.
    file = tmp_path / "clicks.parquet"
    times = [1_700_000_000_000 + 60_000 * i for i in range(3)]
    events = [(s, 2 * (s % 1000) + i % 2, times[i]) for s in range(num_sessions) for i in range(3)]
    pl.DataFrame(events, ["session", "item", "ts"], orient="row").write_parquet(file)
    written = _draft(tmp_path / "clicks.yaml", file, query_id="session", timestamp="ts")
    assert written.config.training.objective == "next_candidate"
    model, training = written.config.model, written.config.training
    assert (model.history_encoder, model.similarity) == ("recency", "cosine")
    assert model.share_candidate_ids
    assert training.learning_rate == 0.02
    assert written.config.ranking.enabled is ranked
    assert written.config.evaluation.exclude_seen is False
    assert written.config.data.timestamp_unit == "ms"
    assert written.config.data.interactions == "clicks.parquet"


def test_reads_tfrecord(tmp_path: Path) -> None:
    events = [[f"u{u}", f"é{i}", 1_700_000_000 + i] for u in range(9) for i in range(6)]
    items = [[f"é{i}", ["a", "b"][: i % 3] * (i != 4), 1.5 * i] for i in range(6)]
    _write_examples(tmp_path / "events.tfrecord", ["user", "item", "time"], events)
    _write_examples(tmp_path / "items-0-of-1", ["item", "tags", "price"], items)
    events_file, items_files = tmp_path / "events.tfrecord", tmp_path / "items-?-of-1"
    written = _draft(tmp_path / "shop.yaml", events_file, items_files, timestamp="time")
    features = written.config.features.candidate
    assert {name: feature.kind for name, feature in features.items()} == {
        "price": "numeric",
        "tags": "categorical",
    }
    assert features["tags"].separator == "|"
    assert written.observed.is_complete
    assert written.observed.features["tags"].num_missing == 3
    assert query_history(written.config, "u1") == [f"é{i}" for i in range(6)]
    assert describe_candidates(written.config, ["é5"]) == {"é5": {"price": "7.5", "tags": "a|b"}}


def _write_examples(file: Path, names: list[str], rows: list[list[object]]) -> None:
    """Each value becomes a list of one."""
    lists = [[value if isinstance(value, list) else [value] for value in row] for row in rows]
    columns = [pa.array(column) for column in zip(*lists, strict=True)]
    columns = [
        column.cast(pa.list_(pa.binary() if column.type.value_type == pa.string() else kind))
        for column in columns
        for kind in [pa.float32() if column.type.value_type == pa.float64() else pa.int64()]
    ]
    batch = pa.RecordBatch.from_arrays(columns, names)
    file.write_bytes(b"".join(map(frame, RecordBatchToExamplesEncoder().encode(batch))))


def test_a_file_elsewhere_keeps_its_absolute_path(shop: Path, tmp_path: Path) -> None:
    written = _draft(tmp_path / "elsewhere" / "a.yaml", shop / "events.csv")
    assert written.config.data.interactions == str(shop / "events.csv")


def test_drafts_paths_vectors_context_and_availability(tmp_path: Path) -> None:
    start = 1_700_000_000
    events = [(u, (u * 7 + i) % 30, start + 60 * i, ["app", "web"][u * i % 3 % 2])
              for u in range(40) for i in range(6)]  # fmt: skip
    pl.DataFrame(events, ["user", "item", "time", "device"], orient="row").write_parquet(
        tmp_path / "events.parquet"
    )
    shelves = [f"S{i % 3} > T{i % 12}" for i in range(30)]
    vectors = [[i / 7, 0.5] for i in range(30)]
    columns = {"item": range(30), "shelf": shelves, "vector": vectors, "listed_at": [start] * 30}
    items = pl.DataFrame(columns)
    items.write_parquet(tmp_path / "items.parquet")
    files = tmp_path / "events.parquet", tmp_path / "items.parquet"
    config = _draft(tmp_path / "shop.yaml", *files, timestamp="time").config
    assert config.features.candidate["shelf"].path_separator == ">"
    assert config.features.candidate["vector"].dimension == 2
    assert config.events.context["device"].kind == "categorical"
    assert config.candidates.available_from == "listed_at"
    assert "listed_at" not in config.features.candidate
    assert "device: { kind: categorical } # 2 values" in (tmp_path / "shop.yaml").read_text()


def test_fresh_candidates_without_features_are_announced(shop: Path) -> None:
    events = pl.DataFrame({"user": [f"u{i % 9}" for i in range(90)], "item": range(90),
                           "time": range(1_700_000_000, 1_700_000_090)})  # fmt: skip
    events.write_csv(shop / "events.csv")
    result = CliRunner().invoke(APP, _arguments(shop, "--timestamp", "time", "--preset", "news"))
    output = " ".join(result.output.split())
    assert "hint: preset news. Only features can recommend these" in output
    assert "hint: preset news. With the times of their publication" in output


def test_columns_with_any_name_in_files_of_any_dialect(tmp_path: Path) -> None:
    events, items = tmp_path / "events.tsv", tmp_path / "items.csv"
    rows = [f"{i % 4}\t{i % 3}\t{i}\n" for i in range(12)]
    events.write_text("user.id\titem no\trating\n" + "".join(rows))
    items.write_text("item no;titel;titel;x\n" + "".join(f"{i};a;b;{i}.5\n" for i in range(3)))
    written = _draft(
        tmp_path / "odd.yaml", events, items, query_id="user.id", candidate_id="item no"
    )
    config = load(str(tmp_path / "odd.yaml"))
    assert config == written.config
    assert (config.spec.query_id, config.spec.candidate_id) == ("user_id", "item_no")
    assert query_history(config, "1") == ["1", "2", "0"]
    assert describe_candidates(config, ["2"]) == {"2": {"x": "2.5"}}
    assert "# left out: titel, 2 columns" in (tmp_path / "odd.yaml").read_text()


def test_a_pattern_with_dates_reads_all_days_and_the_newest_catalogue(tmp_path: Path) -> None:
    for day in (1, 3):
        rows = "".join(f"{i % 4},{i % 3},{i}\n" for i in range(day * 12, day * 12 + 12))
        (tmp_path / f"2024-05-0{day}.csv").write_text("user,item,time\n" + rows)
        items = "".join(f"{i},{i * day}\n" for i in range(3))
        (tmp_path / f"items-2024-05-0{day}.csv").write_text("item,price\n" + items)
    days, items = tmp_path / "{YYYY}-{MM}-{DD}.csv", tmp_path / "items-{YYYY}-{MM}-{DD}.csv"
    written = _draft(tmp_path / "days.yaml", days, items, timestamp="time")
    assert len(query_history(written.config, "1")) == 6
    assert describe_candidates(written.config, ["2"]) == {"2": {"price": "6"}}


def test_conflicts_between_daily_catalogues_are_announced(shop: Path) -> None:
    for day in (1, 2):
        rows = "".join(f"{i},{i * day}\n" for i in range(1, 30))
        (shop / f"day-{day}.csv").write_text("item,price\n" + rows)
    result = CliRunner().invoke(APP, _arguments(shop, "--candidates", str(shop / "day-*.csv")))
    assert result.exit_code == 0, result.output
    shown = " ".join(result.output.split())
    assert "29 rows cannot be read: column 'item' of candidates: contradicts" in shown
    assert "{YYYY}" in shown


def test_odd_names_survive_yaml(tmp_path: Path) -> None:
    events, items = tmp_path / "it's: #1.csv", tmp_path / "items.csv"
    events.write_text("user,item\n" + "".join(f"{i % 4},{i % 3}\n" for i in range(12)))
    columns = ["y", "no: #", '"q" {x}', "ünï,cödé"]
    rows = [[f"v{i % 2}"] * len(columns) for i in range(20)]
    table = pl.DataFrame(rows, columns, orient="row").insert_column(0, pl.Series("item", range(20)))
    table.write_csv(items)
    written = _draft(tmp_path / "odd.yaml", events, items)
    candidate = load(str(tmp_path / "odd.yaml")).features.candidate
    assert [feature.column or name for name, feature in candidate.items()] == columns
    assert written.config.data.interactions == "it's: #1.csv"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--events": "no.csv"}, "--events: no file matches"),
        ({"--query-id": "usr"}, "no column 'usr'; did you mean `user`? Its columns: user, item"),
        ({"--query-id": "zzz"}, "no column 'zzz'. Its columns: user, item"),
        ({"--query-id": "user id"}, "no column 'user id'; did you mean `user`?"),
        ({"--candidate-id": "user"}, "--query-id and --candidate-id must name different columns"),
        ({"--timestamp": "missing"}, "--timestamp: "),
        ({"--output": "configs/shop.json"}, "must be NAME.yaml"),
        ({"--candidates": "shop/users.csv"}, "--candidate-id: "),
        ({"--events": "shop/header.csv"}, "no row of data"),
        ({"--events": "shop/notes.txt"}, "does not tell the format"),
    ],
)
def test_an_error_is_one_message(shop: Path, change: dict[str, str], message: str) -> None:
    (shop / "header.csv").write_text("user,item\n")
    (shop / "notes.txt").write_text("hello")
    given = dict(zip(*[iter(_arguments(shop))] * 2, strict=True)) | change
    result = CliRunner().invoke(APP, [part for pair in given.items() for part in pair])
    assert result.exit_code == 1
    assert "error:" in result.output
    assert message in " ".join(result.output.split())
    assert not Path("configs").exists()


def test_replaces_files_only_when_forced(shop: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(APP, _arguments(shop)).exit_code == 0
    config = tmp_path / "configs/shop.yaml"
    config.write_text("mine")
    refused = CliRunner().invoke(APP, _arguments(shop))
    assert refused.exit_code == 1
    assert "--force" in refused.output
    assert config.read_text() == "mine"
    assert CliRunner().invoke(APP, _arguments(shop, "--force")).exit_code == 0
    assert "events" in yaml.safe_load(config.read_text())


def test_ids_that_do_not_join_and_words_for_missing_values_are_warned_about(shop: Path) -> None:
    events = pl.read_csv(shop / "events.csv").cast(pl.String)
    changed = pl.col("item") + ".0", pl.col("user").replace("3", "NULL")
    events.with_columns(*changed).write_csv(shop / "events.csv")
    arguments = _arguments(shop, "--candidates", str(shop / "items.parquet"))
    output = CliRunner().invoke(APP, arguments).output
    assert "100% of their 30 candidate IDs have no row in `candidates.file`" in output
    assert "`ingest.normalize_ids: [float_suffix]`, 100% of these IDs" in output
    assert "'NULL' (6 times)" in output
    assert 'set `ingest.missing_values: ["NULL"]`' in output


def test_a_row_of_too_many_values_or_broken_bytes_does_not_stop_it(shop: Path) -> None:
    with (shop / "events.csv").open("ab") as file:
        file.write(b"1,2,3,1700000000,5\nu\xff,2,3,1700000000\n")
    result = CliRunner().invoke(APP, _arguments(shop))
    assert result.exit_code == 0, result.output
    assert "warning: " in result.output
    assert "wrong number of values" in result.output
    assert "column 'user' of interactions" in result.output


def test_a_compressed_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "events.csv.gz"
    file.write_bytes(gzip.compress("\ufeffuser,item\n1,2\n".encode()))
    assert read_sample("events", str(file)).table.rows() == [("1", "2")]
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InitError, match=r"before the end.*; write the file again"):
        read_sample("events", str(file))


@pytest.mark.parametrize("column", ["query_id", "timestamp", "rating"])
def test_lists_are_refused_where_one_value_is_needed(tmp_path: Path, column: str) -> None:
    file = tmp_path / "events.parquet"
    table = {"user": ["a"], "item": ["b"], "lists": [[1]]}
    pl.DataFrame(table).write_parquet(file)
    with pytest.raises(InitError, match=r"'lists' of .* must have one value per row"):
        _draft(tmp_path / "lists.yaml", file, **{column: "lists"})


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text("user,item,user\n1,2,3\n")
    with pytest.raises(InitError, match=r"--query-id: .* 2 columns of events\.csv have this name"):
        _draft(tmp_path / "twice.yaml", file)


@pytest.mark.parametrize(
    ("interactions", "name"),
    [
        ("/x/ml 1m/ratings.csv", "ml_1m"),
        ("/x/data/clicks-*.parquet", "clicks"),
        ("/x/data/clicks.csv.gz", "clicks"),
        ("/x/day=*/clicks.csv", "clicks"),
        ("/x/data/clicks-{YYYY}-{MM}-{DD}.csv", "clicks"),
    ],
)
def test_is_named_after_the_folder_or_the_file(interactions: str, name: str) -> None:
    assert default_output(interactions).name == f"{name}.yaml"


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_all_rows_are_counted_where_a_sample_was_read(tmp_path: Path, suffix: str) -> None:
    table = pl.DataFrame({"user": [str(row // 4) for row in range(4_000)], "item": "a"})
    file = tmp_path / f"events.{suffix}"
    if suffix == "parquet":
        table.write_parquet(file)
    else:
        with (gzip.open if suffix == "csv.gz" else open)(file, "wb") as stream:
            table.write_csv(stream, separator=";")
    sample = read_sample("events", str(file), max_rows=100)
    assert not sample.is_complete
    rows, users = count_rows(str(file), "user")
    assert rows == 4_000
    assert users == pytest.approx(1_000, rel=0.1)


def test_the_catalogue_may_name_its_ids_differently(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user,item_id\na,1\na,2\nb,1\nb,2\n")
    columns = ColumnsConfig(query_id="user", candidate_id="item_id")
    for number, name in enumerate(("Item ID", "ID")):
        (tmp_path / "items.csv").write_text(f"{name},price\n1,-999\n2,3\n")
        files = {role: str(tmp_path / f"{role}.csv") for role in ("events", "items")}
        files["candidates"] = files.pop("items")
        written = write_config(files, columns, tmp_path / f"shop_{number}.yaml")
        assert written.config.candidates.id_column == name
        assert not written.observed.joins["candidates"].unmatched_ids


def test_sentinels_are_warned_about(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user,item\n" + "u,0\nu,1\n" * 20)
    prices = "\n".join(f"{i},{-999 if i % 10 == 3 else i}" for i in range(60))
    (tmp_path / "items.csv").write_text(f"item,price\n{prices}\n")
    files = {"events": str(tmp_path / "events.csv"), "candidates": str(tmp_path / "items.csv")}
    columns = ColumnsConfig(query_id="user", candidate_id="item")
    written = write_config(files, columns, tmp_path / "shop.yaml")
    (text,) = (text for text in written.observed.warnings if "price" in text)
    assert "6 of 60 values are -999" in text
