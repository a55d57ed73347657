"""Export of the components and their order as a JSON plan, which Airflow turns into a DAG."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config.project import PipelineConfig
from pipeline.definition import create_pipeline
from pipeline.orchestrators.target import Target


def airflow_plan(
    config: PipelineConfig,
    config_path: Path,
    overrides: Sequence[str],
    two_tower: Sequence[str],
    schedule: str | None,
) -> str:
    """Return the JSON plan that `deploy/airflow/two_tower_dags.py` creates a DAG from.

    Airflow imports that file every 30 seconds, in an environment without TFX and TensorFlow, so it
    cannot import the definition of the pipeline. `two_tower` has the words of the command that
    starts `two-tower`, and `schedule` is a cron expression, or None if runs are only triggered.

    Raises:
        ConfigError: The schema file is missing.
        IngestError: The input files cannot be read.
    """
    settings = [word for override in overrides for word in ("--set", override)]
    target = Target(config, reads_input=False)
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
