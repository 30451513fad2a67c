"""What becomes of a bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.kernel.bench.samples import Sample

Measured = Mapping[str, Sequence[Sample]]
"""The samples of each part."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What became of a bar.

    @ivar bar: what it is about.
    @ivar wanted: what is to be reached.
    @ivar measured: what was; of several settings the worst one.
    @ivar held: whether it is reached; L{None} if that was not measured, or too seldom.
    """

    bar: str
    wanted: str
    measured: str
    held: bool | None
