"""The wall clock is set, back or forward, while an agent starts, works and stops."""

from __future__ import annotations

import signal
import time

from tests.kernel.guest.agents import Agent, configuration
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.peers import RpcClient
from tests.kernel.guest.scenarios.restarting import Mounting
from tests.kernel.guest.waiting import Unexpected, expect, until

_BACK = -40.0
_DAY = 86400.0
_TIMES = 300
"""How often it is set back: some hit the moment before a handshake begins."""

_PAUSE = 0.01
_MOST_SECONDS = 5.0
"""How long a handshake may take; one that waited for the clock would take 40 s."""


class WallClock:
    """The guest's wall clock, which is set right at the end."""

    def __init__(self) -> None:
        """Note how it goes."""
        self._right = time.time() - time.monotonic()

    def step(self, seconds: float) -> None:
        """
        Set it.

        @param seconds: how far, back if it is negative.
        """
        time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)

    def close(self) -> None:
        """Set it right."""
        time.clock_settime(time.CLOCK_REALTIME, self._right + time.monotonic())


def visit(host: Host) -> None:
    """
    Run a handshake, and have a call answered.

    @param host: the client's.
    """
    client = RpcClient(host)
    try:
        client.startTls()
        client.call(7)
    finally:
        client.close()


def _begin(lab: Lab, workers: str) -> tuple[Host, Agent, WallClock]:
    """
    Start an agent, not to its end.

    @param lab: the stage.
    @param workers: how many workers it has.
    @return: the host, the agent and the clock.
    """
    host = lab.oneHost()
    clock = WallClock()
    lab.closing(clock)
    return host, lab.agent(host, text=configuration(workers=workers)), clock


def back(lab: Lab, workers: str) -> None:
    """
    The clock is set back by 40 s, again and again, while somebody mounts: no mount fails,
    and none waits until the clock has caught up.

    @param lab: the stage.
    @param workers: how many workers the agent has.
    """
    host, _agent, clock = _begin(lab, workers)
    lab.listening()
    lab.server(host, "mtls")
    mounting = Mounting(host)
    mounting.waitForMore(1)
    for _time in range(_TIMES):
        clock.step(_BACK)
        time.sleep(_PAUSE)
    for _time in range(3):
        mounting.waitForMore(len(mounting.seconds))
    mounting.finish(lab)
    if max(mounting.seconds) > _MOST_SECONDS:
        raise Unexpected(f"expected no mount to wait for the clock, found {lab.facts}")


def forwardInFlight(lab: Lab, workers: str) -> None:
    """
    The clock is set forward by a day, and back again, while handshakes are under way,
    whose peers then go on: they succeed.

    @param lab: the stage.
    @param workers: how many workers the agent has.
    """
    host, agent, clock = _begin(lab, workers)
    lab.listening()
    lab.server(host, "mtls")
    for number, step in enumerate((_DAY, -_DAY), 1):
        client = lab.closing(RpcClient(host))
        until(lambda: _accepted(host), "the agent has accepted the request")
        clock.step(step)
        time.sleep(0.2)
        client.startTls()
        client.call(4)
        line = agent.waitForHandshake(number)
        line.expect("ok")
        if not 0 <= line.milliseconds < _MOST_SECONDS * 1000:
            raise Unexpected(f"expected a duration by the monotonic clock, found {line}")
        client.close()


def _accepted(host: Host) -> bool:
    """
    Say whether some agent holds a request's socket.

    @param host: where.
    @return: true if so.
    """
    listing = host.call("ss", "-Htnp", "state", "established", "( sport = :2049 )")
    return "pid=" in listing


def forwardAtTheStart(lab: Lab, workers: str) -> None:
    """
    The clock is set forward by a day while an agent starts: it starts, and serves.

    @param lab: the stage.
    @param workers: how many workers the agent has.
    """
    host, agent, clock = _begin(lab, workers)
    started = time.monotonic()
    while not agent.starts() and agent.process.poll() is None and time.monotonic() < started + 60:
        clock.step(_DAY / 100)
        time.sleep(0.05)
    lab.facts["start-s"] = round(time.monotonic() - started, 2)
    lab.listening()
    clock.close()
    lab.server(host, "mtls")
    visit(host)


def forwardAtTheStop(lab: Lab, workers: str) -> None:
    """
    The clock is set forward by a day while an agent stops with a handshake under way:
    that is finished, and the books are balanced.

    @param lab: the stage.
    @param workers: how many workers the agent has.
    """
    host, agent, clock = _begin(lab, workers)
    lab.listening()
    lab.server(host, "mtls")
    client = lab.closing(RpcClient(host))
    until(lambda: _accepted(host), "the agent has accepted the request")
    agent.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    clock.step(_DAY)
    time.sleep(0.2)
    client.startTls()
    client.call(4)
    expect("how the agent ended", agent.waitUntilEnded(), 0)
    agent.waitForHandshake().expect("ok")
    agent.stop()
