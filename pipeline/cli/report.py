"""`two-tower report`: write the report of a run again, and open it."""

import webbrowser
from typing import Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.options import Project
from pipeline.cli.output import fail, say


@command
def report(
    project: Project,
    run_id: Annotated[str, typer.Argument()] = "",
    no_open: bool = False,
    as_json: bool = False,
) -> None:
    """Write the report of a run as one HTML file, and open it in a browser.

    Every run writes its report, also a run that a gate refused.

    Example: two-tower report -c movielens_100k

    Args:
        run_id (RUN): ID of the run, or its first characters. By default, it is the newest run.
        no_open: Only write the report and print its address.
    """
    loaded = project.load()
    from pipeline.report.page import FACTS_FILE, write_report
    from pipeline.runs.history import find_run, records_of

    records = records_of(loaded)
    if not records:
        fail(
            f"there is no run of {loaded.name} in {loaded.run_dir}; start one with `two-tower run`"
        )
    page = write_report(loaded, find_run(loaded, run_id) if run_id else records[-1])
    if as_json:
        print(page.with_name(FACTS_FILE).read_text(encoding="utf-8"))
        return
    say(page.as_uri())
    if not no_open:
        webbrowser.open(page.as_uri())  # does nothing on a machine without a browser
