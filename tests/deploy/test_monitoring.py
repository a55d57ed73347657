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
FUNCTIONS = {"sum", "max", "rate", "absent", "histogram_quantile"}

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
