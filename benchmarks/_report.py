"""Command-line options, result rows and tables of the benchmarks."""

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def options_parser(doc: str) -> argparse.ArgumentParser:
    """Return a parser with the option `--json`, and the first line of `doc` as description."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def row(
    name: str,
    value: float,
    unit: str,
    must: float | None = None,
    aim: float | None = None,
    *,
    larger_is_better: bool = False,
    standard_error: float | None = None,
) -> Row:
    """Return a result row. `met` is whether `value` meets the bound `must`; None without `must`."""
    found: Row = {"name": name, "value": round(value, 4), "unit": unit, "must": must, "aim": aim}
    found["met"] = None
    if must is not None:  # compare the exact value, because the rounded one could meet the bound
        found["met"] = value >= must if larger_is_better else value <= must
    if standard_error is not None:
        found["standard_error"] = round(standard_error, 4)
    return found


def environment(*packages: str) -> dict[str, str]:
    """Return the hardware, the load average, and the versions of Python and of `packages`."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "hardware": f"{os.cpu_count()} x {cpu}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def report(about: Mapping[str, Any], rows: Sequence[Row], *, as_json: bool) -> int:
    """Print all rows as a table or JSON, and return the exit status (see `status`)."""
    if as_json:
        print(json.dumps({**about, "rows": rows}))
    else:
        print_head(about)
        for found in rows:
            print_row(found)
    return status(rows)


def status(rows: Sequence[Row]) -> int:
    """Return the exit status of a benchmark: 1 if a value misses its `must` bound, else 0."""
    return int(any(found["met"] is False for found in rows))


def print_head(about: Mapping[str, Any]) -> None:
    """Print the environment and the header of a Markdown table."""
    print(", ".join(f"{name} {value}" for name, value in about.items() if isinstance(value, str)))
    print("\n| name | value | must | aim | met |\n|---|---|---|---|---|", flush=True)


def print_row(found: Row) -> None:
    """Print one row of the table."""
    error = f" ± {found['standard_error']:.4f}" if "standard_error" in found else ""
    must, aim = ("" if found[key] is None else f"{found[key]:g}" for key in ("must", "aim"))
    met = {None: "", True: "yes", False: "no"}[found["met"]]
    if found["met"] and found["aim"] is not None:
        met = "aim" if _reaches_aim(found) else "must"
    value = f"{_shown(found['value'])}{error} {found['unit']}"
    print(f"| {found['name']} | {value} | {must} | {aim} | {met} |", flush=True)


def _reaches_aim(found: Row) -> bool:
    value, must, aim = (float(found[key]) for key in ("value", "must", "aim"))
    return value >= aim if aim > must else value <= aim


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
