"""Running a single component, with a real ML Metadata and two small components."""

from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.component.experimental.annotations import Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline

from pipeline.errors import ComponentFailedError
from pipeline.orchestrators.local.runner import run_component

_FAILS = "gate-fails"


@component
def Gate(flag: Parameter[str]) -> None:  # type: ignore[type-arg,unused-ignore]  # noqa: N802
    if Path(flag).exists():
        raise ValueError("the data is bad")


@component
def Fit() -> None:  # type: ignore[type-arg,unused-ignore]  # noqa: N802
    pass


def pipeline(folder: Path) -> Pipeline:
    gate, fit = Gate(flag=str(folder / _FAILS)), Fit()
    # As with DriftGate and Transform, there is an order but no output between them.
    fit.add_upstream_node(gate)
    connection: metadata_store_pb2.ConnectionConfig = sqlite_metadata_connection_config(
        str(folder / "metadata.sqlite")
    )
    return Pipeline("clubs", str(folder / "artifacts"), connection, [gate, fit])


def test_a_component_needs_the_success_of_all_upstream_components(tmp_path: Path) -> None:
    def fit(run_id: str) -> str:
        return run_component(pipeline(tmp_path), "Fit", run_id).state

    def gate(run_id: str) -> str:
        return run_component(pipeline(tmp_path), "Gate", run_id).state

    with pytest.raises(ComponentFailedError, match=r"Fit: it needs Gate .*run 1"):
        fit("1")
    assert gate("1") == "complete"
    assert fit("1") == "complete"
    # The success of another run does not count.
    with pytest.raises(ComponentFailedError, match="it needs Gate"):
        fit("2")
    # A refusal does not count either.
    (tmp_path / _FAILS).touch()
    with pytest.raises(ComponentFailedError, match="the data is bad"):
        gate("2")
    with pytest.raises(ComponentFailedError, match="it needs Gate"):
        fit("2")
