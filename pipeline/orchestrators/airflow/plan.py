"""Export the pipeline's components and their order as a plan for Airflow."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config.project import PipelineConfig
from pipeline.definition import create_pipeline
from pipeline.orchestrators.local.target import LocalTarget


def airflow_plan(
    config: PipelineConfig,
    config_path: Path,
    overrides: Sequence[str],
    two_tower: Sequence[str],
    schedule: str | None,
) -> str:
    """Return the JSON from which `deploy/airflow/two_tower_dags.py` makes a DAG.

    Airflow reads the file of DAGs every half minute, in an environment without TFX and TensorFlow,
    so that file cannot import the pipeline's definition.

    Args:
        config: The project's configuration.
        config_path: Its file, for the components' command.
        overrides: Settings from the command line.
        two_tower: The command that runs a component.
        schedule: Cron expression, or None if runs are only triggered.

    Raises:
        ConfigError: The schema file is missing.
        IngestError: The input files cannot be read.
    """
    settings = [word for override in overrides for word in ("--set", override)]
    target = LocalTarget(config, reads_input=False)
    components: list[dict[str, Any]] = [
        {"name": node.id, "after": sorted(upstream.id for upstream in node.upstream_nodes)}
        for node in create_pipeline(config, target=target).components
    ]
    plan = {
        "dag_id": config.name,
        "schedule": schedule,
        "command": shlex.join(two_tower),
        "arguments": shlex.join(["--config", str(config_path), *settings]),
        "components": components,
    }
    return json.dumps(plan, indent=2) + "\n"
