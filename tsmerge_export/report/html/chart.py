"""Line and point charts as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tsmerge_export.report.html.markup import Html, join, tag

Points = Sequence[tuple[float, float | None]]

_MOST_POINTS = 500


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``most + 1``; one of them where both are equal."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def span_of(values: Sequence[float | None]) -> tuple[float, float]:
    """Smallest and largest number, widened by a little; (0, 1) where there is none."""
    known = [v for v in values if v is not None]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


def thinned(points: Points) -> list[tuple[float, float | None]]:
    """As many points as a screen can show: of each stretch its lowest and its highest, in order."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    width = -(-2 * len(points) // _MOST_POINTS)
    out: list[tuple[float, float | None]] = []
    for start in range(0, len(points), width):
        stretch = list(points[start : start + width])
        known = [p for p in stretch if p[1] is not None]
        if not known:
            out.append(stretch[0])
            continue
        pick = {
            id(p): p for p in (min(known, key=lambda p: p[1] or 0.0), max(known, key=lambda p: p[1] or 0.0))
        }
        out += [p for p in stretch if id(p) in pick]
    return out


def label(value: float) -> str:
    """A tick's number."""
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}".replace("-", "\u2212")


@dataclass(frozen=True)
class Axes:
    """A rectangle to draw in, with ranges for x and y.

    Attributes:
        x, y: (low, high). x_name, y_name: what the axes show.
        bend: applied to y values, for scales that are not linear. y_ticks: where None finds none by itself.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_name: str
    y_name: str
    bend: Callable[[float], float] = float
    y_ticks: Sequence[float] | None = None
    width: int = 480
    height: int = 260

    _LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 22, 40

    def at_x(self, value: float) -> float:
        """Place of an x value."""
        low, high = self.x
        return self._LEFT + (value - low) / (high - low) * (self.width - self._LEFT - self._RIGHT)

    def at_y(self, value: float) -> float:
        """Place of a y value; beyond the range it is the edge."""
        low, high = map(self.bend, self.y)
        share = min(1.0, max(0.0, (self.bend(value) - low) / (high - low)))
        return self.height - self._BOTTOM - share * (self.height - self._TOP - self._BOTTOM)

    def path(self, points: Points) -> str:
        """A line through points; it breaks where a value is missing."""
        out, pen = [], "M"
        for x, y in points:
            if y is None:
                pen = "M"
                continue
            out.append(f"{pen}{self.at_x(x):.1f} {self.at_y(y):.1f}")
            pen = "L"
        return "".join(out)

    def line(self, points: Points, kind: str, radius: float = 4) -> Html:
        """A line of a class; a single point is a dot of this radius."""
        known = [p for p in points if p[1] is not None]
        if len(known) == 1:
            return self.dot(known[0][0], known[0][1] or 0.0, f"dot {kind}", radius=radius)
        return tag("path", d=self.path(thinned(points)), class_=f"line {kind}")

    def band(self, low: Points, high: Points, kind: str) -> Html:
        """The area between two lines; for one point a vertical line."""
        pairs = [
            (x, lo, hi)
            for (x, lo), (_, hi) in zip(low, high, strict=True)
            if lo is not None and hi is not None
        ]
        if len(pairs) == 1:
            x, lo, hi = pairs[0]
            return tag("path", d=self.path([(x, lo), (x, hi)]), class_=f"line {kind}")
        there = self.path([(x, lo) for x, lo, _ in pairs])
        back = self.path([(x, hi) for x, _, hi in reversed(pairs)])
        return (
            tag("path", d=f"{there}{back.replace('M', 'L', 1)}Z", class_=f"band {kind}")
            if pairs
            else Html("")
        )

    def dot(self, x: float, y: float, kind: str, said: str | None = None, radius: float = 4) -> Html:
        """A point, with words for whoever points at it."""
        words = [] if said is None else [tag("title", said)]
        return tag(
            "circle", *words, cx=f"{self.at_x(x):.1f}", cy=f"{self.at_y(y):.1f}", r=radius, class_=kind
        )

    def vertical(self, x: float, kind: str) -> Html:
        """A line from bottom to top."""
        place = f"{self.at_x(x):.1f}"
        return tag("line", x1=place, x2=place, y1=self._TOP, y2=self.height - self._BOTTOM, class_=kind)

    def horizontal(self, y: float, kind: str) -> Html:
        """A line from left to right."""
        place = f"{self.at_y(y):.1f}"
        return tag("line", x1=self._LEFT, x2=self.width - self._RIGHT, y1=place, y2=place, class_=kind)

    def svg(self, title: str, description: str, *drawn: Html) -> Html:
        """The picture: grid, numbers, names of the axes, and what is drawn."""
        frame = []
        for value in ticks(*self.y) if self.y_ticks is None else self.y_ticks:
            frame.append(self.horizontal(value, "grid"))
            frame.append(
                tag("text", label(value), x=self._LEFT - 6, y=f"{self.at_y(value) + 4:.1f}", class_="y")
            )
        for value in ticks(*self.x, most=6):
            frame.append(self.vertical(value, "grid"))
            frame.append(
                tag(
                    "text",
                    label(value),
                    x=f"{self.at_x(value):.1f}",
                    y=self.height - self._BOTTOM + 16,
                    class_="x",
                )
            )
        frame.append(tag("text", self.y_name, x=0, y=12, class_="name"))
        frame.append(
            tag("text", self.x_name, x=self.width - self._RIGHT, y=self.height - 6, class_="name end")
        )
        said = [tag("title", title), tag("desc", description)]
        return tag(
            "svg",
            *said,
            join(frame),
            *drawn,
            viewBox=f"0 0 {self.width} {self.height}",
            role="img",
            class_="chart",
        )
