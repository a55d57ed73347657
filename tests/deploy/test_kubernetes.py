from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.kubernetes_models import check

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FOLDER = DEPLOY / "kubernetes"
MODELS = {
    ("apps/v1", "Deployment"): "V1Deployment",
    ("v1", "Service"): "V1Service",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "PersistentVolumeClaim"): "V1PersistentVolumeClaim",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "V2HorizontalPodAutoscaler",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
}


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def kustomization(folder: Path) -> dict[str, Any]:
    (content,) = documents(folder / "kustomization.yaml")
    return content


MANIFESTS = [
    document for name in kustomization(FOLDER)["resources"] for document in documents(FOLDER / name)
]


def manifest(kind: str) -> dict[str, Any]:
    return next(document for document in MANIFESTS if document["kind"] == kind)


def merged(base: Any, patch: Any) -> Any:
    """Kubernetes' strategic merge, as far as the patch here needs it: lists by `name`."""
    if isinstance(patch, dict):
        return {
            **base,
            **{
                key: merged(base[key], item) if key in base else item for key, item in patch.items()
            },
        }
    if isinstance(patch, list) and all(isinstance(item, dict) for item in patch):
        by_name = {item["name"]: item for item in patch}
        assert set(by_name) <= {item["name"] for item in base}
        return [
            merged(item, by_name[item["name"]]) if item["name"] in by_name else item
            for item in base
        ]
    return patch


@pytest.fixture(params=["embedded", "stock"])
def deployment(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "embedded":
        return deepcopy(manifest("Deployment"))
    (patch,) = documents(FOLDER / "stock" / "deployment.yaml")
    result: dict[str, Any] = merged(manifest("Deployment"), patch)
    return result


def pod(deployment: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def server(deployment: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod(deployment)["containers"]
    result: dict[str, Any] = container
    return result


@pytest.mark.parametrize("document", MANIFESTS, ids=lambda document: document["kind"])
def test_every_field_is_one_of_the_api(document: dict[str, Any]) -> None:
    check(document, MODELS[document["apiVersion"], document["kind"]], document["kind"])


def test_the_patched_deployment_too(deployment: dict[str, Any]) -> None:
    check(deployment, "V1Deployment")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": {"selectr": {}}}, "selectr is no field"),
        ({"spec": {"template": {}}}, "selector"),
        ({"metadata": {"labels": {"a": 1}}}, "must be a str"),
    ],
)
def test_the_check_refuses_what_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises((AssertionError, ValueError), match=message):
        check(change, "V1Deployment")


def test_every_file_is_in_the_kustomization() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(kustomization(FOLDER)["resources"])
    stock = kustomization(FOLDER / "stock")
    assert stock["resources"] == [".."]
    assert stock["patches"] == [{"path": "deployment.yaml"}]


def test_selectors_find_the_pods(deployment: dict[str, Any]) -> None:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [doc["spec"]["selector"] for doc in MANIFESTS if doc["kind"] == "Service"]
    selectors.append(manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
    assert all(selector.items() <= labels.items() for selector in selectors)
    target = manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])


def test_ports_and_volumes_are_those_that_are_there(deployment: dict[str, Any]) -> None:
    container = server(deployment)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    for document in MANIFESTS:
        if document["kind"] == "Service":
            assert {port["targetPort"] for port in document["spec"]["ports"]} <= set(ports)
    volumes = {volume["name"] for volume in pod(deployment)["volumes"]}
    for mounting in (container, *pod(deployment)["initContainers"]):
        assert {mount["name"] for mount in mounting["volumeMounts"]} <= volumes
    claim = manifest("PersistentVolumeClaim")["metadata"]["name"]
    assert {"name": "models", "persistentVolumeClaim": {"claimName": claim}} in pod(deployment)[
        "volumes"
    ]


def test_the_grace_covers_the_pause_before_and_the_drain(deployment: dict[str, Any]) -> None:
    pause = int(server(deployment)["lifecycle"]["preStop"]["exec"]["command"][1])
    flag = "--shutdown_grace_seconds="
    drains = [arg.removeprefix(flag) for arg in server(deployment)["args"] if arg.startswith(flag)]
    assert pause + sum(map(float, drains)) < pod(deployment)["terminationGracePeriodSeconds"]


def test_no_container_runs_as_root_or_gains_rights(deployment: dict[str, Any]) -> None:
    assert pod(deployment)["securityContext"]["runAsNonRoot"] is True
    for container in (server(deployment), *pod(deployment)["initContainers"]):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


def test_the_config_map_holds_the_files_of_deploy_config() -> None:
    data = manifest("ConfigMap")["data"]
    for name, content in data.items():
        assert content == (DEPLOY / "config" / name).read_text(encoding="utf-8")


@contextmanager
def status_page(state: str) -> Iterator[int]:
    """A REST API that says so of version 1, as both servers write it."""
    row = {"version": "1", "state": state, "status": {"error_code": "OK", "error_message": ""}}
    body = json.dumps({"model_version_status": [row]}, indent=1)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe"])
def test_probes_tell_loading_from_available(deployment: dict[str, Any], probe: str) -> None:
    command = server(deployment)[probe]["exec"]["command"]

    def ask(port: int) -> int:
        here = [part.replace("8501", str(port)) for part in command]
        return subprocess.run(here, capture_output=True, timeout=10).returncode

    with status_page("AVAILABLE") as port:
        assert ask(port) == 0
    assert ask(port) != 0  # Nobody listens any more.
    for state in ("LOADING", "END"):
        with status_page(state) as port:
            assert ask(port) != 0
