"""The resolvers; on real ML Metadata in memory, if they read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.components.evaluator.constants import ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY
from tfx.orchestration import metadata
from tfx.types.artifact import Artifact
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, PushedModel

from components.artifacts import IngestReport
from components.blessed_models.resolvers import (
    LastBlessedModelStrategy,
    NewestBlessedModelStrategy,
    PreviousBlessedModelStrategy,
)
from components.interactions.splits.held_out import HELD_OUT_PROPERTY, HeldOut

Event = metadata_store_pb2.Event
RANDOM = HeldOut("random", seed=42, share=0.1)


class Runs:
    """Writes artifacts of earlier runs to a metadata store."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.models: list[Artifact] = []
        self.blessings: list[Artifact] = []
        self._trainer = store.put_execution_type(metadata_store_pb2.ExecutionType(name="Trainer"))
        self._types: dict[str, int] = {}

    def put(self, artifact: Artifact) -> Artifact:
        name = artifact.artifact_type.name
        if name not in self._types:
            self._types[name] = self.store.put_artifact_type(artifact.artifact_type)
        artifact.mlmd_artifact.type_id = self._types[name]
        (artifact.id,) = self.store.put_artifacts([artifact.mlmd_artifact])
        return artifact

    def fit(self, examples: Artifact, blessed: bool, pushed: bool = True) -> Artifact:
        model, blessing = self.put(Model()), ModelBlessing()
        self.execute([examples], model)
        blessing.set_int_custom_property("blessed", int(blessed))
        blessing.set_int_custom_property(ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
        self.models.append(model)
        self.blessings.append(self.put(blessing))
        if blessed and pushed:
            self.execute([blessing], self.put(PushedModel()))
        return model

    def transformed(self, span: int | None = None, held_out: HeldOut | None = RANDOM) -> Artifact:
        """Examples, of a span where there are such, transformed."""
        ingested = Examples()
        if span is not None:
            ingested.span = span
            ingested.set_string_custom_property("last_span", str(span))
        if held_out is not None:
            ingested.set_string_custom_property(HELD_OUT_PROPERTY, held_out.to_json())
        made = self.put(Examples())
        self.execute([self.put(ingested)], made)
        return made

    def execute(self, inputs: list[Artifact], *outputs: Artifact) -> None:
        (execution,) = self.store.put_executions(
            [metadata_store_pb2.Execution(type_id=self._trainer)]
        )
        events = [(Event.INPUT, artifact) for artifact in inputs]
        events += [(Event.OUTPUT, artifact) for artifact in outputs]
        self.store.put_events(
            [
                Event(type=kind, artifact_id=artifact.id, execution_id=execution)
                for kind, artifact in events
            ]
        )

    def previous(self, examples: Artifact) -> list[int]:
        resolved = PreviousBlessedModelStrategy().resolve_artifacts(
            self.store,
            {"model": self.models, "model_blessing": self.blessings, "examples": [examples]},
        )
        assert set(resolved) == {"model", "model_blessing", "examples"}
        assert len(resolved["model_blessing"]) == len(resolved["model"])
        return [model.id for model in resolved["model"]]


@pytest.fixture
def runs() -> Iterator[Runs]:
    with metadata.Metadata(
        metadata_store_pb2.ConnectionConfig(fake_database=metadata_store_pb2.FakeDatabaseConfig())
    ) as handle:
        yield Runs(handle.store)


def test_an_index_refresh_serves_the_newest_model_that_was_pushed(runs: Runs):
    examples, report = runs.put(Examples()), runs.put(IngestReport())
    runs.execute([], examples, report)
    runs.fit(examples, blessed=True, pushed=False)
    for model, blessing in zip(runs.models, runs.blessings, strict=True):
        runs.execute([model, examples], blessing)

    def resolved() -> list[int]:
        given = {"model": runs.models, "model_blessing": runs.blessings}
        found = NewestBlessedModelStrategy().resolve_artifacts(
            runs.store, {**given, "examples": [examples], "ingest_report": [report]}
        )
        return [model.id for model in found["model"]]

    assert resolved() == []
    runs.execute([runs.blessings[0]], runs.put(PushedModel()))
    assert resolved() == [runs.models[0].id]


@pytest.mark.parametrize(
    ("current", "blessed", "expected"),
    [
        pytest.param(0, [True], None, id="a first model has none"),
        pytest.param(3, [True, True, False, True], 1, id="the newest blessed"),
        pytest.param(1, [True, True], 0, id="not itself"),
        pytest.param(0, [True, True], 1, id="an older model comes back"),
        pytest.param(2, [True, None, True], 0, id="not the model of an experiment"),
    ],
)
def test_finds_the_last_blessed_model(
    runs: Runs, current: int, blessed: list[bool | None], expected: int | None
) -> None:
    """None in `blessed` is a model that was blessed but not pushed."""
    for each in blessed:
        runs.fit(runs.put(Examples()), blessed=each is not False, pushed=each is not None)
    given = {"model": runs.models, "model_blessing": runs.blessings}
    found = LastBlessedModelStrategy().resolve_artifacts(
        runs.store, {**given, "current": [runs.models[current]]}
    )
    assert len(found["model"]) == len(found["model_blessing"])
    wanted = [] if expected is None else [runs.models[expected].id]
    assert [artifact.id for artifact in found["model"]] == wanted


def test_a_first_run_has_none(runs: Runs):
    assert runs.previous(runs.transformed()) == []


def test_the_newest_blessed_model_is_found(runs: Runs):
    data = [runs.transformed() for _ in range(4)]
    runs.fit(data[0], blessed=True)
    newest = runs.fit(data[1], blessed=True)
    runs.fit(data[2], blessed=False)
    assert runs.previous(data[3]) == [newest.id]


def test_a_model_of_the_same_examples_is_passed_over_so_that_a_repeated_run_is_cached(runs: Runs):
    one, other = runs.transformed(), runs.transformed()
    first = runs.fit(one, blessed=True)
    assert runs.previous(one) == []
    runs.fit(other, blessed=True)
    runs.fit(other, blessed=True)
    assert runs.previous(other) == [first.id]


def test_a_model_out_of_the_cache_counts_as_fitted_on_what_the_cached_execution_was_given(
    runs: Runs,
):
    one, same = runs.transformed(), runs.transformed()
    model = runs.fit(one, blessed=True)
    runs.execute([same], model)
    assert runs.previous(same) == []


def test_a_fit_that_went_on_from_a_model_is_not_taken_for_its_source(runs: Runs):
    one, other = runs.transformed(), runs.transformed()
    first = runs.fit(one, blessed=True)
    second = runs.put(Model())
    runs.execute([other, first], second)
    assert runs.previous(other) == [first.id]


def test_of_spans_only_a_model_of_earlier_ones_is_taken(runs: Runs):
    second = runs.fit(runs.transformed(2), blessed=True)
    third = runs.fit(runs.transformed(3), blessed=True)
    runs.fit(runs.transformed(), blessed=True)  # who knows what this has seen
    assert runs.previous(runs.transformed(4)) == [third.id]
    # Span 3 delivered again, and a run as of long ago.
    assert runs.previous(runs.transformed(3)) == [second.id]
    assert runs.previous(runs.transformed(2)) == []


def test_a_model_that_may_have_seen_what_is_held_out_now_is_passed_over(
    runs: Runs, caplog: pytest.LogCaptureFixture
):
    def temporal(moment: str) -> HeldOut:
        return HeldOut("temporal", eval_from=f"2026-11-{moment}+00:00")

    # Span 7 came late: fractions then cut the window of span 9 earlier than that of span 8.
    early = runs.fit(runs.transformed(7, temporal("06T00:00:00")), blessed=True)
    runs.fit(runs.transformed(8, temporal("08T04:48:00")), blessed=True)
    assert runs.previous(runs.transformed(9, temporal("08T04:47:59.999"))) == [early.id]
    assert "it was trained on events up to 2026-11-08T04:48:00+00:00" in caplog.text
    assert runs.previous(runs.transformed(9, temporal("05T00:00:00"))) == []
    # Of another method, or from before the property was there, nobody can tell.
    runs.fit(runs.transformed(8, RANDOM), blessed=True)
    runs.fit(runs.transformed(8, None), blessed=True)
    assert runs.previous(runs.transformed(9, temporal("07T00:00:00"))) == [early.id]
    assert runs.previous(runs.transformed(9, None)) == []
