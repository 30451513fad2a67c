"""
What is done with a request: for how long, by which profile, with which
credentials, and who is let in: values in, verdicts out.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509
from OpenSSL import SSL

from ktlsagent import profiles
from ktlsagent.credentials.contexts import ProfileContexts, ProfileSet
from ktlsagent.errors import (
    HandshakeError,
    KeyUnusable,
    NotYet,
    PeerRejected,
    RequestRefused,
    RequestUnsupported,
)
from ktlsagent.peers.authorisation import judgeAccess
from ktlsagent.peers.nameconstraints import judgeNames
from ktlsagent.peers.names import ReferenceName, judgeName, referenceName
from ktlsagent.peers.peerrules import judgeChain
from ktlsagent.peers.presented import Presented
from ktlsagent.peers.tags import TagSet
from ktlsagent.profiles import Asked, Endpoint
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.handshakefamily import AuthMode, HandshakeRequest, MessageType
from ktlsagent.protocols.interfaces import Judge, TLSParameters
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


def patienceSeconds(request: HandshakeRequest) -> float:
    """
    Say how long the kernel waits for the answer to a request.

    @param request: the kernel's request.
    @return: seconds from READY.
    """
    if request.timeoutMilliseconds is not None:
        return request.timeoutMilliseconds / 1000
    server = request.messageType == MessageType.SERVERHELLO
    return SERVER_SECONDS if server else CLIENT_SECONDS


def allowedSeconds(request: HandshakeRequest) -> float:
    """
    Say how long a request may take until its answer.

    @param request: the kernel's request.
    @return: seconds from READY, with the margin taken off.
    """
    allowed = patienceSeconds(request)
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


def askedOf(
    request: HandshakeRequest,
    *,
    local: Endpoint | None,
    peer: Endpoint | None,
    keyring: str | None,
    namespaces: frozenset[str],
) -> Asked:
    """
    Put together what decides on a request's profile.

    @param request: the kernel's request.
    @param local: our end of the connection, if it is known.
    @param peer: the other end, if it is known.
    @param keyring: the name of the request's keyring, if it has one.
    @param namespaces: the names of the network namespace.
    @return: what is known.
    @raise RequestUnsupported: if this agent cannot do what is asked for.
    """
    role = roleOf(request)
    modes = (AuthMode.X509, AuthMode.PSK, *([AuthMode.UNAUTH] if role is Role.CLIENT else []))
    if role is None or request.authMode not in modes:
        raise RequestUnsupported(
            "unsupported-mode",
            "expected the mode x509 or psk, or unauth for a client, found message type "
            f"{request.messageType} with mode {modeName(request)}",
        )
    name = None if request.peerName is None else request.peerName.decode("utf-8", "replace")
    return Asked(role, AuthMode(request.authMode), local, peer, name, keyring, namespaces)


def keyringsFor(request: HandshakeRequest, configured: Sequence[str]) -> Sequence[str]:
    """
    Say which keyrings have to be linked for a request, besides the one that
    the kernel has linked itself.

    @param request: the kernel's request.
    @param configured: the names of those that the configuration adds.
    @return: their names; none for a request that needs no keys.
    """
    if request.authMode == AuthMode.PSK:
        return (*([".nvme"] if request.keyring is None else []), *configured)
    if request.certificate is None and request.privateKey is None:
        return ()
    own = ".nfs" if request.messageType == MessageType.CLIENTHELLO else ".nfsd"
    return (own, *configured)


@dataclass(frozen=True, slots=True)
class Served:
    """
    What a request is served by.

    @ivar asked: what is known about the request.
    @ivar contexts: its profile, and the contexts of that.
    @ivar tagSet: the session tags.
    @ivar refusal: why a server cannot use its key, if so.
    """

    asked: Asked
    contexts: ProfileContexts
    tagSet: TagSet
    refusal: HandshakeError | None = None

    def tags(self, chain: Sequence[x509.Certificate]) -> Sequence[str]:
        """
        Say which session tags a client gets.  Servers get none: no consumer of the
        kernel's asks what they are.

        @param chain: its chain as it was verified; empty if it has shown none.
        @return: the names, sorted.
        """
        if self.asked.role is Role.CLIENT or not chain:
            return []
        given = self.contexts.profile.tags
        tags = self.tagSet.of(self._peer(chain))
        return [tag for tag in tags if given is None or tag in given]

    def judge(self, reference: ReferenceName | None) -> Judge:
        """
        Say how the peer's certificates are judged, once their chain is good.

        @param reference: the name that the peer's has to be for, if any.
        @return: the judge.
        """
        profile = self.contexts.profile

        def judge(chain: Sequence[x509.Certificate]) -> PeerRejected | None:
            role = self.asked.role
            refusal = judgeChain(chain, role, profile.trust)
            refusal = refusal or self.contexts.revocations.judge(chain, role.peer)
            refusal = refusal or judgeNames(chain, role.peer)
            if refusal is None and reference is not None and profile.trust.stores:
                refusal = judgeName(reference, chain)
            if refusal is None:
                address = None if self.asked.peer is None else self.asked.peer.address
                refusal = judgeAccess(profile.access, self._peer(chain), address)
            return refusal

        return judge

    def _peer(self, chain: Sequence[x509.Certificate]) -> Presented:
        """Say who has shown a chain, and who vouches for its first certificate."""
        # A trust anchor is known as it is, and might as well be signed by itself.
        anchor = chain[0] if self.contexts.profile.trust.stores else None
        signer = chain[1] if len(chain) > 1 else anchor
        return Presented(chain[0], signer, self.tagSet.verdicts)


def choose(asked: Asked, among: ProfileSet) -> Served:
    """
    Choose what a request is served by: the first profile that matches it.

    @param asked: what is known about the request.
    @param among: what is in use.
    @return: the profile and its contexts.
    @raise RequestRefused: if there is none.
    """
    contexts = profiles.choose(among.profiles, asked)
    if contexts is None:
        raise RequestRefused(
            "no-profile",
            f"expected a profile that matches the request of a {asked.role.value} with mode "
            f"{asked.mode.name.lower()}, found none",
        )
    return Served(asked, contexts, among.tags)


def _required(context: TLSContext | None) -> TLSContext:
    """Refuse to go on without a context; the profile's conditions rule that out."""
    if context is None:
        raise RequestRefused(
            "no-profile", "expected a profile that can serve this request, found one that cannot"
        )
    return context


def plan(
    request: HandshakeRequest, served: Served, keys: KeySource
) -> TLSParameters | PreSharedKeyParameters:
    """
    Decide what to do with a request.

    @param request: the kernel's request.
    @param served: what it is served by.
    @param keys: where the request's keys come from.
    @return: how to run its handshake.
    @raise RequestRefused: if the configuration or the request forbids it.
    @raise RequestUnsupported: if this agent cannot do it.
    @raise KeyUnusable: if a key that it names cannot be used.
    @raise KeyForbidden: if a key that it names may not be read.
    """
    wanted = (served.asked.role, served.asked.mode)
    if wanted == (Role.SERVER, AuthMode.X509):
        return _planServer(request, served)
    if wanted == (Role.SERVER, AuthMode.PSK):
        return PreSharedKeyParameters(
            dict(served.contexts.preSharedKey),
            keys.lookUp,
            served.contexts.profile.handshake.pskAlert,
        )
    if wanted == (Role.CLIENT, AuthMode.PSK):
        return _planKeyClient(request, served, keys)
    return _planClient(request, served, keys)


def _planServer(request: HandshakeRequest, served: Served) -> TLSParameters:
    refusal = served.refusal
    if request.certificate is not None or request.privateKey is not None:
        raise RequestUnsupported(
            "keyring-certificate",
            "expected a server's certificate from the configuration, found key serials",
        )
    context = _required(served.contexts.server)
    if refusal is None and not context.hasCertificate:
        refusal = _noCertificate(served.contexts, "to be a server with")
    return TLSParameters(Role.SERVER, context, None, served.judge(None), refusal)


def _noCertificate(contexts: ProfileContexts, purpose: str) -> HandshakeError:
    """Say why there is no certificate of ours; one whose time has not come is worth a retry."""
    expected, missing = f"expected a certificate of our own {purpose}", contexts.missing
    if missing is None:
        return RequestRefused(
            "no-certificate",
            f"{expected}, found none; set x509.certificate and x509.private_key in "
            f"[{contexts.profile.name}]",
        )
    kind = RequestRefused if missing.begins is None else NotYet
    return kind("no-certificate", f"{expected}, found {missing.found}")


def _planKeyClient(request: HandshakeRequest, served: Served, keys: KeySource) -> TLSParameters:
    """Offer the request's key: OpenSSL offers one, and the kernel names one."""
    if not request.peerIdentities:
        raise RequestRefused(
            "no-psk", "expected the serial of a pre-shared key from the kernel, found none"
        )
    key = keys.preSharedKey(request.peerIdentities[0])
    context = served.contexts.preSharedKey.get(key.hash)
    if context is None:
        raise KeyUnusable(
            "no-suite",
            f"expected a cipher suite with {key.hash} that is enabled and that the kernel takes, "
            f"found none for {quoteIdentity(key.identity)}",
        )
    return TLSParameters(Role.CLIENT, context, None, served.judge(None), preSharedKey=key)


def _planClient(request: HandshakeRequest, served: Served, keys: KeySource) -> TLSParameters:
    if not request.peerName:
        raise RequestRefused(
            "no-name",
            "expected the name of the server from the kernel, found none; without it nobody "
            "can tell whether the certificate is the right one",
        )
    reference = referenceName(request.peerName)
    if served.asked.mode == AuthMode.UNAUTH:
        context = _required(served.contexts.anonymousClient)
    else:
        context = _clientContext(request, served, keys)
    return TLSParameters(
        Role.CLIENT,
        context,
        reference.serverName,
        served.judge(reference),
        server=served.asked.peer and (reference, served.asked.peer.address),
    )


def _clientContext(request: HandshakeRequest, served: Served, keys: KeySource) -> TLSContext:
    """Find the context of a client with a certificate; the request's own one wins."""
    contexts = served.contexts
    if request.certificate is not None or request.privateKey is not None:
        own = keys.ownCertificate(
            request.certificate, request.privateKey, contexts.clientCertificate
        )
        try:
            return _required(contexts.clientWith and contexts.clientWith(own))
        except SSL.Error as error:
            raise KeyUnusable(
                "key-mismatch",
                "expected a certificate and the private key that belongs to it, found that key "
                f"{request.privateKey or '(configured)'} does not belong to certificate "
                f"{request.certificate or '(configured)'}",
            ) from error
    if contexts.client is None:
        raise _noCertificate(contexts, "for xprtsec=mtls")
    return contexts.client


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
