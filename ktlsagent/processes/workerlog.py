"""
The log of workers.  Each writes its own lines to standard output, where the parent's are.
If the parent logs to something else, which twistd keeps, the workers' standard output
leads to the parent, which logs their events as its own.
"""

from __future__ import annotations

import json
import socket
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import (
    LogEvent,
    Logger,
    LogLevel,
    eventAsText,
    globalLogPublisher,
)
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from ktlsagent.processes.standardlog import Format, StandardLog, asText, standardLog
from ktlsagent.texts import FIELD, fitted, written

_TEXT: Final = 4096
"""Octets of an event's text."""

_KEPT: Final = ("log_namespace", "log_system", "log_time")
"""What goes with an event of what Twisted has added to it."""

_EVENT: Final = b'{"log_format": "{log_text}", '
"""What every line with an event begins with, and nothing else that comes."""

_END_SECONDS: Final = 1.0
"""How long an end may take of which all writers have ended."""


def workerLog(reactor: Any, place: int, *, relayed: bool) -> StandardLog:  # noqa: ANN401 - no type
    """
    Make the observer of a worker.

    @param reactor: the worker's reactor.
    @param place: which of the workers it is.
    @param relayed: whether its standard output leads to the parent.
    @return: the observer.
    """
    form: Format = asJSON if relayed else asText

    def named(event: LogEvent) -> bytes | None:
        system = f"{event['log_namespace']}#{event['log_level'].name}"
        return form({**event, "log_system": f"{system} worker={place}", "worker": place})

    return standardLog(reactor, named)


def asJSON(event: LogEvent) -> bytes | None:
    """
    Write an event as a line: its text, when and where it comes from, and its fields, as
    far as they are numbers and short texts.

    @param event: the event.
    @return: the line.
    """
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    if not text:
        return None
    found = {"log_format": "{log_text}", "log_text": fitted(text, _TEXT)}
    found |= {name: value for name, value in event.items() if _goes(name, value)}
    found["log_level"] = event["log_level"].name
    return json.dumps(found).encode() + b"\n"


def _goes(name: str, value: object) -> bool:
    """Say whether a field of an event goes with it."""
    if name.startswith("log_") and name not in _KEPT:
        return False
    return isinstance(value, int | float) or (
        isinstance(value, str) and len(value) <= FIELD and len(written(value)) <= FIELD
    )


class Relay(LineOnlyReceiver):
    """
    Logs what workers write, each line as an event.

    @ivar ended: fires when nobody can write any more.
    """

    log = Logger()
    delimiter = b"\n"
    MAX_LENGTH = 2**16

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        """
        Log an event.

        @param line: what L{asJSON} has made of it, or what a library has printed.
        """
        if line.startswith(_EVENT):
            event: LogEvent = json.loads(line)
            event["log_level"] = LogLevel.lookupByName(event["log_level"])
            globalLogPublisher(event)
        else:
            text = fitted(line.decode(errors="backslashreplace"))
            self.log.info("a worker has printed {text}", text=written(text))

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002 - nobody wants it
        """
        Drop what is no event.

        @param line: it.
        """
        self._buffer = b""

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002
        """
        Nobody can write any more.

        @param reason: why.
        """
        self.ended.callback(None)


class RelayedOutput:
    """What is the workers' standard output if the parent logs for them."""

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401 - it has no type
        """
        @param reactor: the parent's reactor.
        """
        self._reactor = reactor
        self._relay = Relay()
        near, self._far = socket.socketpair()
        with near:
            near.setblocking(False)
            factory = Factory.forProtocol(lambda: self._relay)
            reactor.adoptStreamConnection(near.fileno(), socket.AF_UNIX, factory)

    def fileno(self) -> int:
        """
        @return: the descriptor to write to.
        """
        return self._far.fileno()

    def close(self) -> Deferred[None]:
        """
        Write nothing more here, and hear those out who have.

        @return: fires when all that they have written is logged, or if they do not end.
        """
        self._far.close()
        self._relay.ended.addTimeout(_END_SECONDS, self._reactor, lambda *_ignored: None)
        return self._relay.ended
