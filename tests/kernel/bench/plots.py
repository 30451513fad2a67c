"""Draws what was measured: a panel for each setting, the agents' medians side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from tests.kernel.bench.part import FLOOR, KTLSAGENT, REALTIME, TLSHD, WORKERS, Part, Plot
from tests.kernel.bench.samples import Group

mpl.use("Agg")

from matplotlib import pyplot as plt

_COLOURS: Final = {
    KTLSAGENT: "#1b6ca8",
    WORKERS: "#66a5d6",
    TLSHD: "#d1495b",
    REALTIME: "#edae9b",
    FLOOR: "#9aa5b1",
}
_COLUMNS: Final = 4
_PANEL: Final = (3.6, 2.8)
_TITLE: Final = 44
"""How many letters of the title there is room for above a panel."""

_NAMES: Final = 3
"""How many agents' names there is room for under a panel."""

_SHORT: Final = 6
"""As many places have room for their names side by side."""


def draw(part: Part, plot: Plot, groups: Sequence[Group], path: Path, footnote: str) -> None:
    """
    Draw a picture.

    @param part: what was measured.
    @param plot: what is shown of it.
    @param groups: what came out.
    @param path: where the picture goes.
    @param footnote: what it says about itself.
    """
    (value,) = (value for value in part.values if value.name == plot.value)
    panels: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        if value.name in group.spreads:
            panels.setdefault(group.setting[:-1], []).append(group)
    if not panels:
        return
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(_PANEL[0] * columns, _PANEL[1] * rows + 0.8),
        squeeze=False,
        layout="constrained",
    )
    for panel in axes.flat[len(panels) :]:
        panel.remove()
    for panel, (setting, found) in zip(axes.flat, panels.items(), strict=False):
        _panel(panel, found, value.name, value.scale)
        panel.set_title(", ".join(str(part) for part in setting), fontsize=9)
        panel.set_xlabel(part.dimensions[-1], fontsize=8)
    better = "less is better" if plot.lower else "more is better"
    title = textwrap.fill(part.title, _TITLE * columns)
    figure.suptitle(f"{title}\n{value.heading} ({better})", fontsize=11)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=_NAMES * columns,
        fontsize=8,
        frameon=False,
    )
    figure.text(0.995, 0.005, footnote, ha="right", va="bottom", fontsize=6, color="#555555")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(panel: Any, groups: Sequence[Group], name: str, scale: float) -> None:
    """
    Draw the bars of one setting, with lines from the least to the most of all rounds.

    @param panel: where.
    @param groups: what came out.
    @param name: the value to show.
    @param scale: what it is divided by.
    """
    places = list(dict.fromkeys(group.setting[-1] for group in groups))
    agents = [agent for agent in _COLOURS if any(group.agent == agent for group in groups)]
    width = 0.8 / len(agents)
    for number, agent in enumerate(agents):
        own = [group for group in groups if group.agent == agent]
        at = [places.index(group.setting[-1]) + (number + 0.5) * width - 0.4 for group in own]
        spreads = [group.spreads[name] for group in own]
        heights = [spread.median / scale for spread in spreads]
        below = [(spread.median - spread.low) / scale for spread in spreads]
        above = [(spread.high - spread.median) / scale for spread in spreads]
        panel.bar(at, heights, width, color=_COLOURS[agent], label=agent)
        panel.errorbar(at, heights, (below, above), fmt="none", ecolor="black", elinewidth=0.8)
    panel.set_ylim(bottom=0, top=None if panel.dataLim.ymax > 0 else 1)
    panel.set_xticks(range(len(places)), [str(place) for place in places], fontsize=8)
    if len(places) > _SHORT:
        panel.tick_params(axis="x", labelrotation=45)
    panel.tick_params(axis="y", labelsize=8)
    panel.grid(visible=True, axis="y", linewidth=0.3)
    panel.set_axisbelow(True)
