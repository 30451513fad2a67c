"""The CA certificates that are trusted: files, directories and the system's own bundle."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from OpenSSL import crypto

from ktlsagent.credentials import pem
from ktlsagent.credentials.expiry import Expiry
from ktlsagent.credentials.files import Files, Named
from ktlsagent.profiles import SYSTEM
from ktlsagent.protocols.openssl import errorWords
from ktlsagent.protocols.verification import describeSubject

SYSTEM_TRUST_STORES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where Debian, Fedora, SUSE and Alpine keep the system's trust anchors."""

KEY = "x509.truststore"

_NAMES = re.compile(r".*\.(pem|crt|cer)|[0-9a-f]{8}\.[0-9]+", re.IGNORECASE | re.DOTALL)
"""The files of a directory; those of the second kind are C{openssl rehash}'s."""


@dataclass(frozen=True, slots=True)
class Anchors:
    """
    The trust anchors of one file.

    @ivar path: the file.
    @ivar ders: each of them in DER.
    @ivar certificates: the same, as OpenSSL has them.
    @ivar ofSystem: whether it is the system's file, which others look after.
    """

    path: str
    ders: Sequence[bytes]
    certificates: Sequence[crypto.X509]
    ofSystem: bool = False

    def expiries(self) -> Sequence[Expiry]:
        """
        Say until when they are good.

        @return: what is known about it; nothing about the system's.
        """
        found = [] if self.ofSystem else [self._expiry(der) for der in self.ders]
        return [expiry for expiry in found if expiry is not None]

    def _expiry(self, der: bytes) -> Expiry | None:
        try:
            certificate = x509.load_der_x509_certificate(der)
            return Expiry(
                f"the trust anchor {describeSubject(certificate)}",
                self.path,
                certificate.not_valid_before_utc,
                certificate.not_valid_after_utc,
            )
        except Exception:  # noqa: BLE001 - cryptography raises many kinds
            # If only OpenSSL can read it, only OpenSSL judges its dates.
            return None


def readAnchors(
    files: Files,
    section: str,
    stores: Sequence[str],
    systemTrustStores: Sequence[str] = SYSTEM_TRUST_STORES,
) -> Sequence[Anchors]:
    """
    Read trust anchors.

    @param files: reads the files, and is told what is wrong with them.
    @param section: the section that names the stores.
    @param stores: files and directories, and L{SYSTEM} for the system's file.
    @param systemTrustStores: where that may be.
    @return: the anchors, as far as they can be read, by file.
    """
    named = Named(section, KEY, "a PEM file of CA certificates, or a directory with such files")
    found: dict[str, Anchors] = {}
    for store in stores:
        ofSystem = store == SYSTEM
        path = _findSystem(files, section, systemTrustStores) if ofSystem else store
        for file, content in () if path is None else files.gather(named, path, _NAMES, _parse):
            ders, certificates = [one[0] for one in content], [one[1] for one in content]
            found[file] = Anchors(file, ders, certificates, ofSystem)
    return list(found.values())


def _findSystem(files: Files, section: str, systemTrustStores: Sequence[str]) -> str | None:
    path = next((name for name in systemTrustStores if os.path.exists(name)), None)
    if path is None:
        files.mistake(
            Named(section, KEY, "the system's trust store at " + " or ".join(systemTrustStores)),
            "none of these files",
            f"install ca-certificates or set {KEY}",
        )
    return path


def _parse(data: bytes) -> Sequence[tuple[bytes, crypto.X509]]:
    """Read the certificates of a file."""
    ders = dict.fromkeys(pem.decode(data, pem.CERTIFICATE))
    try:
        return [(der, crypto.load_certificate(crypto.FILETYPE_ASN1, der)) for der in ders]
    except crypto.Error as error:
        raise ValueError(f"a broken one ({errorWords(error)})") from None
