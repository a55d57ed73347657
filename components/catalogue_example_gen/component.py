"""CatalogueExampleGen: read the current catalogue for a model that was trained earlier."""

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
from components.interactions.config import IngestConfig
from components.interactions.ingest import OutputFolders, ingest_catalogue


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
    """Read the current catalogue files without reading the events.

    ```python
    example_gen = CatalogueExampleGen(
        config=config.model_dump_json(),
        fitted_report=blessed_model.outputs["ingest_report"],
        input_fingerprint=fingerprint(config, ["candidates"]),
    )
    ```

    Args:
        fitted_report: Report of the ingestion that produced the model's training data.
        examples: The split `candidates`: the candidates in the files and, without
            `candidates.only_listed`, those that occurred only in the training events.
        rejected: The rows rejected under `bad_rows: reject`.
        report: Counts of the rows that were read, dropped, rejected and written.
        config: The `IngestConfig` of TimelineExampleGen, as JSON.
        input_fingerprint: Hash of the catalogue files, used only as part of the cache key.
        beam_pipeline: Provided by TFX.

    Raises:
        IngestError: The input is missing or invalid.
    """
    del input_fingerprint
    ingest_catalogue(
        IngestConfig.model_validate_json(config),
        fitted_report.uri,
        OutputFolders(examples.uri, rejected.uri, report.uri),
        pipelines_like(beam_pipeline),
    )
    examples.split_names = artifact_utils.encode_split_names(["candidates"])
    examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(examples, "tfrecords_gzip")
