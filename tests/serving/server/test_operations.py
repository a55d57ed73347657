"""Operation of a server: TLS, health, metrics, limits and logs.

The server runs in a process that finds only the packages of `serving/requirements.lock`.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.launcher import RunningModelServer, running_model_server
from tests.serving.server.grpc_calls import Stubs, predict_request

ROOT = Path(__file__).resolve().parents[3]
METRICS = "/monitoring/prometheus/metrics"

BLOCKER = """
import json, os, sys

class Filter:
    def __init__(self, hidden, finders):
        self.hidden, self.finders = hidden, finders

    def find_spec(self, name, path=None, target=None):
        if name in self.hidden:
            return None
        specs = (finder.find_spec(name, path, target) for finder in self.finders)
        return next(filter(None, specs), None)

with open(os.path.join(os.path.dirname(__file__), "blocked.json")) as file:
    sys.meta_path[:] = [Filter(set(json.load(file)), list(sys.meta_path))]
"""


def modules_of(distribution: importlib.metadata.Distribution) -> set[str]:
    """The topmost names it installs; of the shared namespace `google`, those below it."""
    names = set()
    for file in distribution.files or []:
        first, *rest = file.parts
        if file.suffix in (".py", ".so") and first not in ("..", "__pycache__"):
            if first == "google" and rest:
                names.add(f"google.{rest[0].split('.')[0]}")
            else:
                names.add(first.split(".")[0])
    return names


def names_outside_of_the_lock() -> set[str]:
    lock = (ROOT / "serving" / "requirements.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    inside: set[str] = set()
    outside: set[str] = set()
    for distribution in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        (inside if name in locked else outside).update(modules_of(distribution))
    return outside - inside - {"serving"}


def ssl_config(certificates: Path) -> str:
    texts = {"server_key": "server.key", "server_cert": "server.pem", "custom_ca": "ca.pem"}
    lines = [
        f"{field}: {json.dumps((certificates / name).read_text())}" for field, name in texts.items()
    ]
    return "\n".join([*lines, "client_verify: true"])


@pytest.fixture(scope="module")
def requests_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("requests")


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    exported_model: Path,
    certificates: Path,
    requests_folder: Path,
) -> Iterator[RunningModelServer]:
    folder = tmp_path_factory.mktemp("operated")
    (folder / "models").mkdir()
    (folder / "models" / "1").symlink_to(exported_model)
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(BLOCKER)
    blocked = names_outside_of_the_lock()
    assert {"tfx", "apache_beam", "tensorflow_transform", "pyarrow"} <= blocked
    (folder / "site" / "blocked.json").write_text(json.dumps(sorted(blocked)))
    (folder / "ssl.config").write_text(ssl_config(certificates))
    (folder / "monitoring.config").write_text("prometheus_config { enable: true }")
    (folder / "batching.config").write_text("max_batch_size { value: 64 }")
    flags = [
        f"--ssl_config_file={folder}/ssl.config",
        f"--monitoring_config_file={folder}/monitoring.config",
        f"--batching_parameters_file={folder}/batching.config",
        "--enable_grpc_healthcheck_service=true",
        "--max_request_bytes=20000",
        "--grpc_channel_arguments=grpc.max_concurrent_streams=100",
        "--log_format=json",
        f"--request_log_folder={requests_folder}",
        "--request_log_max_bytes=1",  # a file for each request
        "--request_log_max_files=3",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "site"))
        with running_model_server(folder / "models", extra_flags=flags) as running:
            yield running


@pytest.fixture(scope="module")
def channel(server: RunningModelServer, certificates: Path) -> Iterator[grpc.Channel]:
    with secure_channel(server, certificates, "client") as channel:
        yield channel


def secure_channel(server: RunningModelServer, certificates: Path, client: str) -> grpc.Channel:
    own = [(certificates / f"{client}.{end}").read_bytes() for end in ("key", "pem")]
    credentials = grpc.ssl_channel_credentials(
        (certificates / "ca.pem").read_bytes(), *(own if client else ())
    )
    return grpc.secure_channel(server.grpc_target, credentials)


def predict(channel: grpc.Channel, users: list[str], name: str = "retrieval") -> Any:
    return Stubs(channel).predict(name, user_id=users)


def error_of(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def test_refuses_who_shows_none_and_who_speaks_plainly(
    server: RunningModelServer, certificates: Path
) -> None:
    root = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())
    with grpc.secure_channel(server.grpc_target, root) as channel:
        assert error_of(lambda: predict(channel, ["u1"]))[0] == "UNAVAILABLE"
    with grpc.insecure_channel(server.grpc_target) as channel:
        assert error_of(lambda: predict(channel, ["u1"]))[0] == "UNAVAILABLE"


def test_health_is_serving_for_known_services(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "ModelService", "PredictionService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    request = health_pb2.HealthCheckRequest(service="x")
    assert error_of(lambda: stub.Check(request, timeout=10))[0] == "NOT_FOUND"


def metrics(server: RunningModelServer) -> dict[str, float]:
    with urllib.request.urlopen(server.rest_url + METRICS, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        lines = answer.read().decode().splitlines()
    samples = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    return {name: float(value) for name, value in samples}


def test_metrics_count_what_both_apis_answer(
    server: RunningModelServer, channel: grpc.Channel
) -> None:
    names = {
        "ok": ':tensorflow:serving:request_count{model_name="retrieval",status="OK"}',
        "missing": ':tensorflow:serving:request_count{model_name="foo",status="NOT_FOUND"}',
        "grpc": ":tensorflow:serving:request_latency_count"
        '{model_name="retrieval",API="Predict",entrypoint="GRPC"}',
        "rest": ":tensorflow:serving:request_latency_count"
        '{model_name="retrieval",API="predict",entrypoint="REST"}',
        "runtime": ":tensorflow:serving:runtime_latency_count"
        '{model_name="retrieval",API="Predict",runtime="TF1"}',
        "runs": ":tensorflow:serving:batching_session:wrapped_run_count{}",
    }
    before = metrics(server)
    assert predict(channel, ["u1"]).model_spec.version.value == 1
    predict(channel, ["u1"])
    assert error_of(lambda: predict(channel, ["u1"], name="foo"))[0] == "NOT_FOUND"
    body = b'{"signature_name": "similar_candidates", "inputs": ["a"]}'
    url = f"{server.rest_url}/v1/models/retrieval:predict"
    urllib.request.urlopen(url, body, timeout=10).close()
    after = metrics(server)
    grown = {key: after[name] - before.get(name, 0) for key, name in names.items()}
    assert grown == {"ok": 3, "missing": 1, "grpc": 2, "rest": 1, "runtime": 3, "runs": 3}


def test_requests_beyond_the_limits_are_refused(
    server: RunningModelServer, channel: grpc.Channel
) -> None:
    assert error_of(lambda: predict(channel, ["u"] * 65)) == (
        "INVALID_ARGUMENT",
        "Task size 65 is larger than maximum input batch size 64",
    )
    assert error_of(lambda: predict(channel, ["u" * 30_000]))[0] == "RESOURCE_EXHAUSTED"
    url = f"{server.rest_url}/v1/models/retrieval:predict"
    for body, headers in (
        (b" " * 30_000, {}),
        (gzip.compress(b" " * 30_000), {"Content-Encoding": "gzip"}),
    ):
        request = urllib.request.Request(url, body, headers)
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        assert caught.value.code == 413


def test_the_log_is_one_object_a_line(server: RunningModelServer) -> None:
    lines = server.log_path.read_text().splitlines()
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert [event["event"] for event in events] == [
        "scann_ops_registered",
        "version_loading",
        "version_available",
        "serving",
    ]
    assert events[1]["version"] == 1
    assert {"time", "severity"} <= set(events[0])


def test_answered_requests_are_logged_in_a_bounded_number_of_files(
    server: RunningModelServer, channel: grpc.Channel, requests_folder: Path
) -> None:
    name = ':two_tower:serving:request_log_count{status="written"}'
    before = metrics(server).get(name, 0)
    request = predict_request(user_id=["u1", "u2"], history=[["a", ""], ["", ""]])
    answers = [Stubs(channel).prediction.Predict(request, timeout=10) for _ in range(4)]
    error_of(lambda: predict(channel, ["u1"], name="foo"))
    until = time.monotonic() + 10
    while metrics(server).get(name, 0) < before + 4 and time.monotonic() < until:
        time.sleep(0.05)
    files = sorted(requests_folder.glob("*.jsonl"))
    assert len(files) == 3
    (line,) = files[-1].read_text().splitlines()
    entry = json.loads(line)
    assert (entry["model"], entry["version"], entry["label"]) == ("retrieval", 1, "")
    assert (entry["inputs"]["user_id"], entry["inputs"]["history"]) == (["u1", "u2"], [["a"], []])
    names = tf.make_ndarray(answers[-1].outputs["candidate_ids"])
    assert entry["candidate_ids"] == [[name.decode() for name in row if name] for row in names]
