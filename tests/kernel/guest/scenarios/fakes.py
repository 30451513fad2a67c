"""The fakes of the unit tests, verified against the guest's kernel."""

from __future__ import annotations

import subprocess
import sys

from tests.kernel.guest.lab import Lab
from tests.kernel.guest.waiting import Unexpected


def verified(lab: Lab) -> None:
    """
    What holds of the fakes holds of the kernel.

    @param lab: the stage.
    @raise Unexpected: if a test failed; trial's output is in the log.
    """
    command = [sys.executable, "-m", "twisted.trial", "--temp-directory=/tmp/trial"]
    tests = subprocess.run([*command, "tests.kernel.real"], check=False)
    if tests.returncode != 0:
        raise Unexpected("the fakes and the kernel differ: see trial's output in the log")
    lab.facts["fakes"] = "verified"
