"""A run on the terminal: a line for each component, progress while it works, a closing table."""

import logging
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from pipeline.cli.console import stdout

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig
    from pipeline.local_runner import ComponentOutcome
    from pipeline.run import RunSummary

_SHOWN_METRICS = ("hit_rate", "ndcg")
_PROGRESS_LOGGER = "two_tower.progress"


class RunDisplay(logging.Handler):
    """Draws a run on the terminal; observes the runner and the trainer's progress lines.

    Args:
        terminal: Where to draw; the process's own standard error goes to the log meanwhile.
    """

    def __init__(self, terminal: TextIO) -> None:
        super().__init__()
        self._console = Console(file=terminal, highlight=False)
        self._status: Status | None = None
        self._doing = ""

    def __enter__(self) -> "RunDisplay":
        logging.getLogger(_PROGRESS_LOGGER).addHandler(self)
        self._show("loading TensorFlow and TFX")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        logging.getLogger(_PROGRESS_LOGGER).removeHandler(self)
        self.close()

    def component_started(self, name: str, position: int, total: int) -> None:
        """Shows what is being done."""
        self._doing = f"{position}/{total} {name}"
        self._show(self._doing)

    def component_finished(self, outcome: "ComponentOutcome") -> None:
        """Leaves a line for the component."""
        if outcome.state == "cached":
            self._console.print(f"  [dim]{outcome.name:<20} cached[/dim]")
        else:
            self._console.print(f"  {outcome.name:<20} {outcome.seconds:6.1f} s")

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a line of progress beside the component."""
        self._show(f"{self._doing}  [dim]{escape(record.getMessage())}[/dim]")

    def close(self) -> None:
        """Stops drawing."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        super().close()

    def _show(self, text: str) -> None:
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)


def show_summary(summary: "RunSummary", config: "PipelineConfig", log_path: Path) -> None:
    """Prints the closing tables: metrics against the baselines, index, timings, paths."""
    console = stdout()
    if summary.metrics:
        console.print(_metrics_table(summary, config.evaluation.exclude_seen))
    if summary.index:
        index = summary.index
        console.print(
            f"index     {index['backend']}, {index['num_candidates']:,} candidates, "
            f"recall@{index['k']} {index['recall']:.3f}"
        )
    console.print(f"time      {summary.total_seconds:.1f} s")
    if summary.pushed_version is not None:
        console.print(f"pushed    version {summary.pushed_version} to {summary.serving_dir}")
    console.print(f"log       {log_path}", soft_wrap=True)


def _metrics_table(summary: "RunSummary", exclude_seen: bool) -> Table:
    evaluation = summary.evaluation
    seen = "excluded" if exclude_seen else "counted"
    title = (
        f"{evaluation['num_events']:,} held-out events among "
        f"{evaluation['num_candidates']:,} candidates, seen candidates {seen}"
    )
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for contender in summary.metrics:
        table.add_column(contender, justify="right", style="bold" if contender == "model" else "")
    for name in summary.metrics["model"]:
        if name.partition("@")[0] in _SHOWN_METRICS:
            table.add_row(name, *(f"{values[name]:.4f}" for values in summary.metrics.values()))
    return table
