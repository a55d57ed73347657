import shutil
from pathlib import Path

import pytest
from kfp.pipeline_spec import pipeline_spec_pb2
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as entrypoint_utils
from tfx.types import Artifact, standard_artifacts
from tfx.utils import path_utils

from components.artifacts import LAST_SPAN_PROPERTY
from components.blessed_models.component import ModelFinder, ModelRecorder, newest_span
from components.errors import RecordError
from components.interactions.splits.held_out import HELD_OUT_PROPERTY, HeldOut
from models.missing_model import is_missing_model
from tests.builders import artifact


def ingested(folder: Path, held_out: HeldOut) -> Artifact:
    examples = artifact(standard_artifacts.Examples, folder)
    examples.set_string_custom_property(HELD_OUT_PROPERTY, held_out.to_json())
    return examples


def spanned(folder: Path, span: int, day: int = 1) -> Artifact:
    examples = ingested(folder, HeldOut("temporal", eval_from=f"2026-11-{day:02}T00:00:00+00:00"))
    examples.span = span
    examples.set_string_custom_property(LAST_SPAN_PROPERTY, str(span))
    return examples


def recorded_model(
    root: Path, name: str, examples: Artifact, ingested: Artifact | None = None
) -> Artifact:
    model = artifact(standard_artifacts.Model, root / name)
    saved = Path(path_utils.serving_model_dir(model.uri))
    (saved / "variables").mkdir(parents=True)
    (saved / "saved_model.pb").write_text(name)
    (saved / "variables" / "variables.index").write_text(name)
    pushed = standard_artifacts.PushedModel()
    pushed.set_string_custom_property("pushed_version", "7")
    ModelRecorder.test_call(
        model=model,
        fitted_examples=examples,
        examples=ingested or standard_artifacts.Examples(),
        pushed_model=pushed,
        records=str(root / "records"),
    )
    return model


def find(root: Path, **inputs: Artifact) -> Path:
    found = artifact(standard_artifacts.Model, root / "found")
    ModelFinder.test_call(model=found, records=str(root / "records"), **inputs)
    return Path(path_utils.serving_model_path(found.uri))


def test_writes_a_missing_model_if_there_is_no_record(tmp_path: Path) -> None:
    assert is_missing_model(str(find(tmp_path)))


def test_copies_the_whole_model(tmp_path: Path) -> None:
    examples = artifact(standard_artifacts.Examples, tmp_path / "examples")
    recorded_model(tmp_path, "monday", examples)
    saved = find(tmp_path)
    assert not is_missing_model(str(saved))
    assert (saved / "saved_model.pb").read_text() == "monday"
    assert (saved / "variables" / "variables.index").read_text() == "monday"


def test_follows_the_rules_of_the_resolvers(tmp_path: Path) -> None:
    first = artifact(standard_artifacts.Examples, tmp_path / "first")
    second = artifact(standard_artifacts.Examples, tmp_path / "second")
    recorded_model(tmp_path, "monday", first)
    tuesday = recorded_model(tmp_path, "tuesday", second)
    not_itself = find(tmp_path, current_model=tuesday)
    assert (not_itself / "saved_model.pb").read_text() == "monday"
    of_other_data = find(tmp_path, fitted_examples=first)
    assert (of_other_data / "saved_model.pb").read_text() == "tuesday"


def test_a_model_that_may_have_seen_the_held_out_events_is_skipped(tmp_path: Path) -> None:
    fitted = artifact(standard_artifacts.Examples, tmp_path / "fitted")
    for span, day, name in ((1, 1, "monday"), (2, 9, "tuesday")):
        recorded_model(tmp_path, name, fitted, spanned(tmp_path / f"span-{span}", span, day))
    again = find(tmp_path, examples=spanned(tmp_path / "span-3", 3, day=8))
    assert (again / "saved_model.pb").read_text() == "monday"
    # The last blessed model, which a new one is compared with, is the newest one all the same.
    found = artifact(standard_artifacts.Model, tmp_path / "last")
    ModelFinder.test_call(model=found, records=str(tmp_path / "records"))
    of_last = HeldOut.parse(found.get_string_custom_property(HELD_OUT_PROPERTY))
    assert of_last == HeldOut("temporal", eval_from="2026-11-09T00:00:00+00:00")


def test_a_model_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    model = recorded_model(tmp_path, "monday", artifact(standard_artifacts.Examples, "examples"))
    shutil.rmtree(model.uri)
    with pytest.raises(RecordError, match=r"monday, which is gone"):
        find(tmp_path)


def test_the_newest_span_comes_through_the_messages_of_a_cluster(tmp_path: Path) -> None:
    sent = entrypoint_utils.to_runtime_artifact(spanned(tmp_path, 20_000), {})
    sent.type.instance_schema = "title: tfx.Examples"
    received = entrypoint_utils.parse_raw_artifact_dict(
        {"examples": pipeline_spec_pb2.ArtifactList(artifacts=[sent])}
    )
    (examples,) = received["examples"]
    assert newest_span(examples) == 20_000
    assert HeldOut.parse(examples.get_string_custom_property(HELD_OUT_PROPERTY)) is not None
    assert newest_span(artifact(standard_artifacts.Examples, tmp_path)) is None
