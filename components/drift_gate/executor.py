"""Unpacks the artifacts, holds the spans against earlier ones, writes the report."""

import json
import logging
import os
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components.blessings import NotBlessedError
from components.drift_gate.accepted_spans import read_let_pass, write_let_pass
from components.drift_gate.gate import Gate
from components.drift_gate.profile_store import new_folder, newest_folder
from components.drift_gate.span_profile import known_candidates
from components.drift_gate.spec import (
    CONFIG_KEY,
    DATA_DIRECTORY_KEY,
    EXAMPLES_KEY,
    PROFILE_KEY,
    REPORT_FILE,
    SPAN_PROPERTY,
    USE_PROPERTY,
    DriftGateConfig,
)
from components.interactions.config import IngestConfig, at_run_time
from components.interactions.errors import MissingSpanError
from components.interactions.spans.choice import choose_spans
from components.interactions.spans.pattern import ChosenSpans
from components.timeline_example_gen.spec import LAST_SPAN_PROPERTY, SPANS_PROPERTY

log = logging.getLogger(__name__)


class DriftError(NotBlessedError):
    """A span is too far from the last good one; running again will not help.

    Attributes:
        report: What `REPORT_FILE` holds: TFX removes the files of a component that fails.
    """

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


class Executor(base_executor.BaseExecutor):
    """Runs DriftGate."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Holds the spans that were not let pass yet against earlier ones.

        Args:
            input_dict: `examples`, of which the split `candidates` says what is known now.
            output_dict: `profile`.
            exec_properties: `drift_gate_config`, a `DriftGateConfig` as JSON; `data_directory`
                where it is given.

        Raises:
            MissingSpanError: See `as_ingested`.
            LostProfileError: See `Gate.hold`.
            DriftError: Under `action: stop`, with each value that is beyond its threshold.
        """
        config = DriftGateConfig.model_validate_json(exec_properties[CONFIG_KEY])
        examples = artifact_utils.get_single_instance(input_dict[EXAMPLES_KEY])
        artifact = artifact_utils.get_single_instance(output_dict[PROFILE_KEY])
        ingest = as_ingested(config.ingest, examples, exec_properties.get(DATA_DIRECTORY_KEY))
        known = known_candidates(examples, ingest.spec.candidate_id)
        good = newest_folder(config.profiles) if config.profiles else config.baseline
        let_pass = read_let_pass(good) if good else []
        gate = Gate(
            ingest,
            config.drift,
            known,
            let_pass,
            # Removing a folder on a cluster is how a span stops being a measure.
            may_lack_profiles=bool(config.profiles) or config.drift.action == "warn",
        )
        verdict = gate.hold()
        text = json.dumps(verdict.report, indent=2, ensure_ascii=False)
        io_utils.write_string_file(os.path.join(artifact.uri, REPORT_FILE), text)
        newest = verdict.passed[-1][0].delivery.span
        artifact.set_int_custom_property(SPAN_PROPERTY, newest)
        artifact.set_string_custom_property(USE_PROPERTY, config.use)
        if verdict.drifted:
            message = ". ".join(verdict.drifted)
            log.warning(message)
            if verdict.is_refused:
                raise DriftError(
                    f"{message}. Mend the data, or let it pass, which makes it the next measure: "
                    "`--set drift.action=warn`",
                    verdict.report,
                )
        folder = new_folder(config.profiles, newest) if config.profiles else artifact.uri
        write_let_pass(folder, let_pass, verdict.passed)


def as_ingested(
    ingest: IngestConfig, examples: types.Artifact, data_directory: str | None
) -> IngestConfig:
    """Returns the settings with the spans that the Examples were made of.

    Args:
        ingest: As it is where its spans are chosen already.
        examples: From `TimelineExampleGen`.
        data_directory: Where relative paths start, if only a run can tell.

    Raises:
        MissingSpanError: A span is gone, or was delivered again since.
    """
    if ingest.chosen_spans is not None:
        return ingest
    shown = examples.get_string_custom_property(LAST_SPAN_PROPERTY)
    found = choose_spans(at_run_time(ingest, data_directory, shown))
    read = json.loads(examples.get_string_custom_property(SPANS_PROPERTY))
    chosen = found.chosen_spans or ChosenSpans(kind="number")
    # One that came late since is the next run's.
    window = [span for span in chosen.interactions if chosen.show(span.span) in read]
    now = {chosen.show(span.span): span.version for span in window}
    for name, version in read.items():
        if name not in now or now[name] != version:
            raise MissingSpanError(
                f"span {name} was delivered again while the run was under way: it was read in "
                f"version {version}; start the run anew"
            )
    return found.model_copy(
        update={"chosen_spans": chosen.model_copy(update={"interactions": tuple(window)})}
    )
