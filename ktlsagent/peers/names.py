"""
The name that a server's certificate has to be for, and whether it is.
"""

from __future__ import annotations

import encodings.punycode  # noqa: F401 - idna would import it in mid-handshake
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

import idna
import idna.uts46data  # as above
from cryptography import x509
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from service_identity.exceptions import CertificateError, VerificationError

from ktlsagent.errors import PeerRejected, RequestRefused
from ktlsagent.protocols.verification import UNREADABLE
from ktlsagent.texts import FIELD, cut, listed

_PREFIXES: Mapping[type[x509.DNSName | x509.IPAddress], str] = {
    x509.DNSName: "DNS",
    x509.IPAddress: "IP",
}

_HOST_NAME_LENGTH = 253
"""Octets of the longest host name (RFC 1035, section 2.3.4, in text)."""


@dataclass(frozen=True, slots=True)
class ReferenceName:
    """
    The name that a server's certificate has to be for: the reference identifier of
    RFC 9525, section 6.1.

    @ivar text: the name as the operator sees it.
    @ivar address: the address, if the name is one: an IP-ID.
    """

    text: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None

    @property
    def serverName(self) -> str | None:
        """What goes into C{server_name}: never an address (RFC 6066, section 3)."""
        return self.text if self.address is None else None


def referenceName(name: bytes) -> ReferenceName:
    """
    Read the name that the kernel gives for the peer.

    @param name: what the operator typed: a DNS name, or an address, which may
        have brackets and, for IPv6, a zone.
    @return: the reference identifier.
    @raise RequestRefused: if it is neither.
    """
    try:
        text = name.decode("utf-8").removeprefix("[").removesuffix("]")
        try:
            address = ipaddress.ip_address(text.partition("%")[0].rstrip("."))
        except ValueError:
            return ReferenceName(_hostName(text), None)
        return ReferenceName(text, address)
    except ValueError as error:
        raise RequestRefused(
            "bad-name",
            f"expected a DNS name or an address of the peer, found "
            f"{cut(repr(name), FIELD)} ({cut(str(error))})",
        ) from None


def _hostName(text: str) -> str:
    """Bring a DNS name into the form that goes on the wire."""
    if text.isascii():
        host = text.rstrip(".")
        # What DNS-ID and server_name can carry (RFC 1123, plus the
        # underscore that is found in the field).
        labels = host.split(".")
        if len(host) <= _HOST_NAME_LENGTH and all(
            0 < len(label) < 64 and label.replace("-", "").replace("_", "").isalnum()  # noqa: PLR2004
            for label in labels
        ):
            return host
        raise ValueError("not a host name")
    return idna.encode(text.rstrip("."), uts46=True).decode("ascii")


def judgeName(reference: ReferenceName, certificate: x509.Certificate) -> PeerRejected | None:
    """
    Judge whether a server's certificate is for the name that was asked for.
    There is no fallback to the common name (RFC 9525, section 2) and no look-up
    of names.

    @param reference: the name.
    @param certificate: the server's own certificate; its chain is good.
    @return: the refusal, or C{None}.
    """
    try:
        if reference.address is None:
            verify_certificate_hostname(certificate, reference.text)
        else:
            verify_certificate_ip_address(certificate, str(reference.address))
    except (VerificationError, CertificateError, *UNREADABLE) as error:
        kind = "DNS" if reference.address is None else "IP"
        found = presentedNames(certificate)
        why = "" if isinstance(error, VerificationError) else f" ({cut(str(error))})"
        return PeerRejected(
            "name-mismatch",
            f"expected a certificate for {kind}:{reference.address or reference.text}, "
            f"found one for {found}{why}",
        )
    return None


def presentedNames(certificate: x509.Certificate) -> str:
    """
    List the names in a certificate for people.

    @param certificate: any certificate.
    @return: its DNS and IP names, or the first ones, or words that there are none.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "no subjectAltName"
    except UNREADABLE:
        return "extensions that cannot be read"
    asked = [name for kind in _PREFIXES for name in names if isinstance(name, kind)]
    text = listed(asked, lambda name: f"{_PREFIXES[type(name)]}:{name.value}")
    return text or "neither DNS nor IP names"
