"""Workers that are full, stopped or dead, and others that take what comes."""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.kernel.guest.agents import Agent, configuration, paused
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.peers import outcome
from tests.kernel.guest.waiting import Unexpected, expect, until

_CLIENTS = 16

_LONGEST = 3.0
"""nfsd waits for 5 s: a handshake that waits for another one's time fails."""

_STARTING_SECONDS = 60.0


def _served(agent: Agent) -> Counter[str]:
    """
    Count the handshakes of each worker.

    @param agent: the agent.
    @return: the numbers.
    """
    return Counter(re.findall(r"worker=(\d)\] handshake ok", agent.log()))


def _children(parent: int) -> list[int]:
    """
    List the children of a process.

    @param parent: the process.
    @return: their ids.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        # Some end while we look.
        with suppress(OSError):
            pid, state, above = re.findall(r"^(\d+) .*\) (\w) (\d+)", path.read_text())[0]
            if int(above) == parent and state != "Z":
                found.append(int(pid))
    return found


def _start(lab: Lab) -> tuple[Host, Agent]:
    """
    Start an agent with two workers, and an NFS server.

    @param lab: the stage.
    @return: the host and the agent.
    """
    host = lab.oneHost()
    agent = lab.agent(host, text=configuration(workers="2"))
    lab.listening()
    lab.server(host, "mtls")
    return host, agent


def _serveMany(lab: Lab, host: Host, agent: Agent) -> Counter[str]:
    """
    Have clients shake hands with the NFS server, one after the other, and see that none
    fails or waits for long.

    @param lab: the stage; gets the figures.
    @param host: where.
    @param agent: the server's agent.
    @return: how many handshakes each worker has served.
    """
    before = _served(agent)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for _client in range(_CLIENTS):
        started = time.monotonic()
        outcomes[outcome(host)] += 1
        slowest = max(slowest, time.monotonic() - started)
    # A worker may log after its client has had its reply.
    until(lambda: sum((_served(agent) - before).values()) >= _CLIENTS, "all handshakes are logged")
    served = _served(agent) - before
    lab.facts.setdefault("slowest-s", []).append(round(slowest, 2))
    lab.facts.setdefault("served", []).append(dict(served))
    if outcomes != {"ok": _CLIENTS} or slowest > _LONGEST:
        raise Unexpected(f"expected no client to fail or wait, found {outcomes}, {lab.facts}")
    return served


@contextmanager
def _full(pid: int) -> Iterator[None]:
    """
    Have a process run out of descriptors.

    @param pid: the process.
    """
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = min(set(range(max(used) + 2)) - used)
    _soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def full(lab: Lab) -> None:
    """
    One of two workers, which gets what comes, has no descriptor left: the other one serves
    all clients, and it serves again when it has some.

    @param lab: the stage.
    """
    host, agent = _start(lab)
    first, second = _order(lab, host, agent)
    with _full(agent.workers[first]):
        expect("served by the full one", _serveMany(lab, host, agent)[first], 0)
    with paused(agent.workers[second]):
        expect("served by it afterwards", _serveMany(lab, host, agent)[first], _CLIENTS)
    agent.stop()


def _order(lab: Lab, host: Host, agent: Agent) -> tuple[str, str]:
    """
    Find out which of two workers gets what comes: on one processor one of them gets all.

    @param lab: the stage.
    @param host: where.
    @param agent: the server's agent.
    @return: its place, and that of the other one.
    """
    ((first, _number),) = _serveMany(lab, host, agent).most_common(1)
    return first, "2" if first == "1" else "1"


def stopped(lab: Lab) -> None:
    """
    One of two workers, which gets what comes, is stopped by a signal: the other one serves
    all clients, and it serves again when it goes on.

    @param lab: the stage.
    """
    host, agent = _start(lab)
    first, second = _order(lab, host, agent)
    with paused(agent.workers[first]):
        expect("served by the stopped one", _serveMany(lab, host, agent)[first], 0)
    with paused(agent.workers[second]):
        expect("served by it afterwards", _serveMany(lab, host, agent)[first], _CLIENTS)
    agent.stop()
    expect("workers that closed their books", agent.log().count(" stopped: accepted="), 2)


def templateKilled(lab: Lab) -> None:
    """
    The process from which workers are forked is killed, and then a worker: the other one
    serves, a new one comes, and the agent goes on.

    @param lab: the stage.
    """
    host, agent = _start(lab)
    (template,) = _children(agent.process.pid)
    os.kill(template, signal.SIGKILL)
    _serveMany(lab, host, agent)
    pid = agent.workers["1"]
    os.kill(pid, signal.SIGKILL)
    _serveMany(lab, host, agent)
    until(lambda: agent.workers["1"] != pid, "another worker is up", _STARTING_SECONDS)
    expect("templates", [child != template for child in _children(agent.process.pid)], [True])
    with paused(agent.workers["2"]):
        expect("served by the new one", _serveMany(lab, host, agent)["1"], _CLIENTS)
    agent.stop()


def templateHangs(lab: Lab) -> None:
    """
    The process from which workers are forked hangs, and a worker is killed: the other
    one serves, and nothing holds up the stop.

    @param lab: the stage.
    """
    host, agent = _start(lab)
    (template,) = _children(agent.process.pid)
    os.kill(template, signal.SIGSTOP)
    os.kill(agent.workers["1"], signal.SIGKILL)
    expect("served by the dead one", _serveMany(lab, host, agent)["1"], 0)
    started = time.monotonic()
    agent.stop()
    lab.facts["stop-s"] = round(time.monotonic() - started, 2)
    with suppress(FileNotFoundError):
        # It is somebody else's child now, who may not have waited for it.
        status = Path(f"/proc/{template}/stat").read_text()
        if ") Z " not in status:
            raise Unexpected(f"expected the template to have ended, found {status}")


def parentFull(lab: Lab) -> None:
    """
    The parent has no descriptor left when a worker dies: the other one serves until
    there are some again, and then another one comes.

    @param lab: the stage.
    """
    host, agent = _start(lab)
    pid = agent.workers["1"]
    with _full(agent.process.pid):
        os.kill(pid, signal.SIGKILL)
        agent.waitForLog("worker 1 cannot be started")
        _serveMany(lab, host, agent)
    until(lambda: agent.workers["1"] != pid, "another worker is up", _STARTING_SECONDS)
    with paused(agent.workers["2"]):
        expect("served by the new one", _serveMany(lab, host, agent)["1"], _CLIENTS)
    agent.stop()
