"""
The bars: what ktlsagent is to reach beside the others, and whether it does.

Every bar is looked at in each setting that it is about; what counts is the worst one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.kernel.bench.clientbars import noFailure, noHang
from tests.kernel.bench.part import FLOOR, KTLSAGENT, REALTIME, TLSHD, WORKERS
from tests.kernel.bench.samples import AGENT, MEBIBYTE, Value, aligned, summarise
from tests.kernel.bench.verdicts import Measured, Verdict

_RATES: Final = ("keys", "trust", "client", "concurrency")
_STORMS: Final = ("memory of guest", "nfsd threads", "trust", "count")
_STRANGERS: Final = 64
"""
As many connections that have not used a file an NFS server keeps.  More succeed when
others happen to have left before it looks, which is nobody's merit.
"""

_STORM: Final = 60
_LEAST_OF_STORM: Final = 55
_STORMS_WANTED: Final = 10

_SOAK: Final = 100_000
_GROWTH: Final = 0.01
"""The allocator's noise: what is less than this part of the memory is no growth."""

_IDLE: Final = 45.0
_START: Final = 0.5


@dataclass(frozen=True, slots=True)
class Ratio:
    """
    A bar about two agents: a value of the one, divided by the other one's.  Beside it stands
    what the floor has in the place of the one: no agent can be expected to do better.

    @ivar bar: what it is about.
    @ivar part: where it is measured.
    @ivar value: what is compared.
    @ivar agent: the one.
    @ivar rival: the other.
    @ivar limit: the ratio.
    @ivar least: whether it is to be so much at least; else it is so much at most.
    @ivar keys: of which settings it is.
    @ivar trust: likewise.
    """

    bar: str
    part: str
    value: str
    agent: str
    rival: str
    limit: float
    least: bool
    keys: str = "ecdsa"
    trust: str = "small"

    def judge(self, measured: Measured) -> Verdict:
        """
        Look at it.

        @param measured: everything.
        @return: what became of it.
        """
        wanted = f"at {'least' if self.least else 'most'} {self.limit:g}"
        title = f"{self.bar}, {self.keys}, {self.trust} trust store"
        ratios = self._compared(measured, self.agent)
        if not ratios:
            return Verdict(title, wanted, "", None)
        (worst, (client, concurrency)), (best, _setting) = ratios[0], ratios[-1]
        held = worst >= self.limit if self.least else worst <= self.limit
        text = f"{worst:.3g} ({client}, {concurrency} at a time), best {best:.3g}"
        if self.rival != FLOOR and (floor := self._compared(measured, FLOOR)):
            text += f"; floor: worst {floor[0][0]:.3g}, best {floor[-1][0]:.3g}"
        return Verdict(title, wanted, text, held)

    def _compared(self, measured: Measured, agent: str) -> list[tuple[float, Sequence[Any]]]:
        """
        Divide an agent's values by the rival's.

        @param measured: everything.
        @param agent: whose.
        @return: the ratio in each setting, and client and concurrency of that, the worst first.
        """
        chosen = [
            sample
            for sample in measured.get(self.part, ())
            if (sample["keys"], sample["trust"]) == (self.keys, self.trust)
        ]
        medians: dict[Any, dict[str, float | None]] = {}
        for group in summarise(chosen, _RATES, [Value(self.value, "")]):
            medians.setdefault(group.setting, {})[group.agent] = group.median(self.value)
        ratios = []
        for setting, found in medians.items():
            own, other = found.get(agent), found.get(self.rival)
            if own is not None and other is not None:
                ratios.append((own / other if other else math.inf, setting[2:]))
        ratios.sort(reverse=not self.least)
        return ratios


def _ratios() -> Iterable[Ratio]:
    """
    List the bars about two agents.

    @return: them.
    """
    for keys in ("ecdsa", "rsa"):
        yield Ratio("lab: handshakes/s : tlshd", "server", "rate", KTLSAGENT, TLSHD, 5, True, keys)
    for keys in ("ecdsa", "rsa", "mldsa"):
        yield Ratio(
            "lab: handshakes/s : floor", "server", "rate", KTLSAGENT, FLOOR, 0.85, True, keys
        )
    for keys in ("ecdsa", "rsa"):
        yield Ratio("lab: p99 : tlshd", "server", "p99", KTLSAGENT, TLSHD, 0.2, False, keys)
        yield Ratio("lab: CPU each : tlshd", "server", "cpu", KTLSAGENT, TLSHD, 0.125, False, keys)
    yield Ratio(
        *("lab: handshakes/s : tlshd", "server", "rate", KTLSAGENT, TLSHD, 10, True),
        trust="system",
    )
    for agent, words, limit in ((KTLSAGENT, "one process", 2), (WORKERS, "two workers", 3)):
        for keys in ("ecdsa", "rsa"):
            yield Ratio(
                f"native: CPU each : tlshd, {words}",
                "native",
                "cpu",
                agent,
                TLSHD,
                0.35,
                False,
                keys,
            )
            yield Ratio(
                *(f"native: handshakes/s : tlshd, {words}", "native", "rate", agent, TLSHD),
                *(limit, True, keys),
            )
        yield Ratio(
            *(f"native: handshakes/s : tlshd, {words}", "native", "rate", agent, TLSHD, 10, True),
            trust="system",
        )


def _storms(measured: Measured, agent: str) -> dict[tuple[Any, ...], dict[Any, int]]:
    """
    Find how many connections succeeded in each cell and round.

    @param measured: everything.
    @param agent: whose.
    @return: them, but no more than can be counted on, by the cell and the round.
    """
    found: dict[tuple[Any, ...], dict[Any, int]] = {}
    for sample in measured.get("storm", ()):
        if sample[AGENT] == agent:
            cell = tuple(sample[name] for name in _STORMS)
            found.setdefault(cell, {})[sample["round"]] = min(sample["succeeded"], _STRANGERS)
    return found


def _everyone(measured: Measured) -> Verdict:
    """
    Look whether all that reach the agent succeed, with much memory.

    @param measured: everything.
    @return: the verdict.
    """
    bar, wanted = "storm, 21 GB: all that reach the agent", f"{_STRANGERS}, or all if fewer"
    short = [
        (number - min(cell[3], _STRANGERS), number, cell)
        for cell, rounds in _storms(measured, KTLSAGENT).items()
        if cell[0] == "21G"
        for number in rounds.values()
    ]
    if not short:
        return Verdict(bar, wanted, "", None)
    missing, number, cell = min(short)
    return Verdict(bar, wanted, f"{number} of {cell[3]} {_cell(cell)}", missing >= 0)


def _little(measured: Measured) -> Verdict:
    """
    Look at storms of 60 with little memory.

    @param measured: everything.
    @return: the verdict.
    """
    bar = f"storm, 2 GB: {_STORM} at once, small trust store"
    wanted = f"at least {_LEAST_OF_STORM} in each of {_STORMS_WANTED} runs"
    chosen = {
        cell: list(rounds.values())
        for cell, rounds in _storms(measured, KTLSAGENT).items()
        if (cell[0], *cell[2:]) == ("2G", "small", _STORM)
    }
    if not chosen:
        return Verdict(bar, wanted, "", None)
    runs = min(map(len, chosen.values()))
    least, cell = min((min(numbers), cell) for cell, numbers in chosen.items())
    held = None if least >= _LEAST_OF_STORM and runs < _STORMS_WANTED else least >= _LEAST_OF_STORM
    return Verdict(bar, wanted, f"{least} in the worst of {runs} runs {_cell(cell)}", held)


def _neverFewer(rival: str) -> Callable[[Measured], Verdict]:
    """
    Make a bar about storms beside another agent.

    @param rival: the other.
    @return: looks at it.
    """

    def judge(measured: Measured) -> Verdict:
        bar, wanted = f"storm: ktlsagent less {rival}, each cell and round", "at least 0"
        others = _storms(measured, rival)
        found = [
            (own - others[cell][number], own, others[cell][number], cell)
            for cell, rounds in _storms(measured, KTLSAGENT).items()
            for number, own in rounds.items()
            if number in others.get(cell, {})
        ]
        if not found:
            return Verdict(bar, wanted, "", None)
        difference, own, other, cell = min(found)
        return Verdict(
            bar,
            wanted,
            f"{difference} ({own} and {other} of {cell[3]}) {_cell(cell)}",
            difference >= 0,
        )

    return judge


def _cell(cell: tuple[Any, ...]) -> str:
    """
    Name a cell of the storms.

    @param cell: its setting.
    @return: words.
    """
    return f"[{cell[0]}, {cell[1]} threads, {cell[2]}]"


def _soak(measured: Measured) -> Verdict:
    """
    Look whether anything grows.

    @param measured: everything.
    @return: the verdict.
    """
    bar = "soak: growth after the first tenth"
    wanted = f"none in {_SOAK} handshakes: memory less than {_GROWTH:.0%}, descriptors 0"
    samples = sorted(measured.get("soak", ()), key=lambda sample: sample["handshakes"])
    if not samples:
        return Verdict(bar, wanted, "", None)
    last = samples[-1]
    first = next(row for row in samples if row["handshakes"] * 10 >= last["handshakes"])
    growth = last["resident"] - first["resident"]
    descriptors = last["descriptors"] - first["descriptors"]
    failures = sum(sample["failures"] for sample in samples)
    text = f"{growth / MEBIBYTE:+.2f} MiB of {first['resident'] / MEBIBYTE:.1f}, {descriptors:+d} "
    text += f"descriptors, {failures} failures, {last['handshakes']} handshakes"
    held = growth < _GROWTH * first["resident"] and descriptors <= 0 and not failures
    return Verdict(bar, wanted, text, None if held and last["handshakes"] < _SOAK else held)


def _starting(
    kernel: str, value: str, title: str, wanted: str, limit: float
) -> Callable[[Measured], Verdict]:
    """
    Make a bar about starts.

    @param kernel: where.
    @param value: which value.
    @param title: what it is.
    @param wanted: what is to be reached.
    @param limit: the most.
    @return: looks at it.
    """

    def judge(measured: Measured) -> Verdict:
        bar = f"{kernel}: {title}"
        numbers = sorted(
            sample[value]
            for sample in measured.get("starting", ())
            if (sample[AGENT], sample["kernel"]) == (KTLSAGENT, kernel)
            and sample.get(value) is not None
        )
        if not numbers:
            return Verdict(bar, wanted, "", None)
        scale = MEBIBYTE if value == "resident" else 1
        median = statistics.median(numbers) / scale
        return Verdict(bar, wanted, f"{median:.2f} (median of {len(numbers)})", median <= limit)

    return judge


_BARS: Final[tuple[Callable[[Measured], Verdict], ...]] = (
    *(ratio.judge for ratio in _ratios()),
    _everyone,
    _little,
    _neverFewer(TLSHD),
    _neverFewer(REALTIME),
    noHang,
    noFailure,
    _soak,
    *(
        _starting(kernel, *bar)
        for kernel in ("lab", "native")
        for bar in (
            ("resident", "idle agent, resident MiB", f"at most {_IDLE:g}", _IDLE),
            (
                "waited",
                "a request that waits is served, s from exec",
                f"at most {_START:g}",
                _START,
            ),
        )
    ),
)


def judge(measured: Measured) -> list[Verdict]:
    """
    Look at all bars.

    @param measured: the samples of the parts, of which some may be missing.
    @return: what became of each bar.
    """
    return [bar(measured) for bar in _BARS]


def table(verdicts: Sequence[Verdict]) -> str:
    """
    Show verdicts as a table in Markdown.

    @param verdicts: them.
    @return: the table.
    """
    words = {True: "yes", False: "**no**", None: "-"}
    rows = [["bar", "wanted", "measured", "held"]]
    rows += [[row.bar, row.wanted, row.measured or "-", words[row.held]] for row in verdicts]
    return aligned(rows)
