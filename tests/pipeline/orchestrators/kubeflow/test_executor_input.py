import json
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils
from tfx.types import standard_artifacts

from components.artifacts import IngestReport
from pipeline.orchestrators.kubeflow.executor_input import complete

EXAMPLES = {
    "instanceSchema": "title: tfx.Examples\ntype: object\nproperties:\n  span:\n    type: integer\n"
    "  split_names:\n    type: string\n"
}
REPORT = {"instanceSchema": "title: components.IngestReport\ntype: object\n"}
INPUTS_SPEC = {
    "artifacts": {"examples": {"artifactType": EXAMPLES}, "report": {"artifactType": REPORT}}
}


def artifact(**fields: Any) -> dict[str, Any]:
    return {"artifacts": [{"name": "17", "uri": "gs://bucket/17", **fields}]}


def completed(inputs: dict[str, Any], outputs: dict[str, Any] | None = None) -> dict[str, Any]:
    given = {"inputs": {"artifacts": inputs}, "outputs": {"artifacts": outputs or {}}}
    words = ["--executor_class_path", "a.B", "--json_serialized_invocation_args", json.dumps(given)]
    words += [
        "--json_serialized_inputs_spec_args",
        json.dumps(INPUTS_SPEC),
        "--direct_num_workers=1",
    ]
    done = complete(words)
    assert [*done[:3], *done[4:]] == [*words[:3], *words[4:]]
    told: dict[str, Any] = json.loads(done[3])
    return told


def test_tfx_reads_inputs_whose_type_the_backend_left_empty() -> None:
    told = completed(
        {
            "examples": artifact(
                type={"instanceSchema": ""}, metadata={"span": 3.0, "split_names": '["train"]'}
            ),
            "report": artifact(),
        }
    )
    message = json_format.ParseDict(told, pipeline_spec_pb2.ExecutorInput())
    read = kubeflow_v2_entrypoint_utils.parse_raw_artifact_dict(message.inputs.artifacts)
    [examples], [report] = read["examples"], read["report"]
    assert isinstance(examples, standard_artifacts.Examples)
    assert (examples.span, examples.split_names, examples.uri) == (3, '["train"]', "gs://bucket/17")
    assert isinstance(report, IngestReport)


def test_a_type_that_was_sent_stays() -> None:
    title = {"schemaTitle": "tfx.Model"}
    told = completed({"examples": artifact(type=title), "other": artifact(type={})})
    assert told["inputs"]["artifacts"]["examples"]["artifacts"][0]["type"] == title
    assert told["inputs"]["artifacts"]["other"]["artifacts"][0]["type"] == {}


def test_the_launchers_log_is_no_output_of_the_component() -> None:
    logs = artifact(type={"schemaTitle": "system.Artifact"})
    told = completed({}, {"executor-logs": logs, "report": artifact(type=REPORT)})
    assert set(told["outputs"]["artifacts"]) == {"report"}


def test_other_arguments_stay() -> None:
    assert complete(["--helpfull"]) == ["--helpfull"]
