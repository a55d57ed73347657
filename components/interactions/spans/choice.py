"""Choose the spans that a run reads.

Local files are listed without Beam, so that an orchestrator can choose the spans before a run.
"""

import logging
from collections.abc import Container, Sequence
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
from components.interactions.spans.pattern import (
    ChosenSpans,
    InputFile,
    SpanFiles,
    SpanKind,
    find_delivery,
    list_files_and_near_misses,
    read_span,
    reads_as_day,
    show_span,
    span_kind,
)

log = logging.getLogger(__name__)

_NUM_SHOWN = 5
# If more spans are missing, assume that the numbers do not count spans.
_MOST_MISSING = 10_000


def choose_spans(
    config: IngestConfig, sources: Sequence[Source] = SOURCES, catalogue_through: int | None = None
) -> IngestConfig:
    """Return the configuration with the files of the spans that a run reads.

    Only the highest version of a span is used. The interactions are a window of spans. The
    catalogue and the queries are snapshots: the newest span that is not newer than the window. If
    spans are dates, `split.eval_from: newest_span` becomes the midnight at which the newest span
    begins.

    `config` is returned unchanged if spans are already chosen, or if no pattern has spans. Without
    the interactions in `sources`, only `events.spans.last` limits the snapshots. The catalogue may
    have a span newer than the window, up to `catalogue_through`.

    Raises:
        NoInputError: A pattern matches no file.
        MissingSpanError: A required span is missing; see `events.spans.missing`.
    """
    kind = config.data.span_kind
    if config.chosen_spans is not None or kind is None:
        return config
    spans = config.data.spans
    last = None if spans.last == "newest" else read_span(spans.last, kind)
    chosen = ChosenSpans(kind=kind)
    if "interactions" in sources and span_kind(config.data.interactions):
        window, missing = _window(config, kind, last)
        last = window[-1].span
        chosen = ChosenSpans(
            kind=kind, interactions=window, missing=missing, if_empty=spans.missing
        )
    snapshots: dict[str, SpanFiles] = {}
    for source in ("candidates", "queries"):
        pattern = getattr(config.data, source)
        if source in sources and pattern is not None and span_kind(pattern):
            through = last
            if source == "candidates" and last is not None and catalogue_through is not None:
                through = max(last, catalogue_through)
            snapshots[source] = _snapshot(source, pattern, kind, through)
    split = config.split
    if split.eval_from == NEWEST_SPAN and kind == "date" and chosen.interactions:
        begin = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(days=last or 0)
        split = split.model_copy(update={"eval_from": begin})
    return config.model_copy(
        update={
            "chosen_spans": chosen.model_copy(update=snapshots),
            "split": split,
            # Runs that read the same spans have equal configurations, however spans were requested.
            "data": config.data.model_copy(update={"spans": SpansConfig()}),
        }
    )


def unread_files(config: IngestConfig) -> dict[Source, list[str]]:
    """Return the paths that almost match a pattern with spans and are not read, by source."""
    patterns = {source: getattr(config.data, source) for source in SOURCES}
    return {
        source: near_misses
        for source, pattern in patterns.items()
        if pattern is not None
        and span_kind(pattern)
        and (near_misses := list_files_and_near_misses(pattern)[1])
    }


def empty_spans(chosen: ChosenSpans | None, with_events: Container[int]) -> tuple[SpanFiles, ...]:
    """Return the spans of the window that have no valid event, oldest first."""
    if chosen is None:
        return ()
    return tuple(found for found in chosen.interactions if found.span not in with_events)


def check_empty_spans(chosen: ChosenSpans | None, with_events: Container[int]) -> None:
    """Check that no span is empty, as `events.spans.missing` requires.

    Raises:
        MissingSpanError: A span is empty and `events.spans.missing` is `stop`, or the newest span
            of the window is empty.
    """
    empty = empty_spans(chosen, with_events)
    if chosen is None or not empty:
        return
    newest = chosen.interactions[-1]
    if chosen.if_empty == "warn" and newest not in empty:
        return
    remedy = "deliver it again, or continue without it with `events.spans.missing: warn`"
    if newest in empty:
        remedy = "deliver it again, as a new version"
        earlier = [found for found in chosen.interactions if found not in empty]
        if earlier:
            last = chosen.show(earlier[-1].span)
            remedy += f", or run as of {last} with `--span {last}`"
    versions = ["" if s.version is None else f" (version {s.version})" for s in empty]
    shown = [chosen.show(s.span) + version for s, version in zip(empty, versions, strict=True)]
    raise MissingSpanError(
        f"`events.files`: {_are_missing(shown)}: the files have no valid event; {remedy}"
    )


def _window(
    config: IngestConfig, kind: SpanKind, last: int | None
) -> tuple[tuple[SpanFiles, ...], tuple[int, ...]]:
    """Return the spans of the window and the numbers of the missing ones."""
    spans = config.data.spans
    found = _deliveries("interactions", config.data.interactions)
    oldest, newest = min(found), max(found)
    last = newest if last is None else last
    if last not in found:
        raise MissingSpanError(
            f"`events.files`: there is no span {show_span(last, kind)}; there are {len(found)} "
            f"spans, from {show_span(oldest, kind)} to {show_span(newest, kind)}"
        )
    first = oldest if spans.window == "all" else max(oldest, last - spans.window + 1)
    window = tuple(found[span] for span in sorted(found) if first <= span <= last)
    num_missing = last - first + 1 - len(window)
    hint = ""
    if kind == "number" and any(reads_as_day(delivery.span) for delivery in window):
        hint = "; these numbers look like dates: write {YYYY}{MM}{DD} instead of {SPAN}"
    if num_missing > _MOST_MISSING:
        # Show the span next to the largest gap, on the side with fewer spans.
        after = max(range(1, len(window)), key=lambda i: window[i].span - window[i - 1].span)
        far = window[after] if len(window) - after <= after else window[after - 1]
        what, remedy = "numbers", f". {{SPAN}} must count spans one by one{hint}"
        if kind == "date":
            what = "days"
            remedy = "; check its name, or narrow the window with `events.spans.window`"
        raise MissingSpanError(
            f"`events.files`: {num_missing:,} {what} between {show_span(window[0].span, kind)} and "
            f"{show_span(last, kind)} have no file. The file far from the others is "
            f"{far.files[0].path}{remedy}"
        )
    missing = tuple(span for span in range(first, last + 1) if span not in found)
    if missing and spans.missing == "stop":
        shown = [show_span(span, kind) for span in missing]
        among = f" of {show_span(first, kind)} to {show_span(last, kind)}"
        raise MissingSpanError(
            f"`events.files`: {_are_missing(shown, among)}; deliver the data, or continue without "
            f"it with `events.spans.missing: warn`{hint}"
        )
    return window, missing


def _are_missing(spans: Sequence[str], window: str = "") -> str:
    plural = len(spans) > 1
    return f"span{'s' * plural} {join_first(spans)}{window} {'are' if plural else 'is'} missing"


def _snapshot(source: Source, pattern: str, kind: SpanKind, through: int | None) -> SpanFiles:
    found = _deliveries(source, pattern)
    earlier = [span for span in found if through is None or span <= through]
    if not earlier:
        raise MissingSpanError(
            f"`{SOURCE_SETTINGS[source]}`: there is no span at or before "
            f"{show_span(through or 0, kind)}; the first is {show_span(min(found), kind)}"
        )
    return found[max(earlier)]


def _deliveries(source: Source, pattern: str) -> dict[int, SpanFiles]:
    """Return the files of the highest version of each span, by span number."""
    setting = SOURCE_SETTINGS[source]
    listed, near_misses = list_files_and_near_misses(pattern)
    unread = f"these files almost match {pattern} and are not read: {join_first(near_misses)}"
    if near_misses:
        log.warning("`%s`: %s", setting, unread)
    # The files and the spelling of each span and version.
    found: dict[tuple[int, int], tuple[list[InputFile], tuple[str, ...]]] = {}
    for file in listed:
        try:
            delivery = find_delivery(pattern, file.path)
        except ValueError as error:
            raise NoInputError(f"`{setting}`: {error}") from error
        if delivery is None:
            continue
        key = (delivery.span, -1 if delivery.version is None else delivery.version)
        files, spelling = found.setdefault(key, ([], delivery.spelling))
        if spelling != delivery.spelling:
            raise NoInputError(
                f"`{setting}`: span {delivery.span} has two spellings, one of them in {file.path}; "
                "remove one, or give a width such as {SPAN:4}"
            )
        files.append(InputFile(path=file.path, size_bytes=file.size_bytes))
    if not found:
        more = f"; {unread}" if near_misses else ""
        raise NoInputError(f"`{setting}`: no file matches {pattern}{more}")
    # In ascending order, a higher version of a span replaces a lower one.
    return {
        span: SpanFiles(span=span, version=None if version < 0 else version, files=tuple(files))
        for (span, version), (files, _) in sorted(found.items())
    }


def join_first(names: Sequence[str]) -> str:
    """Join the first few names, and say how many more there are."""
    more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return ", ".join(names[:_NUM_SHOWN]) + more
