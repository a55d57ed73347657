"""Unpacks the artifacts, takes the profile, compares, writes the report."""

import json
import logging
import os
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components.blessings import NotBlessedError
from components.drift_gate.comparison import compare
from components.drift_gate.kept_profiles import find_profile, keep_profile
from components.drift_gate.span_profile import Profile, known_candidates, take_profile
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
from components.timeline_example_gen.config import IngestConfig
from components.timeline_example_gen.errors import MissingSpanError
from components.timeline_example_gen.run_time import at_run_time
from components.timeline_example_gen.spans import choose_spans
from components.timeline_example_gen.spec import LAST_SPAN_PROPERTY, SPANS_PROPERTY

log = logging.getLogger(__name__)


class DriftError(NotBlessedError):
    """The newest span is too far from the last good one; running again will not help.

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
        """Profiles the newest span and holds it against the baseline.

        Args:
            input_dict: `examples`, of which the split `candidates` says what is known now.
            output_dict: `profile`.
            exec_properties: `drift_gate_config`, a `DriftGateConfig` as JSON; `data_directory`
                where it is given.

        Raises:
            MissingSpanError: See `as_ingested`.
            DriftError: Under `action: stop`, with each value that is beyond its threshold.
        """
        config = DriftGateConfig.model_validate_json(exec_properties[CONFIG_KEY])
        examples = artifact_utils.get_single_instance(input_dict[EXAMPLES_KEY])
        artifact = artifact_utils.get_single_instance(output_dict[PROFILE_KEY])
        ingest = as_ingested(config.ingest, examples, exec_properties.get(DATA_DIRECTORY_KEY))
        spec = ingest.spec
        profile = take_profile(ingest, known_candidates(examples, spec.candidate_id))
        profile.write(artifact.uri)
        good = config.baseline
        if config.profiles:
            good = find_profile(config.profiles, profile.span)
        baseline = Profile.read(good) if good else None
        findings = [] if baseline is None else compare(profile, baseline, config.drift, spec)
        report = {
            "span": profile.shown_span,
            "baseline": None if baseline is None else baseline.shown_span,
            "events": profile.num_events,
            "findings": [finding.to_json() for finding in findings],
        }
        text = json.dumps(report, indent=2, ensure_ascii=False)
        io_utils.write_string_file(os.path.join(artifact.uri, REPORT_FILE), text)
        artifact.set_int_custom_property(SPAN_PROPERTY, profile.span)
        artifact.set_string_custom_property(USE_PROPERTY, config.use)
        exceeded = [str(finding) for finding in findings if finding.is_exceeded]
        if exceeded and baseline is not None:
            message = f"span {profile.shown_span} has drifted from {baseline.shown_span}: "
            message += "; ".join(exceeded)
            log.warning(message)
            if config.drift.action == "stop":
                raise DriftError(
                    f"{message}. Mend the data, or let it pass, which makes it the next measure: "
                    "`--set drift.action=warn`",
                    report,
                )
        if config.profiles:
            keep_profile(config.profiles, profile)


def as_ingested(
    ingest: IngestConfig, examples: types.Artifact, data_directory: str | None
) -> IngestConfig:
    """Returns the settings with the newest span that the Examples were made of.

    Args:
        ingest: As it is where its spans are chosen already.
        examples: From `TimelineExampleGen`.
        data_directory: Where relative paths start, if only a run can tell.

    Raises:
        MissingSpanError: The span is gone, or was delivered again since.
    """
    if ingest.chosen_spans is not None:
        return ingest
    shown = examples.get_string_custom_property(LAST_SPAN_PROPERTY)
    found = choose_spans(at_run_time(ingest, data_directory, shown))
    version = json.loads(examples.get_string_custom_property(SPANS_PROPERTY))[shown]
    newest = found.chosen_spans.interactions[-1] if found.chosen_spans is not None else None
    if newest is None or newest.version != version:
        raise MissingSpanError(
            f"span {shown} was delivered again while the run was under way: it was read in version "
            f"{version}; start the run anew"
        )
    return found
