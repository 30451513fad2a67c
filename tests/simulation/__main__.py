"""
Runs random schedules: C{python -m tests.simulation [--seed NUMBER] [--schedules NUMBER]}.
The schedules' own seeds are the numbers from the given one on: one that fails is lived
again by C{--seed ITS-NUMBER --schedules 1}.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

from twisted.internet import reactor as _reactor  # noqa: F401 - it opens descriptors once

from tests.simulation.invariant import violations
from tests.simulation.materials import Materials
from tests.simulation.world import World
from tests.support.agent import openDescriptors


def live(seed: int, materials: Materials) -> tuple[World, list[str]]:
    """
    Live one schedule, and check it.

    @param seed: its number.
    @param materials: what all share.
    @return: what took part, and what does not hold.
    """
    before = openDescriptors()
    world = World(seed, materials)
    try:
        world.run()
        found = violations(world)
    finally:
        world.close()
    left = openDescriptors() - before
    if left:
        found.append(f"descriptors are still open: {sorted(left)}")
    return world, found


def main() -> int:
    """
    Run the schedules, and tell of those that fail.

    @return: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--schedules", type=int, default=500)
    parser.add_argument("--most", type=int, default=5, help="failures after which to give up")
    asked = parser.parse_args()
    print(f"schedules {asked.seed} to {asked.seed + asked.schedules - 1}", flush=True)
    started = time.monotonic()
    requests = succeeded = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        materials = Materials(Path(folder))
        for seed in range(asked.seed, asked.seed + asked.schedules):
            world, found = live(seed, materials)
            requests += len(world.conversations)
            succeeded += sum(one.asked.upcall.status == 0 for one in world.conversations)
            for words in found:
                print(f"schedule {seed}: {words}", flush=True)
            failed += bool(found)
            if failed == asked.most:
                break
    print(
        f"{requests} requests, {succeeded} of them with a session, in "
        f"{time.monotonic() - started:.0f} s; {failed} schedules failed"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
