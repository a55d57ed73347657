"""The charts of a report: Vega-Lite specifications from the facts of a run."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.vega import (
    Spec,
    bars,
    category,
    chart,
    colours,
    isolated,
    layer,
    number,
    rows_of,
    rule,
)
from pipeline.report.verdict import event_metric, rankers

Facts = Mapping[str, Any]

# Solid for the model, so that it stands out in print.
_DASHES = ([1, 0], [7, 3], [2, 2], [8, 3, 2, 3])
_MOST_DAYS, _MOST_BARS, _MOST_CROSSES = 400, 60, 15
_SERIES = {"loss": "training", "val_loss": "validation", "validation_metric": "metric"}
LISTS = {
    "coverage": "share of the catalogue in at least one list",
    "novelty": "surprise of the candidates, in bits",
    "popularity_lift": "popularity of the candidates; 0 is that of the histories",
    "gini": "inequality of the candidates; 0 is an equal number of lists",
}


def charts(facts: Facts) -> dict[str, Spec]:
    """Return the charts for which there are facts, by name."""
    evaluation = facts["evaluation"]
    found: dict[str, Spec | None] = {}
    if evaluation:
        family = evaluation["gate_metric"].partition("@")[0]
        for name in dict.fromkeys([family, "hit_rate", "ndcg", "mrr"]):
            found[f"curve_{name}"] = _curve(evaluation, name)
        found["slices"] = _slices(evaluation)
        found |= {f"list_{name}": _list_metric(evaluation, name) for name in LISTS}
    history = facts["training"].get("history") or []
    found |= {
        "loss": _epochs(history, ["loss", "val_loss"], "loss"),
        "validation": _epochs(
            history, ["validation_metric"], facts["training"].get("watched") or ""
        ),
        "trials": _trials(facts["tuning"]),
        "components": _components(facts["components"]),
        "index": _index(facts["index"]),
        "latency": _latency(facts["latencies_ms"]),
        "volume": _volume(facts["data"].get("events_by_day") or {}),
        "drift": _drift(facts["drift"]),
        "importance": _importance(facts["ranking"]),
        "crosses": _crosses(facts["ranking"]),
        "map": _map(facts["map"]),
    }
    return {name: spec for name, spec in found.items() if spec is not None}


def _curve(evaluation: Facts, family: str) -> Spec | None:
    measured, names = evaluation["metrics"], rankers(evaluation)
    cuts = [name for name in measured["model"] if name.partition("@")[0] == family]
    rows = [
        {
            "k": int(cut.partition("@")[2]),
            "ranker": name,
            "value": measured[name].get(cut),
            **(evaluation.get("curves", {}).get(cut, {}).get(name) or {}),
        }
        for name in names
        for cut in cuts
    ]
    if not any(row["value"] is not None for row in rows):
        return None
    x = {"field": "k", "type": "ordinal", "title": "k", "axis": {"labelAngle": 0}}
    dashes = [_DASHES[index % len(_DASHES)] for index in range(len(names))]
    has_interval = any(row.get("low") is not None for row in rows)
    shown = ("value", "low", "high") if has_interval else ("value",)
    band = layer(
        {"type": "area", "fillOpacity": 0.2},
        x=x,
        y=number("low", family),
        y2={"field": "high"},
        color=colours("ranker", names),
    )
    lines = layer(
        {"type": "line", "point": {"size": 40, "filled": True}, "strokeWidth": 2},
        [category("ranker"), number("k", "k"), *(number(name, name, ".4f") for name in shown)],
        x=x,
        y=number("value", family),
        color=colours("ranker", names, legend={"symbolType": "stroke", "symbolSize": 300}),
        strokeDash=category("ranker", scale={"domain": names, "range": dashes}),
    )
    title = f"{family} over k of {', '.join(names)}"
    return chart(title, rows, *([band] if has_interval else []), lines, height=280)


def _slices(evaluation: Facts) -> Spec | None:
    metric, best = event_metric(evaluation["gate_metric"]), evaluation["best_baseline"]
    wanted = {"model", "last_blessed", best["against"] if best else "popularity"}
    names = [name for name in rankers(evaluation) if name in wanted]
    rows = [
        {
            "slice": f"{name}: {isolated(value)} · {found['num_events']:,}",
            "queries": found["num_queries"],
            "ranker": ranker,
            "value": found["metrics"][ranker].get(metric),
        }
        for name, values in evaluation["slices"].items()
        for value, found in values.items()
        for ranker in names
    ]
    if not rows:
        return None
    y = category("slice")
    spread = layer(
        {"type": "rule", "color": "var(--line)", "strokeWidth": 2},
        y=y,
        x=number("value", metric, aggregate="min"),
        x2={"field": "value", "aggregate": "max"},
    )
    points = layer(
        {"type": "point", "filled": True, "size": 90, "opacity": 1},
        [
            category("slice"),
            category("ranker"),
            number("queries", "queries", ","),
            number("value", metric, ".4f"),
        ],
        y=y,
        x=number("value", metric),
        color=colours("ranker", names, {"columns": 1}),  # the labels leave it little width
        shape=category("ranker", scale={"domain": names}),
    )
    return rows_of(f"{metric} by slice of {', '.join(names)}", rows, spread, points)


def _list_metric(evaluation: Facts, name: str) -> Spec | None:
    cut = f"{name}@{evaluation['gate_metric'].partition('@')[2]}"
    values = {each: evaluation["metrics"][each].get(cut) for each in rankers(evaluation)}
    if all(value is None for value in values.values()):
        return None
    return bars(f"{cut}: {LISTS[name]}", values, coloured=True)


def _epochs(history: Sequence[Facts], fields: Sequence[str], title: str) -> Spec | None:
    rows = [
        {"epoch": epoch["epoch"], "series": _SERIES[name], "value": epoch[name]}
        for epoch in history
        for name in fields
        if name in epoch
    ]
    if not rows:
        return None
    names = list(dict.fromkeys(row["series"] for row in rows))
    epochs: Spec = {
        "axis": {"tickMinStep": 1, "format": "d"},
        "scale": {"zero": False, "nice": False},
    }
    lines = layer(
        {"type": "line", "point": len(rows) < 60, "strokeWidth": 2},
        [number("epoch", "epoch"), category("series", " "), number("value", title, ".5g")],
        x=number("epoch", "epoch", **epochs),
        y=number("value", title, scale={"zero": False}),
        color=colours("series", names, legend={} if len(names) > 1 else None),
    )
    return chart(f"{title} by epoch", rows, lines)


def _trials(tuning: Facts) -> Spec | None:
    rows = [
        {
            "trial": trial_number,
            "value": trial["score"],
            "settings": ", ".join(f"{name} {value}" for name, value in trial["values"].items()),
            "kind": "best" if trial["values"] == tuning.get("best") else "other",
        }
        for trial_number, trial in enumerate(tuning.get("trials", ()), 1)
        if trial["score"] is not None
    ]
    if not rows:
        return None
    metric = tuning["metric"]
    points = layer(
        {"type": "point", "filled": True, "size": 90},
        [number("trial", "trial"), category("settings", "settings"), number("value", metric)],
        x={"field": "trial", "type": "ordinal", "axis": {"labelAngle": 0}},
        y=number("value", metric, scale={"zero": False}),
        color=colours("kind", ["best", "other"]),
    )
    return chart(f"{metric} of each trial of the search", rows, points)


def _components(components: Sequence[Facts]) -> Spec | None:
    ran = {
        found["component"]: found["seconds"] for found in components if found["state"] == "complete"
    }
    return bars("Seconds of each component", ran, form=".1f") if ran else None


def _index(index: Facts) -> Spec | None:
    trials = index.get("trials") or ()
    if not trials:
        return None
    parts = [name for name in ("leaves", "reorder") if name in trials[0]["settings"]]
    rows = [
        {
            "curve": ", ".join(f"{name} {trial['settings'][name]:,}" for name in parts),
            "us": max(trial["query_us"], 0.1),  # zero has no logarithm
            "recall": trial["recall"],
            "chosen": trial["settings"] == index["settings"],
            "settings": ", ".join(f"{name} {value}" for name, value in trial["settings"].items()),
        }
        for trial in trials
    ]
    x = number("us", "microseconds per query, in batches of 128", scale={"type": "log"})
    y = number("recall", f"recall@{index['k']}", scale={"zero": False})
    curves = layer(
        {"type": "line", "point": True},
        [
            category("settings", "settings"),
            number("us", "microseconds", ",.1f"),
            number("recall", "recall", ".4f"),
        ],
        x=x,
        y=y,
        color=colours("curve", list(dict.fromkeys(row["curve"] for row in rows)), {"columns": 1}),
    )
    ring = {"type": "point", "size": 260, "strokeWidth": 3, "color": "var(--ink)"}
    chosen = layer(ring, x=x, y=y)
    chosen["transform"] = [{"filter": {"field": "chosen", "equal": True}}]
    return chart(
        "Recall against query time of each trial; a ring marks the choice",
        rows,
        curves,
        chosen,
        rule("y", index["recall_target"]),
        height=240,
    )


def _latency(latencies_ms: Sequence[float]) -> Spec | None:
    if not latencies_ms:
        return None
    histogram = layer(
        {"type": "bar", "color": "var(--c0)"},
        [{"aggregate": "count", "title": "requests"}],
        x=number("ms", "milliseconds per request", bin={"maxbins": 24}),
        y={"aggregate": "count", "title": "requests", "axis": {"tickMinStep": 1}},
    )
    median = rule("x", statistics.median(latencies_ms), "var(--ink)")
    title = f"Histogram of {len(latencies_ms)} latencies; a line marks the median"
    return chart(title, [{"ms": value} for value in latencies_ms], histogram, median)


def _volume(events_by_day: Mapping[str, int]) -> Spec | None:
    if not events_by_day:
        return None
    is_daily = len(events_by_day) <= _MOST_DAYS
    what, unit = ("day", "utcyearmonthdate") if is_daily else ("month", "utcyearmonth")
    when = {"field": "day", "timeUnit": unit, "type": "temporal"}
    # Many bars would be thinner than a pixel.
    mark: Spec = {"type": "area", "interpolate": "step-after"}
    volume = layer(
        {**(mark if len(events_by_day) > _MOST_BARS else {"type": "bar"}), "color": "var(--c0)"},
        [{**when, "title": what}, number("events", "events", ",", aggregate="sum")],
        x={**when, "title": None},
        y=number("events", f"events by {what}", aggregate="sum"),
    )
    rows = [{"day": day, "events": events} for day, events in events_by_day.items()]
    return chart(f"Number of events by {what}", rows, volume)


def _drift(drift: Facts) -> Spec | None:
    rows = []
    for found in drift.get("findings", ()):
        value, limit = found["value"], found["threshold"]
        if value and limit:
            rows.append(
                {
                    "label": f"{isolated(found['feature'])}: {found['measure'].partition(' (')[0]}",
                    "value": value / limit if found["relation"] == "at most" else limit / value,
                    "kind": "above the limit" if found["exceeded"] else "within the limit",
                    "text": found["text"],
                }
            )
    if not rows:
        return None
    kinds = {"domain": ["within the limit", "above the limit"]}
    findings = layer(
        "bar",
        [category("text", " ")],
        y=category("label"),
        x=number("value", "share of the limit"),
        color=category("kind", scale={**kinds, "range": ["var(--good)", "var(--bad)"]}),
    )
    title = "Drift of each feature as a share of its limit"
    return rows_of(title, rows, findings, rule("x", 1.0, "var(--ink)"))


def _importance(ranking: Facts) -> Spec | None:
    found = ranking.get("measured", {}).get("importance") or {}
    rows = [{"feature": name, **values} for name, values in found.items()]
    if not rows:
        return None
    y, title = category("feature"), "loss of ndcg@10 if the values are shuffled"
    tooltip = [category("feature"), *(number(n, n, ".4f") for n in ("value", "low", "high"))]
    bar = {"type": "bar", "color": "var(--c0)", "opacity": 0.75}
    values = layer(bar, tooltip, y=y, x=number("value", title))
    interval = layer(
        {"type": "rule", "color": "var(--ink)"}, y=y, x=number("low"), x2={"field": "high"}
    )
    return rows_of("Importance of the ranking features", rows, values, interval, step=20)


def _crosses(ranking: Facts) -> Spec | None:
    norms = dict(list((ranking.get("crosses") or {}).items())[:_MOST_CROSSES])
    return bars("Weights of the products of two ranking features", norms) if norms else None


def _map(found: Facts) -> Spec | None:
    points = [{**point, "group": isolated(point["group"])} for point in found.get("points", ())]
    if not points:
        return None
    hidden: Spec = {"axis": None, "scale": {"zero": False}}
    tooltip = [category("name", "name"), category("id", "ID")]
    more: Spec = {}
    params: list[Spec] = []
    if found["feature"]:
        groups = {point["group"] for point in points}
        names = sorted(groups, key=lambda name: (name[1:2] == "(", name))  # other, missing: last
        tooltip.append(category("group", found["feature"]))
        more["color"] = colours("group", names)
        more["opacity"] = {"condition": {"param": "picked", "value": 0.85}, "value": 0.08}
        select = {"type": "point", "fields": ["group"]}
        params = [{"name": "picked", "select": select, "bind": "legend"}]
    circles = layer(
        {"type": "circle", "size": 36, "color": "var(--c0)", "opacity": 0.7},
        tooltip,
        x=number("x", **hidden),
        y=number("y", **hidden),
        **more,
    )
    title = f"Map of {len(points)} items, projected from their vectors"
    return chart(title, points, {**circles, "params": params}, height=460)
