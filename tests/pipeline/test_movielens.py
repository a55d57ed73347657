"""The main job on the real data, as `make run` does it."""

import json
from pathlib import Path

import pytest

from tests.pipeline.two_clubs import Command

pytestmark = pytest.mark.slow

# What popularity reaches on this protocol in the reference run, seen films excluded.
POPULARITY = {"hit_rate@10": 0.0886, "hit_rate@100": 0.4149}


def test_ratings_become_recommendations_with_titles(two_tower: Command, tmp_path: Path) -> None:
    fetched = two_tower("data", "movielens-100k", timeout_s=600)
    if fetched.returncode:
        pytest.skip(f"MovieLens 100K cannot be downloaded here: {fetched.stderr.strip()[-300:]}")
    runs = ("--set", f"runs={tmp_path}")
    done = two_tower("run", "--config", "movielens_100k", *runs, "--push", "--json", timeout_s=600)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    for name, least in POPULARITY.items():
        assert summary["metrics"]["model"][name] > least
        assert summary["metrics"]["model"][name] > summary["metrics"]["popularity"][name]
    assert summary["blessed"]
    assert Path(summary["serving_dir"], str(summary["pushed_version"])).is_dir()

    asked = two_tower(
        "recommend", "--config", "movielens_100k", *runs, "--query-id", "42", "-k", "10", "--json"
    )
    assert asked.returncode == 0, asked.stderr
    answer = json.loads(asked.stdout)
    assert answer["model_version"] == summary["pushed_version"]
    assert answer["num_history"] == 183  # user 42's ratings in the data set
    assert len({row["candidate_id"] for row in answer["candidates"]}) == 10
    assert all(row["title"] for row in answer["candidates"])

    noir = two_tower(
        "recommend", "--config", "movielens_100k", *runs, "--query-id", "42", "-k", "10",
        "--allow", "genres=Film-Noir", "--allow", "genres=Western", "--json",
    )  # fmt: skip
    assert noir.returncode == 0, noir.stderr
    genres = [row["genres"].split("|") for row in json.loads(noir.stdout)["candidates"]]
    assert len(genres) == 10
    assert all({"Film-Noir", "Western"} & set(found) for found in genres)
