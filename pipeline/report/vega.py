"""Parts of Vega-Lite specifications that the charts of a report share.

Colours are CSS variables of the page, so that a chart follows a change between light and dark.
Field names are constants, because Vega could read names from data as expressions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

_NUM_COLOURS = 9
_SHOWN: Spec = {}
# Isolate text from data, because a letter of a right-to-left script can turn the rest of a label.
_ISOLATE, _END_ISOLATE = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"


def chart(description: str, rows: Rows, *layers: Spec, height: int = 220, **more: Any) -> Spec:
    """Return a chart of layers, as wide as its place in the page; `description` is read aloud."""
    return {
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": list(rows)},
        "layer": list(layers),
        **more,
    }


def rows_of(description: str, rows: Rows, *layers: Spec, step: int = 26) -> Spec:
    """Return a chart with one row per category, whose height follows from their number."""
    field = layers[0]["encoding"]["y"]["field"]
    height = step * len({row[field] for row in rows})
    return chart(description, rows, *layers, height=height)


def layer(mark: Spec | str, tooltip: Sequence[Spec] = (), **encoding: Spec) -> Spec:
    """Return a layer with a mark, its encoding and the fields of its tooltip."""
    shown = {"tooltip": list(tooltip)} if tooltip else {}
    return {"mark": mark, "encoding": {**encoding, **shown}}


def number(field: str, title: str | None = None, form: str = "", **more: Any) -> Spec:
    """Return a channel with a number; `form` is its format in a tooltip."""
    shown = {"format": form} if form else {}
    return {"field": field, "type": "quantitative", "title": title, **shown, **more}


def category(field: str, title: str | None = None, **more: Any) -> Spec:
    """Return a channel with a category, in the order of the rows."""
    return {"field": field, "type": "nominal", "sort": None, "title": title, **more}


def colours(field: str, names: Sequence[str], legend: Spec | None = _SHOWN) -> Spec:
    """Return a channel that gives each name its colour in the palette of the page."""
    palette = [f"var(--c{index % _NUM_COLOURS})" for index in range(len(names))]
    return category(field, scale={"domain": list(names), "range": palette}, legend=legend)


def rule(channel: str, value: float, colour: str = "var(--muted)") -> Spec:
    """Return a dashed line at a value of the channel `x` or `y`."""
    mark = {"type": "rule", "strokeDash": [6, 4], "color": colour}
    place = {"datum": value, "type": "quantitative"}
    return {"mark": mark, "encoding": {channel: place}}


def bars(
    title: str, values: Mapping[str, float | None], *, form: str = ".3f", coloured: bool = False
) -> Spec:
    """Return a bar for each name."""
    rows = [{"name": name, "value": value} for name, value in values.items()]
    more: Spec = {"color": colours("name", list(values), None)} if coloured else {}
    tooltip = [category("name", " "), number("value", "value", form)]
    mark = {"type": "bar", "color": "var(--c0)", "height": {"band": 0.7}}
    return rows_of(
        title, rows, layer(mark, tooltip, y=category("name"), x=number("value"), **more), step=22
    )


def isolated(text: str) -> str:
    """Return text from data so that its direction does not affect the text around it."""
    return f"{_ISOLATE}{text}{_END_ISOLATE}"
