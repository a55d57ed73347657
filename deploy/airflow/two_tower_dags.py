"""Define an Airflow DAG for each `*.two-tower.json` next to this file or in $TWO_TOWER_PLANS.

`two-tower compile --runner airflow --config NAME -o NAME.two-tower.json` writes these files, which
are called plans. Each component becomes a task that runs `two-tower component` in the pipeline's
own environment, because Airflow's environment has neither TFX nor TensorFlow. See docs/airflow.md.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
from datetime import datetime, timezone
from pathlib import Path

from airflow.models.dag import DAG
from airflow.models.param import Param
from airflow.operators.bash import BashOperator

_SUFFIX = ".two-tower.json"
_PLANS = Path(os.environ.get("TWO_TOWER_PLANS", Path(__file__).resolve().parent))
# The run ID and span are passed as environment variables, so that the shell does not execute them.
_COMMAND = '{command} component {name} {arguments} --run-id "$RUN_ID" ${{SPAN:+--span "$SPAN"}}'
_ENVIRONMENT = {
    "RUN_ID": "{{ dag_run.run_id }}",
    "SPAN": "{{ '' if params.span is none else params.span }}",
}


def make_dag(plan: dict) -> DAG:
    """Return the DAG of a plan, with at most one active run and without catch-up."""
    with DAG(
        dag_id=plan["dag_id"],
        schedule=plan["schedule"],
        start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        max_active_runs=1,
        # Components cannot run in parallel: each one holds the run lock (pipeline/runs/lock.py).
        max_active_tasks=1,
        params={"span": Param(None, type=["null", "string", "integer"])},
        tags=["two-tower"],
    ) as dag:
        tasks = {
            component["name"]: BashOperator(
                task_id=component["name"],
                bash_command=_COMMAND.format(
                    command=plan["command"],
                    name=shlex.quote(component["name"]),
                    arguments=plan["arguments"],
                ),
                env=_ENVIRONMENT,
                append_env=True,
            )
            for component in plan["components"]
        }
        for component in plan["components"]:
            for upstream in component["after"]:
                tasks[upstream] >> tasks[component["name"]]
    return dag


def make_broken_dag(file: Path, problem: str) -> DAG:
    """Return a DAG that represents an unreadable plan; its only task fails with `problem`."""
    with DAG(
        dag_id=re.sub(r"[^\w.-]", "-", file.name[: -len(_SUFFIX)]),
        schedule=None,
        start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
        description=problem,
        tags=["two-tower", "broken"],
    ) as dag:
        BashOperator(
            task_id="plan_cannot_be_read",
            bash_command='echo "$PROBLEM" >&2; exit 1',
            env={"PROBLEM": problem},
            append_env=True,
        )
    return dag


for _file in sorted(_PLANS.glob(f"*{_SUFFIX}")):
    # An exception here would also remove the DAGs of all other plans.
    try:
        _dag = make_dag(json.loads(_file.read_text(encoding="utf-8")))
    except Exception as _error:
        logging.getLogger(__name__).exception("no DAG of %s", _file)
        _dag = make_broken_dag(_file, f"{_file}: {type(_error).__name__}: {_error}")
    globals()[_dag.dag_id] = _dag
