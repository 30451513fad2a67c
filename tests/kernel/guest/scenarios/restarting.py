"""Agents that are restarted while somebody mounts all the time: no mount fails."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path

from tests.kernel.guest.agents import Agent, configuration
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.manager import Manager
from tests.kernel.guest.nfs import Mount, MountRefused
from tests.kernel.guest.peers import RpcClient
from tests.kernel.guest.waiting import Unexpected, expect, until

_PAUSE = 0.1
_TIMES = 8
_FEW_TIMES = 3
_STALLED = 4
_LEAST_MOUNTS = 5
_STARTING_SECONDS = 60.0

_MOUNT_SECONDS = 45.0
"""If a worker dies with a request, its client waits for 10 s before it asks again."""

_PATIENT = ("timeo=600", "retrans=3")
"""
The kernel's default.  On a busy machine an emulated start may take longer than nfsd
waits; then the client has to try again, and the usual mounts here give up too early.
"""


class Mounting:
    """
    Somebody who mounts and unmounts all the time.

    @ivar seconds: how long each mount took.
    @ivar failures: why mounts failed.
    """

    def __init__(self, host: Host) -> None:
        """
        Begin.

        @param host: where.
        """
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self._host = host
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._ended.wait(_PAUSE):
            try:
                mount = Mount(self._host, "4.2", "mtls", "server.lab", *_PATIENT)
            except MountRefused as refused:
                self.failures.append(errno.errorcode.get(refused.number, str(refused)))
            else:
                self.seconds.append(mount.seconds)
                mount.unmount()

    def waitForMore(self, than: int) -> None:
        """
        Wait until it has mounted again, or failed to.

        @param than: how often it had mounted before.
        """
        until(
            lambda: len(self.seconds) > than or self.failures,
            "somebody has mounted",
            _MOUNT_SECONDS,
        )

    def end(self) -> None:
        """Stop, after the mount that is under way."""
        self._ended.set()
        self._thread.join()

    def finish(self, lab: Lab, least: int = _LEAST_MOUNTS) -> None:
        """
        Stop, and look at what happened.

        @param lab: gets the figures.
        @param least: how many mounts there have to be.
        @raise Unexpected: if a mount failed, or there were hardly any.
        """
        self.end()
        times = sorted(self.seconds)
        lab.facts["mounts"] = len(times)
        lab.facts["failed"] = self.failures
        if times:
            lab.facts["mount-s"] = {
                "p50": round(times[len(times) // 2], 2),
                "max": round(times[-1], 2),
            }
        if self.failures or len(times) < least:
            raise Unexpected(f"expected mounts without a failure, found {lab.facts}")


def untilGivenUp(agent: Agent, number: int) -> None:
    """
    Wait until an agent has logged its answers about peers that stalled.  It does so after
    nfsd has closed their connections.

    @param agent: the agent, of whose processes each logs its own.
    @param number: how many answers there have to be.
    """
    until(
        lambda: len(re.findall("role=server .*status=ETIMEDOUT", agent.log())) >= number,
        f"{number} peers that stalled have been answered",
    )


def _newWorker(agent: Agent, place: str, killed: set[int]) -> int:
    """
    Wait for a worker that has not been killed.

    @param agent: the agent.
    @param place: which of its workers.
    @param killed: those that have been.
    @return: its process id.
    """
    until(lambda: agent.workers[place] not in killed, f"worker {place} is up", _STARTING_SECONDS)
    return agent.workers[place]


def workerKilled(lab: Lab) -> None:
    """
    Workers are killed in turn, eight times: the others take what is asked, and
    new ones come.

    @param lab: the stage.
    """
    host = lab.oneHost()
    agent = lab.agent(host, text=configuration(workers="2"))
    lab.listening()
    lab.server(host, "mtls")
    mounting = Mounting(host)
    killed: set[int] = set()
    for number in range(_TIMES):
        time.sleep(_PAUSE)
        pid = _newWorker(agent, str(1 + number % 2), killed)
        mounts = len(mounting.seconds)
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
        mounting.waitForMore(mounts)
    mounting.finish(lab)
    lab.facts["killed"] = len(re.findall(r"\bwas killed by SIGKILL", agent.log()))
    expect("deaths of workers that were noticed", lab.facts["killed"], _TIMES)


def workersShare(lab: Lab) -> None:
    """
    Two workers share what is asked, a reload reaches both, and at the end both have
    balanced books.

    @param lab: the stage.
    """
    host = lab.oneHost()
    agent = lab.agent(host, text=configuration(workers="2"))
    lab.listening()
    lab.server(host, "mtls")
    for _time in range(3):
        with lab.mounted(host, "4.2", "mtls", "server.lab", "nconnect=8"):
            pass
    agent.reload()
    with lab.mounted(host, "4.2", "mtls"):
        pass
    served = Counter(re.findall(r"worker=(\d)\] handshake ok", agent.log()))
    lab.facts["handshakes of each"] = dict(served)
    lab.facts["pss-kib"] = {
        name: _pss(pid) for name, pid in {"parent": agent.process.pid, **agent.workers}.items()
    }
    agent.stop()
    expect("workers that closed their books", agent.log().count(" stopped: accepted="), 2)


def _pss(pid: int) -> int:
    """
    Say how much memory is a process's share.

    @param pid: the process.
    @return: kibibytes.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(r"Pss: +(\d+)", text)[0])


def inPlace(lab: Lab, workers: str) -> None:
    """
    An agent is started again in the same process, as for an upgrade, eight times.

    @param lab: the stage.
    @param workers: how many workers it has.
    """
    host = lab.oneHost()
    agent = lab.agent(host, text=configuration(workers=workers))
    lab.listening()
    lab.server(host, "mtls")
    mounting = Mounting(host)
    pid = agent.process.pid
    for _time in range(_TIMES):
        time.sleep(_PAUSE)
        agent.restartInPlace()
    mounting.finish(lab)
    if agent.process.poll() is not None or agent.process.pid != pid:
        raise Unexpected("expected the agent in the same process, found another one")
    lab.facts["restarts"] = agent.starts() - 1


def inPlaceWhileStalled(lab: Lab, workers: str) -> None:
    """
    An agent is started again in the same process while peers stall: nobody waits for
    those, and they get their answers all the same.

    @param lab: the stage.
    @param workers: how many workers it has.
    """
    host = lab.oneHost()
    agent = lab.agent(host, text=configuration(workers=workers))
    lab.listening()
    lab.server(host, "mtls")
    mounting = Mounting(host)
    seconds = []
    for _time in range(_FEW_TIMES):
        mounts = len(mounting.seconds)
        stalled = [lab.closing(RpcClient(host)) for _each in range(_STALLED)]
        time.sleep(_PAUSE)
        started = time.monotonic()
        agent.restartInPlace()
        seconds.append(round(time.monotonic() - started, 2))
        mounting.waitForMore(mounts)
        lab.facts.setdefault("endings", []).append([one.ending() for one in stalled])
    lab.facts["restart-s"] = seconds
    mounting.finish(lab, _FEW_TIMES)
    expect("processes for the rest", agent.log().count("finishes what is in flight"), _FEW_TIMES)
    untilGivenUp(agent, _FEW_TIMES * _STALLED)
    until(lambda: not _zombies(agent.process.pid), "no child is left that nobody waits for")


def _zombies(parent: int) -> list[str]:
    """
    List the children of a process that have ended.

    @param parent: the process.
    @return: their lines in C{/proc}.
    """
    lines = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        # Some end while we look.
        with contextlib.suppress(OSError):
            lines.append(path.read_text())
    return [line for line in lines if f" Z {parent} " in line]


def handedOver(lab: Lab) -> None:
    """
    An agent is killed and started anew, eight times, and its socket is held
    meanwhile by what started it.

    @param lab: the stage.
    """
    host = lab.oneHost()
    manager = lab.closing(Manager())
    agent = lab.agent(host, text=configuration(workers="1"), prefix=manager.prefix())
    manager.waitUntilReady()
    lab.server(host, "mtls")
    mounting = Mounting(host)
    for _time in range(_TIMES):
        time.sleep(_PAUSE)
        mounts = len(mounting.seconds)
        agent.kill()
        agent = lab.agent(
            host,
            text=configuration(workers="1"),
            prefix=manager.prefix(),
            descriptors=manager.held,
        )
        manager.waitUntilReady()
        if "is not used" in agent.log():
            raise Unexpected("expected the agent to use the socket that was held")
        mounting.waitForMore(mounts)
    mounting.finish(lab)
    agent.stop()
    expect("what is held", len(manager.held), 1)
