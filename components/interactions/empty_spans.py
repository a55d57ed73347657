"""Spans that were delivered without a single good event: as good as missing."""

from collections.abc import Sequence

from components.interactions.config import ChosenSpans, SpanFiles
from components.interactions.errors import MissingSpanError
from components.interactions.plan import IngestPlan
from components.interactions.read_stage import ReadFacts

_NUM_SHOWN = 5


def empty_spans(plan: IngestPlan, facts: ReadFacts) -> tuple[SpanFiles, ...]:
    """Returns the spans of the window without a good event, oldest first."""
    chosen = plan.config.chosen_spans
    if chosen is None:
        return ()
    with_events = {(found.source, found.index) for found in facts.files if found.num_good > 0}
    full = {
        file.span
        for file in plan.files
        if file.source == "interactions" and (file.source, file.index) in with_events
    }
    return tuple(found for found in chosen.interactions if found.span not in full)


def check_empty_spans(plan: IngestPlan, facts: ReadFacts) -> None:
    """Refuses empty spans where a missing one is refused.

    Raises:
        MissingSpanError: There are some and `data.spans.missing` is stop, or the newest span of the
            window is empty, without which the window is another.
    """
    chosen = plan.config.chosen_spans
    empty = empty_spans(plan, facts)
    if chosen is None or not empty:
        return
    newest = chosen.interactions[-1]
    if chosen.if_empty == "warn" and newest not in empty:
        return
    more = f" and {len(empty) - _NUM_SHOWN} more" if len(empty) > _NUM_SHOWN else ""
    shown = ", ".join(_show(chosen, found) for found in empty[:_NUM_SHOWN])
    if newest not in empty:
        remedy = "deliver it again, or go on without it with `data.spans.missing: warn`"
    else:
        remedy = "deliver it again, as a new version"
        earlier: Sequence[SpanFiles] = [
            found for found in chosen.interactions if found not in empty
        ]
        if earlier:
            remedy += f", or run as of {chosen.show(earlier[-1].span)} with `data.spans.last`"
    raise MissingSpanError(
        f"`data.interactions`: span {shown}{more} is missing: no good event is in what was "
        f"delivered; {remedy}"
    )


def _show(chosen: ChosenSpans, found: SpanFiles) -> str:
    version = "" if found.version is None else f" (version {found.version})"
    return f"{chosen.show(found.span)}{version}"
