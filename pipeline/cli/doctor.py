"""`two-tower doctor`: check that this machine can run the pipeline and serve its models."""

import os
from dataclasses import asdict

import typer

from pipeline.cli.command import command
from pipeline.cli.options import JsonOption
from pipeline.cli.output import new_table, print_json, print_table, say

_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[bold red]failed[/]"}


@command
def doctor(as_json: JsonOption = False) -> None:
    """Check Python, packages, CPU, memory, disk, ports and folders, and say what to do.

    The exit code is 1 if a check fails, and 0 with warnings only.

    Example: two-tower doctor
    """
    import models  # noqa: F401 - sets TF_USE_LEGACY_KERAS, which the checks pass on
    from pipeline.cli.data import default_data_dir
    from pipeline.doctor import Status, examine

    checks = list(examine(default_data_dir().parent, dict(os.environ)))
    failures = sum(check.status is Status.FAILED for check in checks)
    if as_json:
        print_json({"healthy": not failures, "checks": [asdict(check) for check in checks]})
    else:
        from rich.markup import escape

        table = new_table("check", "", "found", "what to do")
        for check in checks:
            cells = map(escape, (check.found, check.advice))
            table.add_row(escape(check.name), _MARKS[check.status.value], *cells)
        print_table(table)
        warnings = sum(check.status is Status.WARNING for check in checks)
        say(f"\n{len(checks)} checks: {failures} failed, {warnings} with a warning")
    if failures:
        raise typer.Exit(1)
