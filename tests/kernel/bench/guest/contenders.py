"""The agents that are compared, each in a control group of its own."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from tests.kernel.bench.guest.accounts import Account
from tests.kernel.bench.guest.keys import certificate, privateKey, trustStore
from tests.kernel.guest.agents import KTLSAGENT, TLSHD, Agent, Process
from tests.kernel.guest.hosts import Host

FLOOR: Final = "floor"
ALL: Final = (KTLSAGENT, TLSHD, FLOOR)

PROGRAMS: Final = Path("/usr/local/lib/lab")
"""Where the root file system has the programs of the measurements."""


@dataclass(frozen=True, slots=True)
class Setting:
    """
    What an agent is configured with.

    @ivar keys: the kind of its keys and certificates.
    @ivar trust: C{small} or C{system}.
    @ivar workers: how many processes serve, for an agent that can choose.
    """

    keys: str = "ecdsa"
    trust: str = "small"
    workers: int = 1

    def configuration(self, kind: str) -> str:
        """
        Write it as a file in tlshd's format.

        @param kind: for which agent.
        @return: the file's text.
        """
        postQuantum = "pq." if self.keys == "mldsa" and kind == TLSHD else ""
        lines = []
        for role in ("client", "server"):
            lines += [
                f"[authenticate.{role}]",
                f"x509.truststore={trustStore(self.keys, self.trust)}",
                f"x509.{postQuantum}certificate={certificate(self.keys, role)}",
                f"x509.{postQuantum}private_key={privateKey(self.keys, role)}",
            ]
        if kind == KTLSAGENT:
            lines += ["[ktlsagent]", f"workers={self.workers}"]
        return "\n".join(lines) + "\n"


class Contender(Agent):
    """
    An agent in a control group.

    @ivar account: the group.
    @ivar port: where its NFS server is.
    @ivar began: the clock (C{CLOCK_MONOTONIC}) when it was started.
    """

    def __init__(
        self,
        kind: str,
        host: Host,
        setting: Setting,
        prefix: Sequence[str] = (),
        port: int = 2049,
    ) -> None:
        """
        Start it; it listens a while later.

        @param kind: which.
        @param host: where.
        @param setting: its configuration.
        @param prefix: the beginning of its command.
        @param port: where its NFS server is.
        """
        self._setting = setting
        self.account = Account()
        self.port = port
        self.began = time.monotonic()
        super().__init__(kind, host, setting.configuration(kind), (*self.account.prefix, *prefix))

    def _start(self, prefix: Sequence[str], log: BinaryIO) -> Process:
        if self.kind != FLOOR:
            return super()._start(prefix, log)
        keys = self._setting.keys
        files = [trustStore(keys, self._setting.trust)]
        files += [certificate(keys, "server"), privateKey(keys, "server")]
        command = (*prefix, str(PROGRAMS / FLOOR), *files)
        return self.host.start(*command, stdout=log, stderr=log, cwd="/tmp")

    def resident(self) -> dict[str, int]:
        """
        Read how much memory its first process has.

        @return: C{resident}, and C{proportional}, its share of what several have, in octets.
        """
        rows = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()[1:]
        values = {row.partition(":")[0]: int(row.split()[1]) << 10 for row in rows}
        return {"resident": values["Rss"], "proportional": values["Pss"]}

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
