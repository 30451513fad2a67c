"""
The lab's certificates: every good and bad one that a scenario needs, made once a
boot, as PEM files named after what is right or wrong about them.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DIRECTORY: Final = Path("/tmp/lab/certificates")

_DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """
    What a leaf certificate is to say.

    @ivar subject: common name.
    @ivar names: DNS names and addresses.
    @ivar issuer: C{ca}, C{other-ca}, or empty for self-signed.
    @ivar begins: days from now.
    @ivar ends: days from now.
    """

    subject: str
    names: tuple[str, ...]
    issuer: str = "ca"
    begins: int = -1
    ends: int = 30


_SERVER: Final = ("server.lab", "10.0.0.1", "fd00::1")
_CLIENT: Final = ("client.lab", "10.0.0.2", "fd00::2")

_FLAWS: Final[dict[str, dict[str, Any]]] = {
    "expired": {"begins": -30, "ends": -1},
    "not-yet-valid": {"begins": 1, "ends": 30},
    "unknown-ca": {"issuer": "other-ca"},
    "self-signed": {"issuer": ""},
}

_LEAVES: Final = {
    "server": _Wanted("server.lab", _SERVER),
    "client": _Wanted("client.lab", _CLIENT),
    **{
        f"{role}-{flaw}": replace(_Wanted(names[0], names), **changes)
        for role, names in (("server", _SERVER), ("client", _CLIENT))
        for flaw, changes in _FLAWS.items()
    },
    "server-wrong-name": _Wanted("other.lab", ("other.lab", "10.0.0.1")),
    "server-wrong-ip": _Wanted("server.lab", ("server.lab", "10.9.9.9", "fd00::9")),
}


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


def _alternative(text: str) -> x509.GeneralName:
    """
    Turn a name or an address into what a certificate holds.

    @param text: either.
    @return: the general name.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


class _Pair:
    """A certificate with its key."""

    def __init__(self, name: str, wanted: _Wanted, issuer: _Pair | None, *, isCa: bool) -> None:
        """
        @param name: what its files are called.
        @param wanted: what it says.
        @param issuer: who signs it; L{None} for itself.
        @param isCa: whether it may sign others.
        """
        now = dt.datetime.now(dt.UTC)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted.subject)])
        signer = issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(signer.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + wanted.begins * _DAY)
            .not_valid_after(now + wanted.ends * _DAY)
            .add_extension(x509.BasicConstraints(ca=isCa, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
            )
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
        if not isCa:
            usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            alternatives = [_alternative(text) for text in wanted.names]
            builder = builder.add_extension(
                x509.ExtendedKeyUsage(usages), critical=False
            ).add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        signed = builder.sign(signer.key, hashes.SHA256())
        Path(certificate(name)).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        keyFile = Path(privateKey(name))
        keyFile.touch(mode=0o600)
        keyFile.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


def issueAll() -> None:
    """Make all certificates anew."""
    DIRECTORY.mkdir(parents=True)
    issuers = {
        name: _Pair(name, _Wanted(f"lab {name}", (), "", -60, 60), None, isCa=True)
        for name in ("ca", "other-ca")
    }
    for name, wanted in _LEAVES.items():
        _Pair(name, wanted, issuers.get(wanted.issuer), isCa=False)
