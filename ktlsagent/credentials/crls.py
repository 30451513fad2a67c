"""
The CRLs that peers are looked up in: files and directories, in PEM or DER.

Whether a CRL's signature is good, OpenSSL finds out when it uses it.  What it
would leave out without a word is not taken here: delta CRLs, indirect ones and
those of some reasons only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from OpenSSL import crypto

from ktlsagent.credentials import pem
from ktlsagent.credentials.expiry import Expiry
from ktlsagent.credentials.files import Files, Named
from ktlsagent.credentials.inventory import Revocations
from ktlsagent.profiles import CRLScope, Tolerated, Trust
from ktlsagent.protocols.openssl import errorWords
from ktlsagent.protocols.verification import describeName

KEY = "x509.crl"

_NAMES = re.compile(r".*\.(pem|crl)|[0-9a-f]{8}\.r[0-9]+", re.IGNORECASE | re.DOTALL)
"""The files of a directory; those of the second kind are C{openssl rehash}'s."""

_MAY_BE_CRITICAL = {
    ExtensionOID.ISSUING_DISTRIBUTION_POINT,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
}
"""What a CRL may insist on.  OpenSSL refuses every peer for the sake of anything else."""


@dataclass(frozen=True, slots=True)
class RevocationList:
    """
    A CRL that can be used.

    @ivar name: its issuer in words, and what tells it from the issuer's other CRLs.
    @ivar crl: the CRL.
    @ivar says: what it says.
    """

    name: str
    crl: x509.CertificateRevocationList
    says: Revocations

    def expiry(self, path: str) -> Expiry | None:
        """
        Say until when it is good.

        @param path: the file that it is in.
        @return: what is known about it, C{None} if it has no end.
        """
        until = self.crl.next_update_utc
        if until is None:
            return None
        return Expiry(f"the CRL of {self.name}", path, self.says.thisUpdate, until)


def readCRLs(
    files: Files, section: str, trust: Trust, now: datetime
) -> Sequence[tuple[str, RevocationList]]:
    """
    Read CRLs.

    @param files: reads the files, and is told what is wrong with them.
    @param section: the section that names them.
    @param trust: what it says about them.
    @param now: the time of day.
    @return: those that count, as far as they can be read, with their files.
    """
    named = Named(
        section,
        KEY,
        "a file of CRLs in PEM or DER, or a directory with such files",
        decides=False,
    )
    found = [
        (file, one)
        for path in trust.crls
        for file, content in files.gather(named, path, _NAMES, _parse)
        for one in content
    ]
    for file, one in found:
        if one.crl.next_update_utc is None and Tolerated.EXPIRED not in trust.tolerated:
            files.mistake(
                Named(section, KEY, "CRLs that say until when they are good (nextUpdate)"),
                f"the CRL of {one.name} in {file}",
                "have it made with an end, or set crl_tolerate=expired",
            )
    return newest(found, now)


def newest(
    found: Iterable[tuple[str, RevocationList]], now: datetime
) -> Sequence[tuple[str, RevocationList]]:
    """
    Leave out what is superseded.  OpenSSL would rather use an old CRL that has
    not ended yet than a newer one that has, and of two that were made in the
    same second any.

    @param found: CRLs with their files.
    @param now: the time of day.
    @return: the newest of each name; then those that begin later, for then.
    """
    latest: dict[str, tuple[str, RevocationList]] = {}
    later = []
    for file, one in found:
        if one.says.thisUpdate > now:
            later.append((file, one))
        elif one.name not in latest or _age(latest[one.name][1]) < _age(one):
            latest[one.name] = (file, one)
    return [*latest.values(), *later]


def _age(one: RevocationList) -> tuple[datetime, int]:
    number = one.says.number
    return one.says.thisUpdate, -1 if number is None else number


def addCRLs(
    store: crypto.X509Store, crls: Iterable[tuple[str, RevocationList]], scope: CRLScope
) -> None:
    """
    Have peers looked up in CRLs; without one of its issuer a peer is refused.

    @param store: the store that judges the peers.
    @param crls: the CRLs, with their files.
    @param scope: which certificates are looked up.
    """
    for _file, one in crls:
        store.add_crl(one.crl)
    # CRL_CHECK_ALL alone does nothing.
    store.set_flags(crypto.X509StoreFlags.CRL_CHECK)
    if scope is CRLScope.CHAIN:
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK_ALL)


def _parse(data: bytes) -> Sequence[RevocationList]:
    """Read the CRLs of a file."""
    ders = dict.fromkeys(pem.decode(data, pem.CRL))
    try:
        return [_read(x509.load_der_x509_crl(der)) for der in ders]
    except Exception as error:  # noqa: BLE001 - cryptography raises many kinds
        raise ValueError(f"a CRL that cannot be used ({errorWords(error)})") from None


def _read(crl: x509.CertificateRevocationList) -> RevocationList:
    # OpenSSL has to be able to read it, too.
    crypto.X509Store().add_crl(crl)
    name, number = describeName(crl.issuer), None
    for extension in crl.extensions:
        value = extension.value
        if extension.oid == ExtensionOID.DELTA_CRL_INDICATOR:
            raise ValueError("it is a delta CRL, only complete ones can be used")
        if extension.critical and extension.oid not in _MAY_BE_CRITICAL:
            oid = extension.oid.dotted_string
            raise ValueError(f"it has the critical extension {oid}, which is not known")
        if isinstance(value, x509.CRLNumber):
            number = value.crl_number
        elif isinstance(value, x509.AuthorityKeyIdentifier) and value.key_identifier:
            name += f", key {value.key_identifier.hex()}"
        elif isinstance(value, x509.IssuingDistributionPoint):
            name += _part(value)
    serials = frozenset(revoked.serial_number for revoked in crl)
    return RevocationList(name, crl, Revocations(number, crl.last_update_utc, serials))


def _part(point: x509.IssuingDistributionPoint) -> str:
    """Say which part of an issuer's certificates a CRL is about."""
    for flag, words in (
        (point.indirect_crl, "an indirect CRL, with certificates of other issuers"),
        (point.only_some_reasons, "a CRL for some reasons of revocation only"),
        (point.only_contains_attribute_certs, "a CRL of attribute certificates"),
    ):
        if flag:
            raise ValueError(f"it is {words}")
    part = ", user certificates" if point.only_contains_user_certs else ""
    part += ", CA certificates" if point.only_contains_ca_certs else ""
    return part + "".join(f", {name.value}" for name in point.full_name or ())
