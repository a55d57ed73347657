"""CatalogueExampleGen: the catalogue as it is now, for a model that was fitted before."""

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel

from components.catalogue_example_gen.executor import Executor
from components.catalogue_example_gen.spec import (
    CONFIG_KEY,
    EXAMPLES_KEY,
    FITTED_REPORT_KEY,
    INPUT_FINGERPRINT_KEY,
    REJECTED_KEY,
    REPORT_KEY,
    CatalogueExampleGenSpec,
)
from components.interactions.config import IngestConfig
from components.timeline_example_gen.artifacts import IngestReport, RejectedRows


class CatalogueExampleGen(base_beam_component.BaseBeamComponent):
    """Reads the catalogue's files without the events.

    ```python
    example_gen = CatalogueExampleGen(
        config,
        fitted_report=blessed_model.outputs["ingest_report"],
        input_fingerprint=fingerprint(config, ["candidates"]),
    )
    ```

    Outputs:
        examples: Examples with the split `candidates`: the files' rows, and the candidates that
            only the training events had.
        rejected: The rows put aside under `bad_rows: reject`.
        report: What was read, dropped, rejected and written.
    """

    SPEC_CLASS = CatalogueExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, config: IngestConfig, fitted_report: BaseChannel, input_fingerprint: str):
        """Declares an ingestion of the catalogue.

        Args:
            config: As TimelineExampleGen got it.
            fitted_report: The report of the ingestion that the model was fitted on.
            input_fingerprint: Hash of the catalogue's files, for the cache.
        """
        super().__init__(
            CatalogueExampleGenSpec(
                **{
                    CONFIG_KEY: config.model_dump_json(),
                    INPUT_FINGERPRINT_KEY: input_fingerprint,
                    FITTED_REPORT_KEY: fitted_report,
                    EXAMPLES_KEY: Channel(type=standard_artifacts.Examples),
                    REJECTED_KEY: Channel(type=RejectedRows),
                    REPORT_KEY: Channel(type=IngestReport),
                }
            )
        )
