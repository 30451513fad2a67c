"""
Handshake agents on the lab's hosts, ktlsagent and tlshd alike: configured,
started until they listen, read through their log, and stopped.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from tests.kernel.guest.certificates import certificate, privateKey
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.waiting import PATIENCE, Unexpected, expect, until

KTLSAGENT: Final = "ktlsagent"
TLSHD: Final = "tlshd"

LOGS: Final = Path("/tmp/lab/logs")

_COMMANDS: Final = {
    KTLSAGENT: ["python3", "-P", "-m", KTLSAGENT, "--config"],
    TLSHD: ["tlshd", "--stderr", "--config"],
}

_NETLINK_GENERIC: Final = "16"

_STARTING_SECONDS: Final = 60.0
"""Two seconds on a machine of one's own, but with much else going on ..."""


def _preloaded(kind: str) -> list[str]:
    """
    Say what an agent needs on this kernel, see C{asymmetric.c}.

    @param kind: which agent.
    @return: the beginning of its command.
    """
    library = Path("/usr/local/lib/lab/asymmetric.so")
    return ["env", f"LD_PRELOAD={library}"] if kind == TLSHD and library.exists() else []


class Process(Protocol):
    """
    An agent's process: what is used of L{subprocess.Popen}.

    @ivar pid: its PID.
    @ivar returncode: how it ended, once that is known.
    """

    pid: int
    returncode: Any

    def poll(self) -> int | None:
        """Look whether it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal."""

    def kill(self) -> None:
        """End it without a warning."""


@dataclass(frozen=True, slots=True)
class HandshakeLine:
    """
    One handshake as ktlsagent logged it.

    @ivar outcome: C{ok} or C{failed}.
    @ivar fields: what follows, by name.
    """

    outcome: str
    fields: Mapping[str, str]

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return float(self.fields["took"].removesuffix("ms"))

    def expect(self, outcome: str, **wanted: str) -> None:
        """
        Compare.

        @param outcome: C{ok} or C{failed}.
        @param wanted: fields, with underscores in their names for dashes.
        """
        expect(f"outcome of {dict(self.fields)}", self.outcome, outcome)
        for name, value in wanted.items():
            found = self.fields.get(name.replace("_", "-"), "")
            expect(f"{name} of {dict(self.fields)}", found, value)


def configuration(
    client: str | None = "client",
    server: str | None = "server",
    *,
    truststore: str = "ca",
    **own: str,
) -> str:
    """
    Write a configuration file in tlshd's format.

    @param client: certificate for the client's role; L{None} for none.
    @param server: certificate for the server's role; L{None} for none.
    @param truststore: the certificate that both roles trust.
    @param own: keys of ktlsagent's own section.
    @return: the file's text.
    """
    lines = ["[debug]", "loglevel=1"]
    for role, name in (("client", client), ("server", server)):
        lines += [f"[authenticate.{role}]", f"x509.truststore={certificate(truststore)}"]
        if name is not None:
            lines += [f"x509.certificate={certificate(name)}"]
            lines += [f"x509.private_key={privateKey(name)}"]
            # Some are out of date on purpose: it is their peers who are to find out.
            lines += ["own_expired=accept"]
    if own:
        lines += ["[ktlsagent]", *(f"{key}={value}" for key, value in own.items())]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    """
    Stop a process for a while, unless it has ended.

    @param pid: the process.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


class Agent:
    """
    An agent on a host.

    @ivar kind: L{KTLSAGENT} or L{TLSHD}.
    @ivar host: where it runs.
    @ivar process: its process.
    """

    _started = 0

    def __init__(
        self,
        kind: str,
        host: Host,
        text: str,
        prefix: Sequence[str] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        """
        Start it; it listens a while later, L{waitUntilListening}.

        @param kind: which one.
        @param host: where.
        @param text: its configuration file.
        @param prefix: the beginning of its command, as in C{env NAME=VALUE}.
        @param descriptors: what it inherits.
        """
        self._descriptors = descriptors
        Agent._started += 1
        self.kind = kind
        self.host = host
        self._looked = 0
        self.name = f"{Agent._started}-{host.name}-{kind}"
        self.configurationFile = LOGS.parent / f"{self.name}.conf"
        self.configurationFile.write_text(text)
        self._log = LOGS / f"{self.name}.log"
        with self._log.open("wb") as log:
            self.process: Process = self._start(prefix, log)

    def _start(self, prefix: Sequence[str], log: BinaryIO) -> Process:
        """
        Start its process.

        @param prefix: the beginning of its command.
        @param log: where its output goes.
        @return: the process.
        """
        return self.host.start(
            *prefix,
            *_preloaded(self.kind),
            *_COMMANDS[self.kind],
            str(self.configurationFile),
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd="/tmp",
            pass_fds=self._descriptors,
        )

    def log(self) -> str:
        """
        Return everything that it logged so far.

        @return: the text.
        """
        return self._log.read_text(errors="replace")

    @property
    def workers(self) -> dict[str, int]:
        """The process ids of its workers, by their places."""
        found = re.findall(r"\bworker (\d+) is up: process (\d+)", self.log())
        return {place: int(pid) for place, pid in found}

    def handshakes(self) -> list[HandshakeLine]:
        """
        Return ktlsagent's lines about handshakes.

        @return: them, in order.
        """
        matches = re.finditer(r"\bhandshake (ok|failed) (.*)", self.log())
        return [
            HandshakeLine(
                match[1], dict(word.partition("=")[::2] for word in shlex.split(match[2]))
            )
            for match in matches
        ]

    def waitForHandshake(self, number: int = 1) -> HandshakeLine:
        """
        Wait until it has logged so many handshakes.

        @param number: how many.
        @return: the last of these.
        """
        until(lambda: len(self.handshakes()) >= number, f"handshake {number} logged by {self.name}")
        return self.handshakes()[number - 1]

    def nextHandshake(self) -> HandshakeLine:
        """
        Wait for the handshake behind the one looked at last.

        @return: it.
        """
        self._looked += 1
        return self.waitForHandshake(self._looked)

    def lookPast(self) -> None:
        """Pass over what was logged so far: the kernel may try a refused mount again."""
        self._looked = len(self.handshakes())

    def waitForLog(self, pattern: str, since: int = 0) -> str:
        """
        Wait until it has logged something.

        @param pattern: a regular expression of it.
        @param since: where in the log to begin.
        @return: what was logged from there on.
        """
        until(lambda: re.search(pattern, self.log()[since:]), f"{self.name} logs {pattern}:", 30.0)
        return self.log()[since:]

    def reload(self, text: str | None = None) -> str:
        """
        Make it read its configuration anew.

        @param text: the new one, if it is another.
        @return: what it says about that.
        """
        since = len(self.log())
        if text is not None:
            self.configurationFile.write_text(text)
        self.process.send_signal(signal.SIGHUP)
        return self.waitForLog(r"\breload(?: refused\b|: )", since)

    def starts(self) -> int:
        """
        Count how often ktlsagent has said that it is ready.

        @return: how often.
        """
        return len(re.findall(r"\bktlsagent \S+ ready\b", self.log()))

    def _listening(self) -> bool:
        """
        Say whether it has joined a generic netlink group.

        @return: true if so.
        @raise Unexpected: if it has ended.
        """
        if self.process.poll() is not None:
            raise Unexpected(f"{self.name} ended with {self.process.returncode}:\n{self.log()}")
        if self.kind == KTLSAGENT:
            return self.starts() > 0
        directory = Path(f"/proc/{self.process.pid}")
        rows = [row.split() for row in (directory / "net/netlink").read_text().splitlines()[1:]]
        joined = {
            f"socket:[{row[-1]}]" for row in rows if row[1] == _NETLINK_GENERIC and int(row[3], 16)
        }
        held = set()
        for path in (directory / "fd").iterdir():
            # Some are closed while we look.
            with contextlib.suppress(FileNotFoundError):
                held.add(os.readlink(path))
        return bool(held & joined)

    def waitUntilListening(self) -> None:
        """Wait until the kernel can ask it."""
        until(self._listening, f"{self.name} listens", _STARTING_SECONDS)

    def waitUntilEnded(self) -> int:
        """
        Wait until it has ended by itself.

        @return: its exit status.
        """
        try:
            return self.process.wait(40.0 * PATIENCE)
        except subprocess.TimeoutExpired:
            raise Unexpected(f"{self.name} does not end") from None

    def restartInPlace(self) -> None:
        """Have ktlsagent start again in the same process, and wait until it has."""
        before = self.starts()
        self.process.send_signal(signal.SIGUSR2)
        until(lambda: self.starts() > before, f"{self.name} has started again", _STARTING_SECONDS)

    def kill(self) -> None:
        """End it without a warning."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """
        Ask it to end, and look at its books.

        @raise Unexpected: if it does not end well, or owes or holds something.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(20.0 * PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Unexpected(f"{self.name} did not end after SIGTERM") from None
        # tlshd 1.0.0 does not handle the signal.
        if status and not (self.kind == TLSHD and status == -signal.SIGTERM):
            raise Unexpected(f"{self.name} ended with status {status}, expected 0")
        if self.kind == KTLSAGENT:
            self._checkBooks()

    def _checkBooks(self) -> None:
        """
        Look at the lines that ktlsagent logs whenever it has stopped.

        @raise Unexpected: if there is none, or anything is not zero.
        """
        lines = re.findall(r"\bstopped: (.*)", self.log())
        if not lines:
            raise Unexpected(f"{self.name} logged no ledger when it stopped")
        for line in lines:
            books = {name: int(value) for name, value in (word.split("=") for word in line.split())}
            held = {
                name: count for name, count in books.items() if name not in {"accepted", "answered"}
            }
            if books["accepted"] != books["answered"] or any(held.values()):
                raise Unexpected(f"{self.name}: the ledger is not balanced: {line}")
