"""DriftGate: compare a new span with accepted ones before a model learns from it."""

import json
import logging
import os
from typing import Any

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import Artifact
from tfx.types.standard_artifacts import Examples

from components import files
from components.artifacts import (
    LAST_SPAN_PROPERTY,
    PROJECT_PROPERTY,
    SPAN_PROPERTY,
    SPANS_PROPERTY,
    NotBlessedError,
    SpanProfile,
)
from components.drift_gate.accepted_spans import (
    new_folder,
    newest_folder,
    read_accepted,
    write_accepted,
)
from components.drift_gate.config import DriftConfig
from components.drift_gate.gate import Gate
from components.drift_gate.span_profile import known_candidates
from components.interactions.config import IngestConfig, at_run_time
from components.interactions.errors import MissingSpanError
from components.interactions.spans.choice import choose_spans
from components.interactions.spans.pattern import ChosenSpans
from models.settings import Settings

log = logging.getLogger(__name__)

REPORT_FILE = "drift_report.json"


class DriftGateConfig(Settings):
    """The configuration of DriftGate.

    Attributes:
        project: Name of the project.
        ingest: The ingestion with its spans chosen. On a cluster no spans are chosen: the gate
            takes those that ingestion read.
        drift: The thresholds.
        baseline: URI of the SpanProfile of the last accepted run; empty if there is none.
        profiles: On a cluster, the folder of accepted profiles, which replaces `baseline`. Empty
            if ML Metadata has them.
    """

    project: str
    ingest: IngestConfig
    drift: DriftConfig
    baseline: str = ""
    profiles: str = ""


class DriftError(NotBlessedError):
    """A span differs too much from the last accepted one. Running again does not help.

    Attributes:
        report: The content of `REPORT_FILE`: TFX removes the files of a component that fails.
    """

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


@component
def DriftGate(
    examples: InputArtifact[Examples],
    profile: OutputArtifact[SpanProfile],
    config: Parameter[str],
    data_directory: Parameter[str] = None,
) -> None:
    """Profile the new spans of a window and compare them with earlier ones.

    The drift comparators of ExampleValidator would see whole windows, in which one day is diluted,
    and the events of a timeline rather than those of a span.

    ```python
    drift_gate = DriftGate(
        examples=example_gen.outputs["examples"],
        config=DriftGateConfig(
            project="clicks", ingest=ingest, drift=DriftConfig(action="stop"), baseline=uri
        ).model_dump_json(),
    )
    transform.add_upstream_node(drift_gate)
    ```

    Args:
        examples: The ingested Examples. The split `candidates` has the known candidates, and
            properties name the spans.
        profile: What later spans are compared with, and the report.
        config: A `DriftGateConfig`.
        data_directory: The folder that relative paths start from, known only at run time.

    Raises:
        MissingSpanError: A span is gone, or was delivered again during the run.
        LostProfileError: The profile of an accepted span is gone; see `Gate.judge`.
        DriftError: Under `action: stop`, with each value beyond its threshold.
    """
    settings = DriftGateConfig.model_validate_json(config)
    ingest = as_ingested(settings.ingest, examples, data_directory)
    good = newest_folder(settings.profiles) if settings.profiles else settings.baseline
    accepted = read_accepted(good) if good else []
    gate = Gate(
        ingest,
        settings.drift,
        known_candidates(examples, ingest.spec.candidate_id),
        accepted,
        # On a cluster, removing a profile's folder is how a span stops being a baseline.
        may_lack_profiles=bool(settings.profiles) or settings.drift.action == "warn",
    )
    verdict = gate.judge()
    text = json.dumps(verdict.report, indent=2, ensure_ascii=False)
    files.write_text(os.path.join(profile.uri, REPORT_FILE), text)
    newest = verdict.accepted[-1][0].delivery.span
    profile.set_int_custom_property(SPAN_PROPERTY, newest)
    profile.set_string_custom_property(PROJECT_PROPERTY, settings.project)
    if verdict.drifted:
        message = ". ".join(verdict.drifted)
        log.warning(message)
        if verdict.is_refused:
            raise DriftError(
                f"{message}. Fix the data, or accept it as the new baseline with "
                "`--set drift.action=warn`",
                verdict.report,
            )
    folder = new_folder(settings.profiles, newest) if settings.profiles else profile.uri
    write_accepted(folder, accepted, verdict.accepted)


def as_ingested(
    ingest: IngestConfig, examples: Artifact, data_directory: str | None
) -> IngestConfig:
    """Return the settings with the spans that the Examples were made of, unless already chosen.

    Raises:
        MissingSpanError: A span is gone, or was delivered again since.
    """
    if ingest.chosen_spans is not None:
        return ingest
    shown = examples.get_string_custom_property(LAST_SPAN_PROPERTY)
    found = choose_spans(at_run_time(ingest, data_directory, shown))
    read = json.loads(examples.get_string_custom_property(SPANS_PROPERTY))
    chosen = found.chosen_spans or ChosenSpans(kind="number")
    # A span that arrived since then belongs to the next run.
    window = [span for span in chosen.interactions if chosen.show(span.span) in read]
    now = {chosen.show(span.span): span.version for span in window}
    for name, version in read.items():
        if name not in now or now[name] != version:
            raise MissingSpanError(
                f"span {name} was delivered again during the run, which read version {version}; "
                "start the run again"
            )
    return found.model_copy(
        update={"chosen_spans": chosen.model_copy(update={"interactions": tuple(window)})}
    )
