"""What all parts of the measurements have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.kernel.bench.samples import Sample, Value
from tests.kernel.guests import BaseGuest
from tests.kernel.rootfs import Progress

KTLSAGENT: Final = "ktlsagent"
TLSHD: Final = "tlshd"
FLOOR: Final = "floor"
AGENTS: Final = (KTLSAGENT, TLSHD, FLOOR)

WORKERS: Final = "ktlsagent-2w"
"""ktlsagent with two workers."""

REALTIME: Final = "tlshd-rr"
"""tlshd, scheduled as ktlsagent's unit says for that."""


class Failed(Exception):
    """A measurement could not be made; the message has the logs."""


@dataclass(frozen=True, slots=True)
class Options:
    """
    How thoroughly to measure.

    @ivar rounds: how many times each agent has its turn.
    @ivar quick: whether a look is enough: fewer settings, and less time for each.
    """

    rounds: int
    quick: bool


@dataclass(frozen=True, slots=True)
class Plot:
    """
    A picture with a panel for each setting, without its last part, which is an axis.

    @ivar value: what is shown.
    @ivar lower: whether less is better.
    """

    value: str
    lower: bool


@dataclass(frozen=True, slots=True)
class Part:
    """
    A part of the measurements.

    @ivar name: what it is called on the command line and in file names.
    @ivar title: what is measured, in words.
    @ivar dimensions: the names of a setting's parts; the last one is the plots' axis.
    @ivar values: what is measured.
    @ivar plots: what is drawn.
    @ivar measure: does it.
    """

    name: str
    title: str
    dimensions: Sequence[str]
    values: Sequence[Value]
    plots: Sequence[Plot]
    measure: Callable[[Options, Progress], list[Sample]]


def agentsFor(keys: str, agents: Sequence[str] = AGENTS) -> list[str]:
    """
    Say which agents can serve with some kind of keys.

    @param keys: the kind.
    @param agents: all.
    @return: the agents; the library of Debian's tlshd does not know ML-DSA.
    """
    return [agent for agent in agents if keys != "mldsa" or agent not in (TLSHD, REALTIME)]


def run(
    guest: BaseGuest, scenario: str, arguments: Mapping[str, Any], timeout: float
) -> dict[str, Any]:
    """
    Run a scenario of the measurements.

    @param guest: where.
    @param scenario: C{module.function} of L{tests.kernel.bench.guest}.
    @param arguments: with what.
    @param timeout: how many seconds it may take.
    @return: its facts.
    @raise Failed: if it fails.
    """
    result = guest.run(f"bench.guest.{scenario}", arguments, timeout)
    if not result["ok"]:
        logs = "\n".join(f"--- {name}\n{text[-3000:]}" for name, text in result["logs"].items())
        raise Failed(f"{scenario} {dict(arguments)}: {result['failure']}\n{logs}")
    facts: dict[str, Any] = result["facts"]
    return facts


def runAlone(
    guest: BaseGuest, scenario: str, arguments: Mapping[str, Any], timeout: float
) -> list[Sample]:
    """
    Run the only scenario that a guest was booted for, and end the guest.

    @param guest: where.
    @param scenario: see L{run}.
    @param arguments: with what.
    @param timeout: how many seconds it may take.
    @return: the samples.
    @raise Failed: if it fails.
    """
    samples: list[Sample] = run(guest, scenario, arguments, timeout)["rounds"]
    guest.close()
    return samples
