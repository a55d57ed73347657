"""Command line, result rows and tables of the benchmarks."""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

Row = dict[str, Any]


def options_parser(doc: str) -> argparse.ArgumentParser:
    """Return a parser with the option `--json`, and the first line of `doc` as description."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def run(
    parser: argparse.ArgumentParser, rows: Callable[[Any, Path], Iterable[Row]], *packages: str
) -> NoReturn:
    """Parse the command line, print the rows, and exit with 1 if one misses its `must` bound.

    Args:
        parser: The parser of the script's options.
        rows: Function of the options and a temporary folder that measures and yields rows.
        packages: Packages whose versions are printed.
    """
    options = parser.parse_args()
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    about = {**environment(*packages), **settings}
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(report(about, rows(options, Path(folder)), as_json=options.json))


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
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "hardware": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def report(about: Mapping[str, Any], rows: Iterable[Row], *, as_json: bool) -> int:
    """Print each row once it is measured, and return 1 if a value misses its `must`, else 0."""
    if not as_json:
        texts = [f"{name} {value}" for name, value in about.items() if isinstance(value, str)]
        print(", ".join(texts))
        print("\n| name | value | must | aim | met |\n|---|---|---|---|---|", flush=True)
    found = []
    for each in rows:
        found.append(each)
        if not as_json:
            print(_line(each), flush=True)
    if as_json:
        print(json.dumps({**about, "rows": found}))
    return int(any(each["met"] is False for each in found))


def _line(found: Row) -> str:
    error = f" ± {found['standard_error']:.4f}" if "standard_error" in found else ""
    must, aim = ("" if found[key] is None else f"{found[key]:g}" for key in ("must", "aim"))
    met = {None: "", True: "yes", False: "no"}[found["met"]]
    if found["met"] and found["aim"] is not None:
        met = "aim" if _reaches_aim(found) else "must"
    value = found["value"]
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"| {found['name']} | {shown}{error} {found['unit']} | {must} | {aim} | {met} |"


def _reaches_aim(found: Row) -> bool:
    value, must, aim = (float(found[key]) for key in ("value", "must", "aim"))
    return value >= aim if aim > must else value <= aim
