"""
Why a handshake was given up, whoever did it: code and words of each failure,
and the alert where it is not OpenSSL's.
"""

from __future__ import annotations

from collections.abc import Sequence

from ktlsagent.errors import HandshakeError, PeerAlert, PeerMisbehaved, PeerRejected, TokenFailed
from ktlsagent.protocols.context import SUNRPC
from ktlsagent.protocols.psk import (
    TOO_MANY_IDENTITIES,
    PreSharedKey,
    listIdentities,
    quoteIdentity,
)
from ktlsagent.protocols.record import AlertDescription, alertName

ALERTS = {
    # What is wrong with records is seen before OpenSSL sees them (RFC 8446, section 5).
    "not-tls": AlertDescription.UNEXPECTED_MESSAGE,
    "bad-record": AlertDescription.UNEXPECTED_MESSAGE,
    "record-overflow": AlertDescription.RECORD_OVERFLOW,
    # Well-formed, but nothing that we take: as OpenSSL says of such things.
    "too-many-records": AlertDescription.UNEXPECTED_MESSAGE,
    "handshake-too-long": AlertDescription.ILLEGAL_PARAMETER,
    TOO_MANY_IDENTITIES: AlertDescription.ILLEGAL_PARAMETER,
    # Older OpenSSLs would send illegal_parameter; this is RFC 8446, section 6.2.
    "wrong-key": AlertDescription.DECRYPT_ERROR,
    # For a client's use of this alert see RFC 9001, section 8.1.
    "alpn-missing": AlertDescription.NO_APPLICATION_PROTOCOL,
    "alpn-mismatch": AlertDescription.NO_APPLICATION_PROTOCOL,
    # Verdicts of the judge; OpenSSL would say bad_certificate to all of them.
    "wrong-key-purpose": AlertDescription.UNSUPPORTED_CERTIFICATE,
    "certificate-revoked": AlertDescription.CERTIFICATE_REVOKED,
    "denied": AlertDescription.ACCESS_DENIED,
    "not-allowed": AlertDescription.ACCESS_DENIED,
    "address-mismatch": AlertDescription.ACCESS_DENIED,
}
"""What the peer is told instead of what OpenSSL would say, by the error's code."""

BAD_EXTENSION = "bad extension"
WRONG_BINDER = "binder does not verify"
NO_SHARED_CIPHER = "no shared cipher"
"""
OpenSSL's words (C{SSL_R_BAD_EXTENSION}, C{SSL_R_BINDER_DOES_NOT_VERIFY},
C{SSL_R_NO_SHARED_CIPHER}).
"""

_PROTOCOL = SUNRPC.decode()


def refusedByPeer(alert: int, peer: str) -> PeerAlert:
    """
    The peer has sent an alert.

    @param alert: the alert's number.
    @param peer: C{client} or C{server}.
    @return: the failure.
    """
    name = alertName(alert)
    return PeerAlert(
        f"alert-{name.replace('_', '-')}",
        f"the {peer} refused the handshake with the alert {name}",
        alert,
    )


def noTLS13(peer: str, detail: str) -> PeerMisbehaved:
    """
    The peer is too old.

    @param peer: C{client} or C{server}.
    @param detail: OpenSSL's words.
    @return: the failure.
    """
    return PeerMisbehaved(
        "protocol-version",
        f"expected TLS 1.3, found a {peer} that does not offer it ({detail})",
    )


def noCertificate() -> PeerRejected:
    """
    The client has sent no certificate, and there has to be one.

    @return: the failure.
    """
    return PeerRejected(
        "certificate-required",
        "expected a certificate from the client, as the profile's rules are about it, found none",
    )


def noProtocol(peer: str) -> PeerMisbehaved:
    """
    The peer does not use ALPN, and has to.

    @param peer: C{client} or C{server}.
    @return: the failure.
    """
    return PeerMisbehaved(
        "alpn-missing",
        f"expected a {peer} that agrees on {_PROTOCOL} by ALPN, found one that does not use ALPN",
    )


def otherProtocolsOffered(offered: Sequence[bytes]) -> PeerMisbehaved:
    """
    The client offers protocols by ALPN, but not ours.

    @param offered: the protocols.
    @return: the failure.
    """
    found = listIdentities(offered)
    return PeerMisbehaved(
        "alpn-mismatch",
        f"expected a client that offers {_PROTOCOL} by ALPN, found one that offers {found}",
    )


def otherProtocolSelected(found: str) -> PeerMisbehaved:
    """
    The server selects a protocol by ALPN that it was not offered.

    @param found: the protocol, or what else is known, in words.
    @return: the failure.
    """
    return PeerMisbehaved(
        "alpn-mismatch",
        f"expected a server that selects {_PROTOCOL} by ALPN, or nothing, found {found}",
    )


def wrongKey(key: PreSharedKey, peer: str) -> PeerRejected:
    """
    The peer has another key than we.

    @param key: ours.
    @param peer: C{client} or C{server}.
    @return: the failure.
    """
    return PeerRejected(
        "wrong-key",
        f"expected our key for the identity {quoteIdentity(key.identity)}, found that the {peer} "
        "has another one",
    )


def keyIgnored(peer: str) -> PeerRejected:
    """
    The peer shows a certificate instead of using the key.

    @param peer: C{client} or C{server}.
    @return: the failure.
    """
    return PeerRejected(
        "psk-ignored",
        f"expected the {peer} to use the pre-shared key, found a certificate",
    )


def tokenFailed(detail: str) -> TokenFailed:
    """
    The token with our private key does not sign.

    @param detail: the token's and OpenSSL's words.
    @return: the failure.
    """
    return TokenFailed(
        "token-failed",
        f"expected the token with our private key to sign, found that it does not: {detail}",
    )


def misbehaviour(alert: int | None, peer: str, detail: str) -> PeerMisbehaved:
    """
    The peer has broken the protocol in some way that OpenSSL has an alert for.

    @param alert: the alert's number, if OpenSSL has sent one.
    @param peer: C{client} or C{server}.
    @param detail: OpenSSL's words.
    @return: the failure.
    """
    name = "internal_error" if alert is None else alertName(alert)
    return PeerMisbehaved(name.replace("_", "-"), f"the handshake with the {peer} failed: {detail}")


def foundByOpenSSL(
    alert: int | None,
    peer: str,
    detail: str,
    *,
    offersProtocol: bool,
    key: PreSharedKey | None,
) -> HandshakeError:
    """
    OpenSSL has found something wrong with what the peer sends.

    @param alert: the alert's number, if OpenSSL has sent one.
    @param peer: C{client} or C{server}.
    @param detail: OpenSSL's words.
    @param offersProtocol: whether we are a client that offers a protocol by ALPN.
    @param key: the key that the peer should have, if so.
    @return: the failure.
    """
    if alert == AlertDescription.PROTOCOL_VERSION:
        return noTLS13(peer, detail)
    if alert == AlertDescription.CERTIFICATE_REQUIRED:
        return noCertificate()
    if offersProtocol and BAD_EXTENSION in detail:
        # All that OpenSSL says about a protocol that was not offered.
        found = f"another protocol or a malformed extension ({detail})"
        return otherProtocolSelected(found)
    if key is not None and WRONG_BINDER in detail:
        return wrongKey(key, peer)
    return misbehaviour(alert, peer, detail)
