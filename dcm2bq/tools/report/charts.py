"""Draw answers as SVG, by Vega-Lite.

Colours are names of the page's CSS variables, so that one drawing suits light, dark and paper.
Vega describes each mark by a label that screen readers speak.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import vl_convert

from dcm2bq.tools.report.questions import Bars, Columns, Drawing, Measure, Ranges, Step

WIDTH = 460
"""Width of a chart in CSS pixels, labels included: two fit beside each other on a laptop."""

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_BAR_STEP = 24  # pixels from one bar to the next
_COLUMNS_HEIGHT = 180
_LABEL_CHARACTERS = 22  # longer labels are cut; the table below the chart has them in full
_PIXELS_PER_CHARACTER = 7.5  # on average, in the widest of usual fonts
_SERIES = 7
"""Parts with a colour of their own; the smaller ones are drawn together."""
_OTHERS = "others"
_COLOURS = [f"var(--series-{number})" for number in range(1, _SERIES + 2)]
_BAR = {"type": "bar", "color": "var(--series-1)"}
_AXIS_FORMATS = {Measure.COUNT: "~s", Measure.BYTES: "~s", Measure.NUMBER: "~g"}
_TICKS = 4
"""About as many labels of values as the width of a chart has room for."""
_CONFIG = {
    "background": "transparent",
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "titleColor": "var(--muted)",
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "gridColor": "var(--grid)",
        "domainColor": "var(--line)",
        "aria": False,  # the page has the numbers as a table
        "tickColor": "var(--line)",
    },
    "legend": {
        "labelColor": "var(--ink)",
        "labelFontSize": 12,
        "title": None,
        "orient": "bottom",
        "columns": 4,
        "labelLimit": 100,
        "symbolType": "square",
    },
    "range": {"category": _COLOURS},
}

type Row = Mapping[str, Any]


def draw(drawing: Drawing, rows: Sequence[Row]) -> str | None:
    """Return an SVG element; None if the drawing is not a chart or there is nothing to draw."""
    if not rows:
        return None
    match drawing:
        case Bars():
            layers = _bars(drawing, rows)
        case Columns():
            layers = _columns(drawing, rows)
        case Ranges():
            layers = _ranges(drawing, rows)
        case _:
            return None
    return _svg(layers)


def _svg(content: Row) -> str:
    spec = {
        "width": WIDTH,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 0, "top": 4, "right": 16, "bottom": 4},
        "config": _CONFIG,
        **content,
    }
    svg: str = vl_convert.vegalite_to_svg(spec)
    return svg


def _bars(drawing: Bars, rows: Sequence[Row]) -> Row:
    values = [
        {
            "position": position,
            "value": row[drawing.value],
            "said": f"{_text(row[drawing.label])}: {row[drawing.value]:,} {drawing.unit}",
        }
        for position, row in enumerate(rows)
    ]
    axis = _value_axis(drawing.measure, max(row[drawing.value] for row in rows))
    return {
        "height": {"step": _BAR_STEP},
        "data": {"values": values},
        "mark": {**_BAR, "height": {"band": 0.7}, "cornerRadiusEnd": 2},
        "encoding": {
            "y": _labels([row[drawing.label] for row in rows]),
            "x": {"field": "value", "type": "quantitative", "title": drawing.unit, "axis": axis},
            "description": {"field": "said"},
        },
    }


def _ranges(drawing: Ranges, rows: Sequence[Row]) -> Row:
    values = [
        {
            "position": position,
            "low": row[drawing.low],
            "middle": row[drawing.middle],
            "high": row[drawing.high],
            "said": f"{_text(row[drawing.label])}: {row[drawing.low]:.3g} to "
            f"{row[drawing.high]:.3g}, median {row[drawing.middle]:.3g} {drawing.unit}",
        }
        for position, row in enumerate(rows)
    ]
    shared = {
        "y": _labels([row[drawing.label] for row in rows]),
        "description": {"field": "said"},
    }
    axis = _value_axis(Measure.NUMBER)
    low = {"field": "low", "type": "quantitative", "title": drawing.unit, "axis": axis}
    middle = {"field": "middle", "type": "quantitative"}
    line = {**_BAR, "type": "rule", "strokeWidth": 6, "opacity": 0.45}
    point = {**_BAR, "type": "point", "filled": True, "size": 70}
    return {
        "height": {"step": _BAR_STEP},
        "data": {"values": values},
        "layer": [
            {"mark": line, "encoding": {**shared, "x": low, "x2": {"field": "high"}}},
            {"mark": point, "encoding": {**shared, "x": middle}},
        ],
    }


def _columns(drawing: Columns, rows: Sequence[Row]) -> Row:
    parts = _parts(drawing, rows)
    sums = Counter[tuple[Any, str]]()
    for row in rows:
        part = _text(row[drawing.part])
        sums[row[drawing.x], part if part in parts else _OTHERS] += row[drawing.value]
    heights = Counter[Any]()
    for (x, _), value in sums.items():
        heights[x] += value
    steps = _steps(drawing, set(heights))
    values = [
        {
            "x": str(x),
            "part": part,
            "value": value,
            "order": parts.index(part),
            "said": f"{x}, {part}: {value:,} {drawing.unit}",
        }
        for (x, part), value in sums.items()
    ]
    return {
        "height": _COLUMNS_HEIGHT,
        "data": {"values": values},
        "mark": {"type": "bar", "width": {"band": 0.8}},
        "encoding": {
            "x": {
                "field": "x",
                "type": "ordinal",
                "title": None,
                "scale": {"domain": [str(step) for step in steps]},
                "axis": {"labelAngle": 0, "labelOverlap": "greedy", "labelSeparation": 12},
            },
            "y": {
                "field": "value",
                "type": "quantitative",
                "title": drawing.unit,
                "axis": _value_axis(Measure.COUNT, max(heights.values())),
            },
            "color": {"field": "part", "type": "nominal", "scale": {"domain": parts}},
            "order": {"field": "order", "type": "quantitative"},
            "description": {"field": "said"},
        },
    }


def _parts(drawing: Columns, rows: Sequence[Row]) -> list[str]:
    """Return the parts that are drawn, the largest first."""
    totals = Counter[str]()
    for row in rows:
        totals[_text(row[drawing.part])] += row[drawing.value]
    ranked = sorted(totals, key=lambda part: (-totals[part], part))
    return ranked if len(ranked) <= _SERIES + 1 else [*ranked[:_SERIES], _OTHERS]


def _steps(drawing: Columns, seen: set[Any]) -> list[Any]:
    """Return the years or days of the axis, without a gap."""
    if drawing.step is Step.YEAR:
        last = max(seen)
        return list(range(min(*seen, last - drawing.least + 1), last + 1))
    last, day = max(seen), timedelta(days=1)
    count = max((last - min(seen)).days + 1, drawing.least)
    return [last - day * ago for ago in reversed(range(count))]


def _labels(labels: Sequence[Any]) -> Row:
    """Return the vertical axis of bars, wide enough for its labels in any font.

    Bars are told apart by their position: cut labels may be equal.
    """
    texts = [_cut(label) for label in labels]
    width = max(map(len, texts)) * _PIXELS_PER_CHARACTER
    axis = {
        "labelExpr": f"{json.dumps(texts)}[datum.value]",
        "ticks": False,
        "domain": False,
        "labelPadding": 6,
        "labelLimit": 0,
        "minExtent": width,
        "maxExtent": width,
    }
    return {"field": "position", "type": "ordinal", "title": None, "axis": axis}


def _value_axis(measure: Measure, largest: float = math.inf) -> Row:
    """Return the axis of values up to `largest`; counts and bytes have no fractions."""
    axis = {"format": _AXIS_FORMATS[measure], "tickCount": _TICKS, "domain": False}
    if measure is Measure.NUMBER:
        return axis
    # Vega allows one tick more than tickMinStep does: 0, 0.5, 1 for a single study
    return {**axis, "tickCount": max(1, min(_TICKS, largest)), "tickMinStep": 1}


def _cut(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= _LABEL_CHARACTERS else f"{text[:_LABEL_CHARACTERS]}…"


def _text(value: Any) -> str:
    return "(none)" if value is None else str(value)
