"""What Airflow needs to know of a pipeline: its components, and which waits for which."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config.project import PipelineConfig
from pipeline.definition import create_pipeline
from pipeline.orchestrators.target import LocalSite


def airflow_plan(
    config: PipelineConfig,
    config_path: Path,
    overrides: Sequence[str],
    two_tower: Sequence[str],
    schedule: str | None,
) -> str:
    """Returns the JSON that `deploy/airflow/two_tower_dags.py` makes a DAG from.

    The file of DAGs is read every half minute, by an Airflow that has neither TFX nor TensorFlow;
    so it must not be the definition itself.

    Args:
        config: The use.
        config_path: Its file, for the components.
        overrides: Settings that were given on the command line.
        two_tower: The command that runs a component.
        schedule: Cron expression; None: runs are only triggered.

    Raises:
        ConfigError: The schema's file is missing.
        IngestError: The input files cannot be read.
    """
    settings = [word for override in overrides for word in ("--set", override)]
    components: list[dict[str, Any]] = [
        {"name": node.id, "after": sorted(upstream.id for upstream in node.upstream_nodes)}
        for node in create_pipeline(config, site=LocalSite(config, ingests=False)).components
    ]
    plan = {
        "dag_id": config.name,
        "schedule": schedule,
        "command": shlex.join(two_tower),
        "arguments": shlex.join(["--config", str(config_path), *settings]),
        "components": components,
    }
    return json.dumps(plan, indent=2) + "\n"
