"""How the lab finds out in which way the older kernel boots on this machine."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.kernel import older, qemu, uml
from tests.kernel.guests import GuestDied
from tests.kernel.rootfs import OLDER_MACHINE, TRIXIE, LabError, Progress, Recipe

AMX = """the trixie guest ended; its console:
mmapper_init - find_iomem failed
Failed to initialize ubd device 0 :Couldn't determine size of device's file
userspace - ptrace set fp regs failed, errno = 14
Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b
CPU: 0 UID: 0 PID: 1 Comm: init.sh Not tainted 6.12.113 #1
 [<6071ca72>] panic+0x143/0x366
Aborted"""

PTRACE = """the trixie guest ended; its console:
Checking that ptrace can change system call numbers...
check_ptrace : expected SIGSTOP, got status = 256"""


class FakeGuest:
    """Boots, or does not."""

    console = ""

    def __init__(self, recipe: Recipe, progress: Progress, memory: str) -> None:
        self.recipe = recipe
        self.boots = 0

    def boot(self) -> None:
        self.boots += 1
        if self.console:
            raise GuestDied(self.console)

    def run(self, scenario: str, arguments: object, timeout: float) -> dict[str, Any]:
        self.boot()
        return {"guest": self}


class InUserMode(FakeGuest):
    """Stands in for L{uml.Guest}."""


class Machine(FakeGuest):
    """Stands in for L{qemu.Guest}."""


class OlderTests(SynchronousTestCase):
    """Tests for L{older.Guest}."""

    def setUp(self) -> None:
        self.patch(uml, "Guest", InUserMode)
        self.patch(qemu, "Guest", Machine)
        self.patch(os, "environ", {})
        self.said: list[str] = []

    def guest(self) -> older.Guest:
        """Make the guest of a suite."""
        return older.Guest(TRIXIE, self.said.append, "21G")

    def test_inUserMode(self) -> None:
        """User-mode Linux is used where it boots; booted once, it runs all scenarios."""
        guest = self.guest()
        first = guest.run("a.b", {}, 1.0)["guest"]
        self.assertIsInstance(first, InUserMode)
        self.assertEqual(first.recipe, TRIXIE)
        self.assertIs(guest.run("a.b", {}, 1.0)["guest"], first)
        self.assertEqual(self.said, [])

    def test_emulated(self) -> None:
        """Where user-mode Linux dies a machine is emulated, once; why is said."""
        for console, reason in (
            (AMX, "userspace - ptrace set fp regs failed, errno = 14"),
            (AMX.replace("set fp regs", "get fp regs"), "ptrace get fp regs failed, errno = 14"),
            (PTRACE, "check_ptrace : expected SIGSTOP, got status = 256"),
            ("the trixie guest ended; its console:\n", "the trixie guest ended"),
            ("the trixie guest did not answer within 60 s", "did not answer within 60 s"),
        ):
            self.patch(InUserMode, "console", console)
            self.said.clear()
            guest = self.guest()
            first = guest.run("a.b", {}, 1.0)["guest"]
            self.assertIsInstance(first, Machine)
            self.assertEqual(first.recipe, OLDER_MACHINE)
            self.assertIs(guest.run("a.b", {}, 1.0)["guest"], first)
            self.assertEqual(len(self.said), 2)
            self.assertIn(reason, self.said[0])
            self.assertNotIn("CPU", self.said[0])

    def test_told(self) -> None:
        """What the environment says is done, and nothing else is tried."""
        os.environ[older.CHOICE] = "machine"
        self.assertIsInstance(self.guest().run("a.b", {}, 1.0)["guest"], Machine)
        os.environ[older.CHOICE] = "uml"
        self.patch(InUserMode, "console", AMX)
        self.assertRaises(GuestDied, self.guest().run, "a.b", {}, 1.0)

    def test_toldNonsense(self) -> None:
        """A word that is neither is named."""
        for word in ("UML", "qemu", "1"):
            os.environ[older.CHOICE] = word
            error = self.assertRaises(LabError, self.guest().run, "a.b", {}, 1.0)
            self.assertIn(f"expected uml or machine, found {word!r}", str(error))
