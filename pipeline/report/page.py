"""The report as one HTML file, which loads nothing from the network, and as JSON."""

import base64
import functools
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from components import files
from components.gates import without_nan
from pipeline.config.project import PipelineConfig
from pipeline.report.charts import LISTS, charts
from pipeline.report.facts import FACTS_FILE as FACTS_FILE
from pipeline.report.facts import gather, report_folder
from pipeline.report.template import template
from pipeline.report.verdict import event_metric, number, rankers
from pipeline.runs.history import RunRecord
from pipeline.runs.metadata import open_store
from pipeline.runs.results import with_results

PAGE_FILE = "report.html"
_HERE = Path(__file__).parent
# The charts are drawn when the page is loaded; `ast` makes Vega work without `eval`.
_DRAW = """
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const specs = read("specs"), config = read("config");
if (innerWidth < 640) config.axisY.labelLimit = 170;
for (const place of document.querySelectorAll("[data-chart]")) {
  const columns = Math.max(2, Math.floor(place.clientWidth / 130));
  const fitting = {...config, legend: {...config.legend, columns}};
  const options = {renderer: "svg", actions: false, ast: true, config: fitting};
  vegaEmbed(place, specs[place.dataset.chart], options).catch(console.error);
}
"""
_FONT = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, sans-serif"
_INK = {"labelColor": "var(--muted)", "titleColor": "var(--muted)"}
_VEGA_CONFIG = {
    "background": "transparent",
    # Vega measures text with a canvas, which knows no font of the page.
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        **_INK,
        "domainColor": "var(--line)",
        "gridColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "axisX": {"labelFlush": False, "labelOverlap": True, "labelSeparation": 8},
    "axisY": {"labelLimit": 320},
    "legend": {**_INK, "orient": "top", "labelFontSize": 12},
    "rule": {"color": "var(--line)"},
}


def write_report(config: PipelineConfig, record: RunRecord) -> Path:
    """Write `report.html` and `report.json` of a run, and return the path of the page."""
    store = open_store(config)
    (record,) = with_results(store, [record])
    facts = without_nan(gather(config, record, store))
    folder = report_folder(config, record.run_id)
    text = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    files.write_text(str(folder / FACTS_FILE), text)
    files.write_text(str(folder / PAGE_FILE), render(facts))
    return folder / PAGE_FILE


def render(facts: Mapping[str, Any]) -> str:
    """Return the report as HTML. All text from data is escaped, and only our scripts may run."""
    page = template(
        _HERE / "report.html.j2",
        number=number,
        moment=_moment,
        shown=_shown,
        with_code=_with_code,
    )
    scripts = [_vega_bundle(), _DRAW]
    specs = charts(facts)
    evaluation = facts["evaluation"]
    return page.render(
        facts=facts,
        specs=specs,
        vega_config=_VEGA_CONFIG,
        scripts=[Markup(script) for script in scripts],
        hashes=[_hash(script) for script in scripts],
        rankers=rankers(evaluation) if evaluation else [],
        event_metric=event_metric(evaluation["gate_metric"]) if evaluation else "",
        lists=LISTS,
    )


@functools.cache
def _vega_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script; this takes two seconds."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M} UTC"


def _with_code(text: str) -> Markup:
    """Escape a sentence, and show what it has in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _shown(value: Any) -> str:
    """Return a value of a setting or a feature as text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | dict):
        return ", ".join(map(_shown, value)) if isinstance(value, list) else json.dumps(value)
    return "–" if value is None else str(value)
