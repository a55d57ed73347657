"""Recommendations in files, with exact search by hand as the oracle."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.batch_recommender.answers import Answerer, Request
from components.batch_recommender.recommend import REPORT_FILE, recommend_to_files
from components.batch_recommender.requested import RequestedQueries
from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.errors import BatchError
from components.index_builder.build import build_retrieval_model
from components.index_builder.config import IndexConfig
from components.index_builder.known_histories import HistorySource
from components.interactions.config import DataConfig, IngestConfig, SplitConfig
from components.interactions.timelines.histories import read_queries
from models.input.raw_examples import read_timelines, split_files
from models.towers.saved_towers import SavedTowers
from serving.clients import RetrievalClient
from serving.launcher import running_model_server
from tests import builders
from tests.builders import KnownTowers

INDEX_K = 10
NUM_STORED = 3  # events of each query that the model keeps


@pytest.fixture(scope="module")
def model(
    many_towers: KnownTowers,
    many_examples: str,
    many_embeddings: EmbeddingFiles,
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    folder = str(tmp_path_factory.mktemp("batch") / "model")
    build_retrieval_model(
        SavedTowers(many_towers.directory, many_towers.spec),
        many_embeddings,
        split_files(many_examples, "eval"),
        many_towers.spec,
        IndexConfig(k=INDEX_K, backend="exact", filters=("genres",)),
        "retrieval",
        "identity",
        folder,
        return_fields=("genres",),
        histories=HistorySource([split_files(many_examples, "eval")], NUM_STORED, 1),
    )
    return folder


def request(towers: KnownTowers, **changes: Any) -> Request:
    fields = {"k": 5, "index_k": INDEX_K, "model_version": 7, **changes}
    return Request(spec=towers.spec, **fields)


def recommend(model: str, examples: str, asked: Request, output: Path, **more: Any) -> Any:
    splits = more.pop("splits", ("eval",))
    return recommend_to_files(model, examples, splits, asked, str(output), beam.Pipeline, **more)


def ingest_config(towers: KnownTowers, **files: str) -> IngestConfig:
    data = DataConfig(interactions="events.csv", **files)
    return IngestConfig(data=data, split=SplitConfig(method="random"), spec=towers.spec)


def answers(output: Path) -> dict[str, list[tuple[str, float]]]:
    """Return the candidates and scores of each query, best first."""
    found: dict[str, list[tuple[str, float]]] = {}
    for path in sorted(output.glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            assert row["model_version"] == 7
            mine = found.setdefault(row["user"], [])
            mine.append((row["item"], row["score"]))
            assert row["rank"] == len(mine)
    return found


def queries(towers: KnownTowers, examples: str) -> Mapping[str, tuple[list[str], float]]:
    """Return all events and the age of each query."""
    batch = next(read_timelines(split_files(examples, "eval"), towers.spec, 100))
    users = [name.decode() for name in batch.inputs["user"].numpy()]
    events = [[event.decode() for event in row] for row in batch.events.to_list()]
    ages = batch.inputs["age"].numpy().tolist()
    return dict(zip(users, zip(events, ages, strict=True), strict=True))


def assert_same(found: list[tuple[str, float]], wanted: list[tuple[str, float]]) -> None:
    assert [name for name, _ in found] == [name for name, _ in wanted]
    assert [score for _, score in found] == pytest.approx([score for _, score in wanted], abs=1e-4)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("genres", [(), ("comedy", "é noir")])
def test_every_query_gets_its_best_candidates_from_all_of_its_events(
    model: str,
    many_towers: KnownTowers,
    many_examples: str,
    tmp_path: Path,
    exclude_seen: bool,
    genres: tuple[str, ...],
) -> None:
    filters = {"genres": genres} if genres else {}
    asked = request(many_towers, exclude_seen=exclude_seen, filters=filters)
    report = recommend(model, many_examples, asked, tmp_path / "out")
    found = answers(tmp_path / "out")
    known = queries(many_towers, many_examples)
    assert found.keys() == known.keys()
    assert (report["num_queries"], report["num_unknown"], report["num_rows"]) == (20, 0, 100)
    for user, (events, age) in known.items():
        vector = many_towers.embed(user, events, age)
        best = many_towers.best(vector, events if exclude_seen else (), genres)
        assert_same(found[user], best[:5])


def test_the_queries_of_a_file_are_answered_from_what_is_known_of_them(
    model: str, many_towers: KnownTowers, many_examples: str, tmp_path: Path
) -> None:
    (tmp_path / "ask.csv").write_text("user,age\nuser 3,70\nnew,0.5\nnobody,\nuser 3,70\n")
    requested = RequestedQueries(str(tmp_path / "ask.csv"), ingest_config(many_towers))
    report = recommend(
        model, many_examples, request(many_towers), tmp_path / "out", requested=requested
    )
    found = answers(tmp_path / "out")
    assert (report["num_queries"], report["num_unknown"]) == (3, 2)
    # A known query keeps the features of the run, which its history comes from.
    events, age = queries(many_towers, many_examples)["user 3"]
    assert_same(
        found["user 3"], many_towers.best(many_towers.embed("user 3", events, age), events)[:5]
    )
    assert_same(found["new"], many_towers.best(many_towers.embed(age=0.5))[:5])
    assert len(found["nobody"]) == 5


def test_a_query_without_events_gets_the_history_that_the_model_has_stored(
    model: str, many_towers: KnownTowers, many_examples: str, tmp_path: Path
) -> None:
    folder = tmp_path / "examples" / "Split-eval"
    folder.mkdir(parents=True)
    row = {"user": ["other"], "age": [], "item": ["a b"], "is_target": [0]}
    Path(builders.write_examples(tmp_path / "part", [row])).rename(folder / "data-0.gz")
    (tmp_path / "ask.csv").write_text("user,age\nuser 3,0.5\n")
    requested = RequestedQueries(str(tmp_path / "ask.csv"), ingest_config(many_towers))
    events = queries(many_towers, many_examples)["user 3"][0][-NUM_STORED:]
    for exclude_seen in (True, False):
        asked = request(many_towers, exclude_seen=exclude_seen)
        examples = str(tmp_path / "examples")
        recommend(model, examples, asked, tmp_path / "out", requested=requested)
        vector = many_towers.embed("user 3", events, 0.5)
        best = many_towers.best(vector, events if exclude_seen else ())
        assert_same(answers(tmp_path / "out")["user 3"], best[:5])


def test_without_features_of_its_own_a_file_of_queries_gets_those_of_the_configuration(
    model: str, many_towers: KnownTowers, many_examples: str, tmp_path: Path
) -> None:
    (tmp_path / "ask.jsonl").write_text('{"user": "new"}\n')
    (tmp_path / "users.csv").write_text("user,age\nother,9\nnew,-0.5\n")
    config = ingest_config(many_towers, queries=str(tmp_path / "users.csv"))
    requested = RequestedQueries(str(tmp_path / "ask.jsonl"), config)
    recommend(model, many_examples, request(many_towers), tmp_path / "out", requested=requested)
    found = answers(tmp_path / "out")
    assert found.keys() == {"new"}
    assert_same(found["new"], many_towers.best(many_towers.embed(age=-0.5))[:5])


def test_a_missing_or_empty_file_of_queries_is_named(
    many_towers: KnownTowers, tmp_path: Path
) -> None:
    config = ingest_config(many_towers)
    (tmp_path / "empty.csv").touch()
    for name, problem in (("missing.csv", "no file matches"), ("empty.csv", "not a single row")):
        with pytest.raises(BatchError, match=f"^the queries to answer .*{problem}.*{name}$"):
            RequestedQueries(str(tmp_path / name), config)


def test_an_interrupted_output_is_continued_and_appears_as_a_whole(
    model: str,
    many_towers: KnownTowers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [{"user": [f"user {n}"], "age": [], "item": ["a b"], "is_target": [0]} for n in range(4)]
    for number in range(2):
        for split, some in (("train", rows[2 * number : 2 * number + 2]), ("eval", [])):
            folder = tmp_path / "examples" / f"Split-{split}"
            part = builders.write_examples(tmp_path / "part", some)
            folder.mkdir(parents=True, exist_ok=True)
            Path(part).rename(folder / f"data-{number}.gz")
    output, examples = tmp_path / "out", str(tmp_path / "examples")
    output.mkdir()
    (output / REPORT_FILE).write_text("{}")
    (output / "old.parquet").touch()

    wrote = []
    write = Answerer.write
    splits = ("train", "eval")

    def fail_once(self: Any, queries: Any, path: str, about: Any) -> None:
        wrote.append(Path(path).name)
        if len(wrote) == 2:
            raise OSError("the disk is full")
        write(self, queries, path, about)

    monkeypatch.setattr(Answerer, "write", fail_once)
    with pytest.raises(Exception, match="the disk is full"):
        recommend(model, examples, request(many_towers), output, splits=splits)
    assert sorted(path.name for path in output.iterdir()) == [REPORT_FILE, "old.parquet"]

    report = recommend(model, examples, request(many_towers), output, splits=splits)
    assert len(wrote) == 3
    assert wrote[1] == wrote[2] != wrote[0]
    assert report["num_queries"] == 4
    names = [f"recommendations-{part:05d}-of-00002.parquet" for part in range(2)]
    assert sorted(path.name for path in output.iterdir()) == sorted([REPORT_FILE, *names])
    assert json.loads((output / REPORT_FILE).read_text()) == report
    assert not (tmp_path / ".out.incomplete").exists()

    # Another request starts anew.
    recommend(model, examples, request(many_towers, k=2), output, splits=splits)
    assert {len(of_user) for of_user in answers(output).values()} == {2}


def test_the_windows_of_a_cut_timeline_are_one_history(tmp_path: Path) -> None:
    def row(user: str, items: str, targets: str) -> builders.Row:
        is_target = [int(flag) for flag in targets]
        return {"user": [user], "age": [], "item": list(items), "is_target": is_target}

    # With at most two events in a window and in a held-out timeline's history.
    train = [row("u", "a", "0"), row("u", "bc", "00"), row("v", "x", "0"), row("w", "y", "0")]
    evaluation = [row("u", "bcd", "001"), row("w", "yz", "01")]
    files = [
        builders.write_examples(tmp_path / name, rows)
        for name, rows in (("train", train), ("eval", evaluation))
    ]
    found = read_queries(files, builders.KNOWN_SPEC)
    ids = found.inputs(builders.KNOWN_SPEC, slice(None))["user"].numpy().tolist()
    histories = found.histories(slice(None))["history"].to_list()
    assert dict(zip(ids, histories, strict=True)) == {
        b"u": [b"a", b"b", b"c", b"d"],
        b"v": [b"x"],
        b"w": [b"y", b"z"],
    }
    only = read_queries(files, builders.KNOWN_SPEC, pa.table({"user": ["w", "new"]}))
    assert only.histories(slice(None))["history"].to_list() == [[], [b"y", b"z"]]
    nothing = pa.table({"user": pa.array([], pa.string())})
    assert len(read_queries(files, builders.KNOWN_SPEC, nothing)) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 11}, "k must be at most 10"),
        ({"filters": {"colour": ("red",)}}, "must have a filter 'colour', but its filters are g"),
    ],
)
def test_a_request_that_the_model_cannot_answer_is_refused(
    model: str,
    many_towers: KnownTowers,
    many_examples: str,
    tmp_path: Path,
    changes: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(BatchError, match=message):
        recommend(model, many_examples, request(many_towers, **changes), tmp_path / "out")


def test_a_folder_with_other_files_is_not_replaced(
    model: str, many_towers: KnownTowers, many_examples: str, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(BatchError, match=r"thesis\.txt"):
        recommend(model, many_examples, request(many_towers), tmp_path)


def test_the_answers_equal_those_of_a_model_server(
    model: str, many_towers: KnownTowers, many_examples: str, tmp_path: Path
) -> None:
    filters = {"genres": ("drama",)}
    recommend(model, many_examples, request(many_towers, filters=filters), tmp_path / "out")
    found, fields = answers(tmp_path / "out"), {}
    for row in pq.read_table(tmp_path / "out").to_pylist():
        fields.setdefault(row["user"], []).append(row["genres"])
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "7").symlink_to(model)
    with (
        running_model_server(tmp_path / "served") as server,
        RetrievalClient(server.grpc_target, query_id_name="user") as client,
    ):
        for user, (events, age) in queries(many_towers, many_examples).items():
            answer = client.recommend(
                user,
                history=events,
                features={} if math.isnan(age) else {"age": age},
                exclude=events,
                filters=filters,
                k=5,
            )
            assert answer.model_version == 7
            assert fields[user] == [genres or None for genres in answer.fields["genres"]]
            assert_same(found[user], list(zip(answer.candidate_ids, answer.scores, strict=True)))
