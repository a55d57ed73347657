from __future__ import annotations

import json
import subprocess
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiClient

from tests.serving.clients.fake_server import fake_rest_server

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


def test_every_field_is_one_of_the_api(deployment: dict[str, Any]) -> None:
    for document in (*MANIFESTS, deployment):
        document = deepcopy(document)
        # Newer than the client's models; from the API reference of Kubernetes 1.27.
        document["spec" if "spec" in document else "data"].pop("unhealthyPodEvictionPolicy", None)
        assert known(document) == document


@pytest.mark.parametrize(
    ("path", "value"),
    [(["spec", "replica"], 1), (["spec", "replicas"], "1"), (["metadata", "labels"], {"a": 1})],
)
def test_a_field_that_the_api_does_not_have_is_found(path: list[str], value: Any) -> None:
    document = deepcopy(manifest("Deployment"))
    document[path[0]][path[1]] = value
    assert known(document) != document


def known(document: dict[str, Any]) -> Any:
    """Return the fields of a manifest that the official client knows, in the types of the API."""
    client = ApiClient()
    model = MODELS[document["apiVersion"], document["kind"]]
    parsed = client.deserialize(SimpleNamespace(data=json.dumps(document)), model)
    return client.sanitize_for_serialization(parsed)


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


def test_pods_run_without_root_and_without_privileges(deployment: dict[str, Any]) -> None:
    security = pod(deployment)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    for container in (server(deployment), *pod(deployment)["initContainers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_grace_covers_the_pause_before_and_the_drain(deployment: dict[str, Any]) -> None:
    pause = int(server(deployment)["lifecycle"]["preStop"]["exec"]["command"][1])
    flag = "--shutdown_grace_seconds="
    drains = [arg.removeprefix(flag) for arg in server(deployment)["args"] if arg.startswith(flag)]
    assert pause + sum(map(float, drains)) < pod(deployment)["terminationGracePeriodSeconds"]


def test_the_config_map_holds_the_files_of_deploy_config() -> None:
    data = manifest("ConfigMap")["data"]
    for name, content in data.items():
        assert content == (DEPLOY / "config" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe"])
def test_probes_tell_loading_from_available(deployment: dict[str, Any], probe: str) -> None:
    command = server(deployment)[probe]["exec"]["command"]

    def ask(port: int) -> int:
        here = [part.replace("8501", str(port)) for part in command]
        return subprocess.run(here, capture_output=True, timeout=10).returncode

    for state, is_ready in (("AVAILABLE", True), ("LOADING", False), ("END", False)):
        row = {"version": "1", "state": state, "status": {"error_code": "OK"}}
        body = json.dumps({"model_version_status": [row]}, indent=1)
        with fake_rest_server(body=body.encode()) as port:
            assert (ask(port) == 0) is is_ready
    assert ask(port) != 0  # Nobody listens any more.
