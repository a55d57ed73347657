"""A project in Python, and the notebook that shows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.errors import EvaluationError, PipelineError
from pipeline.project import Project
from pipeline.source_lookup import query_history
from tests.pipeline.two_clubs import ROOT, Command, write_two_clubs

_NOTEBOOK = ROOT / "docs" / "project.ipynb"
# Results of the notebook that must hold, in the two clubs.
_CHECKS = """
assert recommended["rank"].to_list() == [1, 2, 3, 4, 5]
assert set(recommended.columns) == {"rank", "item", "score", "label", "price"}
assert len(candidates.ids) == 60 and len(queries.ids) == 240
seen = set(known_query(project.config, QUERY).history)
best = [candidates.ids[index] for index in np.argsort(-scores)]
assert [item for item in best if item not in seen][:5] == recommended["item"].to_list()
assert "<iframe" in project.report()._repr_html_()
assert short["pushed_version"] is None
wanted = {"training.epochs": [12, 2]}
assert project.compare(last, short["run_id"])["settings"] == wanted
assert set(metrics["ranker"]) >= {"model", "popularity"}
everyone = project.recommend_all(FOLDER, k=5).filter(pl.col("user") == QUERY)
assert everyone["item"].to_list() == recommended["item"].to_list()
comedy = project.recommend(history=["item é1", "item é2"], k=3)
assert not {"item é1", "item é2"} & set(comedy["item"])
"""


def notebook_code() -> str:
    """Return the code of the notebook's cells; the value of a last expression is not shown."""
    cells = json.loads(_NOTEBOOK.read_text("utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.fixture(scope="module")
def project(finished_run: dict[str, Any]) -> Project:
    return Project(finished_run["config_path"])


@pytest.mark.slow
class TestFinishedRun:
    def test_runs_and_metrics_are_data_frames(
        self, project: Project, finished_run: dict[str, Any]
    ) -> None:
        run, measured = finished_run["run_id"], finished_run["metrics"]
        (row,) = project.runs().filter(pl.col("run") == run).to_dicts()
        assert (row["command"], row["state"], row["is_experiment"]) == ("run", "complete", False)
        assert row["version"] == finished_run["pushed_version"]
        assert (row["metric"], row["value"]) == ("hit_rate@10", measured["model"]["hit_rate@10"])
        configured = project.metrics(run).filter(pl.col("exclude_seen"))
        found = {tuple(of[:2]): of[3] for of in configured.iter_rows()}
        assert found == {
            (ranker, name): value for ranker, of in measured.items() for name, value in of.items()
        }
        gate = configured.filter(pl.col("metric") == "hit_rate@10")
        assert gate.select((pl.col("low") <= pl.col("value")).all()).item()
        assert configured.filter(pl.col("metric") == "mrr@10")["low"].null_count() == len(measured)
        ranks = project.cases(run)["rank_model"]
        assert (ranks <= 10).sum() / len(ranks) == pytest.approx(measured["model"]["hit_rate@10"])

    def test_recommendations_are_the_best_products_of_the_embeddings(
        self, project: Project
    ) -> None:
        candidates, queries = project.candidate_embeddings(), project.query_embeddings()
        assert len(candidates.ids) == len(candidates.vectors) == 60
        assert len(queries.ids) == len(queries.vectors) == 240
        scores = candidates.vectors @ queries.vectors[queries.ids.index("user 1")]
        best = [candidates.ids[row] for row in np.argsort(-scores)]
        seen = query_history(project.config, "user 1")
        unseen = [item for item in best if item not in seen]
        found = project.recommend("user 1", k=5)
        assert found.columns == ["rank", "item", "score", "label", "price"]
        assert found["item"].to_list() == unseen[:5]
        wanted = [scores[candidates.ids.index(item)] for item in unseen[:5]]
        np.testing.assert_allclose(found["score"], wanted, rtol=1e-4)
        number = unseen[0].removeprefix("item é")
        assert found["label"][0] == f"Thing number {number}"
        assert project.recommend("user 1", k=4, exclude=unseen[:2])["item"].to_list() == unseen[2:6]
        everything = project.recommend("user 1", k=20, include_seen=True)
        assert everything["item"].to_list() == best[:20]

    def test_a_history_and_features_take_the_place_of_those_in_the_files(
        self, project: Project
    ) -> None:
        history = query_history(project.config, "user 1")
        known = project.recommend("user 1", k=5)
        assert project.recommend("user 1", history=history, k=5).equals(known)
        other = project.recommend("user 1", features={"club": "blue"}, k=5)
        assert other["score"].to_list() != known["score"].to_list()
        new = project.recommend(history=["item é40", "item é41", "item é42"], k=10)
        numbers = [int(item.removeprefix("item é")) for item in new["item"]]
        assert sum(number >= 30 for number in numbers) >= 8
        similar = project.similar("item é7", k=3)
        assert "item é7" not in similar["item"]
        assert similar["rank"].to_list() == [1, 2, 3]

    def test_errors_are_those_of_the_command_line(
        self, project: Project, finished_run: dict[str, Any]
    ) -> None:
        with pytest.raises(PipelineError, match=r"k must be at most `index\.k: 20`, got 21"):
            project.recommend("user 1", k=21)
        with pytest.raises(PipelineError, match="the model has no filter 'label'"):
            project.recommend("user 1", filters={"label": ["x"]})
        with pytest.raises(PipelineError, match="there is no run '1999'"):
            project.recommend("user 1", run="1999")
        with pytest.raises(PipelineError, match="did you mean `model`"):
            Project(finished_run["config_path"], {"modle.dimension": 3})


def test_a_project_without_runs_has_no_rows_and_says_so(tmp_path: Path) -> None:
    project = Project(write_two_clubs(tmp_path))
    assert project.runs().is_empty()
    for asked in (project.metrics, project.cases, project.report):
        with pytest.raises(EvaluationError, match="no run of clubs"):
            asked()
    with pytest.raises(PipelineError, match="nothing has been pushed"):
        project.recommend("user 1")
    (tmp_path / "events.csv").unlink()
    with pytest.raises(PipelineError, match=r"events\.csv"):
        project.run()


@pytest.mark.long
def test_the_notebook_runs_and_its_results_agree(
    finished_run: dict[str, Any], two_tower: Command, tmp_path: Path
) -> None:
    config = finished_run["config_path"]
    code = notebook_code().replace('"movielens_100k"', repr(str(config)))
    code = code.replace('QUERY = "42"', 'QUERY = "user 1"')
    script = tmp_path / "notebook.py"
    imports = "from pipeline.source_lookup import known_query"
    script.write_text(f"{code}\n{imports}\nFOLDER = {str(tmp_path / 'out')!r}\n{_CHECKS}")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
