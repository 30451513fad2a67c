"""Shows results: tables, pictures, and what became of the bars."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from tests.kernel.bench import bars
from tests.kernel.bench.parts import PARTS
from tests.kernel.bench.results import FILE, Results
from tests.kernel.bench.samples import aligned, summarise, table

TABLES: Final = "tables.md"


def tables(results: Results) -> str:
    """
    Make the tables.

    @param results: of what.
    @return: Markdown: the machine, how each part was measured, the bars, and each part.
    """
    machine = dict(results.machine)
    packages = ", ".join(f"{name} {version}" for name, version in machine.pop("packages").items())
    lines = [f"* {name}: {value}" for name, value in machine.items()]
    texts = ["# What was measured", "\n".join([*lines, f"* packages: {packages}"])]
    texts += [aligned(results.about()), "## The bars", bars.table(bars.judge(results.samples))]
    for name, part in PARTS.items():
        if name in results.runs:
            groups = summarise(results.runs[name].samples, part.dimensions, part.values)
            texts += [f"## {part.title}", table(groups, part.dimensions, part.values)]
    return "\n\n".join(texts) + "\n"


def pictures(results: Results, name: str, directory: Path) -> None:
    """
    Draw a part's pictures.

    @param results: all.
    @param name: the part's.
    @param directory: where they go.
    """
    # Only here, because whoever wants no pictures needs no library for them.
    from tests.kernel.bench import plots  # noqa: PLC0415

    part, run = PARTS[name], results.runs[name]
    groups = summarise(run.samples, part.dimensions, part.values)
    quick = ", a quick look" if run.quick else ""
    footnote = f"{run.began[:10]}, {run.commit}, rounds: {run.rounds}{quick}"
    for plot in part.plots:
        plots.draw(part, plot, groups, directory / f"{name}-{plot.value}.png", footnote)


def publish(source: Path, target: Path) -> Results:
    """
    Put results into the documentation, in the place of the ones before.

    @param source: their directory.
    @param target: the documentation's.
    @return: the results.
    """
    results = Results.read(source)
    target.mkdir(parents=True, exist_ok=True)
    for path in target.glob("*.png"):
        path.unlink()
    shutil.copyfile(source / FILE, target / FILE)
    (target / TABLES).write_text(tables(results))
    for name in results.runs:
        pictures(results, name, target)
    return results
