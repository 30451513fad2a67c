"""The bars about clients: that no mount hangs, and that none fails while agents are restarted."""

from __future__ import annotations

from typing import Final

from tests.kernel.bench.part import KTLSAGENT
from tests.kernel.bench.samples import AGENT, Sample
from tests.kernel.bench.verdicts import Measured, Verdict

_RUNS: Final = 20
_SLOW: Final = "server slower by, ms"


def _own(measured: Measured, part: str) -> list[Sample]:
    """
    Choose ktlsagent's samples of a part.

    @param measured: everything.
    @param part: the part.
    @return: the samples.
    """
    return [sample for sample in measured.get(part, ()) if sample[AGENT] == KTLSAGENT]


def noHang(measured: Measured) -> Verdict:
    """
    Look whether mounts with many connections hang, or fail, where handshakes are slow.

    @param measured: everything.
    @return: the verdict.
    """
    bar, wanted = "nconnect=16, 1 GB, slow server: runs that hang or fail", f"none of {_RUNS}"
    chosen = [sample for sample in _own(measured, "nconnect") if sample[_SLOW]]
    if not chosen:
        return Verdict(bar, wanted, "", None)
    runs = sum(sample["runs"] for sample in chosen)
    bad = sum(sample["hung"] + sample["failed"] for sample in chosen)
    held = None if not bad and runs < _RUNS else not bad
    return Verdict(bar, wanted, f"{bad} of {runs}", held)


def noFailure(measured: Measured) -> Verdict:
    """
    Look whether mounts fail while the agent is restarted, replaced or killed.

    @param measured: everything.
    @return: the verdict.
    """
    bar, wanted = "restarts: mounts that fail", "none"
    chosen = _own(measured, "restarts")
    if not chosen:
        return Verdict(bar, wanted, "", None)
    mounts = sum(sample["mounts"] for sample in chosen)
    failed = sum(sample["failed"] for sample in chosen)
    return Verdict(bar, wanted, f"{failed} of {mounts + failed}", not failed)
