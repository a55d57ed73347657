"""`two-tower skew`: compare logged requests with the training data."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Project
from pipeline.cli.output import fail, log_to, print_json, say

if TYPE_CHECKING:
    from pipeline.skew.comparison import SkewReport

_SKEWED = 3


@command
def skew(project: Project, requests: Path, as_json: bool = False) -> None:
    """Compare logged requests with the training statistics of the newest run.

    Exit codes: 0 within the thresholds of `skew`; 1 failed; 2 wrong usage; 3 above a threshold.

    Example: two-tower skew -c movielens_100k --requests requests.jsonl

    Args:
        requests (FILE): TFRecord file of PredictionLog messages, or request bodies as JSON lines.
    """
    loaded = project.load()
    if not loaded.run_dir.exists():
        fail(f"there is no run of {loaded.name} in {loaded.run_dir} to compare with")
    from pipeline.runs.history import new_run_id

    with log_to(loaded.run_dir / "logs" / f"skew-{new_run_id()}.log"):
        from pipeline.skew.comparison import compare_requests

        report = compare_requests(loaded, requests)
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)
    if report.is_skewed:
        raise typer.Exit(_SKEWED)


def _show(report: "SkewReport") -> None:
    say(
        f"{report.num_queries:,} queries of {report.num_requests:,} requests, compared with "
        f"{report.statistics}"
    )
    for finding in report.findings:
        mark = "ABOVE" if finding.is_exceeded else "within"
        say(f"  {'' if finding.threshold is None else mark:<8} {finding}")
