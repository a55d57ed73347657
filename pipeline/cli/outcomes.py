"""`two-tower outcomes`: join the request log with later events."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Project
from pipeline.cli.output import fail, new_table, print_json, print_table, say

if TYPE_CHECKING:
    from components.retrieval_evaluator.bootstrap import Interval
    from pipeline.config.project import PipelineConfig
    from pipeline.outcomes.outcomes import Outcomes


@dataclass(frozen=True)
class Joined:
    """Options that name a request log and the events after it.

    Args:
        requests (PATH): File or folder of the request log; see `two-tower serve --request-log`.
        events (PATTERN): Files of later events, in the format of `events.files`.
        k: Number of candidates that were shown of each answer.
        within_hours (HOURS): Longest time between an answer and an event.
        event_type: Event type that counts; repeat it for several. By default, all count.
    """

    requests: Path | None = None
    events: str | None = None
    k: Annotated[int, typer.Option("-k", min=1)] = 10
    within_hours: Annotated[float, typer.Option(min=0.0)] = 24.0
    event_type: list[str] | None = None

    def measure(self, config: "PipelineConfig") -> "Outcomes":
        """Return the outcomes of all versions."""
        from pipeline.outcomes.outcomes import measure_outcomes

        if self.requests is None or self.events is None:
            fail("--requests and --events must name the request log and the events after it", 2)
        return measure_outcomes(
            config,
            self.requests,
            self.events,
            k=self.k,
            within=timedelta(hours=self.within_hours),
            event_types=self.event_type or (),
        )


@command
def outcomes(project: Project, joined: Joined = Joined(), as_json: bool = False) -> None:
    """Show how often recommended candidates had an event afterwards, by version and label.

    An event counts for the newest answer before it with its query and candidate. Requests without
    a query ID cannot be joined.

    Example: two-tower outcomes -c clicks --requests log --events 'new/*.csv' -k 10
    """
    found = joined.measure(project.load())
    if as_json:
        print_json(found.to_json())
        return
    table = new_table("version", "label", "answers", "queries", "hit rate", f"CTR@{found.k}")
    for row in found.by_label:
        counts = (f"{row.num_answers:,}", f"{row.num_queries:,}")
        values = (_shown(row.hit_rate), _shown(row.ctr))
        table.add_row(str(row.version), row.label or "-", *counts, *values)
    print_table(table, ids=0)
    say(f"{found.num_events:,} events; intervals are at 95% over queries", style="dim")


def _shown(interval: "Interval") -> str:
    return f"{interval.value:.4f} ({interval.low:.4f} to {interval.high:.4f})"
