"""What a chart shows, apart from how it is drawn: `svg` draws it into the page, `png` into a file."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

Point = tuple[float, float]
#: A series is told by colour and by shape; both are numbered from 0 and begin anew after this many.
LOOKS = 8


@dataclass(frozen=True)
class Axis:
    """A label with its unit; `logarithmic` axes take positive values only."""

    label: str
    logarithmic: bool = False


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Attributes:
        points: those that get a marker; `texts`: what each is, in words.
        line: points that are joined.
        look: number of its colour and of its marker's shape.
        filled: whether markers are filled, else outlined.
        dashed: whether its line is.
        faint: drawn behind the others and paler.
        named: whether the legend has it.
    """

    label: str
    points: tuple[Point, ...]
    look: int
    texts: tuple[str, ...] = ()
    line: tuple[Point, ...] = ()
    filled: bool = True
    dashed: bool = False
    faint: bool = False
    named: bool = True


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        name: of its file, and of its parts in the page: letters, digits and hyphens.
        title: in one line; `caption`: its short form, for where it stands among others of its kind; may be empty.
        description: what a reader who does not see it should know.
        levels: horizontal lines with their labels.
    """

    name: str
    title: str
    description: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    levels: tuple[tuple[str, float], ...] = ()
    caption: str = ""


@dataclass(frozen=True)
class Scale:
    """Where values stand on an axis: `position` runs from 0 at `low` to 1 at `high`."""

    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def position(self, value: float) -> float:
        """Place of a value between the ends."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def scale_of(values: Iterable[float], axis: Axis, ticks: int = 5) -> Scale:
    """A scale that holds all values, with a small margin and round ticks; a percentage ends at 0 and 100."""
    found = [value for value in values if not axis.logarithmic or value > 0] or [1.0]
    low, high = min(found), max(found)
    if axis.logarithmic:
        margin = max(1.08, (high / low) ** 0.05)
        low, high = low / margin, high * margin
        return Scale(low, high, _log_ticks(low, high), logarithmic=True)
    # Never so narrow that neighbouring ticks are the same number.
    margin = max(0.05 * (high - low), 1e-6 * max(abs(low), abs(high))) if high > low else 0.05 * abs(high) or 0.5
    bounded = axis.label.endswith("%") and low >= 0 and high <= 100
    low, high = low - margin, high + margin
    if bounded:
        low, high = max(low, 0.0), min(high, 100.0)
    step = _step((high - low) / ticks)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return Scale(low, high, tuple(float(f"{(first + number) * step:.12g}") for number in range(count)))


def tick_label(value: float) -> str:
    """A tick in as few characters as say it."""
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.6g}"


def _step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= least * (1 - 1e-9)), 10 * power)


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [factor * 10.0**power for power in decades for factor in factors if low <= factor * 10.0**power <= high]
        if len(found) >= 4:
            return tuple(found)
    return tuple(found) if len(found) >= 2 else (low, high)
