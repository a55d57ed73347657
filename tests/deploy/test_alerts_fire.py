"""Prometheus and Alertmanager with the files in `deploy/monitoring` and a real model server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import pytest
import yaml

from serving.clients import RetrievalClient
from serving.launcher import RunningModelServer, running_model_server
from tests.deploy.test_monitoring import ALERTS, DASHBOARD, MONITORING
from tests.serving.conftest import export_model

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("prometheus-alertmanager")),
    reason="prometheus and prometheus-alertmanager are not installed",
)
TIMEOUT_S = 30.0


class Monitored(NamedTuple):
    server: RunningModelServer
    prometheus: str
    alertmanager: str

    def query(self, expression: str) -> list[Any]:
        found = get(f"{self.prometheus}/api/v1/query?query={urllib.parse.quote(expression)}")
        assert found["status"] == "success"
        return list(found["data"]["result"])


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def wait_until(condition: Callable[[], Any], what: str) -> None:
    until = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until:
        with suppress(OSError):
            if condition():
                return
        time.sleep(0.2)
    pytest.fail(f"not within {TIMEOUT_S:g} s: {what}")


def free_address() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def running(*command: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    folder = tmp_path_factory.mktemp("monitored")
    export_model(folder / "models" / "1")
    flag = f"--monitoring_config_file={MONITORING.parent / 'config' / 'monitoring.config'}"
    prometheus, alertmanager = free_address(), free_address()
    with ExitStack() as stack:
        server = stack.enter_context(running_model_server(folder / "models", extra_flags=[flag]))
        rules = json.loads(json.dumps(ALERTS))
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            rule["for"] = "0s"  # a test cannot wait for minutes
        (folder / "alerts.yaml").write_text(yaml.safe_dump(rules))
        config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
        config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        config["rule_files"] = ["alerts.yaml"]
        (job,) = config["scrape_configs"]
        job["static_configs"] = [{"targets": [server.rest_url.removeprefix("http://")]}]
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        (folder / "alertmanager.yaml").write_text("route: {receiver: r}\nreceivers: [{name: r}]\n")
        stack.enter_context(
            running(
                "prometheus-alertmanager",
                f"--config.file={folder / 'alertmanager.yaml'}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address={alertmanager}",
                "--cluster.listen-address=",
            )
        )
        stack.enter_context(
            running(
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--web.listen-address={prometheus}",
            )
        )
        found = Monitored(server, f"http://{prometheus}", f"http://{alertmanager}")
        wait_until(lambda: found.query('up{job="retrieval"} == 1'), "a scraped server")
        wait_until(lambda: get(f"{found.alertmanager}/api/v2/status"), "a running Alertmanager")
        yield found


def test_each_panel_of_the_dashboard_shows_the_traffic(monitored: Monitored) -> None:
    answered = ":tensorflow:serving:request_latency_count"
    with RetrievalClient(monitored.server.grpc_target, query_id_name="user_id") as client:
        # A rate needs two scrapes with different values.
        for number in range(1, 3):
            client.recommend("u1", k=1)
            wait_until(lambda n=number: monitored.query(f"{answered} >= {n}"), "counted requests")
    # Metrics of Kubernetes, and of versions with warm-up requests.
    missing = ("container_", "kube_", "warmup")
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            expression = (
                target["expr"].replace("$__rate_interval", "1m").replace("$model_name", ".*")
            )
            found = monitored.query(expression)
            assert found or any(name in expression for name in missing), panel["title"]


def test_an_alert_reaches_alertmanager_when_the_server_dies(monitored: Monitored) -> None:
    def alerts() -> set[str]:
        return {a["labels"]["alertname"] for a in get(f"{monitored.alertmanager}/api/v2/alerts")}

    assert "RetrievalServerDown" not in alerts()
    os.kill(monitored.server.pid, signal.SIGKILL)
    wait_until(lambda: {"RetrievalServerDown", "RetrievalAllServersDown"} <= alerts(), "alerts")
