"""Executor of `TimelineExampleGen`: unpacks, calls, declares what was written."""

import json
from typing import Any

from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_executor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils

from components.interactions.config import IngestConfig, at_run_time
from components.interactions.ingest import ingest
from components.interactions.spans.choice import choose_spans
from components.interactions.spans.pattern import ChosenSpans
from components.interactions.splits.held_out import HELD_OUT_PROPERTY, HeldOut
from components.timeline_example_gen.spec import (
    CONFIG_KEY,
    DATA_DIRECTORY_KEY,
    EXAMPLES_KEY,
    LAST_SPAN_PROPERTY,
    REJECTED_KEY,
    REPORT_KEY,
    SPAN_KEY,
    SPANS_PROPERTY,
)


class Executor(base_beam_executor.BaseBeamExecutor):
    """Runs ingestion in a component."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[Any]],
        output_dict: dict[str, list[Any]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Reads the input files and writes Examples.

        Args:
            input_dict: Empty.
            output_dict:
                - examples: one `Examples` artifact with the splits of the config and `candidates`;
                  with what the split holds out as a property;
                  where there are spans, with the newest one as `span` and `version`, and all of
                  them as properties.
                - rejected: one `RejectedRows` artifact.
                - report: one `IngestReport` artifact.
            exec_properties:
                - config: JSON of an `IngestConfig`.
                - input_fingerprint: not read; it makes the cache see changed files.
                - data_directory, span: see `at_run_time`; where they are given.

        Raises:
            IngestError: The input cannot become Examples.
        """
        config = at_run_time(
            IngestConfig.model_validate_json(exec_properties[CONFIG_KEY]),
            exec_properties.get(DATA_DIRECTORY_KEY),
            exec_properties.get(SPAN_KEY),
        )
        # On an orchestrator without a step of its own for it, spans are chosen here.
        config = choose_spans(config)
        self._log_startup(input_dict, output_dict, exec_properties)
        examples = artifact_utils.get_single_instance(output_dict[EXAMPLES_KEY])
        report = ingest(
            config,
            examples.uri,
            artifact_utils.get_single_uri(output_dict[REJECTED_KEY]),
            artifact_utils.get_single_uri(output_dict[REPORT_KEY]),
            self._make_beam_pipeline,
        )
        examples.split_names = artifact_utils.encode_split_names(list(config.split.split_names))
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(examples, "tfrecords_gzip")
        held_out = HeldOut.of(config.split, report["cut"])
        examples.set_string_custom_property(HELD_OUT_PROPERTY, held_out.to_json())
        if config.chosen_spans is not None and config.chosen_spans.interactions:
            _set_spans(examples, config.chosen_spans, report["spans"]["interactions"])


def _set_spans(examples: Any, chosen: ChosenSpans, read: list[dict[str, Any]]) -> None:
    newest = chosen.interactions[-1]
    # TFX's own file-based generators leave these properties at 0 and set custom ones instead.
    examples.span = newest.span
    if newest.version is not None:
        examples.version = newest.version
    examples.set_string_custom_property(LAST_SPAN_PROPERTY, chosen.show(newest.span))
    examples.set_string_custom_property(
        SPANS_PROPERTY,
        json.dumps({found["span"]: found["version"] for found in read}),
    )
