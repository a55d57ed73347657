"""Chooses the spans of a run: plain Python, so that any orchestrator can do it first."""

import logging
from collections.abc import Container, Mapping, Sequence
from datetime import datetime, timedelta, timezone

from components.interactions.config import (
    NEWEST_SPAN,
    SOURCE_SETTINGS,
    SOURCES,
    IngestConfig,
    Source,
    SpansConfig,
)
from components.interactions.errors import MissingSpanError, NoInputError
from components.interactions.spans.listing import list_files_and_others
from components.interactions.spans.pattern import (
    ChosenSpans,
    Delivery,
    InputFile,
    SpanFiles,
    SpanKind,
    SpanPattern,
    read_span,
    reads_as_day,
    show_span,
)

log = logging.getLogger(__name__)

_NUM_SHOWN = 5
# More gaps than this are no gaps: the numbers do not count spans.
_MOST_MISSING = 10_000


def choose_spans(
    config: IngestConfig,
    sources: Sequence[Source] = SOURCES,
    catalogue_through: int | None = None,
) -> IngestConfig:
    """Returns the settings with the files of the spans that a run reads.

    Of each span only the highest version counts. Interactions are a window of spans; catalogue and
    queries are snapshots: the newest one that is not newer than the window. `split.eval_from:
    newest_span` becomes the moment at which the newest span begins where spans are dates.

    Args:
        config: The settings; returned as they are where spans are chosen already, or where no
            pattern has a placeholder.
        sources: What will be read. Without the interactions, the snapshots are the newest.
        catalogue_through: The catalogue may be of a span up to this one though it is newer than the
            window.

    Raises:
        NoInputError: A pattern matches no file.
        MissingSpanError: A span that must be there is not, see `events.spans.missing`.
    """
    kind = config.data.span_kind
    if config.chosen_spans is not None or kind is None:
        return config
    spans = config.data.spans
    last = None if spans.last == "newest" else read_span(spans.last, kind)
    chosen = ChosenSpans(kind=kind)
    if "interactions" in sources and SpanPattern.parse(config.data.interactions).kind:
        window, missing = _window(config, kind, last)
        last = window[-1].span
        chosen = ChosenSpans(
            kind=kind, interactions=window, missing=missing, if_empty=spans.missing
        )
    snapshots = {
        source: _snapshot(source, pattern, kind, _not_before(last, catalogue_through, source))
        for source in ("candidates", "queries")
        if source in sources
        and (pattern := getattr(config.data, source)) is not None
        and SpanPattern.parse(pattern).kind
    }
    split = config.split
    if split.eval_from == NEWEST_SPAN and kind == "date" and chosen.interactions:
        begin = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(days=last or 0)
        split = split.model_copy(update={"eval_from": begin})
    return config.model_copy(
        update={
            "chosen_spans": chosen.model_copy(update=snapshots),
            "split": split,
            # How they were chosen must not tell one run from another that reads the same.
            "data": config.data.model_copy(update={"spans": SpansConfig()}),
        }
    )


def _window(
    config: IngestConfig, kind: SpanKind, last: int | None
) -> tuple[tuple[SpanFiles, ...], tuple[int, ...]]:
    spans = config.data.spans
    found = _deliveries("interactions", config.data.interactions)
    if last is None:
        last = max(found)
    if last not in found:
        known = sorted(found)
        raise MissingSpanError(
            f"`events.files`: there is no span {show_span(last, kind)}; there are "
            f"{len(known)}, from {show_span(known[0], kind)} to {show_span(known[-1], kind)}"
        )
    oldest = min(found)
    first = oldest if spans.window == "all" else max(oldest, last - spans.window + 1)
    window = tuple(found[span] for span in sorted(found) if first <= span <= last)
    num_missing = last - first + 1 - len(window)
    if num_missing > _MOST_MISSING:
        raise _too_many_missing(window, num_missing, kind)
    missing = tuple(span for span in range(first, last + 1) if span not in found)
    if missing and spans.missing == "stop":
        shown = ", ".join(show_span(span, kind) for span in missing[:_NUM_SHOWN])
        more = f" and {num_missing - _NUM_SHOWN} more" if num_missing > _NUM_SHOWN else ""
        raise MissingSpanError(
            f"`events.files`: span {shown}{more} of {show_span(first, kind)} to "
            f"{show_span(last, kind)} is missing; deliver it, or go on without it with "
            f"`events.spans.missing: warn`{_day_hint(window, kind)}"
        )
    return window, missing


def _too_many_missing(
    window: Sequence[SpanFiles], num_missing: int, kind: SpanKind
) -> MissingSpanError:
    """Names the file beside the largest gap, on the side that has fewer spans."""
    after = max(range(1, len(window)), key=lambda i: window[i].span - window[i - 1].span)
    far = window[after] if len(window) - after <= after else window[after - 1]
    days = kind == "date"
    remedy = (
        "; is its name right? Else narrow the window with `events.spans.window`"
        if days
        else f". {{SPAN}} must count spans one by one{_day_hint(window, kind)}"
    )
    return MissingSpanError(
        f"`events.files`: {num_missing:,} {'days' if days else 'numbers'} between "
        f"{show_span(window[0].span, kind)} and {show_span(window[-1].span, kind)} have no file. "
        f"The one that lies far off is {far.files[0].path}{remedy}"
    )


def _day_hint(window: Sequence[SpanFiles], kind: SpanKind) -> str:
    if kind == "number" and any(reads_as_day(found.span) for found in window):
        return "; these numbers read as days: write {YYYY}{MM}{DD} for {SPAN}"
    return ""


def _not_before(last: int | None, catalogue_through: int | None, source: Source) -> int | None:
    if last is None or catalogue_through is None or source != "candidates":
        return last
    return max(last, catalogue_through)


def _snapshot(source: Source, pattern: str, kind: SpanKind, last: int | None) -> SpanFiles:
    found = _deliveries(source, pattern)
    earlier = [span for span in found if last is None or span <= last]
    if not earlier:
        raise MissingSpanError(
            f"`{SOURCE_SETTINGS[source]}`: there is no span at or before "
            f"{show_span(last or 0, kind)}; the "
            f"first is {show_span(min(found), kind)}"
        )
    return found[max(earlier)]


def _deliveries(source: Source, pattern: str) -> dict[int, SpanFiles]:
    """Returns each span's highest version."""
    parsed = SpanPattern.parse(pattern)
    files: dict[tuple[int, int], list[InputFile]] = {}
    spellings: dict[tuple[int, int], tuple[str, ...]] = {}
    listed, others = list_files_and_others(pattern)
    if others:
        log.warning(_unread_message(source, pattern, others))
    for file in listed:
        try:
            delivery = parsed.delivery(file.path)
        except ValueError as error:
            raise NoInputError(f"`{SOURCE_SETTINGS[source]}`: {error}") from error
        if delivery is None:
            continue
        key = (delivery.span, -1 if delivery.version is None else delivery.version)
        if spellings.setdefault(key, delivery.spelling) != delivery.spelling:
            raise _spelled_twice(source, delivery, file.path)
        files.setdefault(key, []).append(InputFile(path=file.path, size_bytes=file.size_bytes))
    if not files:
        near = f". {_unread_message(source, pattern, others)}" if others else ""
        raise NoInputError(f"`{SOURCE_SETTINGS[source]}`: no file matches {pattern}{near}")
    # Sorted by version: the last one of a span stays.
    return {
        span: SpanFiles(span=span, version=None if version < 0 else version, files=tuple(found))
        for (span, version), found in sorted(files.items())
    }


def unread_files(config: IngestConfig) -> dict[Source, list[str]]:
    """Returns the files by source that are named nearly as their spans are, and so are not read."""
    patterns: Mapping[Source, str | None] = {
        source: getattr(config.data, source) for source in SOURCES
    }
    return {
        source: others
        for source, pattern in patterns.items()
        if pattern is not None
        and SpanPattern.parse(pattern).kind is not None
        and (others := list_files_and_others(pattern)[1])
    }


def _unread_message(source: Source, pattern: str, others: Sequence[str]) -> str:
    more = f" and {len(others) - _NUM_SHOWN} more" if len(others) > _NUM_SHOWN else ""
    return (
        f"`{SOURCE_SETTINGS[source]}`: named nearly as {pattern}, but not so, and not read: "
        f"{', '.join(others[:_NUM_SHOWN])}{more}"
    )


def _spelled_twice(source: Source, delivery: Delivery, path: str) -> NoInputError:
    return NoInputError(
        f"`{SOURCE_SETTINGS[source]}`: span {delivery.span} is there twice, its number "
        "written differently, "
        f"once as in {path}; remove one, or give a width such as {{SPAN:4}}"
    )


def empty_spans(chosen: ChosenSpans | None, with_events: Container[int]) -> tuple[SpanFiles, ...]:
    """Return the spans of the window that have no good event, oldest first.

    Args:
        chosen: The spans of a run.
        with_events: Numbers of the spans that have good events.
    """
    if chosen is None:
        return ()
    return tuple(found for found in chosen.interactions if found.span not in with_events)


def check_empty_spans(chosen: ChosenSpans | None, with_events: Container[int]) -> None:
    """Refuses empty spans where a missing one is refused.

    Raises:
        MissingSpanError: There are some and `events.spans.missing` is stop, or the newest span of
            the window is empty, without which the window is another.
    """
    empty = empty_spans(chosen, with_events)
    if chosen is None or not empty:
        return
    newest = chosen.interactions[-1]
    if chosen.if_empty == "warn" and newest not in empty:
        return
    more = f" and {len(empty) - _NUM_SHOWN} more" if len(empty) > _NUM_SHOWN else ""
    shown = ", ".join(_show(chosen, found) for found in empty[:_NUM_SHOWN])
    if newest not in empty:
        remedy = "deliver it again, or go on without it with `events.spans.missing: warn`"
    else:
        remedy = "deliver it again, as a new version"
        earlier: Sequence[SpanFiles] = [
            found for found in chosen.interactions if found not in empty
        ]
        if earlier:
            remedy += f", or run as of {chosen.show(earlier[-1].span)} with `events.spans.last`"
    raise MissingSpanError(
        f"`events.files`: span {shown}{more} is missing: no good event is in what was "
        f"delivered; {remedy}"
    )


def _show(chosen: ChosenSpans, found: SpanFiles) -> str:
    version = "" if found.version is None else f" (version {found.version})"
    return f"{chosen.show(found.span)}{version}"
