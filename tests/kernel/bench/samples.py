"""
What the measurements give, and what is made of it: samples, one for each agent, setting
and round; for all rounds of an agent and a setting, the median and the spread.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Sample = dict[str, Any]
"""What one agent did once, by name: the setting, C{agent}, C{round}, and what was measured."""

AGENT: Final = "agent"
MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Value:
    """
    Something that is measured.

    @ivar name: its name in samples.
    @ivar heading: what it is, in words, with its unit.
    @ivar digits: how many digits are shown after the point.
    @ivar scale: it is shown divided by this.
    """

    name: str
    heading: str
    digits: int = 0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Spread:
    """
    A value in all rounds.

    @ivar median: the middle.
    @ivar low: the least.
    @ivar high: the most.
    """

    median: float
    low: float
    high: float

    def text(self, value: Value) -> str:
        """
        Put it into words.

        @param value: what it is of.
        @return: the median and, in brackets, the extremes.
        """
        numbers = [number / value.scale for number in (self.median, self.low, self.high)]
        median, low, high = (f"{number:.{value.digits}f}" for number in numbers)
        return median if low == high else f"{median} ({low}-{high})"


@dataclass(frozen=True, slots=True)
class Group:
    """
    All rounds of one agent with one setting.

    @ivar setting: the setting.
    @ivar agent: the agent.
    @ivar spreads: what was measured, by name; what never was is left out.
    """

    setting: tuple[Any, ...]
    agent: str
    spreads: Mapping[str, Spread]

    def median(self, name: str) -> float | None:
        """
        Give the middle of something.

        @param name: what.
        @return: it; L{None} if it was not measured.
        """
        spread = self.spreads.get(name)
        return None if spread is None else spread.median


def summarise(
    samples: Iterable[Sample], dimensions: Sequence[str], values: Sequence[Value]
) -> list[Group]:
    """
    Put rounds together.

    @param samples: all samples.
    @param dimensions: the names that make a setting.
    @param values: what was measured.
    @return: a group for each setting and agent, in the order of the samples.
    """
    rounds: dict[tuple[tuple[Any, ...], str], list[Sample]] = {}
    for sample in samples:
        key = tuple(sample[name] for name in dimensions), sample[AGENT]
        rounds.setdefault(key, []).append(sample)
    order = {setting: place for place, (setting, _agent) in reversed(list(enumerate(rounds)))}
    groups = []
    for (setting, agent), found in sorted(rounds.items(), key=lambda item: order[item[0][0]]):
        spreads = {}
        for value in values:
            numbers = [row[value.name] for row in found if row.get(value.name) is not None]
            if numbers:
                spreads[value.name] = Spread(statistics.median(numbers), min(numbers), max(numbers))
        groups.append(Group(setting, agent, spreads))
    return groups


def table(groups: Sequence[Group], dimensions: Sequence[str], values: Sequence[Value]) -> str:
    """
    Show groups as a table in Markdown.

    @param groups: them.
    @param dimensions: the names of the settings' parts.
    @param values: what was measured.
    @return: the table.
    """
    shown = [value for value in values if any(value.name in group.spreads for group in groups)]
    rows = [[*dimensions, AGENT, *(value.heading for value in shown)]]
    for group in groups:
        texts = [
            group.spreads[value.name].text(value) if value.name in group.spreads else "-"
            for value in shown
        ]
        rows.append([*(str(part) for part in group.setting), group.agent, *texts])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """
    Make a table in Markdown that can be read as it is.

    @param rows: its cells, the headings first.
    @return: the table.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    heading, *others = rows
    lines = (
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (heading, ["-" * width for width in widths], *others)
    )
    return "\n".join(f"| {line} |" for line in lines)
