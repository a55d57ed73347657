import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from typer.testing import CliRunner

import components
from pipeline.cli.main import app
from pipeline.config.file import load
from pipeline.errors import ConfigError
from pipeline.orchestrators.kubeflow.compile import compile_pipeline
from pipeline.orchestrators.kubeflow.resources import parse_resources
from tests.pipeline.two_clubs import write_two_clubs

GOLDEN = Path(__file__).with_name("two_clubs.golden.yaml")
ROOT_URI = "gs://bucket/pipelines"


@pytest.fixture(scope="module")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_two_clubs(tmp_path_factory.mktemp("clubs"), training={"warm_start": True})


def compiled(config_path: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    text = compile_pipeline(
        load(str(config_path), overrides), "kubeflow", "registry/two-tower:1", ROOT_URI, **options
    )
    spec: dict[str, Any] = yaml.safe_load(text)
    return spec


@pytest.fixture(scope="module")
def spec(config_path: Path) -> dict[str, Any]:
    return compiled(config_path)


def _shape(part: Any) -> Any:
    """Return a part without hashes of code and without settings, which have tests of their own."""
    if isinstance(part, dict):
        return {key: _shape(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_shape(value) for value in part]
    if isinstance(part, str) and part.startswith("{") and part != "{{$}}":
        return f"JSON with {', '.join(sorted(json.loads(part)))}"
    return re.sub(r"[0-9a-f]{16,}", "HASH", part) if isinstance(part, str) else part


def parameters(spec: dict[str, Any], task: str) -> dict[str, Any]:
    given: dict[str, Any] = spec["root"]["dag"]["tasks"][task]["inputs"]["parameters"]
    return given


def constant(spec: dict[str, Any], task: str, name: str) -> Any:
    return parameters(spec, task)[name]["runtimeValue"]["constant"]


def test_the_pipeline_equals_the_golden_file(
    spec: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    text = yaml.dump(_shape(spec))
    if request.config.getoption("--renew-golden"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8"), "renew it with --renew-golden, and read it"


def test_the_pipeline_is_a_valid_pipeline_spec(spec: dict[str, Any]) -> None:
    # Unknown fields are an error.
    message = json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    assert message.schema_version == "2.1.0"
    assert message.pipeline_info.name == "clubs"
    deployment = pipeline_spec_pb2.PipelineDeploymentConfig()
    json_format.ParseDict(spec["deploymentSpec"], deployment)
    # The open-source backend has no resolvers: every step is a container.
    for label, executor in deployment.executors.items():
        assert executor.WhichOneof("spec") == "container", label
        assert executor.container.image == "registry/two-tower:1"


def test_the_kfp_sdk_loads_the_pipeline(spec: dict[str, Any]) -> None:
    sdk = pytest.importorskip("kfp.components", reason="needs the extra `kubeflow`")
    loaded = sdk.load_component_from_text(yaml.safe_dump(spec))
    assert set(loaded.pipeline_spec.root.input_definitions.parameters) == {
        "data_directory",
        "epochs",
    }


def test_the_pipeline_has_no_paths_of_the_compiling_machine(
    config_path: Path, spec: dict[str, Any]
) -> None:
    assert str(config_path.parents[1]) not in yaml.dump(spec)
    assert constant(spec, "ImportSchemaGen", "schema_file") == "/app/schema/clubs/schema.pbtxt"
    trainer = json.loads(constant(spec, "Trainer", "custom_config"))["trainer"]
    assert trainer["checkpoint_dir"] == "/tmp/two-tower-checkpoints"
    push = json.loads(constant(spec, "Pusher", "push_destination"))
    directory = push["filesystem"].get("baseDirectory") or push["filesystem"]["base_directory"]
    assert directory == f"{ROOT_URI}/clubs/serving/retrieval"


def test_the_data_and_the_served_versions_can_be_in_other_buckets(config_path: Path) -> None:
    spec = compiled(config_path, data_directory="gs://logs/today", serving_dir="gs://served/clubs")
    declared = spec["root"]["inputDefinitions"]["parameters"]
    assert declared["data_directory"]["defaultValue"] == "gs://logs/today"
    assert "gs://served/clubs" in constant(spec, "Pusher", "push_destination")


def test_the_vertex_job_contains_the_same_pipeline(config_path: Path, spec: dict[str, Any]) -> None:
    job = json.loads(
        compile_pipeline(load(str(config_path)), "vertex", "registry/two-tower:1", ROOT_URI)
    )
    message = json_format.ParseDict(copy.deepcopy(job), pipeline_spec_pb2.PipelineJob())
    assert message.runtime_config.gcs_output_directory == ROOT_URI
    assert job["runtimeConfig"]["parameterValues"] == {"data_directory": "/app", "epochs": 12.0}
    assert job["pipelineSpec"] == spec


def test_artifact_types_can_be_imported_by_their_title(spec: dict[str, Any]) -> None:
    titles = set(re.findall(r"title: ([\w.]+)", yaml.dump(spec, width=10_000)))
    own = {title.removeprefix("components.") for title in titles if title.startswith("components")}
    assert own == {"CandidateEmbeddings", "IndexReport", "IngestReport", "RejectedRows"}
    for title in own:
        assert f"components.{title}" == getattr(components, title).TYPE_NAME


@pytest.mark.parametrize("root", ["minio://bucket/root", "s3://bucket/root", "gs://", "root"])
def test_a_root_that_tensorflow_cannot_read_is_refused(config_path: Path, root: str) -> None:
    with pytest.raises(ConfigError, match=rf"pipeline root must be gs://.*got {root}"):
        compile_pipeline(load(str(config_path)), "kubeflow", "registry/two-tower:1", root)


@pytest.mark.parametrize("runner", ["kubeflow", "vertex"])
def test_the_command_refuses_a_path_as_root(config_path: Path, tmp_path: Path, runner: str) -> None:
    output = tmp_path / f"clubs.{'yaml' if runner == 'kubeflow' else 'json'}"
    words = ["compile", "--runner", runner, "--config", str(config_path), "-o", str(output)]
    words += ["--image", "registry/two-tower:1", "--pipeline-root", "/mnt/pipelines"]
    done = CliRunner().invoke(app, [*words, "--set", f"runs={tmp_path}"])
    assert done.exit_code == 1
    assert "--pipeline-root must be gs://BUCKET" in " ".join(done.output.split())
    assert not output.exists()


def test_a_step_has_its_resources(config_path: Path) -> None:
    given = parse_resources(["Trainer=cpu:4,memory:16G,gpu:1"])
    spec = compiled(config_path, resources=given)
    deployment = pipeline_spec_pb2.PipelineDeploymentConfig()
    json_format.ParseDict(spec["deploymentSpec"], deployment)
    resources = deployment.executors["Trainer_executor"].container.resources
    assert (resources.cpu_limit, resources.memory_limit) == (4.0, 16.0)
    assert (resources.accelerator.type, resources.accelerator.count) == ("nvidia.com/gpu", 1)
    others = [label for label in deployment.executors if label != "Trainer_executor"]
    for label in others:
        assert not deployment.executors[label].container.HasField("resources")


def test_a_run_has_a_parameter_for_the_span_if_there_are_spans(config_path: Path) -> None:
    spec = compiled(config_path, "events.files=logs/{YYYY}-{MM}-{DD}.csv")
    assert spec["root"]["inputDefinitions"]["parameters"]["span"]["defaultValue"] == "newest"
    assert parameters(spec, "TimelineExampleGen")["span"] == {"componentInputParameter": "span"}


def test_a_span_is_compared_with_profiles_below_the_root(tmp_path: Path) -> None:
    path = write_two_clubs(tmp_path, events={"files": "logs/{SPAN}.csv"}, drift={"action": "stop"})
    spec = compiled(path)
    gate = json.loads(constant(spec, "DriftGate", "config"))
    assert gate["profiles"] == f"{ROOT_URI}/clubs/span_profiles"
    assert gate["ingest"]["chosen_spans"] is None
    assert parameters(spec, "DriftGate")["data_directory"] == {
        "componentInputParameter": "data_directory"
    }
    tasks = spec["root"]["dag"]["tasks"]
    assert not tasks["DriftGate"].get("cachingOptions", {}).get("enableCache")
    assert "DriftGate" in tasks["Transform"]["dependentTasks"]
    [(title, name)] = re.findall(
        r"title: (components\.(SpanProfile))", yaml.dump(spec, width=10_000)
    )
    assert title == getattr(components, name).TYPE_NAME


def test_settings_that_do_not_fit_a_cluster_are_refused(config_path: Path) -> None:
    with pytest.raises(ConfigError, match="multi_worker"):
        compiled(config_path, "training.strategy=multi_worker")
    with pytest.raises(ConfigError, match=r"Trainr: .*Transform.* did you mean `Trainer`\?"):
        compiled(config_path, resources=parse_resources(["Trainr=cpu:4"]))
    with pytest.raises(ConfigError, match=r"`serving\.directory`.*served/here"):
        compiled(config_path, "serving.directory=served/here")
