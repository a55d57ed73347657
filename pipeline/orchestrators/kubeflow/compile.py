"""The pipeline as a file for Kubeflow Pipelines or Vertex AI."""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import yaml
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

from pipeline.code_hash import application_hash
from pipeline.config.project import PipelineConfig
from pipeline.definition import create_components
from pipeline.errors import ConfigError
from pipeline.orchestrators.kubeflow.resources import ResourceSpec, check_components
from pipeline.orchestrators.kubeflow.step import CODE_HASH_VARIABLE, COMMAND
from pipeline.orchestrators.kubeflow.target import ClusterSite
from pipeline.orchestrators.target import LAST_BLESSED_MODEL, PREVIOUS_MODEL

Runner: TypeAlias = Literal["kubeflow", "vertex"]

# They look at what no input tells of: files of the data, earlier models and spans, the serving
# directory. The schema is read in no time, and a cached one may have been cleaned away.
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
# TFX's entrypoint imports TensorFlow before it imports us: see `models/__init__.py`.
_ENVIRONMENT = {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


# The backends know gs://, s3:// and minio:// (`LocalPathForURI` in backend/src/v2/component of
# kubeflow/pipelines; Vertex AI the first alone) and no path. Of these TensorFlow's file systems
# have the first alone; for s3:// it would need tensorflow-io, and Beam another package.
ROOT_MUST = (
    "must be gs://BUCKET/…: a backend keeps artifacts in an object store, and TensorFlow reads "
    "neither s3:// nor minio://"
)


def is_cluster_root(pipeline_root: str) -> bool:
    """Whether both the backends and TensorFlow reach it."""
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
    """Returns the pipeline as KFP pipeline spec 2.1 in YAML, or as a Vertex pipeline job in JSON.

    Args:
        config: The use.
        runner: Who will run it.
        image: The container image of every step: `deploy/pipeline.Dockerfile`.
        pipeline_root: URI of everything a run leaves, see `is_cluster_root`. A path is for steps
            that no backend runs: tests.
        data_directory: Default of the run-time parameter of that name.
        serving_dir: Base path of the served versions.
        resources: By component, as `parse_resources` returns them; the backend chooses the rest.

    Raises:
        ConfigError: The schema's file is missing, a setting does not fit a cluster, or there are
            resources of an unknown component.
    """
    if config.training.strategy == "multi_worker":
        raise ConfigError(
            "`training.strategy: multi_worker` starts processes that a step of a cluster does not "
            "have; use `mirrored`"
        )
    if not (is_cluster_root(pipeline_root) or pipeline_root.startswith("/")):
        raise ConfigError(f"the pipeline root {ROOT_MUST}; got {pipeline_root}")
    site = ClusterSite(config, pipeline_root, data_directory, serving_dir)
    pipeline = tfx_pipeline.Pipeline(
        pipeline_name=pipeline_name(config),
        pipeline_root=pipeline_root,
        components=create_components(config, site),
        enable_cache=True,
        beam_pipeline_args=config.beam.pipeline_args,
    )
    dag_runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            default_image=image, default_commands=list(COMMAND), use_pipeline_spec_2_1=True
        )
    )
    job = dag_runner.run(pipeline, parameter_values=site.parameters, write_out=False)
    _complete(job["pipelineSpec"], site, pipeline_root)
    _give_resources(job["pipelineSpec"], resources or {})
    if runner == "vertex":
        return json.dumps(job, indent=2, sort_keys=True) + "\n"
    text: str = yaml.safe_dump(job["pipelineSpec"], sort_keys=True, allow_unicode=True)
    return text


def pipeline_name(config: PipelineConfig) -> str:
    """Returns the use's name as Kubeflow wants it: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", config.name.lower()).strip("-")


def _complete(spec: dict[str, Any], site: ClusterSite, pipeline_root: str) -> None:
    """Adds what TFX's compiler leaves out."""
    spec["defaultPipelineRoot"] = pipeline_root
    declared = spec["root"]["inputDefinitions"]["parameters"]
    for name, default in site.parameters.items():
        declared[name].update(defaultValue=default, isOptional=True)
    for name, task in spec["root"]["dag"]["tasks"].items():
        if name in _NEVER_CACHED:
            task.pop("cachingOptions", None)
    # In the environment: the backends' caches know commands and arguments, not that.
    variables = {**_ENVIRONMENT, CODE_HASH_VARIABLE: application_hash()}
    environment = [{"name": name, "value": value} for name, value in variables.items()]
    for executor in spec["deploymentSpec"]["executors"].values():
        executor["container"]["env"] = environment


def _give_resources(spec: dict[str, Any], resources: Mapping[str, ResourceSpec]) -> None:
    tasks = spec["root"]["dag"]["tasks"]
    check_components(resources, list(tasks))
    for name, given in resources.items():
        component = spec["components"][tasks[name]["componentRef"]["name"]]
        executor = spec["deploymentSpec"]["executors"][component["executorLabel"]]
        executor["container"]["resources"] = dict(given)
