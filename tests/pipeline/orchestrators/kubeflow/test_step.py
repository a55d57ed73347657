"""A step's wrapper around TFX's entrypoint; the bucket is a server on this machine."""

import json
import os
import runpy
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils
from tfx.types import standard_artifacts

from components.artifacts import IngestReport
from pipeline.code_hash import application_hash
from pipeline.orchestrators.kubeflow import step
from pipeline.orchestrators.kubeflow.step import complete_arguments, remove_folder_markers
from tests.builders import http_server

OUTPUT = "gs://bucket/pipelines/clubs/1/Transform/transform_graph"
_PAGE_SIZE = 2


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of the step, in order, without TFX's entrypoint and the bucket."""
    done: list[Any] = []
    monkeypatch.setattr(step, "has_storage_client", lambda: True)
    monkeypatch.setattr(step, "remove_folder_markers", lambda uris: done.append(("cleaned", *uris)))
    outputs = {"model": {"artifacts": [{"name": "model", "uri": OUTPUT}]}}
    executor_input = json.dumps({"outputs": {"artifacts": outputs}})
    monkeypatch.setattr(sys, "argv", ["step", "--json_serialized_invocation_args", executor_input])
    return done


def entrypoint(monkeypatch: pytest.MonkeyPatch, calls: list[Any], code: object) -> None:
    def run(module: str, **_: object) -> None:
        calls.append(module)
        sys.exit(code)  # type: ignore[arg-type]

    monkeypatch.setattr(runpy, "run_module", run)


def test_outputs_are_cleaned_after_a_success_only(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entrypoint(monkeypatch, calls, 1)
    with pytest.raises(SystemExit, match="1"):
        step.main()
    entrypoint(monkeypatch, calls, None)
    step.main()
    assert calls == [step.ENTRYPOINT, step.ENTRYPOINT, ("cleaned", OUTPUT)]


def test_an_image_with_other_code_is_refused_before_the_work(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entrypoint(monkeypatch, calls, None)
    monkeypatch.setenv(step.CODE_HASH_VARIABLE, "0" * 16)
    with pytest.raises(SystemExit, match=r"hash 0{16}\), but has other code \(\w{16}\)"):
        step.main()
    assert not calls
    monkeypatch.setenv(step.CODE_HASH_VARIABLE, application_hash())
    step.main()
    assert step.ENTRYPOINT in calls


def test_an_image_without_a_storage_client_is_refused_before_the_work(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entrypoint(monkeypatch, calls, None)
    monkeypatch.setattr(step, "has_storage_client", lambda: False)
    with pytest.raises(SystemExit, match=r"LOCK=deploy/kubeflow/requirements\.lock"):
        step.main()
    assert not calls


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The content of `bucket` by name, behind the JSON API's list and delete."""
    pytest.importorskip("google.cloud.storage", reason="needs the extra `kubeflow`")
    stored: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            assert parts.path == "/storage/v1/b/bucket/o"
            asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
            found = [name for name in sorted(stored) if name.startswith(asked["prefix"])]
            start = int(asked.get("pageToken", 0))
            page = found[start : start + _PAGE_SIZE]
            items = [{"name": name, "size": str(len(stored[name]))} for name in page]
            more = {"nextPageToken": str(start + len(page))} if found[start + len(page) :] else {}
            self._answer(200, {"items": items, **more})

        def do_DELETE(self) -> None:
            name = unquote(urlsplit(self.path).path.removeprefix("/storage/v1/b/bucket/o/"))
            self._answer(204 if stored.pop(name, None) is not None else 404, {})

        def _answer(self, status: int, content: object) -> None:
            body = b"" if status == 204 else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with http_server(Handler) as port:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        yield stored


def test_only_the_empty_markers_below_the_outputs_are_removed(objects: dict[str, bytes]) -> None:
    below = OUTPUT.removeprefix("gs://bucket/")
    objects |= dict.fromkeys(
        [f"{below}/", f"{below}/transform_fn/", f"{below}/transform_fn/assets é/"], b""
    )
    kept = {
        f"{below}/transform_fn/saved_model.pb": b"model",
        f"{below}/transform_fn/BLESSED": b"",
        f"{below}/odd/": b"not ours",
        f"{below}_report/": b"",
        "pipelines/clubs/1/": b"",
    }
    objects |= kept
    assert remove_folder_markers([OUTPUT, "/mounted/output"]) == 3
    assert objects == kept
    assert remove_folder_markers([OUTPUT]) == 0


def test_local_paths_need_no_storage_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "_STORAGE_PACKAGE", "no.such.package")
    assert not step.has_storage_client()
    assert remove_folder_markers(["/mounted/output"]) == 0


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
    done = complete_arguments(words)
    assert [*done[:3], *done[4:]] == [*words[:3], *words[4:]]
    found: dict[str, Any] = json.loads(done[3])
    return found


def test_tfx_reads_inputs_whose_type_the_backend_left_empty() -> None:
    found = completed(
        {
            "examples": artifact(
                type={"instanceSchema": ""}, metadata={"span": 3.0, "split_names": '["train"]'}
            ),
            "report": artifact(),
        }
    )
    message = json_format.ParseDict(found, pipeline_spec_pb2.ExecutorInput())
    read = kubeflow_v2_entrypoint_utils.parse_raw_artifact_dict(message.inputs.artifacts)
    [examples], [report] = read["examples"], read["report"]
    assert isinstance(examples, standard_artifacts.Examples)
    assert (examples.span, examples.split_names, examples.uri) == (3, '["train"]', "gs://bucket/17")
    assert isinstance(report, IngestReport)


def test_a_type_that_was_sent_stays() -> None:
    title = {"schemaTitle": "tfx.Model"}
    found = completed({"examples": artifact(type=title), "other": artifact(type={})})
    assert found["inputs"]["artifacts"]["examples"]["artifacts"][0]["type"] == title
    assert found["inputs"]["artifacts"]["other"]["artifacts"][0]["type"] == {}


def test_the_launchers_log_is_no_output_of_the_component() -> None:
    logs = artifact(type={"schemaTitle": "system.Artifact"})
    found = completed({}, {"executor-logs": logs, "report": artifact(type=REPORT)})
    assert set(found["outputs"]["artifacts"]) == {"report"}
