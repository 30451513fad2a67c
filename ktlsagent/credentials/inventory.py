"""What is trusted, revoked and shown, and what of it a reload changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import TypeVar

from cryptography import x509

from ktlsagent.protocols.verification import describeSubject

MOST_LISTED = 20
"""How many of a kind a sentence, or a run of sentences, lists."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Revocations:
    """
    What a CRL says.

    @ivar number: its CRL number, C{None} if it has none.
    @ivar thisUpdate: when it was made.
    @ivar serials: the serial numbers of the revoked certificates.
    """

    number: int | None
    thisUpdate: datetime
    serials: frozenset[int] = frozenset()

    def __str__(self) -> str:
        made = f"of {self.thisUpdate:%Y-%m-%d %H:%M:%S} UTC"
        return made if self.number is None else f"number {self.number} {made}"


@dataclass(frozen=True, slots=True)
class Inventory:
    """
    What is in use.

    @ivar anchors: the trust anchors in DER, by the file that they are in.
    @ivar crls: what the newest CRL of each kind says, by the CRL's name.
    @ivar chains: our certificates with what is sent with them, in DER and leaf
        first, by the file that they are in.
    """

    anchors: Mapping[str, Collection[bytes]] = field(default_factory=dict)
    crls: Mapping[str, Revocations] = field(default_factory=dict)
    chains: Mapping[str, Sequence[bytes]] = field(default_factory=dict)


def delta(old: Inventory, new: Inventory) -> Sequence[str]:
    """
    Say what is different.

    @param old: what was in use.
    @param new: what is in use now.
    @return: sentences; none if nothing is different.
    """
    return [
        *_anchorChanges(old.anchors, new.anchors),
        *_changes(old.crls, new.crls, _crl, _crlChange),
        *_changes(old.chains, new.chains, _chain, _chainChange),
    ]


def _anchorChanges(
    old: Mapping[str, Collection[bytes]], new: Mapping[str, Collection[bytes]]
) -> Iterator[str]:
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path, ()), new.get(path, ())
        for change, more, less in (("added", after, before), ("removed", before, after)):
            known = frozenset(less)
            changed = [der for der in more if der not in known]
            for der in changed[:MOST_LISTED]:
                yield f"{change} the trust anchor {_describe(der)} in {path}"
            if len(changed) > MOST_LISTED:
                yield f"{change} {len(changed) - MOST_LISTED} more trust anchors in {path}"


def _changes(
    old: Mapping[str, _Value],
    new: Mapping[str, _Value],
    describe: Callable[[str, _Value], str],
    describeChange: Callable[[str, _Value, _Value], str],
) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"added {describe(name, new[name])}"
        elif name not in new:
            yield f"removed {describe(name, old[name])}"
        elif old[name] != new[name]:
            yield describeChange(name, old[name], new[name])


def _crl(name: str, crl: Revocations) -> str:
    return f"the CRL of {name}: {crl}, {_listed(crl.serials, 'revoked')}"


def _crlChange(name: str, before: Revocations, after: Revocations) -> str:
    sentence = f"replaced the CRL of {name}: {before} -> {after}"
    for serials, word in (
        (after.serials - before.serials, "newly revoked"),
        (before.serials - after.serials, "no longer revoked"),
    ):
        if serials:
            sentence += f", {_listed(serials, word)}"
    return sentence


def _listed(serials: Collection[int], word: str) -> str:
    """Say how many serial numbers there are, and what the first of them are."""
    first = ", ".join(_serial(number) for number in sorted(serials)[:MOST_LISTED])
    more = ", ..." if len(serials) > MOST_LISTED else ""
    return f"{len(serials)} {word}" + (f" ({first}{more})" if first else "")


def _serial(number: int) -> str:
    """Render a serial number as its octets are, in hexadecimal."""
    digits = f"{number:x}"
    return digits.rjust(len(digits) + len(digits) % 2, "0")


def _chain(path: str, chain: Sequence[bytes]) -> str:
    return f"the certificate {_describe(chain[0])} in {path}"


def _chainChange(path: str, before: Sequence[bytes], after: Sequence[bytes]) -> str:
    if before[0] == after[0]:
        return f"replaced the CA certificates that are sent with {_describe(after[0])} in {path}"
    return f"replaced the certificate in {path}: {_describe(before[0])} -> {_describe(after[0])}"


def _describe(der: bytes) -> str:
    """Name a certificate for people.  What OpenSSL can read is not always readable here."""
    digest = f"SHA-256 {sha256(der).hexdigest()}"
    try:
        certificate = x509.load_der_x509_certificate(der)
        until = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
        return f"{describeSubject(certificate)} (until {until}, {digest})"
    except Exception:  # noqa: BLE001 - cryptography raises many kinds
        return f"(unreadable, {digest})"
