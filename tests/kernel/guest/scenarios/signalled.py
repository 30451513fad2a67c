"""Signals that come at awkward moments: in the middle of a restart, or before the start is over."""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.guest.agents import Agent, configuration
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.manager import Manager
from tests.kernel.guest.peers import RpcClient
from tests.kernel.guest.waiting import Unexpected, expect, until

_DELAYS = (0.0, 0.004, 0.03, 0.3)
"""How long after SIGUSR2: before it is noticed, in the shutdown, and while loading again."""

_LOADING_SECONDS = 60.0


def stopWins(lab: Lab, workers: str, stop: str) -> None:
    """
    An order to stop comes shortly after the one to start again, while a handshake is
    under way: the agent ends, and stays so.

    @param lab: the stage.
    @param workers: how many workers it has.
    @param stop: the signal.
    """
    host = lab.oneHost()
    for number, delay in enumerate(_DELAYS):
        agent = lab.agent(host, text=configuration(workers=workers))
        lab.listening(agent)
        if number == 0:
            lab.server(host, "mtls")
        stalled = lab.closing(RpcClient(host))
        time.sleep(0.05)
        agent.process.send_signal(signal.SIGUSR2)
        time.sleep(delay)
        agent.process.send_signal(signal.Signals[stop])
        started = time.monotonic()
        expect(f"how the agent ended {delay} s later", agent.waitUntilEnded(), 0)
        lab.facts.setdefault("ended-after-s", []).append(round(time.monotonic() - started, 2))
        expect("how the stalled peer's connection ended", stalled.ending(), "eof")
        expect("starts of the agent", agent.starts(), 1)


def _lowestFree(agent: Agent) -> int:
    """
    Find the descriptor that a process would get next.

    @param agent: whose process.
    @return: its number.
    """
    used = {int(name) for name in os.listdir(f"/proc/{agent.process.pid}/fd")}
    return next(number for number in range(len(used) + 1) if number not in used)


@contextmanager
def _withoutDescriptors(agent: Agent) -> Iterator[None]:
    """
    Let an agent have no more descriptors.

    @param agent: the agent.
    @return: while this lasts.
    """
    soft, hard = resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE)
    limits = (_lowestFree(agent), hard)
    resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, limits)
    try:
        yield
    finally:
        resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, (soft, hard))


def restartFails(lab: Lab, workers: str) -> None:
    """
    The agent has no descriptor left when it is to start again: it says so, and serves,
    reloads and starts again later.

    @param lab: the stage.
    @param workers: how many workers it has.
    """
    host = lab.oneHost()
    agent = lab.agent(host, text=configuration(workers=workers))
    lab.listening()
    lab.server(host, "mtls")
    with _withoutDescriptors(agent):
        agent.process.send_signal(signal.SIGUSR2)
        agent.waitForLog("expected to start again in the same process, found .*Too many open files")
    agent.reload()
    with lab.mounted(host, "4.2", "mtls"):
        pass
    agent.restartInPlace()
    with lab.mounted(host, "4.2", "mtls"):
        pass


def _catches(agent: Agent, number: int) -> bool:
    """
    Say whether a process handles a signal.

    @param agent: whose process.
    @param number: the signal.
    @return: true if so.
    """
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    caught = re.findall(r"^SigCgt:\s+(\w+)", status, re.MULTILINE)
    return bool(int(caught[0], 16) >> (number - 1) & 1)


def hungUpWhileStarting(lab: Lab, workers: str) -> None:
    """
    SIGHUP comes again and again from the first moments of an agent on, up to that when
    it says that it is ready: it starts, and reloads.

    @param lab: the stage.
    @param workers: how many workers it has.
    """
    host = lab.oneHost()
    manager = lab.closing(Manager())
    agent = lab.agent(host, text=configuration(workers=workers), prefix=manager.prefix())
    until(lambda: _catches(agent, signal.SIGHUP), "SIGHUP is handled", _LOADING_SECONDS)
    if agent.starts():
        raise Unexpected("expected SIGHUP to be handled before the agent is ready")
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP):
        agent.process.send_signal(number)
        time.sleep(0.1)
    manager.waitUntilReady()
    agent.process.send_signal(signal.SIGHUP)
    agent.waitForLog(r"\breload(?: refused\b|: )")
    expect("how the agent has ended", agent.process.poll(), None)
    lab.server(host, "mtls")
    with lab.mounted(host, "4.2", "mtls"):
        pass
