"""Charts as inline SVG. Colours come from the page's CSS variables, so that they follow light and dark and print well."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tunesmith.report.format import metric_name, value

SMALL = 1e-3
"""Axes that span less have their numbers with an exponent."""
LETTER = 7
"""Of what is written at ticks, about: font and viewer say how wide it is."""

Point = tuple[float, float]


def whiskers(metric: str, rows: Sequence[tuple[str, Mapping[str, float], bool]]) -> str:
    """A dot and its interval for each row (name, {value, low, high}, whether it is the model itself)."""
    width, right, step = 520, 74, 36
    left = 16 + max(88, round(8.5 * max(len(name) for name, _, _ in rows)))  # a letter takes about so much
    low = min(entry["low"] for _, entry, _ in rows)
    high = max(entry["high"] for _, entry, _ in rows)
    margin = 0.06 * (high - low or 1.0)
    at = _scale(low - margin, high + margin, left, width - right)
    parts = []
    for index, (name, entry, own) in enumerate(rows):
        y = 24 + index * step
        kind = "own" if own else "other"
        parts.append(
            f'<text x="{left - 16}" y="{y + 5}" text-anchor="end" class="label {kind}">{escape(name)}</text>'
            f'<line x1="{left}" x2="{width - right}" y1="{y}" y2="{y}" class="rule"/>'
            f'<line x1="{at(entry["low"]):.1f}" x2="{at(entry["high"]):.1f}" y1="{y}" y2="{y}" class="whisker {kind}"/>'
            f'<circle cx="{at(entry["value"]):.1f}" cy="{y}" r="6" class="dot {kind}"/>'
            f'<text x="{width - right + 14}" y="{y + 5}" class="label {kind}">{value(metric, entry["value"])}</text>'
        )
    return _svg(width, 24 + len(rows) * step, f"{metric_name(metric)} of the model and its baselines", parts)


def lines(
    series: Sequence[tuple[str, Sequence[Point]]],
    x_name: str,
    y_name: str,
    told: Callable[[float], str] = "{:g}".format,
) -> str:
    """Lines over one axis; the first series is the accented one. `told` spells the ends of the axis."""
    width, height, left, bottom = 340, 220, 66, 34
    points = [point for _, found in series for point in found]
    if not points:
        return ""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(ys), max(ys)
    pad = 0.08 * (high - low or abs(high) or 1.0)
    across = _scale(min(xs), max(xs), left, width - 12)
    up = _scale(low - pad, high + pad, height - bottom, 12)
    parts = _axes(width, height, left, bottom, x_name, y_name)
    for tick in (low, (low + high) / 2, high):
        parts.append(
            f'<line x1="{left}" x2="{width - 12}" y1="{up(tick):.1f}" y2="{up(tick):.1f}" class="rule"/>'
            f'<text x="{left - 6}" y="{up(tick) + 4:.1f}" text-anchor="end" class="tick">{_tick(tick, high - low)}</text>'
        )
    for tick in sorted({min(xs), max(xs)}):
        parts.append(_below(across(tick), width, height - bottom + 16, told(tick)))
    for index, (name, found) in enumerate(series):
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in found)
        parts.append(f'<polyline points="{path}" class="line s{index}"><title>{escape(name)}</title></polyline>')
        if len(found) <= 20:
            parts += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" class="mark s{index}"/>' for x, y in found]
    return _svg(width, height, f"{y_name} by {x_name}", parts)


def reliability(bins: Sequence[Mapping[str, float]], scaled: Sequence[Mapping[str, float]]) -> str:
    """Accuracy over confidence, with intervals; hollow marks after temperature scaling, where there are `scaled` ones."""
    width, height, left, bottom = 340, 300, 46, 34
    across, up = _scale(0, 1, left, width - 12), _scale(0, 1, height - bottom, 12)
    parts = _axes(width, height, left, bottom, "confidence", "accuracy")
    parts.append(f'<line x1="{across(0)}" y1="{up(0)}" x2="{across(1)}" y2="{up(1)}" class="ideal"/>')
    for tick in (0.0, 0.5, 1.0):
        parts.append(
            f'<text x="{left - 6}" y="{up(tick) + 4:.1f}" text-anchor="end" class="tick">{tick:g}</text>'
            f'<text x="{across(tick):.1f}" y="{height - bottom + 16}" text-anchor="middle" class="tick">{tick:g}</text>'
        )
    for entry in bins:
        x = across(entry["confidence"])
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{up(entry["low"]):.1f}" y2="{up(entry["high"]):.1f}" class="whisker own"/>'
            f'<circle cx="{x:.1f}" cy="{up(entry["accuracy"]):.1f}" r="5" class="dot own">'
            f"<title>{entry['count']:.0f} rows</title></circle>"
        )
    parts += [
        f'<circle cx="{across(entry["confidence"]):.1f}" cy="{up(entry["accuracy"]):.1f}" r="4" class="hollow"/>'
        for entry in scaled
    ]
    return _svg(width, height, "Reliability diagram", parts)


def scatter(pairs: Sequence[Sequence[float]]) -> str:
    """Prediction over truth, for scores."""
    width, height, left, bottom = 420, 360, 46, 34
    values = [number for pair in pairs for number in pair]
    low, high = min(values), max(values)
    across, up = _scale(low, high, left, width - 12), _scale(low, high, height - bottom, 12)
    parts = _axes(width, height, left, bottom, "truth", "prediction")
    parts.append(f'<line x1="{across(low)}" y1="{up(low)}" x2="{across(high)}" y2="{up(high)}" class="ideal"/>')
    for tick in (low, high):
        shown = _tick(tick, high - low)
        parts.append(
            f'<text x="{left - 6}" y="{up(tick) + 4:.1f}" text-anchor="end" class="tick">{shown}</text>'
            f'<text x="{across(tick):.1f}" y="{height - bottom + 16}" text-anchor="middle" class="tick">{shown}</text>'
        )
    parts += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5" class="cloud"/>' for x, y in pairs]
    return _svg(width, height, "Prediction against truth", parts)


@dataclass(frozen=True)
class Mark:
    """One plan of a frontier: what it cost, and what it reached."""

    label: str
    cost: float
    """Above 0."""
    value: float
    low: float
    high: float
    chosen: bool
    retention: float | None = None
    """Share of the reference score that is kept; shown as the dot's colour."""


def costs(marks: Sequence[Mark], x_name: str, y_name: str, told: Callable[[float], str]) -> str:
    """Quality over cost, the latter on a logarithmic axis; the winner is ringed."""
    width, height, left, bottom = 520, 300, 66, 34
    logs = [math.log10(mark.cost) for mark in marks]
    low, high = min(mark.low for mark in marks), max(mark.high for mark in marks)
    pad = 0.12 * (high - low or 1.0)
    room = 0.12 * (max(logs) - min(logs) or 1.0)
    across = _scale(min(logs) - room, max(logs) + room, left, width - 12)
    up = _scale(low - pad, high + pad, height - bottom, 12)
    parts = _axes(width, height, left, bottom, f"{x_name} (logarithmic)", y_name)
    for tick in (low, (low + high) / 2, high):
        parts.append(
            f'<line x1="{left}" x2="{width - 12}" y1="{up(tick):.1f}" y2="{up(tick):.1f}" class="rule"/>'
            f'<text x="{left - 6}" y="{up(tick) + 4:.1f}" text-anchor="end" class="tick">{_tick(tick, high - low)}</text>'
        )
    for tick in sorted({min(logs), max(logs)}):
        parts.append(_below(across(tick), width, height - bottom + 16, told(10**tick)))
    for place, mark in enumerate(sorted(marks, key=lambda mark: mark.cost)):
        x, kind = across(math.log10(mark.cost)), "own" if mark.chosen else "other"
        kept = 1.0 if mark.retention is None else max(0.0, min(1.0, mark.retention))
        shade = (
            f"color-mix(in srgb, var(--accent) {100 * kept:.0f}%, var(--wrong))" if mark.retention is not None else ""
        )
        side = "end" if x > width - 110 else "start" if x < left + 110 else "middle"
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{up(mark.low):.1f}" y2="{up(mark.high):.1f}" class="whisker {kind}"/>'
            f'<circle cx="{x:.1f}" cy="{up(mark.value):.1f}" r="6" class="dot {kind}"'
            + (f' style="fill:{shade}"' if shade else "")
            + "/>"
            + (f'<circle cx="{x:.1f}" cy="{up(mark.value):.1f}" r="9.5" class="ring"/>' if mark.chosen else "")
            # Over its own interval, or under it, in turns, so that neighbours do not lie on each other.
            + f'<text x="{x:.1f}" y="{up(mark.high) - 6 if place % 2 else up(mark.low) + 14:.1f}" text-anchor="{side}" '
            f'class="label {kind}">{escape(mark.label)}</text>'
        )
    return _svg(width, height, f"{y_name} by {x_name}", parts)


def bars(rows: Sequence[tuple[str, float]]) -> str:
    """Horizontal bars with their counts."""
    width, left, right, step = 520, 130, 56, 24
    most = max((amount for _, amount in rows), default=1) or 1
    at = _scale(0, most, 0, width - left - right)
    parts = []
    for index, (name, amount) in enumerate(rows):
        y = 4 + index * step
        shown = name if len(name) <= 17 else f"{name[:16]}…"
        parts.append(
            f'<text x="{left - 12}" y="{y + 13}" text-anchor="end" class="label">{escape(shown)}</text>'
            f'<rect x="{left}" y="{y}" width="{max(1.0, at(amount)):.1f}" height="16" rx="3" class="bar"/>'
            f'<text x="{left + max(1.0, at(amount)) + 8:.1f}" y="{y + 13}" class="tick">{amount:,.0f}</text>'
        )
    return _svg(width, 8 + len(rows) * step, "Rows by class", parts)


def _tick(number: float, span: float) -> str:
    """A number with as many digits as tell the ends of `span` apart."""
    size = max(span, abs(number) / 100) or 1.0
    if size < SMALL:
        return f"{number:.1e}"
    return f"{number:.{max(0, 2 - math.floor(math.log10(size)))}f}"


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda number: start + (number - low) / span * (end - start)


def _below(x: float, width: int, y: int, text: str) -> str:
    """What is written under a tick; up to the tick where the figure would end before the text does."""
    anchor = "end" if x + LETTER * len(text) / 2 > width else "middle"
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" class="tick">{escape(text)}</text>'


def _axes(width: int, height: int, left: int, bottom: int, x_name: str, y_name: str) -> list[str]:
    return [
        f'<line x1="{left}" x2="{width - 12}" y1="{height - bottom}" y2="{height - bottom}" class="axis"/>',
        f'<text x="{(left + width) / 2:.0f}" y="{height - 2}" text-anchor="middle" class="tick">{escape(x_name)}</text>',
        f'<text x="10" y="{(height - bottom) / 2:.0f}" text-anchor="middle" class="tick" '
        f'transform="rotate(-90 10 {(height - bottom) / 2:.0f})">{escape(y_name)}</text>',
    ]


def _svg(width: int, height: int, title: str, parts: Sequence[Any]) -> str:
    body = "".join(map(str, parts))
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}" '
        f'style="max-width:{1.3 * width:.0f}px"><title>{escape(title)}</title>{body}</svg>'
    )
