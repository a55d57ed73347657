"""Compilation of the pipeline for Kubeflow Pipelines or Vertex AI."""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

from pipeline.code_hash import application_hash
from pipeline.config.project import PipelineConfig
from pipeline.config.yaml_text import write_yaml
from pipeline.definition import create_components
from pipeline.errors import ConfigError
from pipeline.orchestrators.kubeflow.resources import ResourceSpec, check_components
from pipeline.orchestrators.kubeflow.step import CODE_HASH_VARIABLE, COMMAND
from pipeline.orchestrators.kubeflow.target import ClusterTarget
from pipeline.orchestrators.target import LAST_BLESSED_MODEL, PREVIOUS_MODEL

Runner: TypeAlias = Literal["kubeflow", "vertex"]

# These components read more than their input artifacts: data files, earlier models and spans, or
# the serving directory. ImportSchemaGen is fast, and its cached artifact may have been removed.
_NEVER_CACHED = frozenset(
    {
        "ImportSchemaGen",
        "TimelineExampleGen",
        "DriftGate",
        PREVIOUS_MODEL,
        LAST_BLESSED_MODEL,
        "Pusher",
        "ModelRecorder",
    }
)
# TFX's entrypoint imports TensorFlow before `models/__init__.py` can set these variables.
_ENVIRONMENT = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}

# Kubeflow's backend supports gs://, s3:// and minio:// but not paths (`LocalPathForURI` in
# backend/src/v2/component of kubeflow/pipelines). Vertex AI and TensorFlow support only gs:// of
# these: s3:// would need tensorflow-io, and another package for Beam.
ROOT_MUST = (
    "must be gs://BUCKET/…: the backend keeps artifacts in an object store, and TensorFlow reads "
    "neither s3:// nor minio://"
)


def is_cluster_root(pipeline_root: str) -> bool:
    """Return whether the backends and TensorFlow can all access a pipeline root."""
    return re.match(r"gs://[^/]", pipeline_root) is not None


def compile_pipeline(
    config: PipelineConfig,
    runner: Runner,
    image: str,
    pipeline_root: str,
    data_directory: str | None = None,
    serving_dir: str | None = None,
    resources: Mapping[str, ResourceSpec] | None = None,
) -> str:
    """Return the pipeline as KFP pipeline spec 2.1 in YAML, or as a Vertex pipeline job in JSON.

    `pipeline_root` must satisfy `is_cluster_root`, except in tests that run the steps without a
    backend. Components without `resources` (from `parse_resources`) have the backend's defaults.

    Raises:
        ConfigError: The schema file is missing, a setting cannot be used on a cluster, or an
            unknown component has resources.
    """
    if config.training.strategy == "multi_worker":
        raise ConfigError(
            "`training.strategy: multi_worker` cannot be used on a cluster, because a step is one "
            "process; use `mirrored`"
        )
    if not (is_cluster_root(pipeline_root) or pipeline_root.startswith("/")):
        raise ConfigError(f"the pipeline root {ROOT_MUST}; got {pipeline_root}")
    target = ClusterTarget(config, pipeline_root, data_directory, serving_dir)
    pipeline = tfx_pipeline.Pipeline(
        pipeline_name=pipeline_name(config),
        pipeline_root=pipeline_root,
        components=create_components(config, target),
        enable_cache=True,
        beam_pipeline_args=config.beam.pipeline_args,
    )
    dag_runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            default_image=image, default_commands=list(COMMAND), use_pipeline_spec_2_1=True
        )
    )
    job = dag_runner.run(pipeline, parameter_values=target.parameters, write_out=False)
    _complete(job["pipelineSpec"], target, pipeline_root)
    _add_resources(job["pipelineSpec"], resources or {})
    if runner == "vertex":
        return json.dumps(job, indent=2, sort_keys=True) + "\n"
    return write_yaml(job["pipelineSpec"], sort_keys=True)


def pipeline_name(config: PipelineConfig) -> str:
    """Return the name of the project in lower-case letters, digits and dashes, for Kubeflow."""
    return re.sub(r"[^a-z0-9]+", "-", config.name.lower()).strip("-")


def _complete(spec: dict[str, Any], target: ClusterTarget, pipeline_root: str) -> None:
    """Add parameter defaults and environment variables to a spec, and disable unsafe caching."""
    spec["defaultPipelineRoot"] = pipeline_root
    declared = spec["root"]["inputDefinitions"]["parameters"]
    for name, default in target.parameters.items():
        declared[name].update(defaultValue=default, isOptional=True)
    for name, task in spec["root"]["dag"]["tasks"].items():
        if name in _NEVER_CACHED:
            task.pop("cachingOptions", None)
    # The backends' cache keys contain commands and arguments, but no environment variables. So a
    # change of the whole application's hash does not invalidate all cached outputs.
    variables = {**_ENVIRONMENT, CODE_HASH_VARIABLE: application_hash()}
    environment = [{"name": name, "value": value} for name, value in variables.items()]
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"]["env"] = environment


def _add_resources(spec: dict[str, Any], resources: Mapping[str, ResourceSpec]) -> None:
    tasks = spec["root"]["dag"]["tasks"]
    check_components(resources, list(tasks))
    for name, resource_spec in resources.items():
        component = spec["components"][tasks[name]["componentRef"]["name"]]
        executor = spec["deploymentSpec"]["executors"][component["executorLabel"]]
        executor["container"]["resources"] = dict(resource_spec)
