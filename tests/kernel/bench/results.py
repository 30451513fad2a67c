"""
What was measured on one machine in one day, in a file that is written after each part: a
run that is stopped keeps what it has, and later runs of single parts add to it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from tests.kernel.bench.samples import Sample

FILE: Final = "results.json"
_QUICK: Final = "-quick"
_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class Run:
    """
    What a part gave, and how that came about.

    @ivar commit: what was measured.
    @ivar began: when, as ISO 8601 has it.
    @ivar seconds: how long it took.
    @ivar rounds: how many turns everybody had.
    @ivar quick: whether it was a look only.
    @ivar load: the machine's load average when it began.
    @ivar samples: what was found.
    """

    commit: str
    began: str
    seconds: int
    rounds: int
    quick: bool
    load: float
    samples: Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Results:
    """
    All that was measured on a machine.

    @ivar machine: the machine: its processor, kernel and packages.
    @ivar runs: by the name of the part.
    """

    machine: Mapping[str, Any]
    runs: dict[str, Run] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """
        Read what was written.

        @param directory: where.
        @return: the results.
        """
        data = json.loads((directory / FILE).read_text())
        return cls(data["machine"], {name: Run(**run) for name, run in data["parts"].items()})

    def write(self, directory: Path) -> None:
        """
        Write everything; what was there before is lost only when that has been done.

        @param directory: where; it need not exist.
        """
        runs = {}
        for name, run in self.runs.items():
            rows = ",\n".join(f"  {json.dumps(sample)}" for sample in run.samples)
            about = {key: value for key, value in asdict(run).items() if key != "samples"}
            runs[name] = f'{json.dumps(about)[:-1]}, "samples": [\n{rows}\n]}}'
        parts = ",\n".join(f"{json.dumps(name)}: {text}" for name, text in runs.items())
        machine = json.dumps(self.machine, indent=1)
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / f"{FILE}.partial"
        partial.write_text(f'{{"machine": {machine},\n"parts": {{\n{parts}\n}}}}\n')
        os.replace(partial, directory / FILE)

    @property
    def samples(self) -> dict[str, Sequence[Sample]]:
        """The samples, by the name of the part."""
        return {name: run.samples for name, run in self.runs.items()}

    def about(self) -> list[list[str]]:
        """
        Tell how each part was measured.

        @return: the rows of a table, the headings first.
        """
        rows = [["part", "commit", "began", "took, s", "rounds", "load before"]]
        for name, run in self.runs.items():
            rounds = f"{run.rounds}{', a quick look' if run.quick else ''}"
            rows.append([name, run.commit, run.began, str(run.seconds), rounds, f"{run.load:.1f}"])
        return rows


def directoryName(machine: Mapping[str, Any], day: str, *, quick: bool) -> str:
    """
    Name the directory of what is measured on a machine in a day.

    @param machine: the machine.
    @param day: the day.
    @param quick: whether only looks are taken, which are kept apart.
    @return: the name.
    """
    text = json.dumps(machine, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
    return f"{day}-{digest}{_QUICK if quick else ''}"


def newest(parent: Path) -> Path | None:
    """
    Find what was measured last, without what was only looked at.

    @param parent: where the directories are.
    @return: the directory; L{None} if there is none.
    """
    found = [path for path in parent.glob(f"*/{FILE}") if not path.parent.name.endswith(_QUICK)]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None
