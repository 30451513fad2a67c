"""
What handshakes of one kind share: an OpenSSL context with certificate, trust
store, suites and groups, built once and used by all.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography import x509
from OpenSSL import SSL, crypto

from ktlsagent.protocols import callbacks, openssl
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.psk import PreSharedKey
from ktlsagent.protocols.session import Demand, Role
from ktlsagent.protocols.tickets import LIFETIME_SECONDS, Tickets
from ktlsagent.protocols.verification import V_UNSPECIFIED, describeSubject

if TYPE_CHECKING:
    from ktlsagent.protocols.engine import TLSEngine

_NO_AUTO_CHAIN = 0x8
"""
C{SSL_MODE_NO_AUTO_CHAIN} of C{openssl/ssl.h}: what is in our file is sent.  Else
OpenSSL looks for CAs in the trust store, at each handshake, and sends those, too.
"""

_NO_COMPRESSION = 1 << 32 | 1 << 33
"""
C{SSL_OP_NO_TX_CERTIFICATE_COMPRESSION} and C{SSL_OP_NO_RX_CERTIFICATE_COMPRESSION} of
C{openssl/ssl.h}.  To unpack what somebody has packed who is not known yet (RFC 8879) costs
more than the octets that it spares.
"""

SUNRPC = b"sunrpc"
"""The protocol of RPC-with-TLS in ALPN (RFC 9289, section 5)."""

_SESSION_ID_CONTEXT = b"ktlsagent"


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """
    A certificate that we can prove to own.

    @ivar chain: the certificate, then the CA certificates to send with it.
    @ivar key: its private key.
    @ivar slow: whether the key is outside the process, and so takes its
        time to sign.
    """

    chain: tuple[crypto.X509, ...]
    key: crypto.PKey = field(repr=False)
    slow: bool = False


class TLSContext:
    """
    A context for TLS 1.3 handshakes that end in kTLS.

    @ivar hasCertificate: whether it has a certificate of our own to show.
    @ivar slow: whether the key of one of those is outside the process.
    @ivar alpn: whether both sides have to agree on L{SUNRPC} by ALPN.
    @ivar store: the CAs and CRLs that peers are judged by, if there are any.
    @ivar tolerated: the C{X509_V_ERR_*} for which peers are not refused.
    @ivar tickets: the tickets of its sessions, if they can be resumed.
    """

    def __init__(  # noqa: PLR0913 - all by name
        self,
        *,
        suites: Sequence[str],
        groups: Sequence[str],
        store: crypto.X509Store | None = None,
        own: Sequence[OwnCertificate] = (),
        role: Role = Role.SERVER,
        signatureAlgorithms: Sequence[str] = (),
        alpn: Demand = Demand.OFF,
        tolerated: frozenset[int] = frozenset(),
        certificateRequired: bool = False,
        tickets: Tickets | None = None,
    ) -> None:
        """
        @param store: the CAs and CRLs that peers are judged by; may be
            shared.  Without it peers have to know a pre-shared key.
        @param own: our certificates, if there are any, with keys of different
            types; the peer's signature algorithms decide between them.
        @param role: our side; it matters with a pre-shared key.
        @param suites: names of the cipher suites, most wanted first.
        @param groups: names of the groups that OpenSSL has, most wanted first;
            if empty, OpenSSL's own choice.
        @param signatureAlgorithms: names of the signature algorithms that
            OpenSSL has, most wanted first; if empty, OpenSSL's own choice.
        @param alpn: whether L{SUNRPC} is offered and selected by ALPN.  A peer
            that does not use ALPN is refused only if it is required.
        @param tolerated: the C{X509_V_ERR_*} for which peers are not refused.
            With L{CHAIN_ERRORS<verification.CHAIN_ERRORS>} nothing is asked
            of CA certificates, and the judge alone knows the peer.
        @param certificateRequired: whether a client without a certificate is
            refused.
        @param tickets: keeps the tickets of sessions, so that they can be
            resumed; with certificates only, and by no other context.
        @raise SSL.Error: if certificate and key do not belong together.
        @raise ValueError: if OpenSSL does not take the suites, groups or
            signature algorithms, or if two certificates have keys of the same
            type.
        """
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_max_proto_version(SSL.TLS1_3_VERSION)
        # What is made is not sent if it is not wanted (see TLSEngine).
        openssl.setTickets(context, 0 if tickets is None else 1)
        if tickets is None:
            # Where they are made all the same, this makes them cheap.
            context.set_options(SSL.OP_NO_TICKET)
        else:
            context.set_timeout(LIFETIME_SECONDS)
        context.set_options(_NO_COMPRESSION)
        context.set_mode(_NO_AUTO_CHAIN)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        if role is Role.SERVER:
            context.set_session_id(_SESSION_ID_CONTEXT)
        openssl.setCipherSuites(context, suites)
        if groups and not openssl.setGroups(context, groups):
            raise ValueError("OpenSSL does not take the groups " + ", ".join(groups))
        if signatureAlgorithms and not openssl.setSignatureAlgorithms(context, signatureAlgorithms):
            raise ValueError(
                "OpenSSL does not take the signature algorithms " + ", ".join(signatureAlgorithms)
            )
        if store is None:
            callbacks.setPreSharedKeys(context, _offered, _found)
        else:
            openssl.shareStore(context, store)
        _checkKeyTypes(own)
        for certificate in own:
            openssl.addCertificate(context, certificate.chain, certificate.key)
        if alpn is not Demand.OFF:
            callbacks.setProtocol(context, SUNRPC, _noProtocol)
        context.set_keylog_callback(_keyLogged)
        callbacks.setAlerts(context, _alerted)
        callbacks.setVerification(context, _judge, required=certificateRequired)
        self._context = context
        self.hasCertificate = bool(own)
        self.slow = any(certificate.slow for certificate in own)
        self.alpn = alpn
        self.store = store
        self.tolerated = tolerated
        self.tickets = tickets

    def connection(self, engine: TLSEngine, sessionContext: bytes | None = None) -> SSL.Connection:
        """
        Make a connection over memory whose callbacks reach an engine.

        @param engine: the engine that drives the connection.
        @param sessionContext: OpenSSL's session id context, if sessions can be
            resumed: a server resumes those of the same one, and no others.
        @return: a new connection.
        """
        if sessionContext is not None:
            # Another thread that comes in between only costs the resumption.
            openssl.setSessionContext(self._context, sessionContext)
        connection = SSL.Connection(self._context)
        # The engine holds the connection.  If that held the engine as well, one that is
        # given up in mid-handshake would keep OpenSSL's buffers until garbage is looked for.
        connection.set_app_data(weakref.ref(engine))
        return connection


def _checkKeyTypes(own: Sequence[OwnCertificate]) -> None:
    """Make sure that no certificate would silently take the place of another."""
    if len(own) == 1:
        return
    seen: dict[x509.ObjectIdentifier, x509.Certificate] = {}
    for certificate in (one.chain[0].to_cryptography() for one in own):
        other = seen.setdefault(certificate.public_key_algorithm_oid, certificate)
        if other is not certificate:
            raise ValueError(
                "expected certificates with keys of different types, found the same type "
                f"in those of {describeSubject(other)} and {describeSubject(certificate)}"
            )


def _offered(connection: SSL.Connection) -> tuple[bytes, bytes, bytes] | None:
    key = _engineOf(connection).preSharedKey
    return None if key is None else (key.identity, key.key, _suiteOf(key))


def _found(connection: SSL.Connection, identity: bytes) -> tuple[bytes, bytes] | None:
    key = _engineOf(connection).preSharedKey
    return None if key is None or key.identity != identity else (key.key, _suiteOf(key))


def _suiteOf(key: PreSharedKey) -> bytes:
    """Name any cipher suite with a key's hash: it is the hash that OpenSSL looks at."""
    return next(suite.value for suite in CIPHER_SUITES.values() if suite.hash == key.hash)


def _engineOf(connection: SSL.Connection) -> TLSEngine:
    engine: TLSEngine = connection.get_app_data()()
    return engine


def _noProtocol(connection: SSL.Connection, offered: Sequence[bytes]) -> None:
    _engineOf(connection).peer.noProtocol(offered)


def _keyLogged(connection: SSL.Connection, line: bytes) -> None:
    _engineOf(connection).keyLogged(line)


def _alerted(connection: SSL.Connection, *, received: bool, description: int) -> None:
    # What is wrong with a ticket is not the handshake's any more.
    if connection.get_app_data() is not None:
        _engineOf(connection).alerted(received=received, description=description)


def _judge(connection: SSL.Connection, chain: Sequence[crypto.X509], error: int, depth: int) -> int:
    engine = _engineOf(connection)
    try:
        return engine.peer.judge(chain, error, depth)
    except Exception as failure:  # noqa: BLE001 - nothing may leave a callback from C
        engine.callbackFailed(failure)
        return V_UNSPECIFIED
