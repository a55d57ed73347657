"""A project in Python, and the notebook that shows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.two_clubs import ROOT, Command

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
