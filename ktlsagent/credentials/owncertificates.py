"""
Our own certificates: each with the CA certificates to send along, in order, and
with its private key, unless that is in a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto

from ktlsagent.credentials import pem
from ktlsagent.credentials.expiry import Expiry
from ktlsagent.credentials.filekinds import OtherKind, lockedKey, otherKind
from ktlsagent.credentials.files import Files, Named
from ktlsagent.credentials.tokens import TokenKey
from ktlsagent.profiles import CertificateFiles, Profile
from ktlsagent.protocols.openssl import errorWords
from ktlsagent.protocols.rehearsal import rehearse
from ktlsagent.protocols.session import Role
from ktlsagent.protocols.verification import describeIssuer, describeSubject

CERTIFICATE = "x509.certificate"
PRIVATE_KEY = "x509.private_key"

_KINDS = {
    "1.2.840.113549.1.1.1": "RSA",
    "1.2.840.113549.1.1.10": "RSA-PSS",
    "1.2.840.10045.2.1": "ECDSA",
    "1.3.101.112": "Ed25519",
    "1.3.101.113": "Ed448",
    "2.16.840.1.101.3.4.3.17": "ML-DSA-44",
    "2.16.840.1.101.3.4.3.18": "ML-DSA-65",
    "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
}
"""Kinds of keys by their OIDs.  OpenSSL can choose between certificates of different kinds."""


_SHORTEST_RSA = 2048
"""Bits of an RSA key that OpenSSL takes at its default security level."""

_ANY_LENGTH = b"DEFAULT:@SECLEVEL=0"

_OTHER_KEY = (
    "make another key, with openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 for "
    "instance, and have it certified"
)

_OTHERS_SIGNATURE = frozenset((2, 7, 20, 21))
"""
C{X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT}, C{_CERT_SIGNATURE_FAILURE},
C{_UNABLE_TO_GET_ISSUER_CERT_LOCALLY} and C{_UNABLE_TO_VERIFY_LEAF_SIGNATURE}.
"""


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """
    A certificate of our own, as its files have it.

    @ivar path: the file of the certificate.
    @ivar chain: the certificate, then the CA certificates to send with it.
    @ivar key: its private key; one in a token has yet to be loaded, and may
        turn out not to belong to it.
    """

    path: str
    chain: tuple[crypto.X509, ...]
    key: crypto.PKey | TokenKey = field(repr=False)

    @property
    def ders(self) -> Sequence[bytes]:
        """The chain in DER."""
        return [crypto.dump_certificate(crypto.FILETYPE_ASN1, one) for one in self.chain]

    @property
    def kind(self) -> str:
        """The kind of its key, in words."""
        oid = self.chain[0].to_cryptography().public_key_algorithm_oid.dotted_string
        return _KINDS.get(oid, oid)

    @property
    def subject(self) -> str:
        """Whose certificate it is."""
        return describeSubject(self.chain[0].to_cryptography())

    @property
    def issuer(self) -> str:
        """Who has issued it."""
        return describeIssuer(self.chain[0].to_cryptography())

    @property
    def alone(self) -> bool:
        """Whether no CA certificate is sent with it, though it is not its own issuer."""
        return len(self.chain) == 1 and not _issued(self.chain[0], self.chain[0])

    def expiries(self) -> Iterator[Expiry]:
        """
        Say until when it is good.

        @return: what is known about it and about the CA certificates.
        """
        for certificate in self.chain:
            which = "certificate" if certificate is self.chain[0] else "CA certificate"
            yield Expiry(
                f"the {which} {describeSubject(certificate.to_cryptography())}",
                self.path,
                certificate.to_cryptography().not_valid_before_utc,
                certificate.to_cryptography().not_valid_after_utc,
            )


@dataclass(frozen=True, slots=True)
class Missing:
    """
    Why a certificate of ours that is configured is not there.

    @ivar found: what there is instead, in words.
    @ivar begins: when it can be used; C{None} if nobody knows.
    """

    found: str
    begins: datetime | None = None


def readOwn(
    files: Files, profile: Profile, now: datetime, inUse: Mapping[str, OwnFiles]
) -> tuple[Sequence[OwnFiles], Missing | None]:
    """
    Read our certificates and keys.

    What has to wait is no mistake.  A certificate whose time has not come is used from then
    on, and what was in its file before is used until then.  A client's may be for mounts
    that nobody has asked for yet: it may not be there at all.

    @param files: reads the files, and is told what is wrong with them.
    @param profile: the profile that names them.
    @param now: the time of day.
    @param inUse: what was read before, by the files of the certificates.
    @return: the certificates, as far as they can be used, in the same order, and why one
        of them cannot.
    """
    section, own = profile.name, profile.own
    optional = Role.CLIENT in profile.match.roles
    found: dict[str, OwnFiles] = {}
    missing: Missing | None = None
    for pair in own.certificates:
        if optional and pair.certificate not in inUse and _absent(files, pair):
            missing = missing or _notThere(files, section, pair)
            continue
        one = _readPair(files, section, pair, own.pin)
        if one is None:
            continue
        if not own.acceptExpired:
            one = _withoutOld(files, one, now)
            begins = next(one.expiries()).notBefore
            if begins > now:
                missing = missing or _notYet(files, one, now)
                before = inUse.get(one.path)
                if before is None or next(before.expiries()).flaw(now):
                    continue
                one = before
        other = found.setdefault(one.kind, one)
        if other is not one:
            files.mistake(
                Named(section, CERTIFICATE, "certificates with keys of different kinds"),
                f"{one.kind} keys of both {other.path} and {one.path}",
                "remove one of the two",
            )
        for expiry in () if own.acceptExpired else one.expiries():
            flaw = expiry.flaw(now)
            if flaw:
                files.mistake(
                    Named(section, CERTIFICATE, "certificates that are valid now"),
                    f"{expiry.what} in {one.path}, which {flaw}",
                    "renew it, or set own_expired=accept",
                )
    return list(found.values()), missing


def _absent(files: Files, pair: CertificateFiles) -> bool:
    """Say whether neither a certificate nor its key is there; one alone is a mistake."""
    both = (pair.certificate, pair.privateKey)
    return all(path.startswith("/") and files.absent(path) for path in both)


def _notThere(files: Files, section: str, pair: CertificateFiles) -> Missing:
    files.notice(
        f"[{section}] {CERTIFICATE}: {pair.certificate} is not there, nor its key: mounts with "
        "xprtsec=mtls are refused until they are"
    )
    return Missing(f"neither {pair.certificate} nor {pair.privateKey}")


def _notYet(files: Files, one: OwnFiles, now: datetime) -> Missing:
    expiry = next(one.expiries())
    found = f"{expiry.what} in {one.path}, which {expiry.flaw(now)}"
    files.notice(f"{found}: it is used from then on; if that is wrong, look at the clock")
    return Missing(found, expiry.notBefore)


def _readPair(
    files: Files, section: str, pair: CertificateFiles, pin: str | None
) -> OwnFiles | None:
    named = Named(
        section, CERTIFICATE, "a PEM file with our certificate and its chain", decides=False
    )
    certificates = files.parsed(named, pair.certificate, _parse)
    key = _readKey(files, section, pair.privateKey, pin)
    if certificates is None or key is None:
        return None
    if isinstance(key, TokenKey):
        leaf: crypto.X509 | None = _youngest(certificates)
    else:
        leaf = _leafOf(files, section, pair, certificates, key)
    if leaf is None:
        return None
    chain = _chain(leaf, certificates)
    for certificate in certificates:
        if certificate not in chain and not _isSelfSigned(certificate):
            subject = describeSubject(certificate.to_cryptography())
            files.notice(
                f"{subject} in {pair.certificate} is not sent: it is not part of the chain"
            )
    return OwnFiles(pair.certificate, chain, key)


def _withoutOld(files: Files, own: OwnFiles, now: datetime) -> OwnFiles:
    """
    Leave CA certificates out that are not good now: a CA that another one has certified
    as well keeps its old certificates in files for years.  Our own issuer's is needed, and
    so stays if there is no other.
    """
    kept = list(own.chain)
    for certificate, expiry in zip(own.chain[1:], list(own.expiries())[1:], strict=True):
        alike = [one for one in kept if _issued(one, own.chain[0])]
        flaw = expiry.flaw(now)
        if flaw and alike != [certificate]:
            kept.remove(certificate)
            files.notice(f"{expiry.what} in {own.path} is not sent: it {flaw}")
    return replace(own, chain=tuple(kept))


def _readKey(
    files: Files, section: str, path: str, pin: str | None
) -> crypto.PKey | TokenKey | None:
    named = Named(section, PRIVATE_KEY, "a PEM file with an unencrypted private key", decides=False)
    if not path.startswith("/"):
        try:
            return TokenKey.fromURI(path, pin)
        except ValueError as error:
            files.mistake(Named(section, PRIVATE_KEY, "a PKCS#11 URI (RFC 7512)"), str(error))
            return None
    data = files.read(named, path, private=True)
    if data is None:
        return None
    try:
        found = pem.privateKey(data)
        if found is None:
            raise otherKind(data, key=True)
        block, locked = found
        if locked:
            raise lockedKey()
        return TokenKey.fromPEM(path, block, pin) or crypto.load_privatekey(
            crypto.FILETYPE_PEM, block, passphrase=pem.NO_QUESTION
        )
    except OtherKind as kind:
        files.mistake(named, f"{kind} in {path}", kind.advice(path))
    except (crypto.Error, ValueError) as error:
        files.mistake(named, f"none ({errorWords(error)}) in {path}")
    return None


def _leafOf(
    files: Files,
    section: str,
    pair: CertificateFiles,
    certificates: Sequence[crypto.X509],
    key: crypto.PKey,
) -> crypto.X509 | None:
    """Find the certificate that a private key belongs to."""
    reasons = []
    for certificate in certificates:
        context = SSL.Context(SSL.TLS_METHOD)
        # How long keys have to be is another question.
        context.set_cipher_list(_ANY_LENGTH)
        try:
            context.use_certificate(certificate)
            context.use_privatekey(key)
            context.check_privatekey()
        except SSL.Error as error:
            reasons.append(errorWords(error))
        else:
            return certificate if _signs(files, section, pair, certificate, key) else None
    words = "; ".join(dict.fromkeys(reasons))
    files.mistake(
        Named(section, PRIVATE_KEY, f"the private key of {pair.certificate}"),
        f"one that does not belong to it in {pair.privateKey} ({words})",
    )
    return None


def _signs(
    files: Files,
    section: str,
    pair: CertificateFiles,
    certificate: crypto.X509,
    key: crypto.PKey,
) -> bool:
    """See whether a key can sign as TLS 1.3 wants it, and is strong enough for OpenSSL."""
    try:
        rehearse(key, certificate)
    except SSL.Error as error:
        if key.type() == crypto.TYPE_RSA and key.bits() < _SHORTEST_RSA:
            expected = f"an RSA key of at least {_SHORTEST_RSA} bits"
            found = f"one of {key.bits()} bits in {pair.privateKey}"
        else:
            expected = "a key that there is a signature scheme of TLS 1.3 for (RFC 8446, 4.2.3)"
            found = f"{_keyWords(certificate, key)} in {pair.privateKey} ({errorWords(error)})"
        files.mistake(Named(section, PRIVATE_KEY, expected), found, _OTHER_KEY)
        return False
    return True


def _keyWords(certificate: crypto.X509, key: crypto.PKey) -> str:
    """Name a key's kind."""
    try:
        public = certificate.to_cryptography().public_key()
    except Exception:  # noqa: BLE001 - cryptography raises many kinds
        return f"one of {key.bits()} bits"
    if isinstance(public, ec.EllipticCurvePublicKey):
        return f"one on the curve {public.curve.name}"
    return f"one of {key.bits()} bits for {type(public).__name__.removesuffix('PublicKey')}"


def _youngest(certificates: Sequence[crypto.X509]) -> crypto.X509:
    """Find the certificate that has issued none of the others."""
    for certificate in certificates:
        if not any(
            _issued(certificate, other) for other in certificates if other is not certificate
        ):
            return certificate
    return certificates[0]


def _chain(leaf: crypto.X509, certificates: Sequence[crypto.X509]) -> tuple[crypto.X509, ...]:
    """
    Put certificates into the order in which they are sent (RFC 8446, section
    4.4.2).  A root is left out: who does not have it has no use for it.  A CA's new
    key that its old one has signed is no root, though the names are the same.
    """
    chain = [leaf]
    for certificate in chain:
        chain += [
            one
            for one in certificates
            if one not in chain and _issued(one, certificate) and not _isSelfSigned(one)
        ]
    return tuple(chain)


def _issued(issuer: crypto.X509, certificate: crypto.X509) -> bool:
    """Say whether one certificate may be the issuer of another, by their names."""
    return bool(issuer.get_subject() == certificate.get_issuer())


def _isSelfSigned(certificate: crypto.X509) -> bool:
    """
    Say whether a certificate is signed by its own key, and not only issued under its own
    name (RFC 5280, section 3.2).  OpenSSL finds a chain of one certificate only then.
    """
    if not _issued(certificate, certificate):
        return False
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.CHECK_SS_SIGNATURE)
    store.add_cert(certificate)
    try:
        crypto.X509StoreContext(store, certificate).verify_certificate()
    except crypto.X509StoreContextError as error:
        return error.errors[0] not in _OTHERS_SIGNATURE
    return True


def _parse(data: bytes) -> Sequence[crypto.X509]:
    """Read the certificates of a file."""
    ders = dict.fromkeys(pem.decode(data, pem.CERTIFICATE))
    if not ders:
        raise otherKind(data, key=False)
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in ders]
        for certificate in certificates:
            certificate.subject.rfc4514_string()
        return [crypto.X509.from_cryptography(certificate) for certificate in certificates]
    except Exception as error:  # noqa: BLE001 - cryptography raises many kinds
        raise ValueError(f"a broken one ({errorWords(error)})") from None
