"""The ranking stage from the events to the served model, and through a refresh of the index."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import yaml

from components.index_builder.loaded_model import LoadedModel
from pipeline.config.file import load
from pipeline.releases.answering_model import answering_model
from pipeline.report.charts import charts
from pipeline.runs.batch import recommend_all
from pipeline.source_lookup import query_history
from serving.clients import RestRetrievalClient, RetrievalClient
from serving.launcher import running_model_server
from tests.pipeline.two_clubs import Command, run_to_summary, write_two_clubs

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "split": {"method": "temporal"},
    # It ignores the order of events, which only the ranker knows then.
    "model": {"history_encoder": "mean"},
    "training": {"objective": "next_candidate", "history_dropout": 0.0, "epochs": 3},
    # Sequential rules cannot be beaten here.
    "evaluation": {"baseline_metric": "hit_rate@1", "min_lift": 0.5},
    "ranking": {
        "enabled": True,
        "num_candidates": 25,
        "successors": 3,
        "refit_retriever": False,
        "epochs": 20,
        "tasks": {
            "rating": {"loss": "squared_error", "weight": 0.1},
            "buy": {"loss": "binary", "event_type": "buy", "weight": 0.1, "score_weight": 0.01},
            "dwell": {"loss": "squared_log_error", "column": "seconds", "weight": 0.1},
        },
    },
    "events": {"rating": "stars", "event_type": "kind"},
    "tuning": {
        "enabled": True,
        "max_trials": 2,
        "metric": "hit_rate@1",
        "holdout_fraction": 0.3,
        "space": {"ranking.learning_rate": [0.01, 1.0e-6]},  # the second learns nothing
    },
}
_LABELS = """
feature { name: "rating" type: FLOAT not_in_environment: "CATALOGUE" }
feature { name: "event_type" type: BYTES not_in_environment: "CATALOGUE" }
feature { name: "seconds" type: FLOAT not_in_environment: "CATALOGUE" }
"""


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory, two_tower: Command) -> tuple[Path, Any]:
    """A run on users who take the items of their club one after the other.

    Every third user gives three stars more, every fifth item gets one more and is bought. These
    items are looked at for 200 seconds, others for 10, which is only known of every other event.
    """
    folder = tmp_path_factory.mktemp("walks")
    config = write_two_clubs(folder, **SETTINGS)
    with (folder / "schema" / "clubs" / "schema.pbtxt").open("a") as schema:
        schema.write(_LABELS)
    chance = random.Random(3)
    events = ["user,item,time,stars,kind,seconds"]

    def labels(user: int, item: int) -> str:
        stars = 1 + 3 * (user % 3 == 0) + (item % 5 == 0)
        seconds = "" if chance.random() < 0.5 else 200 if item % 5 == 0 else 10
        return f"{stars},{'buy' if item % 5 == 0 else 'view'},{seconds}"

    for user in range(240):
        start = chance.randrange(30)
        for step in range(14):
            item = (start + step) % 30 + 30 * (user % 2)
            time = 1_000_000_000 + user + 1000 * step
            events.append(f"user {user},item é{item},{time},{labels(user, item)}")
    # Users without a history when the events that the ranker learns from begin.
    for user in range(240, 270):
        for item in range(3):
            time = 1_000_011_500 + 100 * item
            events.append(f"user {user},item é{item},{time},{labels(user, item)}")
    (folder / "events.csv").write_text("\n".join(events) + "\n", encoding="utf-8")
    return config, run_to_summary(two_tower, config)


def served(summary: Any) -> Any:
    return tf.saved_model.load(f"{summary['serving_dir']}/{summary['pushed_version']}").signatures


def report_of(config: Path, output: str, name: str) -> Any:
    """Return the content of the only file with this name in an output."""
    [path] = (config.parent.parent / "runs" / "clubs" / "artifacts").glob(f"*/{output}/*/{name}")
    return json.loads(path.read_text())


def test_the_ranked_list_is_served_if_it_is_better(walks: tuple[Path, Any]):
    config, summary = walks
    metrics = summary["metrics"]
    assert metrics["model"]["hit_rate@1"] > 0.6 > 0.3 > metrics["retrieved"]["hit_rate@1"]
    report = report_of(config, "model_run", "ranking.json")
    assert report["queries"] > 100
    importance = report["measured"]["importance"]
    assert next(iter(importance)).startswith("rules")
    assert {"club", "price"} < importance.keys()
    folder = config.parent.parent / "runs" / "clubs" / "artifacts" / "Trainer" / "model_run"
    # TensorBoard's logs: the retriever is trained only once.
    assert [path.name for path in folder.glob("*/*") if path.is_dir()] == ["held_back"]
    [table] = folder.rglob("feature_importance.parquet")
    assert pq.read_table(table)["feature"].to_pylist() == [*importance]
    [table] = folder.rglob("feature_crosses.parquet")
    crosses = pq.read_table(table).to_pylist()
    assert [f"{row['feature']} × {row['other_feature']}" for row in crosses] == [*report["crosses"]]
    assert {path.stem for path in folder.rglob("*.svg")} == {
        "feature_importance",
        "feature_crosses",
    }
    history = [[f"item é{start + step}" for step in range(3)] for start in range(24)]
    answer = served(summary)["serving_default"](
        user=tf.fill([24], "new"), club=tf.fill([24], "blue"), history=tf.constant(history)
    )
    best = [name.decode() for name in answer["candidate_ids"][:, 0].numpy()]
    next_ones = [f"item é{start + 3}" for start in range(24)]
    assert np.mean(np.array(best) == next_ones) > 0.6
    assert "retrieval_scores" in answer


def test_the_report_has_the_ranking_stage(walks: tuple[Path, Any]):
    config, summary = walks
    page = Path(summary["report"])
    facts = json.loads(page.with_name("report.json").read_text())
    importance = report_of(config, "model_run", "ranking.json")["measured"]["importance"]
    bars = charts(facts)["importance"]["data"]["values"]
    drawn = {row["feature"]: row["value"] for row in bars}
    assert drawn == {name: found["value"] for name, found in importance.items()}
    ranking, text = facts["evaluation"]["ranking"], page.read_text()
    assert "The ranked list is served" in text
    assert ranking["tasks"].keys() == {"rating", "buy", "dwell"}
    for task, found in ranking["tasks"].items():
        assert f"Task <bdi>{task}</bdi>: {found['loss']}" in text
        for name, value in found["metrics"]["model"].items():
            assert f'<th class="n">{name}</th>' in text
            assert f'<td class="n">{value:.4f}</td>' in text


def test_a_search_chooses_the_ranker(walks: tuple[Path, Any]):
    _, summary = walks
    tuning = summary["tuning"]
    trials = {trial["values"]["ranking.learning_rate"]: trial for trial in tuning["trials"]}
    assert trials[0.01]["score"] > 0.6 > 0.3 > trials[1e-6]["score"]
    assert tuning["best"] == {"ranking.learning_rate": 0.01}
    content = yaml.safe_load(Path(summary["tuned_config"]).read_text())
    assert content["ranking"]["learning_rate"] == 0.01
    assert content["ranking"]["epochs"] == 20


def test_recommendations_in_files_are_those_of_the_ranking_stage(
    walks: tuple[Path, Any], tmp_path: Path
):
    project = load(str(walks[0]), [])
    model = answering_model(project)
    recommend_all(project, model, str(tmp_path / "out"), k=5)
    rows = pq.read_table(tmp_path / "out").to_pylist()
    found = [row for row in rows if row["user"] == "user 3"]
    query = {"user": ["user 3"], "club": ["red"], "history": [query_history(project, "user 3")]}
    asked = {**query, "exclude_seen": [True]}
    wanted = LoadedModel(model.path).answer("recommend_excluding", asked)
    ids = [name.decode() for name in wanted["candidate_ids"][0, :5]]
    assert [row["item"] for row in found] == ids
    for name in ("retrieval_scores", "rating", "buy", "dwell"):
        values = [row[name] for row in found]
        np.testing.assert_allclose(values, wanted[name][0, :5], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("client_class", [RetrievalClient, RestRetrievalClient])
def test_clients_rank_given_candidates(walks: tuple[Path, Any], client_class: Any):
    _, summary = walks
    history = ["item é7", "item é8", "item é9"]
    given = ("item é30", "item é10", "no such item")
    with running_model_server(summary["serving_dir"], "retrieval") as server:
        is_rest = client_class is RestRetrievalClient
        target = server.rest_url if is_rest else server.grpc_target
        with client_class(target, query_id_name="user") as client:
            ranked = client.rank(given, history=history)
            best = client.recommend(history=history)
    assert ranked.candidate_ids == given
    assert ranked.scores[1] > ranked.scores[0] > ranked.scores[2]
    position = best.candidate_ids.index("item é10")
    for name in ("scores", "retrieval_scores", "rating", "buy", "dwell"):
        given_value, served_value = getattr(ranked, name)[1], getattr(best, name)[position]
        assert given_value == pytest.approx(served_value, rel=1e-4, abs=1e-6)
    assert ranked.buy[1] > 0.9
    assert len(best.rating) == len(best.candidate_ids)


def test_tasks_are_predicted_better_than_by_their_baselines(walks: tuple[Path, Any]):
    config, summary = walks
    tasks = report_of(config, "evaluation", "evaluation.json")["ranking"]["tasks"]
    rating = {name: found["rmse"] for name, found in tasks["rating"]["metrics"].items()}
    # Nothing is known about the users that are new in the held-out events.
    assert rating["model"] < 0.6 < 1.2 < rating["mean"]
    assert tasks["buy"]["metrics"]["model"]["auc"] > 0.9
    history = tf.constant([["item é7", "item é8", "item é9"]] * 2)
    query = {"user": tf.constant(["user 3", "user 4"]), "club": tf.constant(["red", "blue"])}
    given = tf.constant([["item é10", "item é11", "no such item"]] * 2)
    answer = served(summary)["rank"](**query, history=history, candidate_ids=given)
    generous, other = answer["rating"].numpy()
    np.testing.assert_allclose(generous[:2] - other[:2], 3.0, atol=1.0)
    assert generous[2] == other[2] == tf.float32.min
    dwell = tasks["dwell"]["metrics"]
    assert dwell["model"]["rmse"] < 0.5 * dwell["mean"]["rmse"]
    assert (answer["dwell"][:, 0] > 100).numpy().all()
    assert (answer["dwell"][:, 1] < 20).numpy().all()
    buy = answer["buy"].numpy()
    assert (buy[:, 0] > 0.9).all()
    assert (buy[:, 1] < 0.1).all()


def test_a_refresh_of_the_index_keeps_the_ranking_stage(
    walks: tuple[Path, Any], two_tower: Command
):
    config, _ = walks
    items = config.parent.parent / "items.csv"
    lines = items.read_text(encoding="utf-8").splitlines()
    # The catalogue has another order, loses an item and gets one that training did not know.
    changed = [lines[0], "item new,Thing number 10,1.5", *lines[:11:-1], *lines[1:10]]
    items.write_text("\n".join(changed) + "\n", encoding="utf-8")
    done = two_tower("index", "--config", str(config), "--json")
    assert done.returncode == 0, done.stderr
    history = tf.constant([["item é40", "item é41", "item é42"]])
    signatures = served(json.loads(done.stdout))
    query = {"user": tf.constant(["new"]), "club": tf.constant(["red"]), "history": history}
    best = signatures["serving_default"](**query)["candidate_ids"][0, 0].numpy().decode()
    assert best == "item é43"
    given = tf.constant([["item new", "item é20", "item é43"]])
    scores = signatures["rank"](**query, candidate_ids=given)["scores"][0].numpy()
    assert scores.argmax() == 2
    assert scores.min() > tf.float32.min


def test_a_task_needs_the_column_of_its_labels(tmp_path: Path, two_tower: Command):
    config = write_two_clubs(tmp_path, ranking={"enabled": True, "tasks": {"rating": {}}})
    done = two_tower("run", "--config", str(config))
    assert done.returncode == 1
    assert "`ranking.tasks.rating`" in done.stderr
    assert "`events.rating`" in done.stderr
