"""Agents that are restarted while somebody mounts all the time: no mount fails."""

from __future__ import annotations

import errno
import threading
import time

from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import Mount, MountRefused
from tests.kernel.guest.waiting import Unexpected

_PAUSE = 0.1
_TIMES = 8
_LEAST_MOUNTS = 8

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

    def finish(self, lab: Lab) -> None:
        """
        Stop, and look at what happened.

        @param lab: gets the figures.
        @raise Unexpected: if a mount failed, or there were hardly any.
        """
        self._ended.set()
        self._thread.join()
        times = sorted(self.seconds)
        lab.facts["mounts"] = len(times)
        lab.facts["failed"] = self.failures
        if times:
            lab.facts["mount-s"] = {
                "p50": round(times[len(times) // 2], 2),
                "max": round(times[-1], 2),
            }
        if self.failures or len(times) < _LEAST_MOUNTS:
            raise Unexpected(f"expected mounts without a failure, found {lab.facts}")


def inPlace(lab: Lab) -> None:
    """
    An agent is started again in the same process, as for an upgrade, eight times.

    @param lab: the stage.
    """
    host = lab.oneHost()
    agent = lab.agent(host)
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
