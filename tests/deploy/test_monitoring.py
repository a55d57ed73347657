"""Alerts and dashboard: well-formed, and of metrics that the servers export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from serving.errors import DeadlineExceededError, InternalError, ServingError, UnknownError
from serving.server.batching import queue_full, timed_out
from serving.server.model_manager import labelled_version
from serving.server.model_versions import servable_not_found
from serving.server.signature import find_signature

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((MONITORING / "alerts.yaml").read_text("utf-8"))

# What TensorFlow Serving 2.16 registers, by the form in which Prometheus shows it: a histogram has
# _bucket, _sum and _count. Sources: servables/tensorflow/util.cc, saved_model_warmup_util.cc and
# batching/batching_session.cc; util/prometheus_exporter.cc turns `/` into `:`.
COUNTERS = {":tensorflow:serving:request_count": {"model_name", "status"}}
HISTOGRAMS = {
    ":tensorflow:serving:request_latency": {"model_name", "API", "entrypoint"},
    ":tensorflow:serving:runtime_latency": {"model_name", "API", "runtime"},
    ":tensorflow:serving:model_warmup_latency": {"model_path", "status"},
    ":tensorflow:serving:batching_session:queuing_latency": {"thread_pool_name"},
}
# Of Prometheus itself, cAdvisor and kube-state-metrics.
PLATFORM = {
    "up": {"job", "instance"},
    "container_memory_working_set_bytes": {"container", "pod"},
    "kube_pod_container_resource_limits": {"container", "pod", "resource"},
}
LABELS = {
    **COUNTERS,
    **PLATFORM,
    **{
        f"{name}_{part}": labels | ({"le"} if part == "bucket" else set())
        for name, labels in HISTOGRAMS.items()
        for part in ("bucket", "sum", "count")
    },
}
# What Prometheus adds to everything that it scrapes.
SCRAPED = {"job", "instance"}
CODES = {
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}  # fmt: skip
FUNCTIONS = {"sum", "max", "rate", "absent", "histogram_quantile", "vector", "or"}

RULES_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["groups"],
    "properties": {
        "groups": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "rules"],
                "properties": {
                    "name": {"type": "string"},
                    "rules": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["alert", "expr", "for", "labels", "annotations"],
                            "properties": {
                                "alert": {"type": "string", "pattern": "^[A-Z][A-Za-z]+$"},
                                "expr": {"type": "string"},
                                "for": {"type": "string", "pattern": "^[0-9]+[smh]$"},
                                "labels": {
                                    "type": "object",
                                    "properties": {"severity": {"enum": ["page", "ticket"]}},
                                    "required": ["severity"],
                                },
                                "annotations": {
                                    "type": "object",
                                    "additionalProperties": {"type": "string"},
                                    "required": ["summary", "action"],
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def expressions() -> Iterator[tuple[str, str]]:
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("name", "expression"), expressions())
def test_an_expression_is_of_known_metrics_and_labels(name: str, expression: str) -> None:
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing), expression
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\$\w+", "", bare)
    words = set(re.findall(r"[:a-zA-Z_][:a-zA-Z0-9_]*", re.sub(r"\[[^]]*\]", "", bare)))
    grouped = {
        label.strip()
        for labels in re.findall(r"\bby \(([^)]*)\)", bare)
        for label in labels.split(",")
        if label.strip()
    }
    matched = {
        (metric, label)
        for metric, matchers in re.findall(r"([:a-zA-Z_][:\w]*)\{([^}]*)\}", bare)
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)
    }
    assert matched or "{" not in bare
    for metric, label in matched:
        assert label in LABELS.get(metric, ()), f"{name}: {metric} has no label {label}"
    metrics = words & set(LABELS)
    assert metrics, f"{name} asks for no known metric"
    unknown = words - set(LABELS) - FUNCTIONS - {"by"} - grouped - {label for _, label in matched}
    assert not unknown, f"{name}: {unknown}"
    for label in grouped - SCRAPED:
        assert any(label in LABELS[metric] for metric in metrics), f"{name}: {label}"
    for statuses in re.findall(r'status[!=]~?"([^"]*)"', expression):
        assert set(statuses.split("|")) <= CODES


def test_the_rules_follow_prometheus_form() -> None:
    jsonschema.validate(ALERTS, RULES_SCHEMA)
    names = [rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]]
    assert len(names) == len(set(names))


def alert(name: str) -> dict[str, Any]:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    (found,) = [rule for rule in rules if rule["alert"] == name]
    result: dict[str, Any] = found
    return result


def alerts_of(status: str) -> set[str]:
    """The alerts that a request of this status can set off."""
    names = set()
    for rule in (rule for group in ALERTS["groups"] for rule in group["rules"]):
        counted = rule["expr"].split(" / ")[0]  # Not what it is a share of.
        for operator, pattern in re.findall(r'status(=~|!~|=|!=)"([^"]*)"', counted):
            if bool(re.fullmatch(pattern, status)) == (operator in ("=", "=~")):
                names.add(rule["alert"])
    return names


def error_of(call: Any) -> ServingError:
    with pytest.raises(ServingError) as caught:
        call()
    return caught.value


def test_alerts_follow_the_statuses_that_the_server_gives() -> None:
    failed, refused = {"RetrievalServerErrors"}, {"RetrievalRefusedRequests"}
    for error, expected in (
        (queue_full(), failed | {"RetrievalQueueFull"}),
        (timed_out(), failed),
        (DeadlineExceededError(""), failed),
        (InternalError(""), failed),  # What `as_serving_error` makes of a defect.
        (UnknownError(""), failed),
        (servable_not_found("m", None), refused),
        (error_of(lambda: labelled_version({}, "m", "stable")), refused),
        (error_of(lambda: find_signature({}, "x")), refused),
    ):
        assert alerts_of(error.code_name()) == expected, error.code_name()
    assert alerts_of("OK") == alerts_of("CANCELLED") == set()


def test_the_action_for_errors_names_the_statuses_that_set_it_off() -> None:
    action = alert("RetrievalServerErrors")["annotations"]["action"]
    named = {code for code in CODES if re.search(rf"\b{code}\b", action)}
    assert "UNAVAILABLE" in named
    for code in named:
        assert "RetrievalServerErrors" in alerts_of(code)


def test_probes_are_no_traffic() -> None:
    # Both servers count each GET of the REST API in request_count; their latencies have no API.
    quiet = alert("RetrievalNoTraffic")["expr"]
    assert ":request_count" not in quiet
    for name in ("RetrievalServerErrors", "RetrievalRefusedRequests"):
        _, _, total = alert(name)["expr"].partition(" / ")
        counted = re.findall(
            r"(0 \* sum by \(model_name\) \(rate\()?:\S+?:request_count(\S*)", total
        )
        assert all(zero or labels.startswith('{status!="OK"}') for zero, labels in counted)
        assert ':request_latency_count{API=~"[Pp]redict"}' in total


@pytest.mark.parametrize(("name", "expression"), expressions())
def test_latencies_are_of_both_apis(name: str, expression: str) -> None:
    # gRPC writes `Predict`, REST writes `predict`, a GET writes nothing.
    for selector in re.findall(r":request_latency_\w+(\{[^}]*\}|)", expression):
        assert 'API=~"[Pp]redict"' in selector, name


@pytest.mark.parametrize("file", ["prometheus.yaml", "prometheus.kubernetes.yaml"])
def test_the_job_that_alerts_ask_for_is_scraped(file: str) -> None:
    asked = {job for _, text in expressions() for job in re.findall(r'job="([^"]*)"', text)}
    scraped = yaml.safe_load((MONITORING / file).read_text("utf-8"))
    assert asked == {job["job_name"] for job in scraped["scrape_configs"]}


def test_the_job_of_a_cluster_finds_the_pods_of_the_manifests() -> None:
    file = MONITORING / "prometheus.kubernetes.yaml"
    (job,) = yaml.safe_load(file.read_text("utf-8"))["scrape_configs"]
    template = yaml.safe_load((MONITORING.parent / "kubernetes" / "deployment.yaml").read_text())
    template = template["spec"]["template"]
    (container,) = template["spec"]["containers"]
    kept = {
        rule["source_labels"][0]: rule["regex"]
        for rule in job["relabel_configs"]
        if rule.get("action") == "keep"
    }
    assert kept == {
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": template["metadata"]["labels"][
            "app.kubernetes.io/name"
        ],
        "__meta_kubernetes_pod_container_port_name": next(
            port["name"] for port in container["ports"] if port["containerPort"] == 8501
        ),
    }
    assert job["metrics_path"] == template["metadata"]["annotations"]["prometheus.io/path"]


def test_the_dashboard_has_what_grafana_needs() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["uid"]
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] in {"timeseries", "stat"}
        assert [t["refId"] for t in panel["targets"]] == list("ABCD")[: len(panel["targets"])]
    used = set(re.findall(r"\$\{?([a-z_]+)\}?", json.dumps(DASHBOARD)))
    assert used <= variables | {"__rate_interval", "__all"}
