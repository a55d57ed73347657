"""Sentences of a report: the verdict on a run, what to try next, and the limits of the model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_ADVICE = "To change this: "
_TITLES = {
    "complete": "Live",  # unless nothing was pushed
    "refused": "Refused",
    "failed": "Failed",
    "killed": "Killed",
    "running": "Running",
}
# A slice with fewer events says little.
_FEWEST_EVENTS = 30

Facts = Mapping[str, Any]


def verdict(facts: Facts) -> dict[str, Any]:
    """Return the title, the sentence, further reasons and advice on a run."""
    run = facts["run"]
    state = run["state"]
    lines = [line.strip() for line in run["problem"].splitlines() if line.strip()]
    reasons = [line.partition(_ADVICE)[0].strip() for line in lines]
    advice = [line.partition(_ADVICE)[2] for line in lines if _ADVICE in line]
    gate = refusing_gate(facts)
    is_unpushed = state == "complete" and run.get("pushed_version") is None
    if state == "refused":
        checks = facts["evaluation"].get("gate", {}) if gate == "evaluation" else {}
        failed = [check["text"] for check in checks.get("checks", ()) if not check["passed"]]
        reasons = [*failed, *checks.get("problems", ())] or reasons
        by = f"the {gate} gate" if gate else "a gate"
        sentence = f"Refused by {by}: {reasons[0] if reasons else 'no reason recorded'}"
    elif state == "complete":
        sentence = _pushed(facts)
    elif state == "failed":
        sentence = f"Failed: {reasons[0] if reasons else 'no reason recorded'}"
    else:
        sentence = f"The run is recorded as {state} and has no result"
    return {
        "state": state,
        "title": "Not live" if is_unpushed else _TITLES[state],
        "sentence": sentence.rstrip(".") + ".",
        "reasons": [reason for reason in reasons[1:] if reason],
        "advice": advice,
        "training": _training(facts),
    }


def refusing_gate(facts: Facts) -> str:
    """Return the name of the gate that refused the run, or an empty string."""
    gates = facts["run"].get("gates") or {}
    return next((name for name, found in gates.items() if found == "refused"), "")


def _pushed(facts: Facts) -> str:
    run = facts["run"]
    version = run.get("pushed_version")
    pushed = f"Version {version} already serves this model"
    if version is None:
        pushed = "Accepted by all gates, but not pushed"
    elif run.get("newly_pushed"):
        pushed = f"Version {version} was pushed"
    if not facts["evaluation"]:
        number = facts["index"].get("num_candidates")
        return f"{pushed} with a catalogue of {number:,} candidates" if number else pushed
    return f"{pushed}: {comparison_text(facts['evaluation'])}"


def _training(facts: Facts) -> str:
    """Return how long the training took, and what ended it."""
    training = facts["training"]
    if not training:
        return ""
    most = facts["settings"].get("training.epochs")
    why = "all epochs were trained"
    if training.get("stopped_early"):
        why = f"stopped early, because {training['watched']} did not improve"
    return f"{training['epochs']} of {most} epochs in {training['seconds']:.0f} s; {why}."


def comparison_text(evaluation: Facts) -> str:
    """Return the gate's metric with its interval, next to the best baseline, in one clause."""
    metric = evaluation["gate_metric"]
    mine = evaluation["intervals"]["model"]
    text = f"{metric} is {number(mine['value'])}"
    if mine["low"] is not None:
        low, high = number(mine["low"]), number(mine["high"])
        text += (
            f" ({100 * evaluation['confidence']:g}% interval {low} to {high} over "
            f"{evaluation['num_queries']:,} queries)"
        )
    best = evaluation["best_baseline"]
    other = evaluation["metrics"][best["against"]][metric] if best else None
    if other and mine["value"] is not None:
        share = mine["value"] / other - 1
        relation = f"{abs(share):.0%} {'above' if share >= 0 else 'below'}"
        text += f", {relation} {best['against']}, the best baseline ({number(other)})"
    return text


def limits(facts: Facts) -> list[str]:
    """Return what a user of the model should know about its limits, with figures."""
    evaluation = facts["evaluation"]
    if not evaluation:
        return []
    return [
        "The figures are measured on held-out events of the past. How people react to the "
        "recommendations was not measured.",
        *_protocol_limits(facts["settings"], evaluation),
        *_weak_slices(evaluation),
        *_list_limits(evaluation),
        "The intervals cover the choice of queries, but neither other seeds nor the future.",
    ]


def _protocol_limits(settings: Facts, evaluation: Facts) -> Iterator[str]:
    if settings.get("split.method") == "random":
        yield (
            "With a random split, the model learns from events that are later than held-out ones. "
            "Use `split.method: temporal` before you decide about production."
        )
    if evaluation["num_unknown_targets"]:
        yield (
            f"{evaluation['num_unknown_targets']:,} of {evaluation['num_events']:,} held-out "
            "events are of candidates that the catalogue lacks, so they count as misses."
        )
    if unavailable := evaluation.get("num_unavailable_targets"):
        yield (
            f"{unavailable:,} of {evaluation['num_events']:,} held-out events are of candidates "
            "that were not available at the time of the query, so they count as misses. Check "
            "`candidates.available_from` and `available_until`."
        )


def _weak_slices(evaluation: Facts) -> Iterator[str]:
    metric = event_metric(evaluation["gate_metric"])
    whole = evaluation["metrics"]["model"].get(metric)
    for name, values in evaluation["slices"].items():
        for value, found in values.items():
            mine = found["metrics"]["model"].get(metric)
            if None in (mine, whole) or found["num_events"] < _FEWEST_EVENTS:
                continue
            if mine < 0.5 * whole:
                yield (
                    f"{metric} is {number(mine)} for {found['num_events']:,} events with {name}: "
                    f"{value}, compared with {number(whole)} for all."
                )


def _list_limits(evaluation: Facts) -> Iterator[str]:
    measured, k = evaluation["metrics"]["model"], evaluation["gate_metric"].partition("@")[2]
    coverage, lift = measured.get(f"coverage@{k}"), measured.get(f"popularity_lift@{k}")
    if coverage is not None:
        yield f"{coverage:.0%} of the catalogue is in the first {k} of at least one list."
    if lift is not None:
        yield (
            f"The candidates in the first {k} are {abs(lift):.0%} "
            f"{'more' if lift >= 0 else 'less'} popular than those of the histories."
        )


def event_metric(metric: str) -> str:
    """Return the metric of events that is nearest to a metric of queries; slices have only such."""
    return metric.removeprefix("query_").replace("precision", "hit_rate").replace("map", "mrr")


def rankers(evaluation: Facts) -> Sequence[str]:
    """Return the model, its other list, the last blessed model, and the baselines, best first."""
    first = ["model", "ranked", "retrieved", "last_blessed"]
    metric, measured = evaluation["gate_metric"], evaluation["metrics"]
    others = [name for name in measured if name not in first]
    others.sort(key=lambda name: -(measured[name][metric] or 0))
    return [*(name for name in first if name in measured), *others]


def number(value: float | None) -> str:
    """Return a metric as text, or a dash if it has no value."""
    return "–" if value is None else f"{value:.4f}"
