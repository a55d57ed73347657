"""TFX's own components for a CSV of events: CsvExampleGen, StatisticsGen, SchemaGen, Transform."""

from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.example_gen.csv_example_gen.component import CsvExampleGen
from tfx.components.schema_gen.component import SchemaGen
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.transform.component import Transform
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline

BEAM_ARGS = ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1"]


def preprocessing_fn(inputs: dict[str, Any]) -> dict[str, Any]:
    """Map the item ids to indices and pass the other columns through.

    A two-tower model needs at least this.
    """
    outputs = {name: _dense(values) for name, values in inputs.items() if name != "item_id"}
    outputs["item_id"] = tft.compute_and_apply_vocabulary(_dense(inputs["item_id"]))
    return outputs


def _dense(values: Any) -> Any:
    if isinstance(values, tf.SparseTensor):
        default = "" if values.dtype == tf.string else 0
        return tf.sparse.to_dense(values, default)
    return values


def stock_pipeline(folder: Path, csv: Path) -> Pipeline:
    """Return the pipeline for `csv`, which must be the only file in its folder."""
    example_gen = CsvExampleGen(input_base=str(csv.parent))
    examples = example_gen.outputs["examples"]
    statistics_gen = StatisticsGen(examples=examples)
    schema_gen = SchemaGen(statistics=statistics_gen.outputs["statistics"])
    transform = Transform(
        examples=examples,
        schema=schema_gen.outputs["schema"],
        preprocessing_fn="benchmarks._stock_chain.preprocessing_fn",
        disable_statistics=True,
        disable_analyzer_cache=True,  # this project's pipeline does not write a cache either
    )
    return Pipeline(
        pipeline_name="stock",
        pipeline_root=str(folder / "artifacts"),
        components=[example_gen, statistics_gen, schema_gen, transform],
        metadata_connection_config=metadata.sqlite_metadata_connection_config(
            str(folder / "metadata.sqlite")
        ),
        beam_pipeline_args=list(BEAM_ARGS),
    )
