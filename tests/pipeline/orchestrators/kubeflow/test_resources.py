import pytest
from google.protobuf import json_format

from pipeline.errors import ConfigError
from pipeline.orchestrators.kubeflow.resources import parse_resources

ALL = "Trainer=cpu:4,memory:16Gi,cpu_request:500m,memory_request:8G,gpu:2"


def test_resources_are_those_of_the_kfp_sdk() -> None:
    dsl = pytest.importorskip("kfp.dsl", reason="needs the extra `kubeflow`")

    @dsl.container_component
    def step():
        return dsl.ContainerSpec(image="image", command=["step"])

    @dsl.pipeline(name="pipeline")
    def pipeline() -> None:
        task = step()
        task.set_cpu_limit("4").set_memory_limit("16Gi").set_cpu_request("500m")
        task.set_memory_request("8G").set_accelerator_type("nvidia.com/gpu")
        task.set_accelerator_limit(2)

    deployment = json_format.MessageToDict(pipeline.pipeline_spec.deployment_spec)
    [executor] = deployment["executors"].values()
    assert parse_resources([ALL]) == {"Trainer": executor["container"]["resources"]}


def test_units_are_cores_and_ten_to_the_nine_bytes() -> None:
    spec = parse_resources([ALL, "Transform=memory:500M"])
    assert spec["Trainer"] == {
        "cpuLimit": 4.0,
        "memoryLimit": 17.179869184,
        "cpuRequest": 0.5,
        "memoryRequest": 8.0,
        "accelerator": {"type": "nvidia.com/gpu", "count": "2"},
    }
    assert spec["Transform"] == {"memoryLimit": 0.5}


def test_a_gpu_type_is_required_if_there_is_no_default() -> None:
    named = parse_resources(["Trainer=gpu:1,gpu_type:NVIDIA_TESLA_T4"], gpu_type=None)
    assert named["Trainer"] == {"accelerator": {"type": "NVIDIA_TESLA_T4", "count": "1"}}
    with pytest.raises(ConfigError, match="needs a gpu_type"):
        parse_resources(["Trainer=gpu:1"], gpu_type=None)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["Trainer"], "form COMPONENT=KEY:VALUE"),
        (["Trainer=cores:4"], "takes cpu, memory"),
        (["Trainer=cpu:4,cpu:5"], "at most once"),
        (["Trainer=cpu:four"], "cpu cannot be 'four'"),
        (["Trainer=memory:16"], "memory cannot be '16'"),
        (["Trainer=cpu:0"], "more than 0"),
        (["Trainer=gpu_type:x"], "number of GPUs"),
        (["Trainer=cpu:1,cpu_request:2"], "cpu_request must not be more"),
        (["Trainer=cpu:1", "Trainer=gpu:1"], "already has resources"),
    ],
)
def test_unreadable_resources_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_resources(texts)
