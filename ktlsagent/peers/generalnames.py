"""
The alternative names of a certificate, each kind in the form in which it is compared.

Every name is read by itself (RFC 5280, section 4.2.1.6).  One that cannot be compared,
an IA5String with other characters than ASCII's for example, makes its own kind
doubtful and no other one.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from ktlsagent.peers.certificatefields import extensionOf
from ktlsagent.peers.folding import folded, foldedEmail, foldedURI
from ktlsagent.protocols.asn1 import Element, decodeText, elements, objectIdentifier, onlyElement

OTHER_NAME: Final = 0xA0
EMAIL: Final = 0x81
DNS: Final = 0x82
URI: Final = 0x86
IP: Final = 0x87
"""The tags of the kinds of names that anything here asks for."""

_SUBJECT_ALT_NAME: Final = bytes.fromhex("0603551d11")
_SEQUENCE: Final = 0x30
_OBJECT_IDENTIFIER: Final = 0x06
_VALUE: Final = 0xA0

_HOST: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_PATTERN: Final = re.compile(r"[a-z0-9_.*-]*")

_PREFIXES: Final = {DNS: "dns", IP: "ip", EMAIL: "email", URI: "uri"}
_UNASKED: Final = {
    0xA3: "an x400Address",
    0xA4: "a directoryName",
    0xA5: "an ediPartyName",
    0x88: "a registeredID",
}

_VERSIONS: Final = {4: 4, 16: 6}
"""The versions of addresses by their octets."""

_MAPPED: Final = bytes(10) + b"\xff\xff"
"""What an IPv6 address begins with that stands for one of version 4 (RFC 4291, 2.5.5.2)."""


@dataclass(frozen=True, slots=True)
class Names:
    """
    The subjectAltName of a certificate.

    @ivar dns: the names of hosts, in lower case.
    @ivar patterns: those in whose place there is something else of the same
        characters, in lower case: a wildcard, an empty label, a dot at the end.
    @ivar hasOddHost: whether there is one of other characters.
    @ivar addresses: the addresses of either version as numbers, in order.
    @ivar hasOddAddress: whether there is something in the place of an address that is
        none, a network for example, or could be taken for one of the other version.
    @ivar uris: the URIs, scheme and host in lower case; C{None} for one that is not
        in ASCII.
    @ivar emails: the addresses of e-mail, the domain in lower case; C{None} as above.
    @ivar others: the texts of the other names, by their types' OIDs; C{None} for
        what is no text.
    @ivar hasOddOther: whether there is another name of which not even the type can be
        read.
    @ivar presented: all names, as they are there.
    """

    dns: Sequence[str] = ()
    patterns: Sequence[str] = ()
    hasOddHost: bool = False
    addresses: Mapping[int, Sequence[int]] = field(default_factory=dict)
    hasOddAddress: bool = False
    uris: Sequence[str | None] = ()
    emails: Sequence[str | None] = ()
    others: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    hasOddOther: bool = False
    presented: Sequence[Element] = ()

    def hasAddress(self, version: int, first: int, last: int) -> bool:
        """
        Say whether an address of a range is among the names.

        @param version: 4 or 6.
        @param first: the lowest address, as a number.
        @param last: the highest.
        @return: whether it is.
        """
        numbers = self.addresses.get(version, ())
        place = bisect_left(numbers, first)
        return place < len(numbers) and numbers[place] <= last

    def othersOf(self, oid: str) -> Sequence[str | None]:
        """
        Find the other names of a type.

        @param oid: the type.
        @return: their texts; C{None} for one that is no text, or may be of this type.
        """
        return [*self.others.get(oid, ()), *([None] if self.hasOddOther else [])]


def presentedNames(certificate: x509.Certificate) -> Sequence[Element]:
    """
    Find the alternative names of a certificate.

    @param certificate: any certificate.
    @return: the names as they are there, whatever is in each of them.
    @raise ValueError: if that cannot be told.
    """
    extension = extensionOf(certificate, _SUBJECT_ALT_NAME)
    return () if extension is None else elements(onlyElement(extension, _SEQUENCE))


def readNames(certificate: x509.Certificate) -> Names:
    """
    Read the alternative names of a certificate.

    @param certificate: any certificate.
    @return: the names.
    @raise ValueError: if it cannot be told where they are.
    """
    presented = presentedNames(certificate)
    hosts = [text and folded(text) for text in _texts(presented, DNS)]
    known = [host for host in hosts if host is not None and _PATTERN.fullmatch(host)]
    addresses = [name.content for name in presented if name.tag == IP]
    plain = [one for one in addresses if len(one) in _VERSIONS and one[:12] != _MAPPED]
    others: dict[str, list[str | None]] = {}
    hasOddOther = False
    for name in presented:
        if name.tag == OTHER_NAME:
            try:
                oid, text = readOther(name)
                others.setdefault(oid, []).append(text)
            except ValueError:
                hasOddOther = True
    return Names(
        dns=[host for host in known if _HOST.fullmatch(host)],
        patterns=[host for host in known if not _HOST.fullmatch(host)],
        hasOddHost=len(known) < len(hosts),
        addresses={
            version: sorted(int.from_bytes(one, "big") for one in plain if len(one) == length)
            for length, version in _VERSIONS.items()
        },
        hasOddAddress=len(plain) < len(addresses),
        uris=[text and foldedURI(text) for text in _texts(presented, URI)],
        emails=[text and foldedEmail(text) for text in _texts(presented, EMAIL)],
        others=others,
        hasOddOther=hasOddOther,
        presented=presented,
    )


def describe(name: Element) -> str:
    """
    Write a name as a rule would.

    @param name: any name, whatever is in it.
    @return: the words.
    """
    if name.tag in _PREFIXES:
        text = _address(name.content) if name.tag == IP else _ascii(name)
        shown = name.content.decode("ascii", "backslashreplace") if text is None else text
        return f"{_PREFIXES[name.tag]}:{shown}"
    if name.tag == OTHER_NAME:
        try:
            oid, text = readOther(name)
        except ValueError:
            return "othername:(unreadable)"
        return f"othername:{oid}={'(no text)' if text is None else text}"
    return _UNASKED.get(name.tag, "a name of an unknown kind")


def readOther(name: Element) -> tuple[str, str | None]:
    """
    Read an otherName.

    @param name: the name.
    @return: the OID of its type, and its text if it has one.
    @raise ValueError: if it cannot be read.
    """
    kind, value = elements(name.content)
    if kind.tag != _OBJECT_IDENTIFIER or value.tag != _VALUE:
        raise ValueError("expected an otherName, found something else")
    return objectIdentifier(kind.content), decodeText(value.content)


def _texts(names: Sequence[Element], kind: int) -> Sequence[str | None]:
    """Find the texts of a kind of names; C{None} for what is none."""
    return [_ascii(name) for name in names if name.tag == kind]


def _ascii(name: Element) -> str | None:
    """Decode an IA5String; its case is as it was."""
    return name.content.decode() if name.content.isascii() else None


def _address(content: bytes) -> str | None:
    """Write an address, or a network as the constraints on names have it."""
    if len(content) in _VERSIONS:
        return str(ipaddress.ip_address(content))
    half = len(content) // 2
    if half in _VERSIONS and len(content) == 2 * half:
        return f"{ipaddress.ip_address(content[:half])}/{ipaddress.ip_address(content[half:])}"
    return None
