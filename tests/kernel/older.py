"""
Boots Debian's 6.12 kernel on every machine: in user mode, or, where that does not work,
emulated as a whole machine.

User-mode Linux 6.12 has a buffer of fixed size for floating-point registers, and a
processor with AMX, as Intel's servers have had since 2023, has more of them: the guest
dies with its first process.  Whatever it is that user-mode Linux lacks, trying is how to
find out.  C{KTLSAGENT_LAB_OLDER} says C{uml} or C{machine} instead.  Only the standard
library is used here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

from tests.kernel import qemu, uml
from tests.kernel.guests import BaseGuest, GuestDied
from tests.kernel.rootfs import OLDER_MACHINE, LabError, Progress, Recipe

CHOICE: Final = "KTLSAGENT_LAB_OLDER"

_MEMORY: Final = "4G"
"""An emulated machine's; user-mode Linux may have more, as that costs nothing there."""

_REASON: Final = re.compile(r"^.*(?:ptrace|panic|failed|errno).*$", re.MULTILINE)
"""Lines of a console that say why a guest died; the last one before the panic is best."""


def deathBy(error: GuestDied) -> str:
    """
    Say why a guest died.

    @param error: has its console.
    @return: the line before the panic, or what is known.
    """
    first, _, console = str(error).partition("\n")
    before, panic, _ = console.partition("Kernel panic")
    lines = _REASON.findall(before) if panic else console.splitlines()
    return str(lines[-1]).strip() if lines else first


class Guest:
    """
    A guest with the older kernel, of the one kind or the other.

    Stands in for a L{BaseGuest} in a suite.
    """

    def __init__(self, recipe: Recipe, progress: Progress, memory: str) -> None:
        """
        @param recipe: what runs in user mode.
        @param progress: told about each step that takes time.
        @param memory: a guest's memory in user mode.
        """
        self._recipe = recipe
        self._progress = progress
        self._memory = memory
        self._guest: BaseGuest | None = None

    def run(self, scenario: str, arguments: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """
        Run one scenario; the first one finds out what boots here.

        @param scenario: as for L{BaseGuest.run}.
        @param arguments: as for L{BaseGuest.run}.
        @param timeout: as for L{BaseGuest.run}.
        @return: as for L{BaseGuest.run}.
        @raise GuestDied: as for L{BaseGuest.run}.
        """
        if self._guest is None:
            self._guest = self._choose()
        return self._guest.run(scenario, arguments, timeout)

    def _choose(self) -> BaseGuest:
        """
        Find out what boots here, or do as told.

        @return: the guest.
        @raise LabError: if told something else.
        """
        choice = os.environ.get(CHOICE, "")
        if choice not in ("", "uml", "machine"):
            raise LabError(f"{CHOICE}: expected uml or machine, found {choice!r}")
        if choice != "machine":
            guest = uml.Guest(self._recipe, self._progress, self._memory)
            if choice:
                return guest
            try:
                guest.boot()
            except GuestDied as error:
                self._progress(
                    f"Linux {self._recipe.kernel} does not run in user mode here: {deathBy(error)}"
                )
            else:
                return guest
        self._progress(f"Linux {OLDER_MACHINE.kernel} runs in an emulated machine")
        return qemu.Guest(OLDER_MACHINE, self._progress, _MEMORY)
