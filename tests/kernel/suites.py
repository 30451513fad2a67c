"""
Turns the table of cases into trial's test cases: one test method for each, all of
a suite in one guest, which is booted anew only after a scenario that hung.

What was measured is written, a line for each case, to results-NAME.txt beside the
root file systems, or to the file that C{KTLSAGENT_LAB_RESULTS} names.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.trial.unittest import SynchronousTestCase

from tests.kernel.cases import Case
from tests.kernel.guests import GuestDied
from tests.kernel.rootfs import LabError, Progress, Recipe, labDirectory
from tests.kernel.uml import Guest

_MEMORY: Final = "21G"
"""
Sparse, so it costs next to nothing; but the kernel keeps 50 requests that nobody has
accepted instead of the 5 of a guest with 2G.  On overflow nfsd takes a ClientHello for
an RPC, and a client whose agent answers that with ETIMEDOUT at once, as tlshd does, may
hang for good.
"""

_RESULTS: Final = "KTLSAGENT_LAB_RESULTS"


def _progress(text: str) -> None:
    """
    Tell about slow steps at once, beside trial's own output.

    @param text: what is being done.
    """
    print(text, file=sys.stderr, flush=True)


class _Guest(Protocol):
    """What a suite uses of a L{tests.kernel.guests.BaseGuest}."""

    def run(self, scenario: str, arguments: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Run one scenario."""


class KernelTestCase(SynchronousTestCase):
    """
    The base of a suite.

    @cvar recipe: what is booted.
    @cvar guest: the guest of all its tests.
    """

    recipe: Recipe
    guest: _Guest
    _begun = False

    def runCase(self, case: Case) -> None:
        """
        Run a case; its failure shows the logs of everything that took part.

        @param case: which.
        """
        try:
            result = self.guest.run(case.scenario, case.arguments, case.timeout)
        except (GuestDied, LabError) as error:
            self.fail(str(error))
        facts = {"ok": result["ok"], "seconds": result["seconds"], **result["facts"]}
        self._record(f"{case.name}: {json.dumps(facts)}")
        if not result["ok"]:
            logs = "\n".join(f"--- {name}\n{text}" for name, text in result["logs"].items())
            self.fail(f"{result['failure']}\nfacts: {facts}\n{logs}")

    def _record(self, line: str) -> None:
        """
        Keep what was measured.

        @param line: a line of the results' file.
        """
        path = Path(os.environ.get(_RESULTS) or labDirectory() / f"results-{self.recipe.name}.txt")
        with path.open("a" if self._begun else "w") as file:
            file.write(f"{line}\n")
        type(self)._begun = True


def _method(case: Case) -> Callable[[KernelTestCase], None]:
    """
    Make the test method of a case.

    @param case: the case.
    @return: the method.
    """

    def test(self: KernelTestCase) -> None:
        self.runCase(case)

    test.__name__ = _methodName(case)
    test.__doc__ = case.expectation
    return test


def _methodName(case: Case) -> str:
    """
    Name the test method of a case.

    @param case: the case.
    @return: the name.
    """
    return f"test_{case.name}"


def makeSuite(
    name: str,
    module: str,
    recipe: Recipe,
    cases: Iterable[Case],
    *,
    guestClass: Callable[[Recipe, Progress, str], _Guest] = Guest,
    memory: str = _MEMORY,
) -> type[KernelTestCase]:
    """
    Make the class of a suite.

    @param name: the class's name.
    @param module: the module that it is to be found in.
    @param recipe: what is booted.
    @param cases: its tests.
    @param guestClass: the kind of guest.
    @param memory: the guest's.
    @return: the class.
    """
    methods = {_methodName(case): _method(case) for case in cases}
    return type(
        name,
        (KernelTestCase,),
        {
            "guest": guestClass(recipe, _progress, memory),
            "__doc__": f"The kernel suite on Linux {recipe.kernel} ({recipe.name}).",
            "__module__": module,
            "recipe": recipe,
            **methods,
        },
    )
