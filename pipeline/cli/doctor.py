"""`two-tower doctor`: check that this machine and its environment can do the work."""

import os
from typing import Annotated

import typer

from pipeline.cli.console import stdout

_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[bold red]failed[/]"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check Python, packages, CPU, memory, disk, ports and folders, and say what to do.

    Ends with status 1 if a check fails; a warning is no failure.
    """
    import json
    from dataclasses import asdict

    import models  # noqa: F401 - chooses Keras 2 in the environment that the checks pass on
    from pipeline.cli.data import default_data_dir
    from pipeline.doctor import Status, examine

    checks = list(examine(default_data_dir().parent, dict(os.environ)))
    healthy = all(check.status is not Status.FAILED for check in checks)
    if as_json:
        typer.echo(json.dumps({"healthy": healthy, "checks": [asdict(check) for check in checks]}))
    else:
        from rich.markup import escape
        from rich.table import Table

        table = Table("check", "", box=None, pad_edge=False)
        table.add_column("found", overflow="fold")
        table.add_column("what to do", overflow="fold")
        for check in checks:
            row = (
                escape(check.name),
                _MARKS[check.status.value],
                *map(escape, (check.found, check.advice)),
            )
            table.add_row(*row)
        stdout().print(table)
        warnings = sum(check.status is Status.WARNING for check in checks)
        failures = sum(check.status is Status.FAILED for check in checks)
        stdout().print(f"\n{len(checks)} checks: {failures} failed, {warnings} with a warning")
    if not healthy:
        raise typer.Exit(1)
