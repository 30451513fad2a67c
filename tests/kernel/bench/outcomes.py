"""What is made of mounts that succeeded, failed, or never came to an end."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

UNFINISHED: Final = "unfinished"
NO_AGENT: Final = "ESRCH"

Result = Sequence[Any] | None
"""Errno and seconds; L{None} for what never came to an end."""


def quantile(values: Sequence[float], part: float) -> float | None:
    """
    Find the value that a part of all do not exceed.

    @param values: all.
    @param part: between 0 and 1.
    @return: the value, with milliseconds; L{None} if there are none.
    """
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 3)


def failures(results: Sequence[Result]) -> dict[str, int]:
    """
    Count what did not succeed.

    @param results: of all.
    @return: how many, by the errno's name.
    """
    names = (
        UNFINISHED if result is None else errno.errorcode.get(result[0], str(result[0]))
        for result in results
        if result is None or result[0]
    )
    return dict(Counter(names))


def ofMounts(results: Sequence[Result]) -> dict[str, Any]:
    """
    Summarise mounts that were begun at once.

    @param results: of all.
    @return: what goes into a sample.
    """
    seconds = [result[1] for result in results if result is not None and not result[0]]
    failed = failures(results)
    return {
        "last": quantile(seconds, 1.0),
        "p50": quantile(seconds, 0.5),
        "p99": quantile(seconds, 0.99),
        "failed": sum(failed.values()),
        "failures": failed,
    }


def ofRun(mounts: Sequence[Result], lookups: Sequence[Result]) -> dict[str, Any]:
    """
    Summarise a mount, and the use of all its connections.

    @param mounts: of the one mount.
    @param lookups: of what was asked of the server.
    @return: C{seconds}, L{None} if anything failed or did not come to its end, and
        C{failures}.
    """
    failed = failures([*mounts, *lookups])
    seconds = 0.0
    for each in (mounts, lookups):
        seconds += max((result[1] for result in each if result is not None), default=0.0)
    return {"seconds": None if failed else round(seconds, 3), "failures": failed}


def ofRuns(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """
    Summarise runs of which each is to come to its end.

    @param runs: each as L{ofRun} has it, with C{cpu}.
    @return: what goes into a sample.
    """
    ended = [run["seconds"] for run in runs if run["seconds"] is not None]
    return {
        "runs": len(runs),
        "hung": sum(UNFINISHED in run["failures"] for run in runs),
        "failed": sum(bool(run["failures"].keys() - {UNFINISHED}) for run in runs),
        "p50": quantile(ended, 0.5),
        "longest": quantile(ended, 1.0),
        "cpu": quantile([run["cpu"] for run in runs], 0.5),
        "each": list(runs),
    }


def ofMounting(
    seconds: Sequence[float], names: Sequence[str], away: Sequence[float]
) -> dict[str, Any]:
    """
    Summarise mounts that were made one after the other.

    @param seconds: how long each took that succeeded.
    @param names: the errno's name for each that failed.
    @param away: how long there was no agent, each time.
    @return: what goes into a sample.
    """
    return {
        "mounts": len(seconds),
        "failed": len(names),
        "noAgent": names.count(NO_AGENT),
        "away": quantile(away, 0.5),
        "longestAway": quantile(away, 1.0),
        "failures": dict(Counter(names)),
        "p50": quantile(seconds, 0.5),
        "longest": quantile(seconds, 1.0),
    }
