"""
Who is trusted, with which credentials, for what, and for how long: values in,
verdicts out.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509
from OpenSSL import SSL

from ktlsagent.errors import KeyUnusable, PeerRejected, RequestRefused, RequestUnsupported
from ktlsagent.names import judgeName, referenceName
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.engine import TLSParameters
from ktlsagent.protocols.handshakefamily import AuthMode, HandshakeRequest, MessageType
from ktlsagent.protocols.psk import PreSharedKey, quoteIdentity
from ktlsagent.protocols.pskserver import PreSharedKeyParameters
from ktlsagent.protocols.session import EstablishedSession, Role

SERVER_SECONDS = 5.0
"""How long nfsd waits for its agent (C{SVC_HANDSHAKE_TO}, C{net/sunrpc/svcsock.c})."""

CLIENT_SECONDS = 10.0
"""How long the NFS client waits (C{XS_TLS_HANDSHAKE_TO}, C{net/sunrpc/xprtsock.c})."""

MARGIN_SECONDS = 0.5
"""How much before the kernel's deadline ours ends, so that our answer is still wanted."""

RETRY_PAUSE_SECONDS = 1.0
"""
How long ETIMEDOUT is held back from the NFS client, which tries again at once
and without end: answered at once it makes a loop, and mounts that hang.
"""

SETTLE_SECONDS = 0.02
"""
How long an NFS client's ClientHello waits.  The kernel's own reader of the
connection (C{xs_stream_data_receive}) may still be at work when it asks us: it
has just taken the server's answer to AUTH_TLS, and looks for more before it
ends.  If the server's flight comes while it looks, it takes that as well, and
the handshake stalls: seen once in 350 handshakes on one processor, and in none
of 2000 with this pause.
"""

PEER_AUTHENTICATED = 0xFFFFFFFF
"""
The serial that stands for a verified certificate.  nfsd only asks whether it
is zero (C{svc_tcp_handshake_done}); as a key's serial it does not exist.
"""


@dataclass(frozen=True, slots=True)
class ContextSet:
    """
    The contexts that requests are served with.

    @ivar anonymousClient: for a client that shows no certificate.
    @ivar client: for a client that does; C{None} if none is configured.
    @ivar server: for a server; without a certificate if none is configured.
    @ivar clientCertificate: what L{client} shows, if there is one.
    @ivar clientWith: makes a context for a client with another certificate;
        raises C{SSL.Error} if certificate and key do not belong together.
    @ivar preSharedKey: for either role, by the key's hash.
    @ivar keyrings: names of more keyrings in which keys may be.
    """

    anonymousClient: TLSContext
    client: TLSContext | None
    server: TLSContext
    clientCertificate: OwnCertificate | None
    clientWith: Callable[[OwnCertificate], TLSContext]
    preSharedKey: Mapping[tuple[Role, str], TLSContext]
    keyrings: Sequence[str] = ()


def roleOf(request: HandshakeRequest) -> Role | None:
    """
    Say which side the kernel wants us to be.

    @param request: the kernel's request.
    @return: the role, C{None} if the message type is not known.
    """
    if request.messageType == MessageType.CLIENTHELLO:
        return Role.CLIENT
    return Role.SERVER if request.messageType == MessageType.SERVERHELLO else None


def modeName(request: HandshakeRequest) -> str:
    """
    Name the request's mode as the kernel does.

    @param request: the kernel's request.
    @return: C{unauth}, C{psk}, C{x509} or the number.
    """
    try:
        return AuthMode(request.authMode).name.lower()
    except ValueError:
        return str(request.authMode)


def allowedSeconds(request: HandshakeRequest) -> float:
    """
    Say how long a request may take until its answer.

    @param request: the kernel's request.
    @return: seconds from READY, with the margin taken off.
    """
    if request.timeoutMilliseconds is not None:
        allowed = request.timeoutMilliseconds / 1000
    elif request.messageType == MessageType.SERVERHELLO:
        allowed = SERVER_SECONDS
    else:
        allowed = CLIENT_SECONDS
    return max(allowed - MARGIN_SECONDS, allowed / 2)


def pauseSeconds(request: HandshakeRequest, status: int) -> float:
    """
    Say how long an answer is held back.

    @param request: the kernel's request.
    @param status: what the kernel will be told.
    @return: seconds; 0 except for what makes the NFS client try again.
    """
    retried = (
        status == errno.ETIMEDOUT
        and request.messageType == MessageType.CLIENTHELLO
        and request.authMode != AuthMode.PSK
    )
    return RETRY_PAUSE_SECONDS if retried else 0.0


def settleSeconds(request: HandshakeRequest) -> float:
    """
    Say how long the handshake waits before it begins.

    @param request: the kernel's request.
    @return: seconds; 0 except for an NFS client.
    """
    nfs = request.authMode != AuthMode.PSK
    return SETTLE_SECONDS if nfs and request.messageType == MessageType.CLIENTHELLO else 0.0


def judgeClient(_chain: Sequence[x509.Certificate]) -> PeerRejected | None:
    """
    Judge a client's certificate: a good chain is all that is asked of it.

    @param _chain: the client's chain.
    @return: C{None}.
    """
    return None


class KeySource(Protocol):
    """Where a request's keys come from: L{ktlsagent.keys.RequestKeys}."""

    def preSharedKey(self, serial: int) -> PreSharedKey:
        """Read a PSK."""

    def lookUp(self, offered: Sequence[bytes]) -> PreSharedKey:
        """Find the first of some identities."""

    def ownCertificate(
        self, certificate: int | None, privateKey: int | None, configured: OwnCertificate | None
    ) -> OwnCertificate:
        """Read a certificate and its key."""


def keyringsFor(request: HandshakeRequest, contexts: ContextSet) -> Sequence[str]:
    """
    Say which keyrings have to be linked for a request, besides the one that
    the kernel has linked itself.

    @param request: the kernel's request.
    @param contexts: what is configured.
    @return: their names; none for a request that needs no keys.
    """
    if request.authMode == AuthMode.PSK:
        return (*([".nvme"] if request.keyring is None else []), *contexts.keyrings)
    if request.certificate is None and request.privateKey is None:
        return ()
    own = ".nfs" if request.messageType == MessageType.CLIENTHELLO else ".nfsd"
    return (own, *contexts.keyrings)


def plan(
    request: HandshakeRequest, contexts: ContextSet, keys: KeySource
) -> TLSParameters | PreSharedKeyParameters:
    """
    Decide what to do with a request.

    @param request: the kernel's request.
    @param contexts: what is configured.
    @param keys: where the request's keys come from.
    @return: how to run its handshake.
    @raise RequestRefused: if the configuration or the request forbids it.
    @raise RequestUnsupported: if this agent cannot do it.
    @raise KeyUnusable: if a key that it names cannot be used.
    @raise KeyForbidden: if a key that it names may not be read.
    """
    wanted = (request.messageType, request.authMode)
    if wanted == (MessageType.SERVERHELLO, AuthMode.X509):
        return _planServer(request, contexts)
    if wanted == (MessageType.CLIENTHELLO, AuthMode.UNAUTH):
        return _planClient(request, contexts.anonymousClient)
    if wanted == (MessageType.CLIENTHELLO, AuthMode.X509):
        return _planClient(request, _clientContext(request, contexts, keys))
    if wanted == (MessageType.CLIENTHELLO, AuthMode.PSK):
        return _planKeyClient(request, contexts, keys)
    if wanted == (MessageType.SERVERHELLO, AuthMode.PSK):
        return PreSharedKeyParameters(
            {
                name: context
                for (role, name), context in contexts.preSharedKey.items()
                if role is Role.SERVER
            },
            keys.lookUp,
        )
    raise RequestUnsupported(
        "unsupported-mode",
        "expected the mode x509 or psk, or unauth for a client, found message type "
        f"{request.messageType} with mode {modeName(request)}",
    )


def _clientContext(request: HandshakeRequest, contexts: ContextSet, keys: KeySource) -> TLSContext:
    """Find the context of a client with a certificate; the request's own one wins."""
    if request.certificate is not None or request.privateKey is not None:
        own = keys.ownCertificate(
            request.certificate, request.privateKey, contexts.clientCertificate
        )
        try:
            return contexts.clientWith(own)
        except SSL.Error as error:
            raise KeyUnusable(
                "key-mismatch",
                "expected a certificate and the private key that belongs to it, found that key "
                f"{request.privateKey or '(configured)'} does not belong to certificate "
                f"{request.certificate or '(configured)'}",
            ) from error
    if contexts.client is None:
        raise RequestRefused(
            "no-certificate",
            "expected a certificate of our own for xprtsec=mtls, found none; set "
            "x509.certificate and x509.private_key in [authenticate.client]",
        )
    return contexts.client


def _planKeyClient(
    request: HandshakeRequest, contexts: ContextSet, keys: KeySource
) -> TLSParameters:
    """Offer the request's key: OpenSSL offers one, and the kernel names one."""
    if not request.peerIdentities:
        raise RequestRefused(
            "no-psk", "expected the serial of a pre-shared key from the kernel, found none"
        )
    key = keys.preSharedKey(request.peerIdentities[0])
    context = contexts.preSharedKey.get((Role.CLIENT, key.hash))
    if context is None:
        raise KeyUnusable(
            "no-suite",
            f"expected a cipher suite with {key.hash} that is enabled and that the kernel takes, "
            f"found none for {quoteIdentity(key.identity)}",
        )
    return TLSParameters(Role.CLIENT, context, None, judgeClient, preSharedKey=key)


def _planServer(request: HandshakeRequest, contexts: ContextSet) -> TLSParameters:
    refusal = None
    if request.certificate is not None or request.privateKey is not None:
        raise RequestUnsupported(
            "keyring-certificate",
            "expected a server's certificate from the configuration, found key serials",
        )
    if not contexts.server.hasCertificate:
        refusal = RequestRefused(
            "no-certificate",
            "expected a certificate of our own to be a server with, found none; set "
            "x509.certificate and x509.private_key in [authenticate.server]",
        )
    return TLSParameters(Role.SERVER, contexts.server, None, judgeClient, refusal)


def _planClient(request: HandshakeRequest, context: TLSContext) -> TLSParameters:
    if not request.peerName:
        raise RequestRefused(
            "no-name",
            "expected the name of the server from the kernel, found none; without it nobody "
            "can tell whether the certificate is the right one",
        )
    reference = referenceName(request.peerName)
    return TLSParameters(
        Role.CLIENT,
        context,
        reference.serverName,
        lambda chain: judgeName(reference, chain[0]),
    )


def remoteAuth(session: EstablishedSession) -> Sequence[int]:
    """
    Say what the kernel is told about the peer's identity.

    nfsd takes a session with any identity for C{mtls} and one without for
    C{tls} (C{check_xprtsec_policy}, C{fs/nfsd/export.c}), so there has to be
    one exactly if a certificate was verified.

    An NVMe host and target look the serial of the pre-shared key up.

    @param session: the session.
    @return: the serials for DONE.
    """
    if session.keySerial is not None:
        return (session.keySerial,)
    return () if session.peerCertificate is None else (PEER_AUTHENTICATED,)
