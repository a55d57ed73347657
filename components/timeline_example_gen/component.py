"""TimelineExampleGen: convert interaction logs to timelines."""

import json

import apache_beam as beam
from tfx.components.util import examples_utils
from tfx.dsl.component.experimental.annotations import (
    BeamComponentParameter,
    OutputArtifact,
    Parameter,
)
from tfx.dsl.component.experimental.decorators import component
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples

from components.artifacts import LAST_SPAN_PROPERTY, SPANS_PROPERTY, IngestReport, RejectedRows
from components.beam_results import pipelines_like
from components.interactions.config import IngestConfig, at_run_time
from components.interactions.ingest import OutputFolders, ingest
from components.interactions.spans.choice import choose_spans
from components.interactions.splits.held_out import HELD_OUT_PROPERTY, HeldOut


@component(use_beam=True)
def TimelineExampleGen(
    examples: OutputArtifact[Examples],
    rejected: OutputArtifact[RejectedRows],
    report: OutputArtifact[IngestReport],
    config: Parameter[str],
    input_fingerprint: Parameter[str] = "",
    data_directory: Parameter[str] = None,
    span: Parameter[str] = None,
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Read interactions, queries and catalogue, and write one Example per timeline.

    ```python
    example_gen = TimelineExampleGen(
        config=config.model_dump_json(), input_fingerprint=fingerprint(config)
    )
    ```

    If `queries` or `candidates` is not set, they are derived from the events.

    Args:
        examples: The splits `train`, `eval`, `test` if configured, and `candidates`. Properties
            record the held-out events and, if the input has spans, the spans that were read.
        rejected: The rows rejected under `bad_rows: reject`.
        report: Counts of the rows that were read, dropped, rejected and written.
        config: An `IngestConfig`, as JSON. Its paths are absolute unless `data_directory` is given.
            If it has no chosen spans, the component chooses them when it runs, and new spans do not
            invalidate the cache.
        input_fingerprint: Hash of the input files. Without it, changed files do not invalidate the
            cache.
        data_directory: Base folder of relative paths, if it is known only at run time.
        span: The value of `events.spans.last`, if it is known only at run time.
        beam_pipeline: Provided by TFX.

    Raises:
        IngestError: The input is missing or invalid.
    """
    del input_fingerprint
    settings = IngestConfig.model_validate_json(config)
    settings = choose_spans(at_run_time(settings, data_directory, span))
    outputs = OutputFolders(examples.uri, rejected.uri, report.uri)
    facts = ingest(settings, outputs, pipelines_like(beam_pipeline))
    examples.split_names = artifact_utils.encode_split_names(list(settings.split.split_names))
    examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(examples, "tfrecords_gzip")
    held_out = HeldOut.of(settings.split, facts["cut"])
    examples.set_string_custom_property(HELD_OUT_PROPERTY, held_out.to_json())
    chosen = settings.chosen_spans
    if chosen is None or not chosen.interactions:
        return
    newest = chosen.interactions[-1]
    # TFX's file-based ExampleGens leave these two properties at 0 and set custom ones instead.
    examples.span = newest.span
    if newest.version is not None:
        examples.version = newest.version
    examples.set_string_custom_property(LAST_SPAN_PROPERTY, chosen.show(newest.span))
    versions = {found["span"]: found["version"] for found in facts["spans"]["interactions"]}
    examples.set_string_custom_property(SPANS_PROPERTY, json.dumps(versions))
