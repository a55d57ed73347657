from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tfx.types import standard_artifacts

from components.artifacts import CandidateEmbeddings, IndexReport
from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.errors import IndexRefusedError, NotBlessedError
from components.index_builder import export
from components.index_builder.component import IndexBuilder, IndexBuilderConfig
from components.index_builder.config import IndexConfig
from tests.builders import artifact, blessing, write_examples

Build = Callable[..., tuple[Path, Any]]


def test_the_report_describes_the_index_and_why_it_was_chosen(build: Build):
    _, report = build(backend="scann", k=10, leaves=4, leaves_to_search=4, num_recall_queries=7)
    assert (report["num_candidates"], report["dimension"]) == (300, 8)
    assert report["num_recall_queries"] == report["num_tuning_queries"] == 7
    assert report["settings"]["leaves"] == report["settings"]["leaves_to_search"] == 4
    assert report["recall"] >= 0.95
    assert report["query_ms"] > 0
    assert report["hit_rate"] == pytest.approx(report["hit_rate_exact"], abs=0.02)
    assert report["gate"]["passed"]
    assert report["reason"].startswith("the cheapest of")
    assert [trial["settings"] for trial in report["trials"] if trial["assured_recall"] >= 0.95]


def test_a_refusal_names_settings_to_change_and_leaves_no_files(build: Build, tmp_path: Path):
    match = r"recall@10 is 0.*but must be at least 1\.0000 \(index\.recall_target\)"
    with pytest.raises(IndexRefusedError, match=match) as raised:
        build(
            tmp_path / "model", backend="scann", k=10, leaves=6, leaves_to_search=1, reorder=10,
            recall_target=1.0,
        )  # fmt: skip
    # The command then exits with status 3.
    assert isinstance(raised.value, NotBlessedError)
    assert "leaves_to_search 1" in str(raised.value)
    assert raised.value.report["recall"] < 1
    assert not raised.value.report["gate"]["passed"]
    assert "index.backend: exact" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_an_index_that_loses_events_is_refused(build: Build, many_towers: Any, tmp_path: Path):
    best = {user: many_towers.best(many_towers.embed(user)) for user in many_towers.queries}
    write_examples(
        tmp_path / "examples" / "Split-eval",
        [
            {"user": [user], "age": [], "genres": [], "item": [best[user][4][0]], "is_target": [1]}
            for user in many_towers.queries
        ],
    )
    with pytest.raises(
        IndexRefusedError,
        match=r"loss of hit_rate@5 is 0\.\d+, but must be at most .*index.max_hit_rate_loss",
    ):
        build(
            tmp_path / "model", str(tmp_path / "examples"), backend="partitioned", k=5,
            leaves=12, leaves_to_search=1, recall_target=0.01,
        )  # fmt: skip
    assert not (tmp_path / "model").exists()


def test_an_interrupted_build_leaves_no_model(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def kill(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(export, "_write_warmup", kill)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "model", backend="exact", k=10)
    assert not list(tmp_path.iterdir())
    build(tmp_path / "model", backend="exact", k=10)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("blessed", [True, False])
def test_executor_builds_only_a_blessed_model_and_writes_it_where_pusher_looks(
    many_towers: Any,
    many_examples: str,
    many_embeddings: EmbeddingFiles,
    tmp_path: Path,
    blessed: bool,
) -> None:
    config = IndexBuilderConfig(
        spec=many_towers.spec,
        index=IndexConfig(backend="exact", k=10),
        query_split="eval",
        model_name="retrieval",
        known_histories=3,
        known_histories_max_mb=1,
        splits=("train", "eval"),
    )

    def run() -> None:
        IndexBuilder.test_call(
            examples=artifact(standard_artifacts.Examples, many_examples),
            embeddings=artifact(CandidateEmbeddings, many_embeddings.uri),
            model=artifact(standard_artifacts.Model, Path(many_towers.directory).parent),
            model_blessing=blessing(standard_artifacts.ModelBlessing, tmp_path / "b", blessed),
            retrieval_model=artifact(standard_artifacts.Model, tmp_path / "model"),
            report=artifact(IndexReport, tmp_path / "report"),
            config=config.model_dump_json(),
            code_hash="",
        )

    if blessed:
        run()
        assert (tmp_path / "model" / "Format-Serving" / "saved_model.pb").exists()
        report = json.loads((tmp_path / "report" / "index_report.json").read_text())
        assert (report["backend"], report["recall"]) == ("exact", 1.0)
        assert report["known_histories"]["num_events"] == 3 * len(many_towers.queries)
    else:
        with pytest.raises(NotBlessedError):
            run()
        assert not (tmp_path / "model").exists()
