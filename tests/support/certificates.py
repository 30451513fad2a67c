"""
A small certificate authority for tests: good certificates and all the ways in
which a certificate can be bad, made once per process.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from OpenSSL import crypto

from ktlsagent.protocols.context import OwnCertificate

DAY = timedelta(days=1)

NOW = datetime.now(UTC).replace(microsecond=0)
"""When the certificates are made; good ones are valid from a day before to 30 days after."""

DER = serialization.Encoding.DER
PEM = serialization.Encoding.PEM

BOTH_PURPOSES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

RPC_TLS_CLIENT = ObjectIdentifier("1.3.6.1.5.5.7.3.33")
RPC_TLS_SERVER = ObjectIdentifier("1.3.6.1.5.5.7.3.34")
"""The key purposes of RPC-with-TLS (RFC 9289, section 8.3)."""

_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)

SERVER_HOST = "server.lab"
SERVER_ADDRESSES = ("10.0.0.2", "fd00::2")
CLIENT_HOST = "client.lab"


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    A certificate with its key.

    @ivar certificate: the certificate.
    @ivar key: its private key.
    @ivar intermediates: the CA certificates to send with it, its issuer first.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    intermediates: tuple[x509.Certificate, ...] = ()

    @property
    def certificatePEM(self) -> bytes:
        """The certificate and its intermediates, as a file has them."""
        return b"".join(
            certificate.public_bytes(serialization.Encoding.PEM)
            for certificate in (self.certificate, *self.intermediates)
        )

    @property
    def keyPEM(self) -> bytes:
        """The private key in PKCS#8, not encrypted, as a file has it."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def fingerprint(self) -> str:
        """The SHA-256 fingerprint of the certificate in lower-case hexadecimal."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def own(self) -> OwnCertificate:
        """
        Give the credentials to the code under test.

        @return: what a L{ktlsagent.protocols.context.TLSContext} takes.
        """
        return OwnCertificate(
            chain=tuple(
                crypto.X509.from_cryptography(certificate)
                for certificate in (self.certificate, *self.intermediates)
            ),
            key=crypto.PKey.from_cryptography_key(self.key),
        )


class CertificateAuthority:
    """
    A CA.

    @ivar certificate: its certificate.
    @ivar intermediates: its chain to the root, itself first and without the
        root; empty for a root.
    """

    def __init__(
        self,
        name: str,
        parent: CertificateAuthority | None = None,
        *,
        notBefore: datetime = NOW - DAY,
        notAfter: datetime = NOW + 30 * DAY,
        purposes: Sequence[ObjectIdentifier] = (),
        pathLength: int | None = None,
    ) -> None:
        """
        @param name: its common name.
        @param parent: the CA that signs it; without one it is a root.
        @param notBefore: the start of its validity.
        @param notAfter: the end of its validity.
        @param purposes: its extended key usages; none means no such extension.
        @param pathLength: how many CAs may be below it.
        """
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name(name)
        builder = (
            _builder(self._subject, self._key, notBefore, notAfter)
            .add_extension(x509.BasicConstraints(ca=True, path_length=pathLength), critical=True)
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
        )
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if parent is None:
            builder = builder.issuer_name(self._subject)
            self.certificate = builder.sign(self._key, hashes.SHA256())
            self.intermediates: tuple[x509.Certificate, ...] = ()
        else:
            builder = builder.issuer_name(parent._subject).add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(parent._key.public_key()),
                critical=False,
            )
            self.certificate = builder.sign(parent._key, hashes.SHA256())
            self.intermediates = (self.certificate, *parent.intermediates)

    @property
    def certificatePEM(self) -> bytes:
        """The CA's certificate, as a file of trust anchors has it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        name: str,
        *,
        hosts: Sequence[str] = (),
        addresses: Sequence[str] = (),
        names: Sequence[x509.GeneralName] = (),
        attributes: Sequence[x509.NameAttribute[str]] = (),
        extensions: Sequence[x509.ExtensionType] = (),
        notBefore: datetime = NOW - DAY,
        notAfter: datetime = NOW + 30 * DAY,
        purposes: Sequence[ObjectIdentifier] = BOTH_PURPOSES,
    ) -> Credentials:
        """
        Make a certificate.

        @param name: its common name; empty for an empty subject.
        @param hosts: its DNS-IDs.
        @param addresses: its IP-IDs.
        @param names: its other names, of any kind.
        @param attributes: what its subject has besides the common name.
        @param extensions: its other extensions.
        @param notBefore: the start of its validity.
        @param notAfter: the end of its validity.
        @param purposes: its extended key usages; if empty, it lists none.
        @return: the certificate and its new key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _leaf(
                name,
                key,
                hosts=hosts,
                addresses=addresses,
                names=names,
                attributes=attributes,
                notBefore=notBefore,
                notAfter=notAfter,
                purposes=purposes,
            )
            .issuer_name(self._subject)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Credentials(certificate, key, self.intermediates)

    def issueFor(self, key: crypto.PKey, name: str = "server.lab") -> OwnCertificate:
        """
        Make a certificate for a key of any type, also for one that C{cryptography}
        does not know.

        @param key: the key.
        @param name: the certificate's common name and DNS name.
        @return: the certificate, its intermediates and the key.
        """
        certificate = crypto.X509.from_cryptography(self.issue(name, hosts=(name,)).certificate)
        with _deprecated():
            certificate.set_pubkey(key)
            certificate.sign(crypto.PKey.from_cryptography_key(self._key), "sha256")
        others = (crypto.X509.from_cryptography(other) for other in self.intermediates)
        return OwnCertificate((certificate, *others), key)

    def revocationList(
        self,
        *revoked: Credentials,
        nextUpdate: datetime = NOW + 30 * DAY,
        thisUpdate: datetime | None = None,
        number: int | None = None,
        critical: Sequence[x509.ExtensionType] = (),
    ) -> x509.CertificateRevocationList:
        """
        Make a CRL.

        @param revoked: whose certificates are revoked.
        @param nextUpdate: when the CRL expires.
        @param thisUpdate: when it was made; by default a day ago, or before it expires.
        @param number: its CRL number, if it has one; it then names its key, too.
        @param critical: more extensions that it insists on.
        @return: the CRL.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._subject)
            .last_update(thisUpdate or min(NOW, nextUpdate) - DAY)
            .next_update(nextUpdate)
        )
        if number is not None:
            key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            builder = builder.add_extension(x509.CRLNumber(number), critical=False)
            builder = builder.add_extension(key, critical=False)
        for extension in critical:
            builder = builder.add_extension(extension, critical=True)
        for credentials in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(credentials.certificate.serial_number)
                .revocation_date(NOW - DAY)
                .build()
            )
        return builder.sign(self._key, hashes.SHA256())

    def store(self) -> crypto.X509Store:
        """
        Make a trust store.

        @return: a new store that has this CA alone.
        """
        store = crypto.X509Store()
        store.add_cert(crypto.X509.from_cryptography(self.certificate))
        return store


def point(
    uri: str | None = None,
    *,
    userOnly: bool = False,
    caOnly: bool = False,
    indirect: bool = False,
    attributesOnly: bool = False,
    reasons: frozenset[x509.ReasonFlags] | None = None,
) -> x509.IssuingDistributionPoint:
    """
    Say what a CRL is about.

    @param uri: where it is found.
    @param userOnly: whether it is about end entities only.
    @param caOnly: whether it is about CAs only.
    @param indirect: whether it is about certificates of others, too.
    @param attributesOnly: whether it is about attribute certificates only.
    @param reasons: the only reasons of revocation that it is about.
    @return: the extension.
    """
    return x509.IssuingDistributionPoint(
        full_name=[x509.UniformResourceIdentifier(uri)] if uri else None,
        relative_name=None,
        only_contains_user_certs=userOnly,
        only_contains_ca_certs=caOnly,
        only_some_reasons=reasons,
        indirect_crl=indirect,
        only_contains_attribute_certs=attributesOnly,
    )


def resigned(certificate: x509.Certificate, key: crypto.PKey, digest: str) -> x509.Certificate:
    """
    Sign a certificate anew, as it is hardly done any more.

    @param certificate: the certificate.
    @param key: whoever signs it.
    @param digest: OpenSSL's name for the signature's hash.
    @return: the other certificate.
    """
    signed = crypto.X509.from_cryptography(certificate)
    with _deprecated():
        signed.sign(key, digest)
    return signed.to_cryptography()


@contextmanager
def _deprecated() -> Iterator[None]:
    """Use what pyOpenSSL would rather leave to C{cryptography}, which cannot do it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@functools.cache
def rsaKey(bits: int = 2048) -> crypto.PKey:
    """An RSA key."""
    return crypto.PKey.from_cryptography_key(rsa.generate_private_key(65537, bits))


@functools.cache
def ed25519Key() -> crypto.PKey:
    """An Ed25519 key."""
    return crypto.PKey.from_cryptography_key(ed25519.Ed25519PrivateKey.generate())


@functools.cache
def mldsaKey() -> crypto.PKey | None:
    """An ML-DSA-65 key (RFC 9881, section 6), if this OpenSSL has any."""
    seed = os.urandom(32)
    content = bytes.fromhex("3034020100300b060960864801650304031204228020") + seed
    try:
        return crypto.load_privatekey(crypto.FILETYPE_ASN1, content)
    except crypto.Error:
        return None


@functools.cache
def authority() -> CertificateAuthority:
    """The CA that the tests trust."""
    return CertificateAuthority("Lab CA")


@functools.cache
def intermediateAuthority() -> CertificateAuthority:
    """A CA below L{authority}."""
    return CertificateAuthority("Lab Issuing CA", authority())


@functools.cache
def otherAuthority() -> CertificateAuthority:
    """A CA that the tests do not trust."""
    return CertificateAuthority("Other CA")


@functools.cache
def server() -> Credentials:
    """A server's good certificate, with a name and two addresses."""
    return authority().issue(SERVER_HOST, hosts=(SERVER_HOST,), addresses=SERVER_ADDRESSES)


@functools.cache
def client() -> Credentials:
    """A client's good certificate."""
    return authority().issue(CLIENT_HOST, hosts=(CLIENT_HOST,))


@functools.cache
def chained() -> Credentials:
    """A good certificate of L{intermediateAuthority}."""
    return intermediateAuthority().issue(SERVER_HOST, hosts=(SERVER_HOST,))


@functools.cache
def expired() -> Credentials:
    """A certificate that was good until yesterday."""
    return authority().issue(
        "expired.lab", hosts=("expired.lab",), notBefore=NOW - 30 * DAY, notAfter=NOW - DAY
    )


@functools.cache
def notYetValid() -> Credentials:
    """A certificate that will be good tomorrow."""
    return authority().issue("early.lab", hosts=("early.lab",), notBefore=NOW + DAY)


@functools.cache
def ofOtherAuthority() -> Credentials:
    """A certificate of a CA that is not trusted."""
    return otherAuthority().issue("stranger.lab", hosts=("stranger.lab",))


@functools.cache
def serverOnly() -> Credentials:
    """A certificate whose only purpose is to authenticate a server."""
    return authority().issue(
        "serveronly.lab", hosts=("serveronly.lab",), purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)
    )


@functools.cache
def clientOnly() -> Credentials:
    """A certificate whose only purpose is to authenticate a client."""
    return authority().issue(
        "clientonly.lab", hosts=("clientonly.lab",), purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,)
    )


@functools.cache
def selfSigned() -> Credentials:
    """A certificate that no CA has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _leaf(
        "self.lab",
        key,
        hosts=("self.lab",),
        addresses=(),
        notBefore=NOW - DAY,
        notAfter=NOW + 30 * DAY,
        purposes=BOTH_PURPOSES,
    ).issuer_name(_name("self.lab"))
    return Credentials(builder.sign(key, hashes.SHA256()), key)


def huge(name: x509.Name, names: Sequence[x509.GeneralName] = ()) -> Credentials:
    """
    Make a certificate that no CA has signed, with whatever names.

    @param name: its subject, which is its issuer as well.
    @param names: its subjectAltName.
    @return: the certificate with its key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, key, NOW - DAY, NOW + 30 * DAY).issuer_name(name)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Credentials(builder.sign(key, hashes.SHA256()), key)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])


def _builder(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    notBefore: datetime,
    notAfter: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(notBefore)
        .not_valid_after(notAfter)
    )


def _leaf(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    hosts: Sequence[str],
    addresses: Sequence[str],
    notBefore: datetime,
    notAfter: datetime,
    purposes: Sequence[ObjectIdentifier],
    names: Sequence[x509.GeneralName] = (),
    attributes: Sequence[x509.NameAttribute[str]] = (),
) -> x509.CertificateBuilder:
    subject = x509.Name([*attributes, *_name(name)])
    builder = _builder(subject, key, notBefore, notAfter).add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    everyName = [
        *(x509.DNSName(host) for host in hosts),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
        *names,
    ]
    if everyName:
        builder = builder.add_extension(x509.SubjectAlternativeName(everyName), critical=not name)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder
