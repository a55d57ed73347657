"""Unpacks the artifacts, takes the profile, compares, writes the report."""

import json
import logging
import os
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components.drift_gate.comparison import compare
from components.drift_gate.span_profile import Profile, known_candidates, take_profile
from components.drift_gate.spec import (
    CONFIG_KEY,
    EXAMPLES_KEY,
    PROFILE_KEY,
    REPORT_FILE,
    SPAN_PROPERTY,
    USE_PROPERTY,
    DriftGateConfig,
)

log = logging.getLogger(__name__)


class DriftError(Exception):
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
            exec_properties: `drift_gate_config`, a `DriftGateConfig` as JSON.

        Raises:
            DriftError: Under `action: stop`, with each value that is beyond its threshold.
        """
        config = DriftGateConfig.model_validate_json(exec_properties[CONFIG_KEY])
        examples = artifact_utils.get_single_instance(input_dict[EXAMPLES_KEY])
        artifact = artifact_utils.get_single_instance(output_dict[PROFILE_KEY])
        spec = config.ingest.spec
        profile = take_profile(config.ingest, known_candidates(examples, spec.candidate_id))
        profile.write(artifact.uri)
        baseline = Profile.read(config.baseline) if config.baseline else None
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
        if not exceeded or baseline is None:
            return
        message = f"span {profile.shown_span} has drifted from {baseline.shown_span}: " + "; ".join(
            exceeded
        )
        log.warning(message)
        if config.drift.action == "stop":
            raise DriftError(
                f"{message}. Mend the data, or let it pass, which makes it the next measure: "
                "`--set drift.action=warn`",
                report,
            )
