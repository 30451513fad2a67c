"""The agents that are compared, each in a control group of its own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from tests.kernel.bench.guest.accounts import Account
from tests.kernel.bench.guest.keys import certificate, privateKey, trustStore
from tests.kernel.guest.agents import KTLSAGENT, TLSHD, Agent, Process
from tests.kernel.guest.hosts import Host

FLOOR: Final = "floor"

REALTIME: Final = ("chrt", "--rr", "2")
"""How ktlsagent's unit has it scheduled: C{CPUSchedulingPolicy=rr}, C{CPUSchedulingPriority=2}."""

PROGRAMS: Final = Path("/usr/local/lib/lab")
"""Where the root file system has the programs of the measurements."""


@dataclass(frozen=True, slots=True)
class Setting:
    """
    What an agent is configured with.

    @ivar keys: the kind of its keys and certificates.
    @ivar trust: C{small} or C{system}.
    """

    keys: str = "ecdsa"
    trust: str = "small"

    def configuration(self, way: Way) -> str:
        """
        Write it as a file in tlshd's format.

        @param way: for which agent.
        @return: the file's text.
        """
        postQuantum = "pq." if self.keys == "mldsa" and way.kind == TLSHD else ""
        lines = []
        for role in ("client", "server"):
            lines += [
                f"[authenticate.{role}]",
                f"x509.truststore={trustStore(self.keys, self.trust)}",
                f"x509.{postQuantum}certificate={certificate(self.keys, role)}",
                f"x509.{postQuantum}private_key={privateKey(self.keys, role)}",
            ]
        if way.kind == KTLSAGENT:
            lines += ["[ktlsagent]", f"workers={way.workers}"]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Way:
    """
    How a contender is run.

    @ivar kind: which agent it is.
    @ivar prefix: the beginning of its command.
    @ivar workers: how many processes serve, for an agent that can choose.
    """

    kind: str
    prefix: tuple[str, ...] = REALTIME
    workers: int = 1


WAYS: Final = {
    KTLSAGENT: Way(KTLSAGENT),
    "ktlsagent-2w": Way(KTLSAGENT, workers=2),
    TLSHD: Way(TLSHD, ()),
    "tlshd-rr": Way(TLSHD),
    FLOOR: Way(FLOOR),
}
"""
All contenders by their names.  ktlsagent and tlshd are scheduled as their units say; the
floor is as ktlsagent is, as it is to show what that could be at best; and tlshd is shown
as it would be if its unit said the same.
"""


class Contender(Agent):
    """
    An agent in a control group.

    @ivar contender: its name among L{WAYS}.
    @ivar account: the group.
    @ivar port: where its NFS server is.
    @cvar realtime: whether it may go before all that connects to it.
    """

    realtime = True

    def __init__(
        self,
        contender: str,
        host: Host,
        setting: Setting,
        prefix: Sequence[str] = (),
        port: int = 2049,
    ) -> None:
        """
        Start it; it listens a while later.

        @param contender: its name.
        @param host: where.
        @param setting: its configuration.
        @param prefix: the beginning of its command, behind what its way of running needs.
        @param port: where its NFS server is.
        """
        way = WAYS[contender]
        self._setting = setting
        self.contender = contender
        self.account = Account()
        self.port = port
        scheduled = way.prefix if self.realtime else ()
        command = (*scheduled, *self.account.prefix, *prefix)
        super().__init__(way.kind, host, setting.configuration(way), command)

    def _start(self, prefix: Sequence[str], log: BinaryIO) -> Process:
        if self.kind != FLOOR:
            return super()._start(prefix, log)
        keys = self._setting.keys
        files = [trustStore(keys, self._setting.trust)]
        files += [certificate(keys, "server"), privateKey(keys, "server")]
        command = (*prefix, str(PROGRAMS / FLOOR), *files)
        return self.host.start(*command, stdout=log, stderr=log, cwd="/tmp")

    @property
    def began(self) -> float:
        """The clock (C{CLOCK_MONOTONIC}) when the agent itself was executed."""
        return self.account.entered()

    def resident(self) -> dict[str, int]:
        """
        Read how much memory all its processes have.

        @return: see L{Account.resident}.
        """
        return self.account.resident()

    def stop(self) -> None:
        """Ask it to end; ktlsagent's books have to be balanced, the others have none."""
        if self.process.returncode is not None:
            return
        if self.kind == KTLSAGENT:
            super().stop()
        else:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20.0)
        with contextlib.suppress(OSError):
            # A child may not have ended yet.
            self.account.close()

    close = stop
