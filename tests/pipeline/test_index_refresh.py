"""`two-tower index` on the two clubs, with new and removed items."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from serving.clients import RetrievalClient
from serving.launcher import running_model_server
from tests.pipeline.two_clubs import Command, write_two_clubs

pytestmark = pytest.mark.slow


def index(two_tower: Command, run: dict[str, Any], serving: Path, **settings: object) -> Any:
    """Refresh the index of a finished run into a separate serving folder."""
    given = {"serving.directory": serving, **settings}
    overrides = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
    return two_tower("index", "--config", str(run["config_path"]), "--json", *overrides)


def test_items_are_added_and_removed_without_training(
    finished_run: dict[str, Any], two_tower: Command, tmp_path: Path
) -> None:
    serving = tmp_path / "serving"
    shutil.copytree(finished_run["serving_dir"], serving)
    unchanged = index(two_tower, finished_run, serving)
    assert unchanged.returncode == 0, unchanged.stderr
    assert json.loads(unchanged.stdout)["newly_pushed"] is False
    assert len(list(serving.iterdir())) == 1

    items = (finished_run["config_path"].parent.parent / "items.csv").read_text(encoding="utf-8")
    kept = [line for line in items.splitlines() if not line.startswith("item é7,")]
    changed = tmp_path / "changed.csv"
    changed.write_text("\n".join([*kept, "item é60,Thing number 7,0.5"]) + "\n", encoding="utf-8")
    strict = {"candidates.file": changed, "candidates.max_removed": 0}
    refused = index(two_tower, finished_run, serving, **strict)
    assert refused.returncode == 3
    assert json.loads(refused.stdout)["gates"]["catalogue"] == "refused"
    assert "1 of 60 (1.7%) would: 'item é7'" in " ".join(refused.stderr.split())
    assert len(list(serving.iterdir())) == 1
    # Answers can contain other columns of the new file, also without training.
    lines = changed.read_text(encoding="utf-8").splitlines()
    described = [f"{lines[0]},Shelf no", *(f"{line},B{i}" for i, line in enumerate(lines[1:]))]
    changed.write_text("\n".join(described) + "\n", encoding="utf-8")
    schema = tmp_path / "schema.pbtxt"
    known = (finished_run["config_path"].parent.parent / "schema/clubs/schema.pbtxt").read_text()
    shelf = 'feature { name: "shelf" type: BYTES not_in_environment: "TIMELINES" }'
    schema.write_text(known + shelf)
    settings = {
        "candidates.file": changed,
        "candidates.features.shelf": "{kind: text, column: Shelf no, learn: false}",
        "schema.file": schema,
        "serving.return_fields": "[shelf, price]",
        "serving.known_histories": 20,
    }
    refreshed = index(two_tower, finished_run, serving, **settings)
    assert refreshed.returncode == 0, refreshed.stderr
    summary = json.loads(refreshed.stdout)
    assert summary["newly_pushed"] is True
    assert summary["index"]["num_candidates"] == 60
    assert "Trainer" not in summary["component_states"]
    page = Path(summary["report"]).read_text(encoding="utf-8")
    assert f"Version {summary['pushed_version']} was pushed with a catalogue of 60" in page
    assert len(list(serving.iterdir())) == 2
    kept = summary["index"]["known_histories"]
    assert (kept["num_queries"], kept["num_events"]) == (240, 240 * 14)
    assert "The model keeps the newest 20 events of 240 queries" in page

    with (
        running_model_server(serving) as server,
        RetrievalClient(
            server.grpc_target, "retrieval", query_id_name="user", candidate_id_name="item"
        ) as client,
    ):
        others = [f"item é{number}" for number in range(60) if number != 7]
        answer = client.recommend("user 1", exclude=others)
        assert answer.candidate_ids == ("item é60",)
        assert answer.model_version == summary["pushed_version"]
        assert (answer.shelf, answer.price) == (("B59",), (0.5,))
        assert len(client.similar("item é60").candidate_ids) == 20
        assert client.similar("item é7").candidate_ids == ()
        events = (finished_run["config_path"].parent.parent / "events.csv").read_text("utf-8")
        rows = [line.split(",") for line in events.splitlines()]
        history = [item for user, item, _ in rows if user == "user 1"]
        unseen = client.recommend("user 1", history=history, exclude=history).candidate_ids
        assert client.recommend("user 1", exclude_seen=True).candidate_ids == unseen
        done = two_tower(
            *("recommend", "--config", str(finished_run["config_path"]), "--json", "-k", "5"),
            *("--query-id", "user 1", "--known-history", "--target", server.grpc_target),
        )
        found = [row["candidate_id"] for row in json.loads(done.stdout)["candidates"]]
        # The command also sends the features of the user.
        assert not {*found} & {*history}
        assert len(found) == 5


def test_without_a_pushed_model_nothing_is_embedded(two_tower: Command, tmp_path: Path) -> None:
    config = write_two_clubs(tmp_path)
    done = two_tower("index", "--config", str(config))
    assert done.returncode == 1
    assert "none has been pushed yet" in done.stderr
    assert not (tmp_path / "runs" / "clubs" / "serving").exists()


def test_without_a_catalogue_file_there_is_nothing_to_refresh(
    two_tower: Command, tmp_path: Path
) -> None:
    config = write_two_clubs(tmp_path, candidates={"file": None, "features": {}})
    done = two_tower("index", "--config", str(config))
    assert done.returncode == 1
    assert "`candidates.file`" in done.stderr
    assert "Traceback" not in done.stderr


def test_changed_features_ask_for_a_run(
    finished_run: dict[str, Any], two_tower: Command, tmp_path: Path
) -> None:
    features = "{label: {kind: text}}"
    done = index(two_tower, finished_run, tmp_path, **{"candidates.features": features})
    assert done.returncode == 1
    assert "price was float32 of rank 1 and is no input" in done.stderr
