"""A project whose catalogue and users grow between two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.training.warm_start import SavedWeights, vocabulary_of
from pipeline.config.file import load
from pipeline.runs.evaluation import newest_output
from serving.clients import RestRetrievalClient, RetrievalClient
from serving.launcher import running_model_server
from tests.pipeline.two_clubs import Command, run_to_summary, write_two_clubs

pytestmark = pytest.mark.slow

# Categories that a file of lines cannot hold as they are.
SEA = "blue\r\nsea\\n "
GENRES = ["two\nlines", "carriage\rreturn", "back\\nslash\u2028"]


@pytest.fixture(scope="module")
def grown(
    tmp_path_factory: pytest.TempPathFactory, two_tower: Command
) -> tuple[Path, list[dict[str, Any]]]:
    """A run on two clubs, one after the clubs have grown, and the second one repeated."""
    folder = tmp_path_factory.mktemp("grown")
    config = write_two_clubs(
        folder,
        model={"query_id_embedding": True},
        candidates={
            "features": {
                "label": {"kind": "text"},
                "price": {"kind": "numeric"},
                "genre": {"kind": "categorical"},
            }
        },
        # The steps are so small that training does not change the weights.
        training={
            "warm_start": True,
            "learning_rate": 1e-12,
            "weight_decay": 0.0,
            "epochs": 1,
        },
        evaluation={"min_lift": 0, "min_lift_over_last": 0, "slices": ["club"]},
        index={"filters": ["genre"]},
        ranking={"enabled": True, "epochs": 1},
    )
    schema = folder / "schema" / "clubs" / "schema.pbtxt"
    text = schema.read_text().replace('"blue"', json.dumps(SEA))
    schema.write_text(
        text + 'feature { name: "genre" type: BYTES not_in_environment: "TIMELINES" }'
    )
    users = (folder / "users.csv").read_bytes()
    (folder / "users.csv").write_bytes(users.replace(b",blue", f',"{SEA}"'.encode()))
    header, *rows = (folder / "items.csv").read_text("utf-8").splitlines()
    rows = [f'{row},"{GENRES[number % 3]}"' for number, row in enumerate(rows)]
    (folder / "items.csv").write_bytes("\n".join([f"{header},genre", *rows, ""]).encode())
    summaries = [run_to_summary(two_tower, config)]
    # Three new items, and a very popular one that comes first in the vocabulary.
    with (folder / "items.csv").open("a") as items:
        items.writelines(f"item é{i},Novel thing {i},{i}.5,new\n" for i in range(60, 64))
    with (folder / "events.csv").open("a", encoding="utf-8") as events:
        for user in range(300):
            events.write(f"user {user},item é{60 + user % 3},{1_000_050_000 + user}\n")
            events.write(f"user {user},item é63,{1_000_060_000 + user}\n")
    with (folder / "users.csv").open("a") as users:
        users.writelines(f"user {user},red\n" for user in range(240, 300))
    summaries += [run_to_summary(two_tower, config), run_to_summary(two_tower, config, "--force")]
    return config, summaries


def test_old_ids_keep_their_vectors_and_the_repeated_run_is_cached(
    grown: tuple[Path, list[dict[str, Any]]],
):
    config, (first, second, again) = grown
    assert first["warm_start"]["source"] is None
    assert second["component_states"]["Trainer"] == "complete"
    counts = second["warm_start"]["vocabularies"]
    assert counts["item"] == {"kept": 60, "new": 4, "gone": 0}
    # A user whose two events are both held out stays unknown.
    assert (counts["user"]["kept"], counts["user"]["gone"]) == (240, 0)
    assert 50 < counts["user"]["new"] <= 60
    assert counts["label"]["new"] > 0

    spec = load(str(config)).spec
    models = sorted(
        (config.parent.parent / "runs" / "clubs" / "artifacts" / "Trainer" / "model").glob("*/*"),
        key=lambda path: int(path.parent.name),
    )
    before, after = (SavedWeights.read(str(model), spec) for model in models)
    assert second["warm_start"]["source"] == str(models[0])
    assert before.vocabularies["item"][0] != after.vocabularies["item"][0]
    for name, values in after.values.items():
        vocabulary = vocabulary_of(name, spec)
        if vocabulary is None:
            np.testing.assert_allclose(values, before.values[name], atol=1e-6)
            continue
        rows = {value: row for row, value in enumerate(before.vocabularies[vocabulary])}
        for row, value in enumerate(after.vocabularies[vocabulary]):
            if value in rows:
                expected = before.values[name][rows[value]]
                np.testing.assert_allclose(values[row], expected, atol=1e-6, err_msg=name)

    states = dict(again["component_states"])
    assert states["Trainer"] == "cached"
    assert again["warm_start"] == second["warm_start"]
    assert again["pushed_version"] == second["pushed_version"]
    assert again["metrics"] == second["metrics"]


def test_the_report_shows_where_the_training_started(
    grown: tuple[Path, list[dict[str, Any]]],
):
    _, (first, second, _) = grown
    pages = [Path(summary["report"]).read_text("utf-8") for summary in (first, second)]
    assert "training started from random weights" in pages[0]
    assert f"<p>From <code>{second['warm_start']['source']}</code>.</p>" in pages[1]
    cells = '<td class="n">60</td><td class="n">4</td><td class="n">0</td>'
    assert f"<td><bdi>item</bdi></td>{cells}" in pages[1]


def test_the_ranker_starts_from_the_earlier_one(grown: tuple[Path, list[dict[str, Any]]]):
    config, (_, second, _) = grown
    folder = config.parent.parent / "runs" / "clubs" / "artifacts" / "Trainer" / "model_run"
    reports = sorted(folder.glob("*/ranking.json"), key=lambda path: int(path.parent.name))
    starts = [json.loads(path.read_text())["warm_start"] for path in reports]
    assert starts == [None, second["warm_start"]["source"]]


def test_categories_with_line_ends_are_kept_sliced_and_filtered(
    grown: tuple[Path, list[dict[str, Any]]],
):
    path, (_, second, _) = grown
    config, vocabularies = load(str(path)), second["warm_start"]["vocabularies"]
    assert vocabularies["club"] == {"kept": 2, "new": 0, "gone": 0}
    assert vocabularies["genre"] == {"kept": 3, "new": 1, "gone": 0}
    folder = newest_output(config, "RetrievalEvaluator", "evaluation")
    report = json.loads(Path(folder, "evaluation.json").read_text("utf-8"))
    assert set(report["slices"]["feature club"]) == {"red", SEA}
    with (
        running_model_server(second["serving_dir"], "retrieval") as server,
        RetrievalClient(server.grpc_target, query_id_name="user") as client,
        RestRetrievalClient(server.rest_url, query_id_name="user") as rest,
    ):
        sea, red = (client.embed_query(features={"club": club}) for club in (SEA, "red"))
        assert len({sea, red, client.embed_query(features={"club": "unknown"})}) == 3
        for number, genre in enumerate(GENRES):
            answer = client.recommend("user 1", filters={"genre": [genre]})
            found = {int(name.removeprefix("item é")) for name in answer.candidate_ids}
            assert found == {item for item in range(60) if item % 3 == number}
            over_rest = rest.recommend("user 1", filters={"genre": [genre]})
            assert over_rest.candidate_ids == answer.candidate_ids


def test_a_model_that_does_not_fit_ends_the_run_with_what_to_do(
    grown: tuple[Path, list[dict[str, Any]]], two_tower: Command
):
    config, _ = grown
    done = two_tower(
        "run",
        "--config",
        str(config),
        "--set",
        "model.dimension=6",
        "--set",
        "ranking.enabled=false",
    )
    assert done.returncode == 1
    assert "candidate_tower:ids:embeddings was [8] and is [6]" in done.stderr
    assert "training.warm_start: false" in done.stderr
