"""The one log event of a handshake: what was asked, what came out, and why."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from twisted.logger import Logger
from twisted.python.failure import Failure

from ktlsagent.bugs import logBug
from ktlsagent.errors import AgentError, HandshakeError, forgetWay
from ktlsagent.policy import modeName, roleOf
from ktlsagent.profiles import Endpoint
from ktlsagent.protocols.handshakefamily import HandshakeRequest
from ktlsagent.protocols.psk import listIdentities
from ktlsagent.protocols.record import alertName
from ktlsagent.protocols.verification import describeSubject
from ktlsagent.texts import FIELD, fitted, written

if TYPE_CHECKING:
    from ktlsagent.protocols.interfaces import Engine
    from ktlsagent.protocols.session import EstablishedSession

_NOTHING = "-"
_ONLY_OK = ("version", "suite", "group", "alpn", "resumed", "tags")
_ONLY_FAILED = ("code", "alert-sent", "alert-received", "reason")
"""Fields that the text of the other outcome does without; the event has them all."""
_IF_ANY = ("identity", "alpn", "resumed", "tags")
"""Fields that the text does without if there is nothing in them."""
_BUG = "internal-error"

_LINE = 3840
"""
Octets of the text at the most.  With what a log has before it that is less than 4 kB,
which syslog, the journal and pipes take in one piece.
"""


class Report:
    """
    Collects what is known about one request and writes it as one event.

    No field ever holds key material, and none is longer than L{FIELD} as it is
    written: a peer, or who has mounted, chooses many of them.

    @ivar engine: the handshake's engine, once there is one.
    @ivar session: the session, if there is one.
    @ivar peer: the other end of the connection, if it is known.
    @ivar profile: the profile that the request is served by, once that is known.
    @ivar tags: the session tags that the peer gets.
    """

    def __init__(self, request: HandshakeRequest, started: float) -> None:
        """
        @param request: the kernel's request.
        @param started: when it was accepted, in the clock's seconds.
        """
        self.engine: Engine | None = None
        self.session: EstablishedSession | None = None
        self._request = request
        self._started = started
        self.peer: Endpoint | None = None
        self.profile: str | None = None
        self.tags: Sequence[str] = ()
        self._error: Exception | None = None
        self._notes: list[str] = []

    def failed(self, error: Exception) -> None:
        """
        Note why there is no session.

        @param error: the reason; any exception that is not ours is a bug.
        """
        self._error = error

    def note(self, text: str) -> None:
        """
        Note something that went wrong beside the handshake.

        @param text: what, in words.
        """
        self._notes.append(text)

    def write(self, log: Logger, status: int, now: float) -> None:
        """
        Write the event: at the level info if there is a session, error if
        there is none; a bug with its traceback as well.  Of any other error
        nobody wants to know any more where it came from.

        @param log: where to.
        @param status: what the kernel was told.
        @param now: the time, in the clock's seconds.
        """
        fields = self._fields(status, now)
        outcome, hidden = ("ok", _ONLY_FAILED) if self._error is None else ("failed", _ONLY_OK)
        shown = [
            name
            for name, value in fields.items()
            if name not in hidden and (name not in _IF_ANY or value != _NOTHING)
        ]
        line = _line(fields, shown)
        most = _LINE - len("handshake failed ")
        if len(line) > most:
            lengths = [len(written(fields[name])) for name in shown]
            level = _level(lengths, most - (len(line) - sum(lengths)))
            fields = {name: fitted(value, level) for name, value in fields.items()}
            line = _line(fields, shown)
        event = {name.replace("-", "_"): value for name, value in fields.items()}
        if self._error is None:
            log.info("handshake {outcome} {line}", outcome=outcome, line=line, **event)
            return
        log.error("handshake {outcome} {line}", outcome=outcome, line=line, **event)
        if not isinstance(self._error, AgentError):
            logBug(log, Failure(self._error))
        forgetWay(self._error)

    def _fields(self, status: int, now: float) -> dict[str, str]:
        """List all fields, in the order of the line; what is not known is C{-}."""
        role = roleOf(self._request)
        name = self._request.peerName
        session = self.session
        subject, fingerprint = self._certificate()
        sent = None if self.engine is None else self.engine.alertSent
        received = None if self.engine is None else self.engine.alertReceived
        fields = {
            "code": self._code(),
            "role": None if role is None else role.value,
            "profile": self.profile,
            "peer": self._peer(),
            "name": None if name is None else name.decode("utf-8", "backslashreplace"),
            "mode": modeName(self._request),
            "identity": self._identities(),
            "version": session and "TLSv1.3",
            "suite": session and session.suite.name,
            "group": session and session.group,
            "alpn": session and session.alpn,
            "resumed": "yes" if session and session.resumed else None,
            "subject": subject,
            "fingerprint": fingerprint,
            "tags": ",".join(self.tags) or None,
            "took": f"{(now - self._started) * 1000:.1f}ms",
            "status": errno.errorcode.get(status, str(status)) if status else "0",
            "alert-sent": None if sent is None else alertName(sent),
            "alert-received": None if received is None else alertName(received),
            "reason": self._error and (str(self._error) or type(self._error).__name__),
        }
        if self._notes:
            fields["note"] = "; ".join(self._notes)
        return {
            name: _NOTHING if value is None else fitted(str(value))
            for name, value in fields.items()
        }

    def _peer(self) -> str | None:
        """The peer's address and port."""
        if self.peer is None:
            return None
        address = self.peer.address
        host = f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004
        return f"{host}:{self.peer.port}"

    def _identities(self) -> str | None:
        """The PSK identities that were offered or asked for."""
        if self.engine is None or not self.engine.identities:
            return None
        return listIdentities(self.engine.identities)

    def _code(self) -> str | None:
        if self._error is None:
            return None
        return self._error.code if isinstance(self._error, HandshakeError) else _BUG

    def _certificate(self) -> tuple[str | None, str | None]:
        """Subject and fingerprint of the peer's certificate, also of one that was refused."""
        if self.session is not None and self.session.peerCertificate is not None:
            return _described(self.session.peerCertificate)
        if self.engine is not None and self.engine.presentedCertificate is not None:
            return _described(self.engine.presentedCertificate)
        return None, None


def _line(fields: Mapping[str, str], shown: Sequence[str]) -> str:
    """Write some of the fields."""
    return " ".join(f"{name}={written(fields[name])}" for name in shown)


def _level(lengths: Sequence[int], most: int) -> int:
    """
    Find the length to which the longest of some fields have to be cut, so that all
    have room: the short ones, which nobody else chooses, stay whole.

    @param lengths: how long they are, each at most L{FIELD}.
    @param most: how long they may be together; it is less.
    @return: how long each may be.
    """
    level = FIELD
    for place, length in enumerate(sorted(lengths)):
        level = most // (len(lengths) - place)
        if length > level:
            break
        most -= length
    return level


def _described(certificate: x509.Certificate) -> tuple[str, str]:
    """Say whose a certificate is, and which: its subject and its fingerprint."""
    return describeSubject(certificate), certificate.fingerprint(SHA256()).hex()
