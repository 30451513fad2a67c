"""
Which of those who are trusted may come in.

It fails closed: what cannot be read, or could be read in two ways, is allowed by
no rule that is about it, and denied by each.  A rule on something else is not
affected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ktlsagent.errors import PeerRejected
from ktlsagent.peers.presented import Address, Presented, Unreadable, plainAddress
from ktlsagent.peers.rules import Test, parseTest
from ktlsagent.texts import cut, listed, printable


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One rule.

    @ivar text: the rule as it was written.
    @ivar matches: says whether a peer is one that the rule is about.
    """

    text: str
    matches: Test = field(repr=False, compare=False)

    def __reduce__(self) -> tuple[Callable[[str], Rule], tuple[str]]:
        """
        Pass to another process as what it was written as.

        @return: what makes it of what.
        """
        return parseRule, (self.text,)


@dataclass(frozen=True, slots=True)
class Access:
    """
    Who may come in.  Deny wins.

    @ivar allow: if there are any, one has to match.
    @ivar deny: none may match.
    @ivar addressInCertificate: whether the peer's address has to be among the
        C{iPAddress} names of its certificate.
    """

    allow: Sequence[Rule] = ()
    deny: Sequence[Rule] = ()
    addressInCertificate: bool = False


def parseRule(text: str) -> Rule:
    """
    Read a rule.

    @param text: the rule as it is written.
    @return: the rule.
    @raise ValueError: if it is none; it says what was expected and what was found.
    """
    return Rule(text, parseTest(text))


def judgeAccess(access: Access, peer: Presented, address: Address | None) -> PeerRejected | None:
    """
    Judge whether a peer that is trusted may come in.

    A peer without a certificate comes in only if nothing is asked of one: it is
    nobody that could be allowed.  Of the rules to deny only those about tags can
    be about it.  Whoever is denied by another one may thus come back without a
    certificate, where those may come in who have none.

    @param access: the rules.
    @param peer: the peer.
    @param address: the peer's address, if it is known.
    @return: the refusal, or C{None}.
    """
    return (
        _judgeDenied(access.deny, peer)
        or (_judgeAllowed(access.allow, peer) if access.allow else None)
        or (_judgeAddress(address, peer) if access.addressInCertificate else None)
    )


def _ask(rule: Rule, peer: Presented) -> bool | None:
    """Ask whether a peer is one that a rule is about; C{None} if that cannot be told."""
    try:
        return rule.matches(peer)
    except Unreadable:
        return None


def _judgeDenied(rules: Sequence[Rule], peer: Presented) -> PeerRejected | None:
    """Refuse whom a rule denies, or may deny."""
    for rule in rules:
        answer = _ask(rule, peer)
        if answer is not False:
            found = "matches" if answer else "may match, which nobody can tell"
            return PeerRejected(
                "denied",
                f"expected a peer that no rule denies, found that {cut(rule.text)} {found}: "
                f"{peer.describe()}",
            )
    return None


def _judgeAllowed(rules: Sequence[Rule], peer: Presented) -> PeerRejected | None:
    """Refuse whom no rule allows."""
    if peer.certificate is not None and any(_ask(rule, peer) for rule in rules):
        return None
    return PeerRejected(
        "not-allowed",
        f"expected a certificate that one of the rules allows "
        f"({printable(listed(rules, lambda rule: rule.text, most=300))}), found {peer.describe()}",
    )


def _judgeAddress(address: Address | None, peer: Presented) -> PeerRejected | None:
    """Refuse who is somewhere else than its certificate says."""
    try:
        if address is not None:
            plain = plainAddress(address)
            if peer.names.hasAddress(plain.version, int(plain), int(plain)):
                return None
    except Unreadable:
        pass
    where = "which is not known" if address is None else f"ip:{plainAddress(address)}"
    return PeerRejected(
        "address-mismatch",
        f"expected a certificate for the peer's address, {where}, found {peer.describe()}",
    )
