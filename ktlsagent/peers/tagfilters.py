"""
What session tags can ask of a certificate: the filter types of tlshd's session
tags, and those for key purposes and alternative names that it lacks.

A filter is read once; its test is then put to one certificate after another.
Where tlshd's manual and its code contradict each other, the manual holds:

  - C{notBefore} matches what became valid at that time or later, C{notAfter} what
    ends at that time or earlier.  The code of tlshd 1.4 does the opposite.  No
    kernel has ever taken its tags, so nothing relies on the code, while the manual
    is what people read, and "issued since the CA was renewed" is what they need.
    C{not} gives the opposite.
  - An algorithm is known by its name and by its OID.  tlshd 1.4 knows by its OID
    only an algorithm that has no name.

An empty list of purposes, which the manual allows, is refused as by the code.

In one thing this is stricter than tlshd: an escaped comma of a distinguished name
is no comma (L{ktlsagent.peers.presented.unescaped}).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier

from ktlsagent.config.keyfile import quote
from ktlsagent.config.values import Wrong, suggest
from ktlsagent.peers.certificatefields import keyPurposesOf, keyUsagesOf
from ktlsagent.peers.certificatetexts import (
    algorithmsOf,
    fingerprintsOf,
    nameTexts,
    serialNumberOf,
    versionOf,
)
from ktlsagent.peers.folding import folded, foldedEmail, foldedURI
from ktlsagent.peers.patterns import matchesPattern, mayOverlap
from ktlsagent.peers.presented import Presented, Unreadable, unescaped
from ktlsagent.peers.rules import parseTest

Test = Callable[[Presented], bool | None]
"""
Says whether a peer with a certificate has what a filter wants; C{None}, or any
exception, if that cannot be told.
"""

_Texts = Callable[[Presented], Sequence[str | None]]

_MOST_WILDCARDS: Final = 16
"""tlshd takes no pattern with more."""


@dataclass(frozen=True, slots=True)
class FilterType:
    """
    A type of filters.

    @ivar key: the key of what is looked for: C{pattern}; C{purpose}, which is a
        list; or empty if there is none.
    @ivar read: turns the pattern, or one of the purposes, into a test, or raises
        L{Wrong}.
    """

    key: str
    read: Callable[[str], Test]


def _pattern(
    textsOf: _Texts,
    prepare: Callable[[str], str] = str,
) -> FilterType:
    """
    Make a type whose pattern matches one of the texts that a certificate has.

    @param textsOf: finds the texts; C{None} stands for what is none.
    @param prepare: raises L{Wrong} if a pattern is none for such texts, and else
        brings it into their form.
    @return: the type.
    """

    def read(written: str) -> Test:
        pattern = prepare(_checked(written))

        def test(peer: Presented) -> bool | None:
            texts = textsOf(peer)
            if any(text is not None and matchesPattern(pattern, text) for text in texts):
                return True
            return None if None in texts else False

        return test

    return FilterType("pattern", read)


def _ofCertificate(textsOf: Callable[[x509.Certificate], Sequence[str]]) -> _Texts:
    """Find texts in the certificate that a peer has shown."""
    return lambda peer: textsOf(_certificate(peer))


def _certificate(peer: Presented) -> x509.Certificate:
    if peer.certificate is None:
        raise Unreadable("no certificate")
    return peer.certificate


def _checked(pattern: str) -> str:
    """Check what all patterns have in common."""
    if not pattern or not pattern.isprintable():
        found = "characters that cannot be seen" if pattern else "nothing"
        raise Wrong("a pattern", found, "write * for any characters and ? for any one")
    wildcards = pattern.count("*") + pattern.count("?")
    if wildcards > _MOST_WILDCARDS:
        expected = f"at most {_MOST_WILDCARDS} wildcards in a pattern"
        raise Wrong(expected, f"{wildcards} of them", "use two filters in place of one")
    return pattern


def _versionPattern(pattern: str) -> str:
    if not re.fullmatch("[0-9*?]+", pattern):
        raise Wrong("the number of a version", quote(pattern), "write 3, which nearly all have")
    return pattern


def _hexPattern(pattern: str) -> str:
    if not re.fullmatch("[0-9a-f*?]+", pattern):
        advice = "write a to f in lower case, and no colons"
        raise Wrong("hexadecimal digits and wildcards", quote(pattern), advice)
    return pattern


def _namePattern(pattern: str) -> str:
    if "\\" in re.sub(r'\\(?:00|[\\"+,;<># ])', "", pattern):
        expected = 'after a backslash one of \\ , + " ; < > # or a blank'
        raise Wrong(expected, quote(pattern), "write a backslash that is meant as such twice")
    return unescaped(pattern)


def _dnsPattern(pattern: str) -> str:
    if not pattern.isascii():
        advice = "write names with other letters as certificates have them, with xn--"
        raise Wrong("a DNS name in ASCII", quote(pattern), advice)
    return folded(pattern)


def _dNSName(text: str) -> Test:
    pattern = _dnsPattern(_checked(text))

    def test(peer: Presented) -> bool | None:
        names = peer.names
        if any(matchesPattern(pattern, name) for name in (*names.dns, *names.patterns)):
            return True
        # A wildcard in a certificate may stand for a host that is meant.
        mayBeOne = any(mayOverlap(pattern, name.removesuffix(".")) for name in names.patterns)
        return None if mayBeOne or names.hasOddHost else False

    return test


def _emailPattern(pattern: str) -> str:
    if "@" not in pattern:
        raise Wrong("a pattern with @", quote(pattern), "write *@* for all addresses of e-mail")
    return foldedEmail(pattern)


def _notBefore(text: str) -> Test:
    time = _time(text)
    return lambda peer: _certificate(peer).not_valid_before_utc >= time


def _notAfter(text: str) -> Test:
    time = _time(text)
    return lambda peer: _certificate(peer).not_valid_after_utc <= time


def _time(text: str) -> datetime:
    written = _TIME.fullmatch(text)
    if written is not None:
        with suppress(ValueError):
            return datetime.fromisoformat(f"{written[1]}{written[2] or '+00:00'}")
    expected = "a date and a time like 2026-11-20 12:00:00"
    raise Wrong(expected, quote(text), "it is in UTC unless an offset like +01:00 follows")


_TIME: Final = re.compile(
    "([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2})"
    "(?: ?(?:UTC|Z|([+-][0-9]{2}:?[0-9]{2})))?"
)


def _selfSigned(_nothing: str) -> Test:
    return lambda peer: _issuerTexts(peer) == _subjectTexts(peer)


def _keyUsage(name: str) -> Test:
    if name not in _KEY_USAGES:
        raise Wrong("key usages that are known", quote(name), suggest(name, _KEY_USAGES))
    usages = _KEY_USAGES[name]
    return lambda peer: usages <= (keyUsagesOf(_certificate(peer)) or frozenset())


_KEY_USAGES: Final = {
    "digitalSignature": {0},
    "nonRepudiation": {1},
    "keyEncipherment": {2},
    "dataEncipherment": {3},
    "keyAgreement": {4},
    "keyCertSign": {5},
    "cRLSign": {6},
    # Without keyAgreement these mean nothing (RFC 5280, section 4.2.1.3).
    "encipherOnly": {4, 7},
    "decipherOnly": {4, 8},
}


def _extendedKeyUsage(name: str) -> Test:
    try:
        purpose = ObjectIdentifier(_PURPOSES.get(name, name)).dotted_string
    except ValueError:
        expected = "key purposes that are known, or OIDs"
        raise Wrong(expected, quote(name), suggest(name, _PURPOSES)) from None
    return lambda peer: purpose in (keyPurposesOf(_certificate(peer)) or ())


_PURPOSES: Final = {
    "serverAuth": "1.3.6.1.5.5.7.3.1",
    "clientAuth": "1.3.6.1.5.5.7.3.2",
    "codeSigning": "1.3.6.1.5.5.7.3.3",
    "emailProtection": "1.3.6.1.5.5.7.3.4",
    "timeStamping": "1.3.6.1.5.5.7.3.8",
    "OCSPSigning": "1.3.6.1.5.5.7.3.9",
    "anyExtendedKeyUsage": "2.5.29.37.0",
    # id-kp-rpcTLSClient and id-kp-rpcTLSServer of RFC 9289.
    "rpcTLSClient": "1.3.6.1.5.5.7.3.33",
    "rpcTLSServer": "1.3.6.1.5.5.7.3.34",
}


def _iPAddress(text: str) -> Test:
    try:
        return parseTest(f"ip:{text}")
    except ValueError:
        expected = "an address, or a network by its first address, like 192.0.2.0/24"
        raise Wrong(expected, quote(text), "there are no wildcards in addresses") from None


def _otherName(text: str) -> Test:
    written, equals, pattern = text.partition("=")
    try:
        oid = ObjectIdentifier(written).dotted_string
    except ValueError:
        equals = ""
    if not equals:
        advice = "write it like 1.3.6.1.4.1.2238.1.1.1=*@example.org"
        raise Wrong("an OID, = and a pattern", quote(text), advice)
    return _pattern(lambda peer: peer.names.othersOf(oid)).read(pattern)


def _fingerprint(text: str) -> Test:
    pattern = _hexPattern(_checked(text))

    def test(peer: Presented) -> bool | None:
        if _matchesForm(pattern, _certificate(peer).public_bytes(Encoding.DER)):
            return True
        # The fingerprint is that of one form; the holder may have another one of it.
        others = peer.otherForms
        return None if others is None or any(_matchesForm(pattern, it) for it in others) else False

    return test


def _matchesForm(pattern: str, form: bytes) -> bool:
    return any(matchesPattern(pattern, text) for text in fingerprintsOf(form))


_issuerTexts: Final = _ofCertificate(lambda it: nameTexts(it.issuer))
_subjectTexts: Final = _ofCertificate(lambda it: nameTexts(it.subject))


FILTER_TYPES: Final = {
    "x509.cert.signatureAlgorithm": _pattern(_ofCertificate(algorithmsOf)),
    "x509.tbs.version": _pattern(_ofCertificate(versionOf), _versionPattern),
    "x509.tbs.serialNumber": _pattern(_ofCertificate(serialNumberOf), _hexPattern),
    "x509.tbs.issuer": _pattern(_issuerTexts, _namePattern),
    "x509.tbs.validity.notBefore": FilterType("pattern", _notBefore),
    "x509.tbs.validity.notAfter": FilterType("pattern", _notAfter),
    "x509.tbs.subject": _pattern(_subjectTexts, _namePattern),
    "x509.extension.keyUsage": FilterType("purpose", _keyUsage),
    "x509.extension.extendedKeyUsage": FilterType("purpose", _extendedKeyUsage),
    "x509.extension.subjectAltName.dNSName": FilterType("pattern", _dNSName),
    "x509.extension.subjectAltName.iPAddress": FilterType("pattern", _iPAddress),
    "x509.extension.subjectAltName.uniformResourceIdentifier": _pattern(
        lambda peer: peer.names.uris, foldedURI
    ),
    "x509.extension.subjectAltName.rfc822Name": _pattern(
        lambda peer: peer.names.emails, _emailPattern
    ),
    "x509.extension.subjectAltName.otherName": FilterType("pattern", _otherName),
    "x509.derived.fingerprint": FilterType("pattern", _fingerprint),
    "x509.derived.selfSigned": FilterType("", _selfSigned),
}
"""The types of filters, by name."""
