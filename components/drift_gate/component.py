"""DriftGate: compare new spans with accepted ones before a model is trained on them."""

import json
import logging
import os

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
from components.errors import DriftError
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
        ingest: The configuration of ingestion with chosen spans. On a cluster, no spans are chosen
            yet, and the gate uses the spans that ingestion read.
        drift: The thresholds.
        reference: URI of the SpanProfile of the last accepted run; empty if there is none.
        profiles: Folder of the profile store on a cluster, used instead of `reference`; empty if
            the profiles are artifacts in ML Metadata.
    """

    project: str
    ingest: IngestConfig
    drift: DriftConfig
    reference: str = ""
    profiles: str = ""


@component
def DriftGate(
    examples: InputArtifact[Examples],
    profile: OutputArtifact[SpanProfile],
    config: Parameter[str],
    data_directory: Parameter[str] = None,
) -> None:
    """Profile the new spans of a window, and compare them with accepted ones.

    The drift comparators of ExampleValidator do not replace this component: they would compare
    whole windows, in which one day has little weight, and the events of timelines, not of spans.

    ```python
    drift_gate = DriftGate(
        examples=example_gen.outputs["examples"],
        config=DriftGateConfig(
            project="clicks", ingest=ingest, drift=DriftConfig(action="stop"), reference=uri
        ).model_dump_json(),
    )
    transform.add_upstream_node(drift_gate)
    ```

    Args:
        examples: The ingested Examples. The split `candidates` has the known candidates, and
            properties record the spans that were read.
        profile: The report and, except on a cluster, the profiles of the accepted spans.
        config: A `DriftGateConfig`, as JSON.
        data_directory: Base folder of relative paths, if it is known only at run time.

    Raises:
        MissingSpanError: A span was removed or delivered again during the run.
        LostProfileError: The profile of an accepted span is missing.
        DriftError: A value violates its threshold, and `action` is `stop`.
    """
    settings = DriftGateConfig.model_validate_json(config)
    ingest = as_ingested(settings.ingest, examples, data_directory)
    last = newest_folder(settings.profiles) if settings.profiles else settings.reference
    accepted = read_accepted(last) if last else []
    gate = Gate(
        ingest,
        settings.drift,
        known_candidates(examples, ingest.spec.candidate_id),
        accepted,
        # On a cluster, people remove the folder of a profile to stop using it as a reference.
        may_lack_profiles=bool(settings.profiles) or settings.drift.action == "warn",
    )
    report = gate.judge()
    text = json.dumps(report, indent=2, ensure_ascii=False)
    files.write_text(os.path.join(profile.uri, REPORT_FILE), text)
    newest = gate.accepted[-1][0].delivery.span
    profile.set_int_custom_property(SPAN_PROPERTY, newest)
    profile.set_string_custom_property(PROJECT_PROPERTY, settings.project)
    if gate.drifted:
        message = ". ".join(gate.drifted)
        log.warning(message)
        if gate.is_refused:
            raise DriftError(
                f"{message}. Fix the data, or accept it as the new reference with "
                "`--set drift.action=warn --push`",
                report,
            )
    folder = new_folder(settings.profiles, newest) if settings.profiles else profile.uri
    write_accepted(folder, accepted, gate.accepted)


def as_ingested(
    ingest: IngestConfig, examples: Artifact, data_directory: str | None
) -> IngestConfig:
    """Return the configuration with the spans that ingestion read, unless spans are already chosen.

    Raises:
        MissingSpanError: A span was removed or delivered again after ingestion.
    """
    if ingest.chosen_spans is not None:
        return ingest
    shown = examples.get_string_custom_property(LAST_SPAN_PROPERTY)
    found = choose_spans(at_run_time(ingest, data_directory, shown))
    read = json.loads(examples.get_string_custom_property(SPANS_PROPERTY))
    chosen = found.chosen_spans or ChosenSpans(kind="number")
    # Spans that arrived after ingestion belong to the next run.
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
