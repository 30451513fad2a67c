"""What ends, and when to say so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

EARLY = timedelta(days=30)
"""How long before its end something is warned of."""

_SHARE = 3
"""
What lives shorter than three times as long as that is warned of in the last
third of its life: a CRL of a week is never good for 30 days.
"""


@dataclass(frozen=True, slots=True)
class Expiry:
    """
    Something that is good for a while.

    @ivar what: what it is, in words.
    @ivar path: the file that it is in.
    @ivar notBefore: from when on it is good.
    @ivar notAfter: until when it is.
    """

    what: str
    path: str
    notBefore: datetime
    notAfter: datetime

    def flaw(self, now: datetime) -> str:
        """
        Say what is wrong with it at some time.

        @param now: the time.
        @return: whether it has ended or not begun, and when; empty if it is good.
        """
        if self.notAfter < now:
            return f"ended {_span(now - self.notAfter)} ago, at {_when(self.notAfter)}"
        if self.notBefore > now:
            return f"begins in {_span(self.notBefore - now)}, at {_when(self.notBefore)}"
        return ""


def warnings(expiries: Iterable[Expiry], now: datetime) -> Sequence[str]:
    """
    Say what has ended, will soon, or is not good yet.

    @param expiries: what to look at.
    @param now: the time of day.
    @return: a sentence about each, what ends first coming first.
    """
    sentences = []
    for expiry in sorted(set(expiries), key=lambda one: (one.notAfter, one.what, one.path)):
        left = expiry.notAfter - now
        flaw = expiry.flaw(now)
        if not flaw and left <= min(EARLY, (expiry.notAfter - expiry.notBefore) / _SHARE):
            flaw = f"ends in {_span(left)}, at {_when(expiry.notAfter)}"
        if flaw:
            advice = "" if expiry.notBefore > now else "; renew it"
            sentences.append(f"{expiry.what} in {expiry.path} {flaw}{advice}")
    return sentences


def _span(time: timedelta) -> str:
    """Put a time into days, or hours if it is less than two of them."""
    hours = int(time.total_seconds() // 3600)
    number, unit = (hours, "hour") if hours < 48 else (hours // 24, "day")  # noqa: PLR2004
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _when(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
