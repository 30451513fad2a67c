"""
The lab's certificates: those that many scenarios need, made once a boot, and
authorities that issue what else one needs, as PEM files named after what is right
or wrong about them.
"""

from __future__ import annotations

import datetime as dt
import importlib
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

DIRECTORY: Final = Path("/tmp/lab/certificates")

TLS_PURPOSES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
RPC_PURPOSES: Final = (
    ObjectIdentifier("1.3.6.1.5.5.7.3.33"),
    ObjectIdentifier("1.3.6.1.5.5.7.3.34"),
)
"""Those of RFC 9289, section 8.3: id-kp-rpcTLSClient and id-kp-rpcTLSServer."""

_DAY: Final = dt.timedelta(days=1)


def _mlDsa() -> Any:
    """Make a key of ML-DSA-65, which older cryptography does not know."""
    module = importlib.import_module("cryptography.hazmat.primitives.asymmetric.mldsa")
    return module.MLDSA65PrivateKey.generate()


_KEYS: Final[dict[str, Callable[[], Any]]] = {
    "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ml-dsa": _mlDsa,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What a certificate is to say.

    @ivar subject: common name.
    @ivar names: DNS names and addresses; C{URI:} and C{email:} before one of these.
    @ivar begins: days from now.
    @ivar ends: days from now.
    @ivar purposes: extended key usages; none leaves the extension out.
    @ivar key: the kind of key.
    """

    subject: str
    names: tuple[str, ...] = ()
    begins: float = -1
    ends: float = 30
    purposes: Sequence[ObjectIdentifier] = TLS_PURPOSES
    key: str = "ec"


SERVER: Final = Wanted("server.lab", ("server.lab", "10.0.0.1", "fd00::1"))
CLIENT: Final = Wanted("client.lab", ("client.lab", "10.0.0.2", "fd00::2"))


def certificate(name: str) -> str:
    """
    Say where a certificate is.

    @param name: its name.
    @return: path of a PEM file.
    """
    return str(DIRECTORY / f"{name}.pem")


def privateKey(name: str) -> str:
    """
    Say where a certificate's private key is.

    @param name: the certificate's name.
    @return: path of a PEM file that only root can read.
    """
    return str(DIRECTORY / f"{name}.key")


def loaded(name: str) -> x509.Certificate:
    """
    Read a certificate.

    @param name: its name.
    @return: it.
    """
    return x509.load_pem_x509_certificate(Path(certificate(name)).read_bytes())


def replaceFile(path: str | Path, data: bytes) -> None:
    """
    Give a file a new content, in one step.

    @param path: the file, which need not exist.
    @param data: the content.
    """
    new = Path(f"{path}.new")
    new.write_bytes(data)
    new.replace(path)


def _alternative(text: str) -> x509.GeneralName:
    """
    Turn a name or an address into what a certificate holds.

    @param text: as in L{Wanted}.
    @return: the general name.
    """
    kind, _, rest = text.partition(":")
    if kind == "URI":
        return x509.UniformResourceIdentifier(rest)
    if kind == "email":
        return x509.RFC822Name(rest)
    if kind == "othername":
        oid, _, name = rest.partition("=")
        octets = name.encode()
        return x509.OtherName(ObjectIdentifier(oid), b"\x0c" + bytes((len(octets),)) + octets)
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


class _Pair:
    """
    A certificate with its key.

    @ivar name: what its files are called.
    """

    def __init__(
        self,
        name: str,
        wanted: Wanted,
        issuer: _Pair | None,
        *,
        isCa: bool = False,
        publicKey: Any = None,
    ) -> None:
        """
        @param name: what its files are called.
        @param wanted: what it says.
        @param issuer: who signs it; L{None} for itself.
        @param isCa: whether it may sign others.
        @param publicKey: of a key that is elsewhere; by default one is made.
        """
        now = dt.datetime.now(dt.UTC)
        self.name = name
        self.key: Any = None if publicKey is not None else _KEYS[wanted.key]()
        publicKey = publicKey if self.key is None else self.key.public_key()
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted.subject)])
        signer = issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(signer.subject)
            .public_key(publicKey)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + wanted.begins * _DAY)
            .not_valid_after(now + wanted.ends * _DAY)
            .add_extension(x509.BasicConstraints(ca=isCa, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(publicKey), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=isCa,
                    crl_sign=isCa,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if not isCa and wanted.purposes:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage(list(wanted.purposes)), critical=False
            )
        if wanted.names:
            alternatives = [_alternative(text) for text in wanted.names]
            builder = builder.add_extension(
                x509.SubjectAlternativeName(alternatives), critical=False
            )
        self.signed = builder.sign(signer.key, hashes.SHA256())
        self.chain = self.signed.public_bytes(serialization.Encoding.PEM)
        if issuer is not None and issuer.signed.issuer != issuer.signed.subject:
            self.chain += issuer.chain
        Path(certificate(name)).write_bytes(self.chain)
        if self.key is not None:
            keyFile = Path(privateKey(name))
            keyFile.touch(mode=0o600)
            keyFile.write_bytes(
                self.key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )


class Authority(_Pair):
    """An authority that a scenario makes."""

    def __init__(self, name: str, issuer: Authority | None = None) -> None:
        """
        Make it.

        @param name: what its files are called.
        @param issuer: the authority above it, if there is one.
        """
        super().__init__(name, Wanted(f"lab {name}", (), -60, 60), issuer, isCa=True)

    def issue(self, name: str, wanted: Wanted, publicKey: Any = None, **changes: Any) -> str:
        """
        Issue a certificate; its file holds the intermediate authorities as well.

        @param name: what its files are called.
        @param wanted: what it says.
        @param publicKey: of a key that is elsewhere; by default one is made.
        @param changes: what it says instead.
        @return: the name.
        """
        _Pair(name, replace(wanted, **changes), self, publicKey=publicKey)
        return name

    def revocations(self, *names: str, ends: float = 7) -> bytes:
        """
        Sign a CRL.

        @param names: the certificates that are revoked.
        @param ends: days from now.
        @return: it, as PEM.
        """
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.subject)
            .last_update(now - 8 * _DAY)
            .next_update(now + ends * _DAY)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        )
        for name in names:
            revoked = x509.RevokedCertificateBuilder().serial_number(loaded(name).serial_number)
            builder = builder.add_revoked_certificate(revoked.revocation_date(now - _DAY).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


_FLAWS: Final[dict[str, dict[str, Any]]] = {
    "expired": {"begins": -30, "ends": -1},
    "not-yet-valid": {"begins": 1, "ends": 30},
}


def issueAll() -> None:
    """Make what many scenarios need."""
    DIRECTORY.mkdir(parents=True)
    ca, other = Authority("ca"), Authority("other-ca")
    for role, wanted in (("server", SERVER), ("client", CLIENT)):
        ca.issue(role, wanted)
        for flaw, changes in _FLAWS.items():
            ca.issue(f"{role}-{flaw}", wanted, **changes)
        other.issue(f"{role}-unknown-ca", wanted)
        _Pair(f"{role}-self-signed", wanted, None)
    ca.issue("server-wrong-name", SERVER, subject="other.lab", names=("other.lab", "10.0.0.1"))
    ca.issue("server-wrong-ip", SERVER, names=("server.lab", "10.9.9.9", "fd00::9"))
