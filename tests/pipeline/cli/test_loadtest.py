"""`two-tower loadtest` as a user runs it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.two_clubs import Command, write_two_clubs


def test_before_a_run_it_says_what_to_run(two_tower: Command, tmp_path: Path) -> None:
    done = two_tower("loadtest", "--config", str(write_two_clubs(tmp_path)))
    assert done.returncode == 1
    assert "no run of clubs has the outputs of TimelineExampleGen" in done.stderr


def test_two_kinds_of_load_are_one_too_many(two_tower: Command, tmp_path: Path) -> None:
    config = str(write_two_clubs(tmp_path))
    done = two_tower("loadtest", "--config", config, "--concurrency", "1", "--rate", "5")
    assert done.returncode == 2
    assert "choose one" in done.stderr


@pytest.mark.slow
class TestServed:
    def test_real_queries_are_answered_without_an_error(
        self, two_tower: Command, finished_run: dict[str, Any]
    ) -> None:
        done = two_tower(
            "loadtest", "--config", str(finished_run["config_path"]), "--duration", "1",
            "--rate", "50", "--signature", "serving_default", "--signature", "recommend_excluding",
            "--signature", "similar_candidates", "--signature", "embed_query", "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["errors"] == {}
        assert result["model_version"] == finished_run["pushed_version"]
        assert 20 < result["requests"] < 90
        assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p99.9"]
