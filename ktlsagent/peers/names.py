"""
The name that a server's certificate has to be for, and whether it is.
"""

from __future__ import annotations

import encodings.punycode  # noqa: F401 - idna would import it in mid-handshake
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import idna
import idna.uts46data  # as above
from cryptography import x509
from service_identity.hazmat import (
    DNS_ID,
    DNSPattern,
    IPAddress_ID,
    IPAddressPattern,
    verify_service_identity,
)

from ktlsagent.errors import PeerRejected, RequestRefused
from ktlsagent.peers.generalnames import DNS, IP, describe, presentedNames
from ktlsagent.peers.nameconstraints import whyNot
from ktlsagent.protocols.asn1 import Element
from ktlsagent.texts import FIELD, cut, listed, printable

_PREFIXES: Final = {DNS: "DNS", IP: "IP"}

_COMPARED: Final = re.compile(rb"[A-Za-z0-9_.*-]+")
"""What service-identity does not change before it compares it, but for its case."""

_PLAIN: Final = re.compile(rb"(?:[A-Za-z0-9_-]+\.)*[A-Za-z][A-Za-z0-9_-]*")
"""What it certainly can compare: the name of a host that is no number."""

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
    def shown(self) -> str:
        """What it is called in the log, and with which prefix."""
        return f"DNS:{self.text}" if self.address is None else f"IP:{self.address}"

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


def judgeName(reference: ReferenceName, chain: Sequence[x509.Certificate]) -> PeerRejected | None:
    """
    Judge whether a server's certificate is for the name that was asked for, and
    whether its CAs may vouch for that.  There is no fallback to the common name
    (RFC 9525, section 2) and no look-up of names.

    @param reference: the name.
    @param chain: the server's chain as it was verified, its own certificate first.
    @return: the refusal, or C{None}.
    """
    kind = DNS if reference.address is None else IP
    try:
        everything = presentedNames(chain[0])
    except ValueError as error:
        found = f"names that cannot be read ({cut(str(error))})"
    else:
        asked = [name for name in everything if name.tag == kind]
        if _isAmong(reference, asked):
            return _judgeAuthorities(reference, chain)
        found = listed([name for name in everything if name.tag in _PREFIXES], _shown)
        found = found or ("neither DNS nor IP names" if everything else "no subjectAltName")
        odd = [name for name in asked if not _PLAIN.fullmatch(name.content) and not _pattern(name)]
        if odd:
            found += f"; of these it cannot be {listed(odd, _shown)}"
    return PeerRejected(
        "name-mismatch",
        f"expected a certificate for {reference.shown}, found one for {found}",
    )


def _judgeAuthorities(
    reference: ReferenceName, chain: Sequence[x509.Certificate]
) -> PeerRejected | None:
    """Judge whether the CAs may vouch for a name, which may be in there as a wildcard only."""
    address = reference.address
    if address is None:
        names = [Element(DNS, reference.text.encode(), b"")]
    else:
        # Who may not vouch for an address may not for what stands for it.
        mapped = getattr(address, "ipv4_mapped", None)
        names = [Element(IP, one.packed, b"") for one in (address, mapped) if one is not None]
    why = next(filter(None, (whyNot(name, chain) for name in names)), None)
    if why is None:
        return None
    return PeerRejected(
        "name-mismatch",
        f"expected CAs that may vouch for {reference.shown}, found {why}",
    )


def _shown(name: Element) -> str:
    prefix, _, text = describe(name).partition(":")
    return printable(f"{prefix.upper()}:{text}")


def _pattern(name: Element) -> DNSPattern | IPAddressPattern | None:
    """Read a name as service-identity does; C{None} if it is none that it can compare."""
    try:
        if name.tag == IP:
            return IPAddressPattern.from_bytes(name.content)
        # It would strip what is before and behind a name, which is compared as it is.
        return DNSPattern.from_bytes(name.content) if _COMPARED.fullmatch(name.content) else None
    except Exception:  # noqa: BLE001 - no certificate may end a handshake
        return None


def _isAmong(reference: ReferenceName, names: Sequence[Element]) -> bool:
    """Say whether a name is among those of a certificate."""
    if reference.address is None:
        # Of thousands of names few can be it.  Older versions cannot take a wildcard and a
        # name of one label together.
        length, wild = len(reference.text), "." in reference.text
        names = [
            one for one in names if len(one.content) == length or (wild and b"*" in one.content)
        ]
    patterns = [pattern for pattern in map(_pattern, names) if pattern is not None]
    address = reference.address
    try:
        wanted = DNS_ID(reference.text) if address is None else IPAddress_ID(str(address))
        verify_service_identity(patterns, [wanted], [])
    except Exception:  # noqa: BLE001 - as above
        return False
    return True
