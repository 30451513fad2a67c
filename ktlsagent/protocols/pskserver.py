"""
The server's side of a handshake with an external pre-shared key.

OpenSSL chooses the cipher suite before it looks for the key, and passes over a
key whose hash is not the suite's.  So the ClientHello is looked into first:
the first identity whose key we have decides the suites.

Who asks for identities learns nothing about them: whether there is no key for one, it
cannot be used, or the client has another one, the client gets the same alert, after the
same steps (RFC 8446, section 6.2; RFC 4279, section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ktlsagent.errors import (
    HandshakeError,
    KeyUnusable,
    PeerAlert,
    PeerMisbehaved,
    PeerRejected,
)
from ktlsagent.protocols.context import TLSContext
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.failures import ALERTS, NO_SHARED_CIPHER
from ktlsagent.protocols.interfaces import Engine, EngineState, TLSParameters
from ktlsagent.protocols.psk import (
    SHA256,
    TOO_MANY_IDENTITIES,
    HelloReader,
    PreSharedKey,
    isGenerated,
    quoteIdentity,
)
from ktlsagent.protocols.record import AlertDescription, plainAlert
from ktlsagent.protocols.session import EstablishedSession, Role

_NOBODYS_BITS = 256
_ALERTS = {
    "decode-error": AlertDescription.DECODE_ERROR,
    TOO_MANY_IDENTITIES: AlertDescription.ILLEGAL_PARAMETER,
    "unexpected-message": AlertDescription.UNEXPECTED_MESSAGE,
}
"""What a client is told whose ClientHello is none for us, by the error's code."""

LookUp = Callable[[Sequence[bytes]], PreSharedKey]
"""
Finds the first of the offered identities that is known.  Raises L{KeyUnusable}
if there is none, and other L{HandshakeError}s.
"""


@dataclass(frozen=True, slots=True)
class PreSharedKeyParameters:
    """
    How a server's handshake with a pre-shared key is to be run.

    @ivar contexts: a context without certificates for each hash.
    @ivar lookUp: finds the key.
    @ivar alert: what a client is told whose identity is not known, or whose key is another
        one: it does not learn which.
    """

    contexts: Mapping[str, TLSContext]
    lookUp: LookUp
    alert: AlertDescription = AlertDescription.DECRYPT_ERROR


def engineFor(parameters: TLSParameters | PreSharedKeyParameters) -> Engine:
    """
    Make the engine for a handshake.

    @param parameters: how it is to be run.
    @return: a new engine.
    """
    if isinstance(parameters, TLSParameters):
        return TLSEngine(parameters)
    return PreSharedKeyServer(parameters)


class PreSharedKeyServer:
    """
    One handshake; driven as a L{TLSEngine} is, with the same attributes.

    @ivar identities: what the client offers.
    @ivar slow: see L{TLSEngine}; nothing is signed here.
    @ivar awaitsTicket: see L{TLSEngine}; a server gets none.
    """

    slow = False
    awaitsTicket = False

    def __init__(self, parameters: PreSharedKeyParameters) -> None:
        """
        @param parameters: how it is to be run.
        """
        self.identities: tuple[bytes, ...] = ()
        self._parameters = parameters
        self._hello = HelloReader()
        self._records: list[bytes] = []
        self._engine: TLSEngine | None = None
        self._error: HandshakeError | None = None
        self._alertSent: int | None = None

    def start(self) -> bytes:
        """See L{TLSEngine.start}."""
        return b""

    def receiveRecord(self, record: bytes) -> bytes:
        """See L{TLSEngine.receiveRecord}."""
        if self._engine is not None:
            return self._engine.receiveRecord(record)
        if self._error is not None:
            raise ValueError("a record after the end of the handshake")
        self._records.append(record)
        try:
            offered = self._hello.feed(record)
        except PeerMisbehaved as error:
            return self._refuse(error, _ALERTS[error.code])
        if offered is None:
            return b""
        if not offered:
            return self._refuse(_noKey(), AlertDescription.HANDSHAKE_FAILURE)
        self.identities = tuple(offered)
        try:
            engine = self._engineWith(self._choose(offered))
        except HandshakeError as error:
            return self._pretend(error)
        self._engine = engine
        return self._oneAlert(engine, self._begin(engine))

    def takeTicket(self, _record: bytes) -> bool:
        """See L{TLSEngine.takeTicket}."""
        return False

    def refusalIn(self, record: bytes) -> PeerAlert | None:
        """See L{TLSEngine.refusalIn}."""
        return None if self._engine is None else self._engine.refusalIn(record)

    def giveUp(self, error: HandshakeError) -> bytes:
        """See L{TLSEngine.giveUp}."""
        if self._engine is not None:
            return self._engine.giveUp(error)
        if self._error is not None:
            return b""
        return self._refuse(error, ALERTS.get(error.code, AlertDescription.INTERNAL_ERROR))

    @property
    def state(self) -> EngineState:
        """See L{TLSEngine}."""
        if self._engine is not None:
            return self._engine.state
        return EngineState.NEED_RECORD if self._error is None else EngineState.FAILED

    @property
    def error(self) -> HandshakeError | None:
        """See L{TLSEngine}."""
        return self._error if self._engine is None else self._engine.error

    @property
    def session(self) -> EstablishedSession | None:
        """See L{TLSEngine}."""
        return None if self._engine is None else self._engine.session

    @property
    def alertSent(self) -> int | None:
        """See L{TLSEngine}."""
        if self._alertSent is not None or self._engine is None:
            return self._alertSent
        return self._engine.alertSent

    @property
    def alertReceived(self) -> int | None:
        """See L{TLSEngine}."""
        return None if self._engine is None else self._engine.alertReceived

    @property
    def presentedCertificate(self) -> x509.Certificate | None:
        """There are no certificates here."""
        return None

    def _choose(self, offered: list[bytes]) -> PreSharedKey:
        """Find the key, which has to be for the hash that the client takes it to be for."""
        key = self._parameters.lookUp(offered)
        taken = self._hello.hashes[offered.index(key.identity)]
        if taken != key.hash:
            raise PeerRejected(
                "wrong-hash",
                f"expected a client that takes the key for {quoteIdentity(key.identity)} to be "
                f"for {key.hash}, found one that takes it to be for {taken or 'another hash'}",
            )
        return key

    def _engineWith(self, key: PreSharedKey) -> TLSEngine:
        context = self._parameters.contexts.get(key.hash)
        if context is None:
            raise KeyUnusable(
                "no-suite",
                f"expected a cipher suite with {key.hash} that is enabled and that the kernel "
                f"takes, found none for {quoteIdentity(key.identity)}",
            )
        return TLSEngine(
            TLSParameters(Role.SERVER, context, None, lambda _chain: None, preSharedKey=key)
        )

    def _begin(self, engine: TLSEngine) -> bytes:
        """Give it all of the ClientHello at once: one by one, each record would be a step."""
        return engine.start() + engine.receiveRecord(b"".join(self._records))

    def _pretend(self, error: HandshakeError) -> bytes:
        """
        Refuse the client as if its identity were known and its key the wrong one, down to
        the time that it takes: with a key that nobody has.
        """
        identity, taken = self.identities[0], self._hello.hashes[0] or SHA256
        nobodys = PreSharedKey(identity, AESGCM.generate_key(_NOBODYS_BITS), taken, 0)
        alert = self._alert
        try:
            engine = self._engineWith(nobodys)
        except KeyUnusable:
            return self._refuse(error, alert)
        output = self._oneAlert(engine, self._begin(engine))
        if engine.alertSent is None:
            engine.giveUp(error)
            return self._refuse(error, alert)
        self._error = error
        if self._alertSent is None:
            self._alertSent = engine.alertSent
        return output

    @property
    def _alert(self) -> AlertDescription:
        """What a client is told that has no key of ours; what it has offered decides alone."""
        if isGenerated(self.identities[0]):
            return AlertDescription.UNKNOWN_PSK_IDENTITY
        return self._parameters.alert

    def _oneAlert(self, engine: TLSEngine, output: bytes) -> bytes:
        """Tell who has another key what is told to who has none."""
        error = engine.error
        # Of several identities that have different hashes, the one that is known chooses the
        # suites: that none is shared would tell which one it is.
        telling = len(self.identities) > 1 and error and NO_SHARED_CIPHER in error.reason
        if error is None or (error.code != "wrong-key" and not telling):
            return output
        self._alertSent = self._alert
        return plainAlert(self._alert)

    def _refuse(self, error: HandshakeError, alert: AlertDescription) -> bytes:
        self._error = error
        self._alertSent = alert
        return plainAlert(alert)


def _noKey() -> PeerMisbehaved:
    return PeerMisbehaved(
        "no-psk", "expected a client that offers a pre-shared key, found one without"
    )
