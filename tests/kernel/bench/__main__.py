"""
C{python -m tests.kernel.bench [--rounds N] [--quick] [--output DIRECTORY] [PART ...]}:
measures, and writes C{results.json}, the tables and the pictures.  C{publish} in the
place of parts puts the newest results into the documentation.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.kernel.bench import bars, showing
from tests.kernel.bench.part import Failed, Options
from tests.kernel.bench.parts import PARTS
from tests.kernel.bench.results import FILE, Results, Run, directoryName, newest
from tests.kernel.bench.samples import summarise, table
from tests.kernel.guests import GuestDied
from tests.kernel.rootfs import BENCH, CHECKOUT, LabError, rootFileSystem

_RESULTS: Final = CHECKOUT / ".bench"
_PUBLISHED: Final = CHECKOUT / "docs" / "benchmarks"
_PUBLISH: Final = "publish"
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
    Describe what is measured on, and with what.

    @return: names and values.
    """
    root = rootFileSystem(BENCH, _say)
    query = ["chroot", str(root), "dpkg-query", "-W", "-f", "${Package} ${Version}\n", *_PACKAGES]
    listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "processor": models[0] if models else "unknown",
        "processors": os.cpu_count(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 30} GiB",
        "kernel": os.uname().release,
        "packages": dict(line.split() for line in listed.splitlines()),
    }


def _commit() -> str:
    """
    Name what is measured.

    @return: the commit, and whether anything was changed since.
    """
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _measure(name: str, options: Options) -> Run:
    """
    Measure a part.

    @param name: its name.
    @param options: how thoroughly.
    @return: what was found.
    """
    load, commit, began = os.getloadavg()[0], _commit(), time.monotonic()
    date = dt.datetime.now(dt.UTC).isoformat(timespec="minutes")
    samples = PARTS[name].measure(options, _say)
    seconds = round(time.monotonic() - began)
    _say(f"{name}: done in {seconds} s")
    return Run(commit, date, seconds, options.rounds, options.quick, load, samples)


def _measureAll(names: list[str], options: Options, directory: Path | None) -> int:
    """
    Measure parts, and write what was found after each of them.

    @param names: the parts'.
    @param options: how thoroughly.
    @param directory: where results go; L{None} for the one of this day and machine.
    @return: the exit status.
    """
    machine = _machine()
    day = dt.datetime.now(dt.UTC).date().isoformat()
    output = directory or _RESULTS / directoryName(machine, day, quick=options.quick)
    results = Results.read(output) if (output / FILE).exists() else Results(machine)
    if results.machine != machine:
        _say(f"{output} has results of another machine, or of other packages: name another one")
        return 1
    status = 0
    for name in names:
        try:
            results.runs[name] = _measure(name, options)
        except (Failed, GuestDied) as error:
            # The other parts may work; this one's earlier results stay.
            _say(f"{name} failed: {error}")
            status = 1
            continue
        results.write(output)
        (output / showing.TABLES).write_text(showing.tables(results))
        showing.pictures(results, name, output)
        part = PARTS[name]
        groups = summarise(results.runs[name].samples, part.dimensions, part.values)
        print(f"## {part.title}\n\n{table(groups, part.dimensions, part.values)}\n", flush=True)
    verdicts = [verdict for verdict in bars.judge(results.samples) if verdict.measured]
    print(f"## The bars\n\n{bars.table(verdicts)}\n", flush=True)
    _say(f"results are in {output}")
    return status


def _publish(source: Path | None) -> int:
    """
    Put results into the documentation.

    @param source: their directory; L{None} for the newest one.
    @return: the exit status.
    """
    source = source or newest(_RESULTS)
    if source is None:
        _say(f"nothing in {_RESULTS} but quick looks, if anything: run make bench first")
        return 1
    results = showing.publish(source, _PUBLISHED)
    absent = [name for name in PARTS if name not in results.runs]
    quick = [name for name, run in results.runs.items() if run.quick]
    _say(f"published {source} in {_PUBLISHED}")
    for words, names in (("not measured", absent), ("only looked at", quick)):
        if names:
            _say(f"{words}: {', '.join(names)}")
    return 0


def main() -> int:
    """
    Do what the command line says.

    @return: the exit status.
    """
    parser = argparse.ArgumentParser(prog="bench", description="Measure agents side by side.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each agent")
    parser.add_argument("--quick", action="store_true", help="few settings, little time")
    parser.add_argument("--output", type=Path, help="the directory of the results")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; or {_PUBLISH}"
    )
    given = parser.parse_args()
    try:
        if given.parts == [_PUBLISH]:
            return _publish(given.output)
        if unknown := set(given.parts) - set(PARTS):
            parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
        names = given.parts or list(PARTS)
        return _measureAll(names, Options(given.rounds, given.quick), given.output)
    except LabError as error:
        _say(str(error))
    except KeyboardInterrupt:
        _say("stopped; what the parts before gave is kept")
    return 1


if __name__ == "__main__":
    sys.exit(main())
