from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from components.blessings import NotBlessedError
from components.candidate_embedder.embedding_files import EmbeddingFiles
from components.candidate_embedder.spec import CandidateEmbeddings
from components.index_builder import saved_retrieval_model
from components.index_builder.build import IndexBuildError, RecallTooLowError
from components.index_builder.config import IndexConfig
from components.index_builder.executor import Executor
from components.index_builder.spec import IndexBuilderConfig, IndexReportArtifact

Build = Callable[..., tuple[Path, Any]]


@pytest.mark.parametrize(
    ("settings", "backend"),
    [
        ({"backend": "auto", "max_exact_candidates": 300}, "exact"),
        ({"backend": "auto", "max_exact_candidates": 299, "leaves_to_search": 17}, "scann"),
    ],
)
def test_auto_takes_exact_up_to_the_limit(build: Build, settings: dict[str, Any], backend: str):
    assert build(k=10, **settings)[1].backend == backend


def test_report_tells_what_was_built(build: Build):
    _, report = build(backend="scann", k=10, leaves=4, leaves_to_search=4, num_recall_queries=7)
    assert report.num_candidates == 300
    assert report.dimension == 8
    assert report.num_recall_queries == 7
    assert report.settings == {"leaves": 4, "leaves_to_search": 4, "reorder": 250}
    assert report.recall >= 0.95


def test_too_low_a_recall_names_what_to_change_and_leaves_nothing(build: Build, tmp_path: Path):
    with pytest.raises(RecallTooLowError, match="recall@10 0") as raised:
        build(
            tmp_path / "model", backend="scann", k=10, leaves=6, leaves_to_search=1, reorder=10,
            recall_target=1.0,
        )  # fmt: skip
    assert isinstance(raised.value, IndexBuildError)
    assert "`index.recall_target` is 1.0" in str(raised.value)
    assert "'leaves_to_search': 1" in str(raised.value)
    assert "`index.backend: exact`" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_build_leaves_no_model_and_the_next_one_clears_up(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def kill(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(saved_retrieval_model, "_write_warmup", kill)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "model", backend="exact", k=10)
    assert [path.name for path in tmp_path.iterdir()] == ["model.incomplete"]
    build(tmp_path / "model", backend="exact", k=10)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "settings",
    [{"k": 0}, {"leaves": 4, "leaves_to_search": 5}, {"k": 10, "reorder": 9}, {"recall_target": 0}],
)
def test_config_refuses_searches_that_cannot_be(settings: dict[str, Any]):
    with pytest.raises(ValidationError):
        IndexConfig(**settings)


@pytest.fixture
def run_executor(
    many_towers: Any, many_examples: str, many_embeddings: EmbeddingFiles, tmp_path: Path
) -> Callable[[bool], None]:
    def run(blessed: bool) -> None:
        inputs = {
            "examples": standard_artifacts.Examples(),
            "embeddings": CandidateEmbeddings(),
            "model": standard_artifacts.Model(),
            "model_blessing": standard_artifacts.ModelBlessing(),
        }
        outputs = {"retrieval_model": standard_artifacts.Model(), "report": IndexReportArtifact()}
        inputs["examples"].uri = many_examples
        inputs["embeddings"].uri = many_embeddings.uri
        inputs["model"].uri = str(Path(many_towers.directory).parent)
        for name, artifact in {**outputs, "model_blessing": inputs["model_blessing"]}.items():
            artifact.uri = str(tmp_path / name)
        file = "BLESSED" if blessed else "NOT_BLESSED"
        io_utils.write_string_file(str(tmp_path / "model_blessing" / file), "")
        inputs["model_blessing"].set_int_custom_property("blessed", int(blessed))
        config = IndexBuilderConfig(
            spec=many_towers.spec,
            index=IndexConfig(backend="exact", k=10),
            query_split="eval",
            model_name="retrieval",
            code_hash="",
        )
        Executor().Do(
            {name: [artifact] for name, artifact in inputs.items()},
            {name: [artifact] for name, artifact in outputs.items()},
            {"index_builder_config": config.model_dump_json()},
        )

    return run


def test_executor_writes_the_model_where_pusher_looks_and_the_report(
    run_executor: Callable[[bool], None], tmp_path: Path
):
    run_executor(True)
    assert (tmp_path / "retrieval_model" / "Format-Serving" / "saved_model.pb").exists()
    report = json.loads((tmp_path / "report" / "index_report.json").read_text())
    assert report["backend"] == "exact"
    assert report["recall"] == 1.0


def test_executor_builds_nothing_for_a_model_that_is_not_blessed(
    run_executor: Callable[[bool], None], tmp_path: Path
):
    with pytest.raises(NotBlessedError):
        run_executor(False)
    assert not (tmp_path / "retrieval_model").exists()
