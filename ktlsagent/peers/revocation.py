"""
Who is revoked, whatever else is to be said about the list that says so.

OpenSSL looks a certificate up in the one list that it finds for the issuer's
certificate in the chain, and a peer can have a say in which certificate that is:
a CA that was renewed or cross-certified has several, with one name and one key.
So where a missing list is tolerated, an entry might be passed over.  Here a
certificate is looked up by issuer and serial number in all lists that there are.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509

from ktlsagent.errors import PeerRejected
from ktlsagent.profiles import CRLScope
from ktlsagent.protocols.verification import describeCertificate

_Name = tuple[frozenset[tuple[str, str | bytes]], ...]


@dataclass(frozen=True, slots=True)
class RevocationLists:
    """
    The lists that peers are looked up in.

    @ivar lists: the lists: what each is called in words, the CRL, and the serial
        numbers in it.
    @ivar scope: which certificates of a chain are looked up.
    """

    lists: Sequence[tuple[str, x509.CertificateRevocationList, frozenset[int]]] = ()
    scope: CRLScope = CRLScope.LEAF

    def judge(self, chain: Sequence[x509.Certificate], peer: str) -> PeerRejected | None:
        """
        Look a chain up.

        @param chain: the chain as it was verified: the peer's own certificate
            first, the root last.
        @param peer: whose chain it is, C{client} or C{server}.
        @return: the refusal, or C{None}.
        """
        # A trust anchor is trusted whatever its issuer says, unless it is the peer's own.
        number = max(1, len(chain) - 1) if self.scope is CRLScope.CHAIN else 1
        for depth, certificate in enumerate(chain[:number]):
            issuers = chain[depth + 1 : depth + 2]
            for words, crl, serials in self.lists:
                serial = certificate.serial_number
                if serial in serials and _concerns(crl, certificate, issuers):
                    which = describeCertificate(certificate, depth, peer)
                    return PeerRejected(
                        "certificate-revoked",
                        f"expected {which} to be on no CRL, found serial number "
                        f"{serial:x} on the CRL of {words}",
                    )
        return None


def _concerns(
    crl: x509.CertificateRevocationList,
    certificate: x509.Certificate,
    issuers: Sequence[x509.Certificate],
) -> bool:
    """
    Say whether a list is about the certificates of an issuer: it has the same key, or
    the same name.  If only the name is the same it is not if both say that they are of
    different keys, and the signatures are.  What cannot be told counts as yes.
    """
    listed, own = _authorityKey(crl), _authorityKey(certificate)
    if listed is not None and listed == own:
        return True
    signed = [_isSigned(crl, issuer) for issuer in issuers]
    if not _isSame(crl, certificate):
        return True in signed
    return None in (listed, own) or signed != [False]


def _authorityKey(signed: x509.CertificateRevocationList | x509.Certificate) -> bytes | None:
    """Find by which key something says that it is signed."""
    try:
        extension = signed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except Exception:  # noqa: BLE001 - cryptography raises many kinds
        return None
    return extension.value.key_identifier


def _isSame(crl: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    """Compare the issuers' names."""
    try:
        return foldedName(crl.issuer) == foldedName(certificate.issuer)
    except Exception:  # noqa: BLE001 - cryptography raises many kinds
        return True


def foldedName(name: x509.Name) -> _Name:
    """
    Bring a name into the form in which it is compared (RFC 5280, section 7.1):
    neither case nor the number of blanks nor the type of a string counts.

    @param name: a subject or an issuer.
    @return: its attributes.
    """
    return tuple(
        frozenset((one.oid.dotted_string, _folded(one.value)) for one in relative)
        for relative in name.rdns
    )


def _folded(value: str | bytes) -> str | bytes:
    if isinstance(value, bytes):
        return value
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())


def _isSigned(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool | None:
    """Say whether a key has signed a list; C{None} if that cannot be told."""
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - a key, or a signature, that is not known here
        return None
