import json
from pathlib import Path
from typing import Any

import pytest
from tfx.components.util import examples_utils, tfxio_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.proto import example_gen_pb2
from tfx.types import standard_artifacts

from components.interactions.config import DataConfig, IngestConfig, SpansConfig, SplitConfig
from components.interactions.splits.held_out import HELD_OUT_PROPERTY, HeldOut
from components.timeline_example_gen.artifacts import IngestReport, RejectedRows
from components.timeline_example_gen.component import TimelineExampleGen, make_config
from components.timeline_example_gen.executor import Executor
from models.features.spec import ColumnsConfig, FeatureConfig, FeaturesConfig

COLUMNS = ColumnsConfig(query_id="q", candidate_id="c", timestamp="t")


def test_config_crosses_the_boundary_as_one_string():
    features = FeaturesConfig(candidate={"title": FeatureConfig(kind="text", column="name")})
    data = DataConfig(interactions="/data/*.csv", candidates="/data/films.csv", delimiter=";")
    split = SplitConfig.model_validate({"method": "temporal", "eval_from": "2020-01-01"})
    component = TimelineExampleGen(data, COLUMNS, features, split, input_fingerprint="abc")
    assert set(component.exec_properties) == {"config", "input_fingerprint"}
    assert component.exec_properties["input_fingerprint"] == "abc"
    decoded = IngestConfig.model_validate_json(component.exec_properties["config"])
    assert decoded == make_config(data, COLUMNS, features, split)


def test_outputs_have_their_types():
    component = TimelineExampleGen(DataConfig(interactions="/data/events.csv"), COLUMNS)
    assert {key: channel.type for key, channel in component.outputs.items()} == {
        "examples": standard_artifacts.Examples,
        "rejected": RejectedRows,
        "report": IngestReport,
    }


def test_temporal_needs_times():
    columns = ColumnsConfig(query_id="q", candidate_id="c")
    with pytest.raises(ValueError, match=r"needs `events\.timestamp`"):
        TimelineExampleGen(DataConfig(interactions="/data/events.csv"), columns)


def execute(component: TimelineExampleGen, tmp_path: Path) -> dict[str, list[Any]]:
    outputs: dict[str, list[Any]] = {
        "examples": [standard_artifacts.Examples()],
        "rejected": [RejectedRows()],
        "report": [IngestReport()],
    }
    for key, (artifact,) in outputs.items():
        artifact.uri = str(tmp_path / key)
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=[], tmp_dir=str(tmp_path), unique_id="1"
    )
    Executor(context).Do({}, outputs, dict(component.exec_properties))
    return outputs


def test_executor_writes_what_tfx_reads(tmp_path: Path):
    events = tmp_path / "events.csv"
    events.write_text("q,c,t\nu,a,1\nu,b,2\nv,b,1\nv,c,2\n", encoding="utf-8")
    component = TimelineExampleGen(
        DataConfig(interactions=str(events)), COLUMNS, split=SplitConfig(method="leave_last_out")
    )
    outputs = execute(component, tmp_path)
    (examples,) = outputs["examples"]
    assert json.loads(examples.split_names) == ["train", "eval", "candidates"]
    payload_format = examples_utils.get_payload_format(examples)
    assert payload_format == example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE
    assert examples_utils.get_file_format(examples) == "tfrecords_gzip"
    held_out = HeldOut.parse(examples.get_string_custom_property(HELD_OUT_PROPERTY))
    assert held_out == HeldOut("leave_last_out", last_events=1)
    source = tfxio_utils.get_tfxio_factory_from_artifact([examples], ["test"], schema=None)
    assert source(str(tmp_path / "examples" / "Split-train" / "*")) is not None
    report = json.loads((tmp_path / "report" / "ingest_report.json").read_text(encoding="utf-8"))
    assert report["events"] == 4
    assert (tmp_path / "rejected" / "rejected.parquet").exists()


def test_examples_say_which_spans_they_are_made_of(tmp_path: Path):
    for span in (18, 20):
        (tmp_path / f"2026-11-{span}-v3.csv").write_text("q,c,t\nu,a,1\nu,b,2\n")
    data = DataConfig(
        interactions=str(tmp_path / "{YYYY}-{MM}-{DD}-v{VERSION}.csv"),
        spans=SpansConfig(window=3, missing="warn"),
    )
    split = SplitConfig(method="leave_last_out")
    component = TimelineExampleGen(data, COLUMNS, split=split)  # the executor chooses
    (examples,) = execute(component, tmp_path)["examples"]
    assert (examples.span, examples.version) == (20_777, 3)
    assert examples.get_string_custom_property("last_span") == "2026-11-20"
    spans = json.loads(examples.get_string_custom_property("spans"))
    assert spans == {"2026-11-18": 3, "2026-11-20": 3}
