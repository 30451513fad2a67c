"""Which of those who are trusted may come in: rules on what a certificate says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One rule.

    @ivar text: the rule as it was written.
    """

    text: str


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
