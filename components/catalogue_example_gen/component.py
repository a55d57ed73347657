"""CatalogueExampleGen: read today's catalogue for a model that was fitted earlier."""

import apache_beam as beam
from tfx.components.util import examples_utils
from tfx.dsl.component.experimental.annotations import (
    BeamComponentParameter,
    InputArtifact,
    OutputArtifact,
    Parameter,
)
from tfx.dsl.component.experimental.decorators import component
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples

from components.artifacts import IngestReport, RejectedRows
from components.beam_results import pipelines_like
from components.catalogue_example_gen.ingest import ingest_catalogue
from components.interactions.config import IngestConfig


@component(use_beam=True)
def CatalogueExampleGen(
    fitted_report: InputArtifact[IngestReport],
    examples: OutputArtifact[Examples],
    rejected: OutputArtifact[RejectedRows],
    report: OutputArtifact[IngestReport],
    config: Parameter[str],
    input_fingerprint: Parameter[str] = "",
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Read the catalogue's files without the events.

    ```python
    example_gen = CatalogueExampleGen(
        config=config.model_dump_json(),
        fitted_report=blessed_model.outputs["ingest_report"],
        input_fingerprint=fingerprint(config, ["candidates"]),
    )
    ```

    Args:
        fitted_report: The report of the ingestion that the model was fitted on.
        examples: The split `candidates`: the rows of the files, and the candidates that only the
            training events had.
        rejected: The rows rejected under `bad_rows: reject`.
        report: What was read, dropped, rejected and written.
        config: The `IngestConfig` of TimelineExampleGen.
        input_fingerprint: Hash of the catalogue's files. Only the cache uses it.
        beam_pipeline: Filled in by TFX.

    Raises:
        IngestError: The input cannot become Examples.
    """
    del input_fingerprint
    ingest_catalogue(
        IngestConfig.model_validate_json(config),
        fitted_report.uri,
        examples.uri,
        rejected.uri,
        report.uri,
        pipelines_like(beam_pipeline),
    )
    examples.split_names = artifact_utils.encode_split_names(["candidates"])
    examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(examples, "tfrecords_gzip")
