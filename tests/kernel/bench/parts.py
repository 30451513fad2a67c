"""All parts of the measurements, in the order in which they are run."""

from __future__ import annotations

from typing import Final

from tests.kernel.bench import (
    mounts,
    native,
    nconnect,
    nvme,
    restarts,
    server,
    soak,
    starting,
    storm,
)
from tests.kernel.bench.part import Part

PARTS: Final[dict[str, Part]] = {
    part.PART.name: part.PART
    for part in (starting, server, storm, native, mounts, nconnect, restarts, nvme, soak)
}
"""By their names."""
