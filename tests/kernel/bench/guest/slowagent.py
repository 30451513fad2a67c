"""
ktlsagent, except that it does nothing at all for a while in each handshake, like an agent
on a processor that others use: C{python3 -m tests.kernel.bench.guest.slowagent SECONDS ...},
with the agent's own arguments behind.
"""

from __future__ import annotations

import sys
import time

from ktlsagent.__main__ import main
from ktlsagent.protocols.engine import TLSEngine


def slowDown(seconds: float) -> None:
    """
    Make the beginning of each handshake slow.

    @param seconds: how much longer it takes.
    """
    start = TLSEngine.start

    def startSlowly(engine: TLSEngine) -> bytes:
        time.sleep(seconds)
        return start(engine)

    TLSEngine.start = startSlowly  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    slowDown(float(sys.argv.pop(1)))
    main()
