"""
What a peer says about itself: the names in its certificate, each kind in the
form in which it is compared, and the tags of its session.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ktlsagent.errors import AgentError
from ktlsagent.peers.signedcontent import otherForms
from ktlsagent.protocols.asn1 import decodeText
from ktlsagent.protocols.verification import (
    UNREADABLE,
    describeIssuer,
    describeName,
    describeSubject,
)
from ktlsagent.texts import cut, listed, printable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SCHEME_AND_HOST = re.compile(r"[^:/?#]*:(?://[^/?#]*)?")

_PREFIXES: Mapping[type[x509.GeneralName], str] = {
    x509.DNSName: "dns",
    x509.IPAddress: "ip",
    x509.RFC822Name: "email",
    x509.UniformResourceIdentifier: "uri",
}

_ESCAPED = re.compile(r"\\([ -~])")
_SURROGATES = 0xD800


class Unreadable(AgentError):
    """A part of a certificate cannot be read; the message says which and why."""


@dataclass(frozen=True, slots=True)
class DistinguishedName:
    """
    A subject or an issuer.

    @ivar text: its RFC 4514 text as L{unescaped} makes it.
    @ivar values: the values of its attributes by their OIDs; C{None} for what
        is no text.
    """

    text: str
    values: Mapping[str, Sequence[str | None]]


@dataclass(frozen=True, slots=True)
class Names:
    """
    The subjectAltName of a certificate.

    @ivar dns: the names of hosts, in lower case.
    @ivar doubtful: those in whose place there is something else, in lower case:
        a wildcard, an empty label, a dot at the end.
    @ivar addresses: the addresses of either version as numbers, in order.
    @ivar hasNetwork: whether there is a network in the place of an address.
    @ivar uris: the URIs, scheme and host in lower case.
    @ivar emails: the addresses of e-mail, the domain in lower case.
    @ivar others: the texts of the other names, by their types' OIDs; C{None} for
        what is no text.
    @ivar presented: all names, as they are there.
    """

    dns: Sequence[str] = ()
    doubtful: Sequence[str] = ()
    addresses: Mapping[int, Sequence[int]] = field(default_factory=dict)
    hasNetwork: bool = False
    uris: Sequence[str] = ()
    emails: Sequence[str] = ()
    others: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    presented: Sequence[x509.GeneralName] = ()

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


def _noTags(_peer: Presented) -> Mapping[str, bool | None]:
    """No session tags are defined."""
    return {}


class Presented:
    """
    A peer.  What it presents is read when it is first asked for.

    @ivar certificate: its certificate, if it has shown one.
    """

    def __init__(
        self,
        certificate: x509.Certificate | None,
        signer: x509.Certificate | None = None,
        tagsOf: Callable[[Presented], Mapping[str, bool | None]] = _noTags,
    ) -> None:
        """
        @param certificate: its certificate, if it has shown one.
        @param signer: the certificate with whose key the signature of the peer's
            was verified, if it was.
        @param tagsOf: says of each session tag whether the peer gets it, C{None}
            if that cannot be told.
        """
        self.certificate = certificate
        self._signer = signer
        self._tagsOf = tagsOf

    @cached_property
    def tags(self) -> Mapping[str, bool | None]:
        """By the names of session tags whether it gets them; C{None} if nobody can tell."""
        return self._tagsOf(self)

    @cached_property
    def names(self) -> Names:
        """
        Its names.

        @raise Unreadable: if the extensions cannot be read.
        """
        try:
            return Names() if self.certificate is None else _readNames(self.certificate)
        except UNREADABLE as error:
            raise Unreadable(f"extensions that cannot be read ({cut(str(error))})") from None

    @cached_property
    def subject(self) -> DistinguishedName | None:
        """
        The subject of its certificate.

        @raise Unreadable: if it cannot be read.
        """
        try:
            return None if self.certificate is None else _sorted(self.certificate.subject)
        except ValueError as error:
            raise Unreadable(f"a subject that cannot be read ({cut(str(error))})") from None

    @cached_property
    def issuer(self) -> DistinguishedName | None:
        """
        The issuer of its certificate.

        @raise Unreadable: if it cannot be read.
        """
        try:
            return None if self.certificate is None else _sorted(self.certificate.issuer)
        except ValueError as error:
            raise Unreadable(f"an issuer that cannot be read ({cut(str(error))})") from None

    @cached_property
    def fingerprint(self) -> str | None:
        """The SHA-256 fingerprint of its certificate, in lower-case hexadecimal."""
        certificate = self.certificate
        return None if certificate is None else certificate.fingerprint(hashes.SHA256()).hex()

    @cached_property
    def otherForms(self) -> Sequence[bytes] | None:
        """
        The other forms that its certificate could have been shown in, in DER; C{None}
        if that cannot be told.
        """
        return () if self.certificate is None else otherForms(self.certificate, self._signer)

    def describe(self) -> str:
        """
        List what it presents for people, as rules would name it.

        @return: the list, not longer than a log can bear.
        """
        if self.certificate is None:
            words = ["no certificate"]
        else:
            words = [
                f"subject:{cut(describeSubject(self.certificate))}",
                f"issuer:{cut(describeIssuer(self.certificate))}",
                f"fingerprint:{self.fingerprint}",
            ]
            try:
                words.append(listed(self.names.presented, _describe))
            except Unreadable as error:
                words.append(str(error))
        words.append(listed([f"tag:{tag}" for tag, given in sorted(self.tags.items()) if given]))
        return printable(", ".join(filter(None, words)))


def plainAddress(address: Address) -> Address:
    """
    Take off an address what does not count when it is compared.

    @param address: any address.
    @return: it without its zone, and in version 4 if it is mapped.
    """
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))
    return address


def foldedURI(uri: str) -> str:
    """
    Bring a URI into the form in which it is compared.

    @param uri: any URI.
    @return: it with scheme and authority in lower case; nothing is decoded.
    """
    head = _SCHEME_AND_HOST.match(uri)
    return uri if head is None else head[0].lower() + uri[head.end() :]


def foldedEmail(address: str) -> str:
    """
    Bring an address of e-mail into the form in which it is compared.

    @param address: any address.
    @return: it with the domain in lower case.
    """
    local, at, domain = address.rpartition("@")
    return local + at + domain.lower()


def unescaped(text: str) -> str:
    """
    Put one character, which is in no text, in the place of each that is escaped
    with a backslash: else C{CN=*,O=Example} were also for who has the common name
    C{a,O=Example}.

    @param text: a name as in RFC 4514, or a pattern of such.
    @return: what is matched in its place.
    """
    return _ESCAPED.sub(lambda escaped: chr(_SURROGATES + ord(escaped[1])), text)


def _sorted(name: x509.Name) -> DistinguishedName:
    """Sort the attributes of a name by their kinds."""
    values: dict[str, list[str | None]] = {}
    for attribute in name:
        value = attribute.value if isinstance(attribute.value, str) else None
        values.setdefault(attribute.oid.dotted_string, []).append(value)
    return DistinguishedName(unescaped(name.rfc4514_string() or "(empty)"), values)


def _readNames(certificate: x509.Certificate) -> Names:
    """Sort the names of a certificate by their kinds."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return Names()
    presented = tuple(extension.value)
    hosts = [name.value.lower() for name in presented if isinstance(name, x509.DNSName)]
    addresses: dict[int, list[int]] = {4: [], 6: []}
    others: dict[str, list[str | None]] = {}
    hasNetwork = False
    for name in presented:
        if isinstance(name, x509.IPAddress):
            if isinstance(name.value, Address):
                address = plainAddress(name.value)
                addresses[address.version].append(int(address))
            else:
                hasNetwork = True
        elif isinstance(name, x509.OtherName):
            others.setdefault(name.type_id.dotted_string, []).append(decodeText(name.value))
    return Names(
        dns=[host for host in hosts if _isPlain(host)],
        doubtful=[host for host in hosts if not _isPlain(host)],
        addresses={version: sorted(numbers) for version, numbers in addresses.items()},
        hasNetwork=hasNetwork,
        uris=[
            foldedURI(name.value)
            for name in presented
            if isinstance(name, x509.UniformResourceIdentifier)
        ],
        emails=[foldedEmail(name.value) for name in presented if isinstance(name, x509.RFC822Name)],
        others=others,
        presented=presented,
    )


def _isPlain(host: str) -> bool:
    """Say whether the name of a host stands for itself and for nothing else."""
    return "*" not in host and all(host.split("."))


def _describe(name: x509.GeneralName) -> str:
    """Write a name as a rule would."""
    if isinstance(name, x509.OtherName):
        text = decodeText(name.value)
        shown = "(no text)" if text is None else text
        return f"othername:{name.type_id.dotted_string}={shown}"
    if isinstance(name, x509.DirectoryName):
        return f"directory:{describeName(name.value)}"
    if isinstance(name, x509.RegisteredID):
        return f"registered:{name.value.dotted_string}"
    return f"{_PREFIXES[type(name)]}:{name.value}"
