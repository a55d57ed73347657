import json
from pathlib import Path
from typing import Any

from tfx.components.util import examples_utils, tfxio_utils
from tfx.proto import example_gen_pb2
from tfx.types import standard_artifacts

from components.artifacts import IngestReport, RejectedRows
from components.interactions.config import DataConfig, IngestConfig, SpansConfig, SplitConfig
from components.interactions.splits.held_out import HELD_OUT_PROPERTY, HeldOut
from components.timeline_example_gen.component import TimelineExampleGen
from tests.builders import artifact, executor_context, feature_spec

SPEC = feature_spec(query_id="q", candidate_id="c", timestamp="t")


def execute(data: DataConfig, tmp_path: Path) -> dict[str, list[Any]]:
    """Run the component as TFX does."""
    config = IngestConfig(data=data, split=SplitConfig(method="leave_last_out"), spec=SPEC)
    component = TimelineExampleGen(config=config.model_dump_json())
    outputs: dict[str, list[Any]] = {
        "examples": [artifact(standard_artifacts.Examples, tmp_path / "examples")],
        "rejected": [artifact(RejectedRows, tmp_path / "rejected")],
        "report": [artifact(IngestReport, tmp_path / "report")],
    }
    executor = component.executor_spec.executor_class(executor_context(tmp_path))
    executor.Do({}, outputs, dict(component.exec_properties))
    return outputs


def test_writes_what_tfx_reads(tmp_path: Path):
    events = tmp_path / "events.csv"
    events.write_text("q,c,t\nu,a,1\nu,b,2\nv,b,1\nv,c,2\n", encoding="utf-8")
    outputs = execute(DataConfig(interactions=str(events)), tmp_path)
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
    (examples,) = execute(data, tmp_path)["examples"]
    assert (examples.span, examples.version) == (20_777, 3)
    assert examples.get_string_custom_property("last_span") == "2026-11-20"
    spans = json.loads(examples.get_string_custom_property("spans"))
    assert spans == {"2026-11-18": 3, "2026-11-20": 3}
