"""
Whether the CAs of a chain may vouch for a name (RFC 5280, section 4.2.1.10).

OpenSSL has checked the names that are in the certificates.  What is decided here goes
beyond that, and only ever refuses:

  - the name that was asked for: a certificate for C{*.example.com} says nothing of an
    excluded C{bar.example.com};
  - URIs and addresses of e-mail, for which OpenSSL compares an empty subtree as a
    name, though it is for all names, and takes for a part of the host what is not.

A constraint that cannot be read permits nothing, and a name that cannot be compared
with one is not permitted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cryptography import x509

from ktlsagent.errors import PeerRejected
from ktlsagent.peers.certificatefields import extensionOf, fieldsOf
from ktlsagent.peers.folding import folded
from ktlsagent.peers.generalnames import DNS, EMAIL, IP, URI, describe, presentedNames
from ktlsagent.protocols.asn1 import Element, elements, onlyElement
from ktlsagent.protocols.verification import describeCertificate, describeSubject
from ktlsagent.texts import cut, listed, printable

_NAME_CONSTRAINTS: Final = bytes.fromhex("0603551d1e")

_EMAIL_ADDRESS: Final = bytes.fromhex("2a864886f70d010901")
"""C{emailAddress}, the attribute of a subject that is one (PKCS#9)."""

_SEQUENCE: Final = 0x30
_PERMITTED: Final = 0xA0
_EXCLUDED: Final = 0xA1

_LABELS: Final = r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABELS}")
_SUBTREE: Final = re.compile(rf"(?=.{{0,254}}\Z)(?:\.?{_LABELS})?")
_LOCAL: Final = re.compile(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]+")
_AUTHORITY: Final = re.compile(r"[^:/?#]+://(?:[^@/?#]*@)?([^@/?#:]*)(?::[0-9]*)?(?:[/?#].*)?")

_ADDRESSES: Final = (4, 16)
"""The octets of addresses."""


def judgeNames(chain: Sequence[x509.Certificate], peer: str) -> PeerRejected | None:
    """
    Judge whether the CAs of a chain may vouch for the URIs and the addresses of e-mail
    in the certificates below them.

    @param chain: the chain as it was verified: the peer's own certificate first, the
        root last.
    @param peer: C{client} or C{server}.
    @return: the refusal, or C{None}.
    """
    for height in _constrained(chain):
        for depth, certificate in enumerate(chain[:height]):
            why = _whyNone(chain[height], certificate, own=depth == 0)
            if why is not None:
                return PeerRejected(
                    "certificate-invalid",
                    f"expected names that {describeCertificate(chain[height], height, peer)} may "
                    f"vouch for in {describeCertificate(certificate, depth, peer)}, found {why}",
                )
    return None


def whyNot(name: Element, chain: Sequence[x509.Certificate]) -> str | None:
    """
    Say why the CAs of a chain may not vouch for a name.

    @param name: a DNS name or an address.
    @param chain: the chain as it was verified, the peer's own certificate first.
    @return: the reason in words; C{None} if they may.
    """
    for height in _constrained(chain):
        why = _judge([name], chain[height])
        if why is not None:
            which = cut(describeSubject(chain[height]))
            return f"{why} (the CA certificate at depth {height}, {which})"
    return None


def _constrained(chain: Sequence[x509.Certificate]) -> Iterator[int]:
    """Find the CAs with constraints: their places in the chain."""
    for height, authority in enumerate(chain):
        if height > 0 and _NAME_CONSTRAINTS in authority.tbs_certificate_bytes:
            yield height


def _whyNone(
    authority: x509.Certificate, certificate: x509.Certificate, *, own: bool
) -> str | None:
    """Say why a CA may not vouch for a certificate below it."""
    try:
        _serial, _signature, issuer, _validity, subject, *_others = fieldsOf(certificate)
        if not own and issuer.encoded == subject.encoded:
            # The same CA with another key may have any name.
            return None
        names = [*presentedNames(certificate), *_emailsIn(subject)]
    except ValueError as error:
        return f"names that cannot be read ({cut(str(error))})"
    kinds = [[name for name in names if name.tag == kind] for kind in (URI, EMAIL)]
    return next(filter(None, (_judge(some, authority) for some in kinds if some)), None)


def _emailsIn(subject: Element) -> Iterator[Element]:
    """Find the addresses of e-mail in a distinguished name."""
    for relative in elements(subject.content):
        for attribute in elements(relative.content):
            kind, value = elements(attribute.content)
            if kind.content == _EMAIL_ADDRESS:
                yield Element(EMAIL, value.content, value.encoded)


def _judge(names: Sequence[Element], authority: x509.Certificate) -> str | None:
    """Say why a CA may not vouch for all of some names of one kind, at least one."""
    kind = names[0].tag
    try:
        permitted, excluded = _subtrees(authority, kind)
        if not permitted and not excluded:
            return None
        isIn = _inSubtrees(kind, permitted), _inSubtrees(kind, excluded)
    except ValueError as error:
        return f"constraints that cannot be read ({cut(str(error))})"
    for name in names:
        shown = printable(cut(describe(name)))
        try:
            isPermitted, isExcluded = (test(name.content) for test in isIn)
        except ValueError:
            return f"{shown}, which cannot be compared with its constraints"
        if isExcluded:
            return f"{shown}, which it excludes"
        if permitted and not isPermitted:
            return f"{shown}, while it permits {listed(permitted, describe)}"
    return None


def _subtrees(
    authority: x509.Certificate, kind: int
) -> tuple[Sequence[Element], Sequence[Element]]:
    """Find the bases of a kind among the permitted and the excluded subtrees."""
    extension = extensionOf(authority, _NAME_CONSTRAINTS)
    found: dict[int, list[Element]] = {_PERMITTED: [], _EXCLUDED: []}
    for part in () if extension is None else elements(onlyElement(extension, _SEQUENCE)):
        if part.tag not in found:
            raise ValueError("expected permitted and excluded subtrees, found something else")
        for subtree in elements(part.content):
            base, *limits = elements(subtree.content)
            if base.tag == kind:
                if limits:
                    raise ValueError("expected subtrees without minimum and maximum, found one")
                found[part.tag].append(base)
    return found[_PERMITTED], found[_EXCLUDED]


def _inSubtrees(kind: int, bases: Sequence[Element]) -> Callable[[bytes], bool]:
    """Make what says whether a name is in one of some subtrees."""
    if kind == IP:
        networks = [_network(base.content) for base in bases]
        return lambda address: any(_isIn(address, *network) for network in networks)
    known = {_base(kind, _text(base.content)) for base in bases}
    return lambda name: any(one in known for one in _SUBTREES_OF[kind](_text(name)))


def _network(content: bytes) -> tuple[bytes, bytes]:
    half = len(content) // 2
    if half not in _ADDRESSES or len(content) != 2 * half:
        raise ValueError(f"expected an address and a mask, found {len(content)} octets")
    return content[:half], content[half:]


def _isIn(address: bytes, base: bytes, mask: bytes) -> bool:
    return len(address) == len(base) and all(
        (one ^ other) & bits == 0 for one, other, bits in zip(address, base, mask, strict=True)
    )


def _text(content: bytes) -> str:
    return folded(content.decode("ascii"))


def _base(kind: int, text: str) -> str:
    """Check the base of a subtree."""
    local, _, host = text.rpartition("@")
    if kind == EMAIL and local and _LOCAL.fullmatch(local) and _HOST.fullmatch(host):
        return text
    if not _SUBTREE.fullmatch(text):
        raise ValueError("expected the name of a host, with a dot before it or without, or nothing")
    return text


def _subtreesOfHost(host: str) -> Iterator[str]:
    """List the subtrees of hosts that a host is in: nothing, itself, and those below others."""
    if not _HOST.fullmatch(host):
        raise ValueError(f"expected the name of a host, found {host!r}")
    yield ""
    yield host
    while "." in host:
        host = host.partition(".")[2]
        yield f".{host}"


def _subtreesOfDNSName(name: str) -> Iterator[str]:
    """A DNS name is also in those of all names that it ends with."""
    for subtree in _subtreesOfHost(name):
        yield subtree
        yield subtree.removeprefix(".")


def _subtreesOfURI(uri: str) -> Iterator[str]:
    """A URI is where its host is, and has to have one that is no address."""
    parts = _AUTHORITY.fullmatch(uri)
    host = "" if parts is None else parts[1]
    if host.replace(".", "").isdigit():
        raise ValueError(f"expected the name of a host, found {host!r}")
    return _subtreesOfHost(host)


def _subtreesOfEmail(address: str) -> Iterator[str]:
    """An address of e-mail is also in the subtree of itself alone."""
    local, _, host = address.rpartition("@")
    if not _LOCAL.fullmatch(local):
        raise ValueError(f"expected the name of a mailbox, found {local!r}")
    yield address
    yield from _subtreesOfHost(host)


_SUBTREES_OF: Final = {DNS: _subtreesOfDNSName, URI: _subtreesOfURI, EMAIL: _subtreesOfEmail}
