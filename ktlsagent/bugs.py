"""Bugs of our own in the log: what has led to each, and no more of it than a log can bear."""

from __future__ import annotations

from typing import Any, Final

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.reflect import qual, safe_str

from ktlsagent.texts import NAME, cut, printable

_FRAMES: Final = 20
"""How many calls are shown, the innermost ones: they fit into 4 kB with what is before them."""


class Bug(Failure):
    """
    A failure that nobody has thought of.  The words of its exception may be
    anybody's, as long and with as many line ends as they like.
    """

    def getTraceback(self, *_ignored: Any, **_named: Any) -> str:  # noqa: ANN401 - Failure's own
        """
        Tell where it has come from.

        @return: one line for each of the innermost calls, and one for the exception.
        """
        calls = [
            f"  {cut(filename)}, line {line}, in {cut(function)}"
            for function, filename, line, *_variables in self.frames[-_FRAMES:]
        ]
        left = len(self.frames) - len(calls)
        lines = ["Traceback (most recent call last):", *calls]
        if left:
            lines.insert(1, f"  ({left} calls before)")
        words = cut(f"{qual(type(self.value))}: {safe_str(self.value)}", NAME)
        return "\n".join([*lines, printable(words)])


def logBug(log: Logger, failure: Failure) -> None:
    """
    Write that there is a bug, and where.

    @param log: where to.
    @param failure: the failure.
    """
    bug: Any = Bug(failure)  # type: ignore[no-untyped-call]
    # Whoever keeps the event does not keep what the calls were about: a failure is an
    # exception as well, and has what it was made of.
    bug.cleanFailure()
    bug.args = ()
    log.failure("This is a bug in ktlsagent", failure=bug)
