"""
What a profile asks of a peer's chain besides that it is valid: strength, key
purposes, pins.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from ktlsagent.errors import PeerRejected
from ktlsagent.peers.certificatefields import fieldsOf, keyPurposesOf, keyUsagesOf
from ktlsagent.peers.signedcontent import contentDigest, keyDigest
from ktlsagent.profiles import Trust
from ktlsagent.protocols.asn1 import elements, objectIdentifier, onlyElement
from ktlsagent.protocols.boundedcache import BoundedCache
from ktlsagent.protocols.session import Demand, Role
from ktlsagent.protocols.verification import UNREADABLE, describeCertificate
from ktlsagent.texts import cut

_RSA = {"1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10"}
"""C{rsaEncryption} and C{id-RSASSA-PSS} (RFC 8017, appendix C)."""

_ELLIPTIC_CURVE = "1.2.840.10045.2.1"
"""C{id-ecPublicKey} (RFC 5480, section 2.1.1)."""

_COMPRESSED = (2, 3)

_CURVE_BITS = 224
"""As strong as 2048 bits of RSA (NIST SP 800-57 part 1, table 2)."""

_SEQUENCE = 0x30
_DIGITAL_SIGNATURE = 0
"""The number of the key usage's bit."""

_SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
_CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
_RPC_TLS_CLIENT = "1.3.6.1.5.5.7.3.33"
_RPC_TLS_SERVER = "1.3.6.1.5.5.7.3.34"

_PURPOSE_NAMES = {
    _SERVER_AUTH: "serverAuth",
    _CLIENT_AUTH: "clientAuth",
    _RPC_TLS_CLIENT: "id-kp-rpcTLSClient",
    _RPC_TLS_SERVER: "id-kp-rpcTLSServer",
    "2.5.29.37.0": "anyExtendedKeyUsage",
}
"""Key purposes of RFC 5280, section 4.2.1.12, and RFC 9289, section 8.3."""

_EXPECTED_PURPOSES = {
    (Role.SERVER, Demand.OFF): (_SERVER_AUTH,),
    (Role.SERVER, Demand.ACCEPT): (_SERVER_AUTH, _RPC_TLS_SERVER),
    (Role.SERVER, Demand.REQUIRE): (_RPC_TLS_SERVER,),
    (Role.CLIENT, Demand.OFF): (_CLIENT_AUTH,),
    (Role.CLIENT, Demand.ACCEPT): (_CLIENT_AUTH, _RPC_TLS_CLIENT),
    (Role.CLIENT, Demand.REQUIRE): (_RPC_TLS_CLIENT,),
}
"""Which purposes are good for a peer, by its role and the wish for those of RPC-with-TLS."""

_TEXT_OCTETS = 100
"""What a short text takes besides its characters."""

_MOST_OCTETS = 1024 * 1024
"""What is known of peers that come back may take: 2000 certificates, mostly."""

_Which = Callable[[int], str]
"""Says in words which certificate of the chain is at some depth."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """
    What the rules want to know about a certificate.

    @ivar rsaBits: the length of its key, if that is RSA.
    @ivar curveBits: the size of its curve's field, if it is on one, in whole octets.
    @ivar brokenHash: the name of its signature's hash, if that is broken.
    @ivar purposes: its key purposes, C{None} if it is for any.
    @ivar signs: whether its key usage has signatures.
    """

    rsaBits: int | None
    curveBits: int | None
    brokenHash: str | None
    purposes: Sequence[str] | None
    signs: bool


_known: BoundedCache[bytes, _Facts] = BoundedCache(_MOST_OCTETS)


def remember(chain: Sequence[x509.Certificate]) -> None:
    """
    Keep what is in the certificates of a peer that was let in: it will come back with
    them, and to read takes longer than to look up.  Those of others are never kept.

    @param chain: its certificates, as L{judgeChain} has seen them.
    """
    for certificate in chain:
        digest = contentDigest(certificate)
        if _known.get(digest) is None:
            facts = _read(certificate)
            _known.put(digest, facts, sum(_TEXT_OCTETS + len(one) for one in facts.purposes or ()))


def judgeChain(chain: Sequence[x509.Certificate], role: Role, trust: Trust) -> PeerRejected | None:
    """
    Judge a peer's chain.

    @param chain: the chain as it was verified: the peer's own certificate
        first, the root last.  If no CA is trusted, only the first counts.
    @param role: our own role.
    @param trust: what is asked for.
    @return: the refusal, or C{None}.
    """
    peer = Role.SERVER if role is Role.CLIENT else Role.CLIENT

    def which(depth: int) -> str:
        return describeCertificate(chain[depth], depth, peer.value)

    if not trust.stores and not _isPinned(chain[0], trust.pins):
        # Where nothing else says who somebody is, strangers get no further.
        return _wrongPin(chain[0], which(0))
    facts = []
    for depth, certificate in enumerate(chain if trust.stores else chain[:1]):
        try:
            facts.append(_known.get(contentDigest(certificate)) or _read(certificate))
        except UNREADABLE as error:
            return PeerRejected(
                "certificate-invalid",
                f"expected to be able to read {which(depth)}, found {cut(repr(error))}",
            )
    refusal = _judgeStrength(facts, which, trust) or _judgePurposes(
        facts, which, _EXPECTED_PURPOSES[peer, trust.rpcPurpose], trust.rpcPurpose
    )
    if refusal is None and not _isPinned(chain[0], trust.pins):
        return _wrongPin(chain[0], which(0))
    return refusal


def _read(certificate: x509.Certificate) -> _Facts:
    """Read what the rules want to know and nothing else; raises one of L{UNREADABLE}."""
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        # It is newer than our library.
        algorithm = None
    usage = keyUsagesOf(certificate)
    return _Facts(
        *_keyBits(certificate),
        algorithm.name if isinstance(algorithm, (hashes.MD5, hashes.SHA1)) else None,
        keyPurposesOf(certificate),
        usage is None or _DIGITAL_SIGNATURE in usage,
    )


def _keyBits(certificate: x509.Certificate) -> tuple[int | None, int | None]:
    """Measure the key, if it is of RSA, and if it is of an elliptic curve."""
    # Not by way of public_key(): libraries differ in which keys they read.
    algorithm, key = elements(fieldsOf(certificate)[5].content)
    kind, *_parameters = elements(algorithm.content)
    oid = objectIdentifier(kind.content)
    if oid in _RSA:
        modulus, _exponent = elements(onlyElement(key.content[1:], _SEQUENCE))
        return int.from_bytes(modulus.content, "big").bit_length(), None
    if oid != _ELLIPTIC_CURVE:
        return None, None
    # The form of the point, then one coordinate or both (SEC 1, section 2.3.3).
    form, *coordinates = key.content[1:]
    octets = len(coordinates)
    return None, 8 * (octets if form in _COMPRESSED else octets // 2)


def _judgeStrength(facts: Sequence[_Facts], which: _Which, trust: Trust) -> PeerRejected | None:
    """Look for keys and signatures that are too weak."""
    for depth, one in enumerate(facts):
        if one.rsaBits is not None and one.rsaBits < trust.rsaBits:
            return PeerRejected(
                "weak-certificate",
                f"expected RSA keys of at least {trust.rsaBits} bits, found one of {one.rsaBits} "
                f"in {which(depth)}",
            )
        if one.curveBits is not None and one.curveBits < _CURVE_BITS:
            return PeerRejected(
                "weak-certificate",
                f"expected keys on elliptic curves of at least {_CURVE_BITS} bits, found one of "
                f"{one.curveBits} in {which(depth)}",
            )
    # A trust anchor is trusted because it is known, not because of its signature.
    for depth, one in enumerate(facts[:-1] if trust.stores else facts):
        if one.brokenHash is not None:
            return PeerRejected(
                "weak-certificate",
                f"expected signatures without MD5 and SHA-1, found {one.brokenHash} in that of "
                f"{which(depth)}",
            )
    return None


def _judgePurposes(
    facts: Sequence[_Facts], which: _Which, expected: Sequence[str], wish: Demand
) -> PeerRejected | None:
    """
    Look for a purpose that the peer and all its CAs have.  A certificate that
    names none is for any, except for the peer's own if those of RPC-with-TLS
    have to be there.  C{anyExtendedKeyUsage} is not one of them, as in OpenSSL.
    """
    for depth, one in enumerate(facts):
        if one.purposes is None and (wish is not Demand.REQUIRE or depth > 0):
            continue
        found = one.purposes or []
        left = [purpose for purpose in expected if purpose in found]
        if not left:
            return PeerRejected(
                "wrong-key-purpose",
                f"expected {which(depth)} to be for {_purposeNames(expected)}, found "
                + (f"one for {_purposeNames(found)}" if found else "no key purposes in it"),
            )
        expected = left
    if not facts[0].signs:
        return PeerRejected(
            "wrong-key-purpose",
            f"expected {which(0)} to be for signatures, found a key usage without digitalSignature",
        )
    return None


def _purposeNames(purposes: Sequence[str]) -> str:
    return " or ".join(_PURPOSE_NAMES.get(purpose, purpose) for purpose in purposes)


def _isPinned(certificate: x509.Certificate, pins: frozenset[bytes]) -> bool:
    """Compare the peer's own key with those that are known, if there are any."""
    return not pins or keyDigest(certificate) in pins


def _wrongPin(certificate: x509.Certificate, which: str) -> PeerRejected:
    text = base64.b64encode(keyDigest(certificate)).decode()
    return PeerRejected(
        "pin-mismatch",
        f"expected a pinned key in {which}, found sha256:{text}; if that is the right one, "
        "add it to spki_pins",
    )
