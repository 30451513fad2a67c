"""
Rules on what a peer says about itself, from their texts to tests.

C{*} stands for any run of characters and C{?} for any one.

  - C{dns:PATTERN}: a dNSName, whatever the case.  As with a wildcard in a
    certificate (RFC 9525, section 6.3) no C{*} stands for a dot:
    C{*.example.org} is for C{a.example.org} and not for C{a.b.example.org}.  A
    wildcard in a certificate is never expanded: only a rule with the same text
    allows it.  Of one that may stand for a host that the rule is about, and of a
    name with other characters than a host's, nobody can tell.
  - C{ip:NETWORK}: an iPAddress in the network, which may be one address.  Of one that
    is a network, or an IPv6 address that stands for one of IPv4, nobody can tell.
  - C{uri:PATTERN}: a URI, SPIFFE IDs included; whatever the case of scheme and
    authority.  There no C{*} stands for what ends them, so that
    C{spiffe://*.example.org/ns/*} is for no path that looks like a host; it does
    stand for a dot.  Behind the authority a C{*} stands for a slash as well.
    Nothing is decoded.  C{SCHEME:*} is for all that has the scheme.
  - C{email:PATTERN}: an rfc822Name, whatever the case of the domain.
  - C{othername:OID=PATTERN}: an otherName that is a UTF8String, an IA5String or a
    PrintableString.
  - C{subject.CN:PATTERN}, C{issuer.CN:PATTERN}: any value of an attribute, named
    as in RFC 4514 or by its OID.
  - C{subject:PATTERN}, C{issuer:PATTERN}: the whole name as in RFC 4514; there a
    character with a backslash before it counts as one, and is not the one
    without.
  - C{fingerprint:SHA256}: the certificate itself, in hexadecimal.  If its holder
    could have shown it in another form, or nobody can tell in which, there is no
    telling whether it is the one that is meant.
  - C{content:SHA256}: what the issuer has signed of it, in whatever form.
  - C{key:SHA256}: its public key, in whatever certificate.
  - C{serial:NUMBER,ISSUER}: its serial number, in hexadecimal, from an issuer with
    the whole name.
  - C{tag:NAME}: a tag of the session; of one that needs what cannot be read, nobody
    can tell.

Everything else is compared as it is written, its case included.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from cryptography import x509

from ktlsagent.peers.folding import folded
from ktlsagent.peers.patterns import expression, mayOverlap
from ktlsagent.peers.presented import DistinguishedName, Presented, unescaped
from ktlsagent.peers.signedcontent import contentDigest, keyDigest

Test = Callable[[Presented], bool | None]
"""
Says whether a peer is one that a rule is about, C{None} if that cannot be told.
It raises L{ktlsagent.peers.presented.Unreadable} if the certificate has a part that it
has to look at and that cannot be read.
"""

_ATTRIBUTES: Mapping[str, str] = {
    "CN": "2.5.4.3",
    "L": "2.5.4.7",
    "ST": "2.5.4.8",
    "O": "2.5.4.10",
    "OU": "2.5.4.11",
    "C": "2.5.4.6",
    "STREET": "2.5.4.9",
    "DC": "0.9.2342.19200300.100.1.25",
    "UID": "0.9.2342.19200300.100.1.1",
}
"""The short names of RFC 4514, section 3."""

_KINDS = (
    "dns:, ip:, uri:, email:, othername:, subject:, issuer:, subject.CN: (or another attribute), "
    "issuer.CN:, content:, key:, serial:, fingerprint: or tag:"
)

_HOST = re.compile(r"[A-Za-z0-9_*?-]+(?:\.[A-Za-z0-9_*?-]+)*")
_URI = re.compile(r"(?=[!-~]+$)([^:/#]+):(?://([^/#]*))?(.*)")
_EMAIL = re.compile(r"[ -~]+@[!-~]+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SERIAL = re.compile(r"-?[0-9A-Fa-f]{1,64}")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,255}")


def parseTest(text: str) -> Test:
    """
    Read a rule.

    @param text: the rule as it is written.
    @return: what it asks of a peer.
    @raise ValueError: if it is none; it says what was expected and what was found.
    """
    kind, _, value = text.partition(":")
    side, dot, attribute = kind.partition(".")
    if value and kind in _PARSERS:
        return _PARSERS[kind](value)
    if value and dot and side in _SIDES:
        return _attribute(_SIDES[side], attribute, value)
    raise ValueError(f"expected {_KINDS} and something behind it, found {text!r}")


def _anyOf(pattern: str, values: Callable[[Presented], Sequence[str | None]]) -> Test:
    """Match any of several values; one that is C{None} might be any text."""
    match = re.compile(pattern).fullmatch

    def test(peer: Presented) -> bool | None:
        found = values(peer)
        if any(value is not None and match(value) for value in found):
            return True
        return None if None in found else False

    return test


def _dns(text: str) -> Test:
    if not _HOST.fullmatch(text):
        raise ValueError(
            "expected the name of a host or a pattern of such, other letters than ASCII as "
            f"xn--, found {text!r}"
        )
    pattern = folded(text)
    labels = pattern.split(".")
    match = re.compile(expression(pattern, ".")).fullmatch
    mayMatch = re.compile(r"\.".join(map(_labelOrWildcard, labels)) + r"\.?").fullmatch

    def test(peer: Presented) -> bool | None:
        names = peer.names
        if any(map(match, names.dns)) or pattern in names.patterns:
            return True
        if names.hasOddHost or any(
            _mayBeOne(name, labels) for name in filter(mayMatch, names.patterns)
        ):
            return None
        return False

    return test


def _labelOrWildcard(label: str) -> str:
    """Write what a label of a certificate has to be that a rule's may stand for."""
    return rf"(?:(?>[^.*]*\*[^.]*)|{expression(label, '.')})"


def _mayBeOne(presented: str, labels: Sequence[str]) -> bool:
    """Say whether there may be a host for which a name with wildcards and a rule both stand."""
    found = presented.removesuffix(".").split(".")
    return len(found) == len(labels) and all(map(mayOverlap, found, labels))


def _ip(text: str) -> Test:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"expected an address or a network, found {text!r} ({error})") from None
    if "%" in text:
        raise ValueError(f"expected an address or a network without a zone, found {text!r}")
    if isinstance(network, ipaddress.IPv6Network) and network[0].ipv4_mapped:
        raise ValueError(
            f"expected the IPv4 address or network itself, found {text!r}, which stands for it"
        )
    version, lowest, highest = network.version, int(network[0]), int(network[-1])

    def test(peer: Presented) -> bool | None:
        names = peer.names
        isThere = names.hasAddress(version, lowest, highest)
        return isThere or (None if names.hasOddAddress else False)

    return test


def _uri(text: str) -> Test:
    parts = _URI.fullmatch(text)
    if parts is None or (parts[2] is None and re.match(r"\?|\*.", parts[3])):
        raise ValueError(
            "expected SCHEME:*, SCHEME://HOST/PATH or SCHEME:TEXT of ASCII characters whose "
            f"beginning is no wildcard, found {text!r}"
        )
    scheme, authority, rest = parts.groups()
    pattern = expression(folded(scheme), ":/?#") + ":"
    if authority is not None:
        pattern += "//" + expression(folded(authority), "/?#@:")
    elif rest != "*":
        pattern += "(?!//)"
    return _anyOf(pattern + expression(rest), lambda peer: peer.names.uris)


def _email(text: str) -> Test:
    if not _EMAIL.fullmatch(text):
        raise ValueError(f"expected LOCAL@DOMAIN of ASCII characters, found {text!r}")
    local, _, domain = text.rpartition("@")
    pattern = f"{expression(local)}@{expression(folded(domain), '@')}"
    return _anyOf(pattern, lambda peer: peer.names.emails)


def _otherName(text: str) -> Test:
    oid, _, pattern = text.partition("=")
    try:
        kind = x509.ObjectIdentifier(oid).dotted_string
    except ValueError:
        pattern = ""
    if not pattern:
        raise ValueError(f"expected OID=PATTERN, found {text!r}")
    return _anyOf(expression(pattern), lambda peer: peer.names.othersOf(kind))


_Side = Callable[[Presented], DistinguishedName | None]

_SIDES: Mapping[str, _Side] = {
    "subject": lambda peer: peer.subject,
    "issuer": lambda peer: peer.issuer,
}


def _attribute(side: _Side, attribute: str, text: str) -> Test:
    try:
        oid = x509.ObjectIdentifier(_ATTRIBUTES.get(attribute.upper(), attribute)).dotted_string
    except ValueError:
        raise ValueError(
            f"expected {', '.join(_ATTRIBUTES)} or a dotted OID as the attribute, "
            f"found {attribute!r}"
        ) from None

    def values(peer: Presented) -> Sequence[str | None]:
        name = side(peer)
        return () if name is None else name.values.get(oid, ())

    return _anyOf(expression(text), values)


def _wholeName(side: _Side, text: str) -> Test:
    if "=" not in text and "*" not in text:
        raise ValueError(
            f"expected a name as in RFC 4514, CN=client,O=Example for instance, found {text!r}"
        )

    def values(peer: Presented) -> Sequence[str]:
        name = side(peer)
        return () if name is None else (name.text,)

    return _anyOf(expression(unescaped(text)), values)


def _digest(text: str, what: str) -> bytes:
    digits = text.replace(":", "").lower()
    if not _DIGEST.fullmatch(digits):
        raise ValueError(f"expected a SHA-256 {what} of 64 hexadecimal digits, found {text!r}")
    return bytes.fromhex(digits)


def _fingerprint(text: str) -> Test:
    digest = _digest(text, "fingerprint")

    def test(peer: Presented) -> bool | None:
        if peer.certificate is None or peer.fingerprint == digest.hex():
            return peer.certificate is not None
        others = peer.otherForms
        if others is None or any(hashlib.sha256(one).digest() == digest for one in others):
            return None
        return False

    return test


def _signed(digestOf: Callable[[x509.Certificate], bytes], text: str) -> Test:
    digest = _digest(text, "digest")
    return lambda peer: peer.certificate is not None and digestOf(peer.certificate) == digest


def _serial(text: str) -> Test:
    written, _, name = text.partition(",")
    digits = written.replace(":", "")
    if not _SERIAL.fullmatch(digits) or not name:
        raise ValueError(
            "expected a serial number in hexadecimal, a comma and the issuer as in RFC 4514, "
            f"5e0c11ab,CN=CA,O=Example for instance, found {text!r}"
        )
    number = int(digits, 16)
    issuer = _wholeName(_SIDES["issuer"], name)

    def test(peer: Presented) -> bool | None:
        return (
            peer.certificate is not None
            and peer.certificate.serial_number == number
            and issuer(peer)
        )

    return test


def _tag(text: str) -> Test:
    if not _TAG.fullmatch(text):
        raise ValueError(
            f"expected a tag's name of at most 255 letters, digits, _ and -, found {text!r}"
        )
    return lambda peer: peer.tags.get(text, False)


_PARSERS: Mapping[str, Callable[[str], Test]] = {
    "dns": _dns,
    "ip": _ip,
    "uri": _uri,
    "email": _email,
    "othername": _otherName,
    "fingerprint": _fingerprint,
    "content": partial(_signed, contentDigest),
    "key": partial(_signed, keyDigest),
    "serial": _serial,
    "tag": _tag,
    **{side: partial(_wholeName, name) for side, name in _SIDES.items()},
}
