"""Prometheus and Alertmanager run with the rules and scrape a model server that then fails."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tensorflow as tf
import yaml
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from serving.launcher import RunningModelServer, running_model_server
from serving.server.loaded_model import WARMUP_REQUESTS_FILE
from tests.builders import free_port, http_server, wait_for
from tests.deploy.test_monitoring import ALERTS, DASHBOARD, MONITORING

PROGRAMS = ("prometheus", "promtool", "prometheus-alertmanager")
MISSING = [program for program in PROGRAMS if not shutil.which(program)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
# The interval is also the time limit of a scrape.
INTERVAL, FOR_S = "1s", 3
SMALL, TOO_LARGE = 1, 1 << 50  # sizes for the model; there is no memory for the second
# Metrics of Kubernetes, which nothing exports here.
NO_DATA = {"Memory"}


class Monitored(NamedTuple):
    """A server, the address of a Prometheus that scrapes it, and the alerts at the webhook."""

    server: RunningModelServer
    prometheus: str
    alerts: list[dict[str, Any]]

    def query(self, expression: str) -> list[Any]:
        asked = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self.prometheus}/api/v1/query?{asked}") as response:
            result: list[Any] = json.load(response)["data"]["result"]
        return result

    def firing(self) -> set[str]:
        return {
            alert["labels"]["alertname"] for alert in self.alerts if "firing" in alert["status"]
        }

    def ask(self, size: int) -> int:
        """Send a prediction over REST, and return the status."""
        body = json.dumps({"inputs": {"size": [size]}}).encode()
        url = f"{self.server.rest_url}/v1/models/retrieval:predict"
        request = urllib.request.Request(url, body)
        try:
            with urllib.request.urlopen(request) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code


def export_model(version: Path) -> None:
    """Write a model, with a warm-up request, that allocates as many numbers as a request asks."""

    class Allocating(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "size")])
        def allocate(self, size: Any) -> Any:
            return {"mean": tf.reduce_mean(tf.random.uniform(size[:1]), keepdims=True)}

    model = Allocating()
    tf.saved_model.save(model, str(version), signatures={"serving_default": model.allocate})
    log = PredictionLog()
    log.predict_log.request.inputs["size"].CopyFrom(tf.make_tensor_proto([SMALL], tf.int64))
    (version / WARMUP_REQUESTS_FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(version / WARMUP_REQUESTS_FILE)) as writer:
        writer.write(log.SerializeToString())


@contextlib.contextmanager
def program(log: Path, *command: str | Path) -> Iterator[None]:
    """Run a program until the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def is_ready(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/-/ready"):
        return True
    return False


def written(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def prometheus_config(folder: Path, target: str, alertmanager: str) -> Path:
    """Write the configuration and rules of the deployment, with short intervals."""
    rules = json.loads(json.dumps(ALERTS))
    for rule in rules["groups"][0]["rules"]:
        if rule["labels"]["severity"] == "page":
            rule["for"] = f"{FOR_S}s"
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text("utf-8"))
    config["global"] = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL}
    config["rule_files"] = [str(written(folder / "alerts.yaml", rules))]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    return written(folder / "prometheus.yaml", config)


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    folder = tmp_path_factory.mktemp("monitoring")
    version = folder / "served" / "1"
    export_model(version)

    alerts: list[dict[str, Any]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            alerts.extend(json.loads(body)["alerts"])
            self.send_response(200)
            self.end_headers()

    flags = [f"--monitoring_config_file={MONITORING.parent / 'config' / 'monitoring.config'}"]
    prometheus, alertmanager = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with contextlib.ExitStack() as stack:
        webhook = f"http://127.0.0.1:{stack.enter_context(http_server(Webhook))}/"
        receiver = {"name": "webhook", "webhook_configs": [{"url": webhook}]}
        route = {"receiver": "webhook", "group_by": ["alertname"], "group_wait": "0s"}
        route["group_interval"] = "1s"
        routes = written(folder / "alertmanager.yaml", {"route": route, "receivers": [receiver]})
        stack.enter_context(
            program(
                folder / "alertmanager.log", "prometheus-alertmanager",
                f"--config.file={routes}", f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address={alertmanager}", "--cluster.listen-address=",
            )
        )  # fmt: skip
        served = running_model_server(folder / "served", extra_flags=flags)
        server = stack.enter_context(served)
        target = server.rest_url.removeprefix("http://")
        config = prometheus_config(folder, target, alertmanager)
        stack.enter_context(
            program(
                folder / "prometheus.log", "prometheus",
                f"--config.file={config}", f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--web.listen-address={prometheus}",
            )
        )  # fmt: skip
        wait_for(lambda: is_ready(prometheus) and is_ready(alertmanager))
        yield Monitored(server, f"http://{prometheus}", alerts)


def test_promtool_accepts_the_rules_and_the_configuration() -> None:
    rules, config = MONITORING / "alerts.yaml", MONITORING / "prometheus.yaml"
    subprocess.run(["promtool", "check", "rules", "--lint-fatal", rules], check=True)
    # Debian's build does not support the service discovery of prometheus.kubernetes.yaml.
    subprocess.run(["promtool", "check", "config", "--syntax-only", config], check=True)


def test_requests_that_fail_fire_an_alert_and_fill_the_dashboard(monitored: Monitored) -> None:
    wait_for(lambda: monitored.query('up{job="retrieval"} == 1'))
    end = time.monotonic() + 2 * FOR_S
    while time.monotonic() < end:
        assert monitored.ask(SMALL) == 200
        time.sleep(0.1)
    assert monitored.firing() == set()

    def has_fired() -> bool:
        assert monitored.ask(TOO_LARGE) == 429  # RESOURCE_EXHAUSTED
        return "RetrievalServerErrors" in monitored.firing()

    wait_for(has_fired)

    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$model_name", "retrieval|other")
            found = monitored.query(expression.replace("$__rate_interval", "1m"))
            assert bool(found) == (panel["title"] not in NO_DATA), (panel["title"], expression)
            assert all(float(series["value"][1]) >= 0 for series in found), expression


def test_a_killed_server_fires_an_alert(monitored: Monitored) -> None:
    os.kill(monitored.server.pid, signal.SIGKILL)
    down = {"RetrievalServerDown", "RetrievalAllServersDown"}
    wait_for(lambda: down <= monitored.firing())
    (alert, *_) = [a for a in monitored.alerts if a["labels"]["alertname"] == "RetrievalServerDown"]
    server = monitored.server.rest_url.removeprefix("http://")
    assert alert["annotations"]["summary"] == f"{server} does not answer on its REST port"
