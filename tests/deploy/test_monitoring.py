"""Alerts and dashboards ask for metrics that the servers export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.errors import DeadlineExceededError, InternalError, ServingError, UnknownError
from serving.server.batching import queue_full, timed_out
from serving.server.metrics import Counter, Metrics
from serving.server.model_manager import ModelManager
from serving.server.model_versions import servable_not_found
from serving.server.predict import find_signature

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
ALERTS: dict[str, Any] = yaml.safe_load((MONITORING / "alerts.yaml").read_text("utf-8"))


def exported() -> dict[str, set[str]]:
    """Return the labels of each metric on the server's page."""
    metrics = Metrics()
    for metric in vars(metrics).values():
        labels = metric._label_names
        metric.add(*labels) if isinstance(metric, Counter) else metric.add(1.0, *labels)
    rows = re.findall(r"^([\w:]+)\{(.*)\}", metrics.page().decode(), re.MULTILINE)
    return {name: set(re.findall(r'(\w+)="', labels)) for name, labels in rows}


def expressions() -> Iterator[tuple[str, str]]:
    for group in ALERTS["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_expressions_ask_for_metrics_and_labels_that_the_server_exports() -> None:
    known = exported()
    for name, expression in expressions():
        for metric, matchers in re.findall(r"(:[\w:]+)(?:\{([^}]*)\})?", expression):
            assert metric in known, f"{name}: {metric}"
            assert set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', matchers)) - {"job"} <= known[metric], (
                name
            )


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
    manager = ModelManager(lambda folder: pytest.fail("no load"), 0)
    for error, expected in (
        (queue_full(), failed | {"RetrievalQueueFull"}),
        (timed_out(), failed),
        (DeadlineExceededError(""), failed),
        (InternalError(""), failed),  # What `as_serving_error` makes of a defect.
        (UnknownError(""), failed),
        (servable_not_found("m", None), refused),
        (error_of(lambda: manager.use(ModelSpec(name="m", version_label="x"))), refused),
        (error_of(lambda: find_signature({}, "x")), refused),
    ):
        assert alerts_of(error.code_name) == expected, error.code_name
    assert alerts_of("OK") == alerts_of("CANCELLED") == set()


@pytest.mark.parametrize("file", ["prometheus.yaml", "prometheus.kubernetes.yaml"])
def test_the_job_that_alerts_ask_for_is_scraped(file: str) -> None:
    asked = {job for _, text in expressions() for job in re.findall(r'job="([^"]*)"', text)}
    scraped = yaml.safe_load((MONITORING / file).read_text("utf-8"))
    assert asked == {job["job_name"] for job in scraped["scrape_configs"]}
