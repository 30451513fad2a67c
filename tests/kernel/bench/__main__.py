"""
C{python -m tests.kernel.bench [--rounds N] [--quick] [--output DIRECTORY] [PART ...]}:
measures, and writes C{results.json}, the tables and the pictures.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.kernel.bench import native, server, soak, starting, storm
from tests.kernel.bench.part import Failed, Options, Part
from tests.kernel.bench.samples import Sample, summarise, table
from tests.kernel.guests import GuestDied
from tests.kernel.rootfs import BENCH, CHECKOUT, LabError, rootFileSystem

_PARTS: Final = {part.PART.name: part.PART for part in (starting, server, storm, native, soak)}
_OUTPUT: Final = CHECKOUT / "docs" / "benchmarks"
_QUICK_OUTPUT: Final = CHECKOUT / ".bench"
_PACKAGES: Final = (
    *("ktls-utils", "libgnutls30t64", "libssl3t64", "python3", "python3-twisted"),
    *("python3-openssl", "python3-cryptography", "python3-pyroute2", "user-mode-linux"),
)


def _say(text: str) -> None:
    """
    Tell what is being done.

    @param text: what.
    """
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _machine() -> dict[str, Any]:
    """
    Describe what is measured, and on what.

    @return: names and values.
    """
    root = rootFileSystem(BENCH, _say)
    query = ["chroot", str(root), "dpkg-query", "-W", "-f", "${Package} ${Version}\n", *_PACKAGES]
    listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    commit = subprocess.run(
        ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "processor": models[0] if models else "unknown",
        "processors": os.cpu_count(),
        "kernel": os.uname().release,
        "packages": dict(line.split() for line in listed.splitlines()),
        "load before": os.getloadavg()[0],
    }


def _show(part: Part, samples: list[Sample], output: Path, footnote: str) -> str:
    """
    Draw a part's pictures and make its table.

    @param part: the part.
    @param samples: what was measured.
    @param output: where pictures go.
    @param footnote: what they say about themselves.
    @return: the table.
    """
    # Only here, because whoever wants no pictures needs no library for them.
    from tests.kernel.bench import plots  # noqa: PLC0415

    groups = summarise(samples, part.dimensions, part.values)
    for plot in part.plots:
        path = output / f"{part.name}-{plot.value}.png"
        plots.draw(part, plot, groups, path, footnote)
    return f"## {part.title}\n\n{table(groups, part.dimensions, part.values)}\n"


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure agents side by side.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each agent")
    parser.add_argument("--quick", action="store_true", help="few settings, little time")
    parser.add_argument("--output", type=Path, help="where results go")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)}")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(_PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    output: Path = given.output or (_QUICK_OUTPUT if given.quick else _OUTPUT)
    output.mkdir(parents=True, exist_ok=True)
    options = Options(given.rounds, given.quick)
    try:
        machine = _machine()
        results: dict[str, Any] = {"machine": machine, "rounds": given.rounds}
        results |= {"quick": given.quick, "samples": {}}
        quick = ", a quick look" if given.quick else ""
        footnote = f"{machine['date'][:10]}, {machine['commit']}, rounds: {given.rounds}{quick}"
        tables = []
        for name in given.parts or _PARTS:
            began = time.monotonic()
            samples = _PARTS[name].measure(options, _say)
            _say(f"{name}: done in {time.monotonic() - began:.0f} s")
            results["samples"][name] = samples
            # Written after each part, so that what was measured survives what comes next.
            (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
            tables.append(_show(_PARTS[name], samples, output, footnote))
            (output / "tables.md").write_text("\n".join(tables))
            print(tables[-1], flush=True)
    except (Failed, GuestDied, LabError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
