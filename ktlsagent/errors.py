"""
What can go wrong, by whose fault it is, and the one table from errors to the
status that the kernel is given.

A C{DONE} status is a positive errno (C{net/handshake/netlink.c}).  What its
receivers make of it: the NFS client keeps EACCES (fatal, also on hard mounts)
and ETIMEDOUT (retried without pause), everything else becomes EACCES; nfsd
closes the connection whatever it is; an NVMe host ends its retries on ENOKEY
and EKEYREJECTED.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass


class AgentError(Exception):
    """
    The base of all errors that this package raises on purpose.  Any other
    exception is a bug.
    """


@dataclass(frozen=True, slots=True)
class Mistake:
    """
    One thing that is wrong in a configuration.

    @ivar section: the section's name, without brackets; empty if there is none.
    @ivar key: the key's name; empty if the mistake is not about one key.
    @ivar expected: what would have been right, in words.
    @ivar found: what is there, in words.
    @ivar line: the line number in the file, 0 if it is not known.
    @ivar advice: what to do, in words; may be empty.
    @ivar file: the file, if there are several; else empty.
    """

    section: str
    key: str
    expected: str
    found: str
    line: int = 0
    advice: str = ""
    file: str = ""

    def __str__(self) -> str:
        places = (self.file, f"line {self.line}" if self.line else "")
        where = ", ".join(filter(None, places)) + ": " if any(places) else ""
        section = f"[{self.section}] " if self.section else ""
        key = f"{self.key}: " if self.key else ""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{where}{section}{key}expected {self.expected}, found {self.found}{advice}"


class ConfigError(AgentError):
    """
    The configuration cannot be used; all its mistakes at once.

    @ivar mistakes: the mistakes, in the order of the file.
    """

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = tuple(mistakes)


class StartError(AgentError):
    """
    The agent cannot work here: the message says what is missing and what to do.
    """


class NetlinkError(AgentError):
    """
    The kernel refused a netlink request or sent something that is no answer.

    @ivar errno: the kernel's errno, or C{EBADMSG} for a malformed message.
    """

    def __init__(self, operation: str, number: int, detail: str = "") -> None:
        name = errno.errorcode.get(number, str(number))
        super().__init__(f"{operation}: {name}{': ' + detail if detail else ''}")
        self.operation = operation
        self.errno = number


class OutOfDescriptors(AgentError):
    """There is no room for one more descriptor in this process or system."""


class MalformedRequest(AgentError):
    """
    An accepted request cannot be read, but has to be answered.

    @ivar descriptor: its descriptor.
    @ivar keyring: serial of the keyring that the kernel linked for it, if any.
    """

    def __init__(self, descriptor: int, reason: str, keyring: int | None = None) -> None:
        super().__init__(reason)
        self.descriptor = descriptor
        self.keyring = keyring


class HandshakeError(AgentError):
    """
    A handshake that ends without a session.

    @ivar code: a short stable name of the cause, for logs and for machines.
    @ivar reason: the cause in words: what was expected, what was found.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class RequestRefused(HandshakeError):
    """The configuration or the request itself does not allow a handshake."""


class RequestUnsupported(HandshakeError):
    """The kernel asks for something that this agent cannot do."""


class KeyUnusable(HandshakeError):
    """A key that the request needs is not there, or cannot be used."""


class KeyForbidden(HandshakeError):
    """A key that the request needs may not be read by this process."""


class NotYet(HandshakeError):
    """Something of our own cannot be used now; it may another time."""


class TokenFailed(NotYet):
    """A token that holds a private key is not there or does not sign; it may another time."""


class TokenLost(TokenFailed):
    """A token can be used by a new process only: this one has lost it, or came too early."""


class PeerRejected(HandshakeError):
    """The peer's certificate was judged and found wanting."""


class PeerMisbehaved(HandshakeError):
    """The peer does not speak TLS 1.3, or not as it should."""


class PeerAlert(HandshakeError):
    """
    The peer ended the handshake with an alert.

    @ivar alert: the alert's number (RFC 8446, section 6).
    """

    def __init__(self, code: str, reason: str, alert: int) -> None:
        super().__init__(code, reason)
        self.alert = alert


class PeerClosed(HandshakeError):
    """The connection ended in mid-handshake."""


class PeerLeft(PeerClosed):
    """The connection ended as soon as the handshake was over."""


class DeadlineExpired(HandshakeError):
    """The time that the kernel allows was used up."""


class SessionUnusable(HandshakeError):
    """The handshake succeeded, but its keys cannot be given to the kernel."""


_ALERT_UNKNOWN_PSK_IDENTITY = 115

STATUS: dict[type[BaseException], int] = {
    RequestRefused: errno.EACCES,
    RequestUnsupported: errno.EOPNOTSUPP,
    KeyUnusable: errno.ENOKEY,
    KeyForbidden: errno.EACCES,
    NotYet: errno.ETIMEDOUT,
    PeerRejected: errno.EACCES,
    PeerMisbehaved: errno.EACCES,
    PeerAlert: errno.EACCES,
    PeerClosed: errno.ETIMEDOUT,
    DeadlineExpired: errno.ETIMEDOUT,
    SessionUnusable: errno.EIO,
}
"""What the kernel is told; a type that is not here is C{EIO}."""


def statusOf(error: BaseException) -> int:
    """
    Say what the kernel is told about a failed handshake.

    @param error: why it failed; any exception, also a bug's.
    @return: a positive errno, never 0.
    """
    if isinstance(error, PeerAlert) and error.alert == _ALERT_UNKNOWN_PSK_IDENTITY:
        return errno.EKEYREJECTED
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), errno.EIO)


def forgetWay(error: BaseException) -> None:
    """
    Take the tracebacks out of an exception and of those that led to it.  Their frames
    hold all of the handshake, OpenSSL's buffers too, and that holds the exception: it
    would stay until garbage is looked for.

    @param error: the exception, of which nobody wants to know any more where it came from.
    """
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
