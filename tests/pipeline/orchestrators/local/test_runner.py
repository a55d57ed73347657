"""A component that is run alone: real ML Metadata, two components of two lines each."""

from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.component.experimental.annotations import Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline

from pipeline.orchestrators.local.runner import ComponentFailedError, run_component

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
    # As DriftGate before Transform: the one gives the other nothing but leave.
    fit.add_upstream_node(gate)
    connection: metadata_store_pb2.ConnectionConfig = sqlite_metadata_connection_config(
        str(folder / "metadata.sqlite")
    )
    return Pipeline("use", str(folder / "artifacts"), connection, [gate, fit])


def test_a_component_waits_for_those_that_give_it_nothing(tmp_path: Path) -> None:
    def fit(run_id: str) -> str:
        return run_component(pipeline(tmp_path), "Fit", run_id).state

    def gate(run_id: str) -> str:
        return run_component(pipeline(tmp_path), "Gate", run_id).state

    with pytest.raises(ComponentFailedError, match=r"Fit: it waits for Gate.* in run 1"):
        fit("1")
    assert gate("1") == "complete"
    assert fit("1") == "complete"
    # What another run did is no leave.
    with pytest.raises(ComponentFailedError, match="it waits for Gate"):
        fit("2")
    # Nor is a gate that refused.
    (tmp_path / _FAILS).touch()
    with pytest.raises(ComponentFailedError, match="the data is bad"):
        gate("2")
    with pytest.raises(ComponentFailedError, match="it waits for Gate"):
        fit("2")
