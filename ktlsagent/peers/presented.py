"""
What a peer says about itself: the names in its certificate, each kind in the
form in which it is compared, and the tags of its session.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ktlsagent.errors import AgentError
from ktlsagent.peers.generalnames import Names, describe, readNames
from ktlsagent.peers.signedcontent import otherForms
from ktlsagent.protocols.verification import (
    describeIssuer,
    describeSubject,
)
from ktlsagent.texts import cut, listed, printable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

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

        @raise Unreadable: if it cannot be told where they are.
        """
        try:
            return Names() if self.certificate is None else readNames(self.certificate)
        except ValueError as error:
            raise Unreadable(f"names that cannot be read ({cut(str(error))})") from None

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
                words.append(listed(self.names.presented, describe))
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
