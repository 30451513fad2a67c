"""
Checks everything that a change has to pass, and counts: C{python -m
tests.everything [lint] [types] [unit] [oldest] [debian] [audit] [kernel]}, by default all.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEWEST = str(ROOT / ".venv" / "bin" / "python")
SETTINGS = [
    f"{name}={value}" for name, value in os.environ.items() if name.startswith("KTLSAGENT_")
]
PRIVILEGED = [] if os.geteuid() == 0 else ["sudo", "env", *SETTINGS]
OLDEST = str(ROOT / ".venv-oldest" / "bin" / "python")
SOURCES = ("ktlsagent", "tests", "twisted", "setup.py")
PURE = (
    "ktlsagent/config/*,ktlsagent/peers/*,ktlsagent/protocols/*,"
    "ktlsagent/credentials/contexts.py,ktlsagent/keys.py,ktlsagent/policy.py,"
    "ktlsagent/profiles.py"
)

COVERAGE = 95
"""The least branch coverage of the package, in per cent; of its pure part it is 100."""

_SUCCESSES = re.compile(r"(?:successes|expectedFailures)=(\d+)")
_PROBLEMS = re.compile(r"(?:failures|errors|skips|unexpectedSuccesses|todos)=(\d+)")
_DEBIAN = "tests.kernel.debian"

_SUMMARY = re.compile(r"^(?:PASSED|FAILED)(?: \(.*\))?$")


@dataclass(frozen=True)
class Check:
    """
    One command that has to succeed.

    @ivar group: what it is called on the command line.
    @ivar title: what it checks, in words.
    @ivar command: the command.
    """

    group: str
    title: str
    command: Sequence[str]

    @property
    def tests(self) -> bool:
        """Whether it prints the summary of a test run."""
        return not {"twisted.trial", _DEBIAN}.isdisjoint(self.command)


def trial(python: str, *arguments: str, coverage: bool = False) -> list[str]:
    """
    Make a command that runs tests.

    @param python: the interpreter.
    @param arguments: trial's arguments.
    @param coverage: whether to measure what they reach.
    @return: the command.
    """
    measured = ["-m", "coverage", "run"] if coverage else []
    temporary = f"--temp-directory={ROOT / '_trial_temp'}-{Path(python).parts[-3].strip('.')}"
    return [python, *measured, "-m", "twisted.trial", temporary, *arguments]


def report(include: str, least: int) -> list[str]:
    """
    Make a command that fails if too little was reached.

    @param include: the files.
    @param least: per cent.
    @return: the command.
    """
    return [NEWEST, "-m", "coverage", "report", f"--include={include}", f"--fail-under={least}"]


CHECKS = (
    Check("lint", "formatting", [NEWEST, "-m", "ruff", "format", "--check", *SOURCES]),
    Check("lint", "style", [NEWEST, "-m", "ruff", "check", *SOURCES]),
    Check("types", "types", [NEWEST, "-m", "mypy", *SOURCES]),
    Check("unit", "unit tests, newest dependencies", trial(NEWEST, "tests", coverage=True)),
    Check("unit", "coverage of the package", report("ktlsagent/*", COVERAGE)),
    Check("unit", "coverage of its pure part", report(PURE, 100)),
    Check("oldest", "unit tests, oldest dependencies", trial(OLDEST, "tests")),
    Check(
        "simulate",
        "random schedules",
        [NEWEST, "-m", "tests.simulation", "--seed", "0", "--schedules", "500"],
    ),
    Check("audit", "known faults, newest dependencies", [NEWEST, "-m", "tests.audit"]),
    Check("audit", "known faults, oldest dependencies", [OLDEST, "-m", "tests.audit"]),
    Check(
        "debian",
        "unit tests, Python and packages of Debian trixie",
        [*PRIVILEGED, NEWEST, "-m", _DEBIAN, "trixie"],
    ),
    Check(
        "debian",
        "unit tests, Python and packages of Debian forky",
        [*PRIVILEGED, NEWEST, "-m", _DEBIAN, "forky"],
    ),
    Check(
        "kernel",
        "scenarios on Linux 7.2",
        [*PRIVILEGED, *trial(NEWEST, "tests.kernel.suite_forky")],
    ),
    Check(
        "kernel",
        "the unit under systemd, on Linux 7.2",
        [*PRIVILEGED, *trial(NEWEST, "tests.kernel.suite_managed")],
    ),
    Check(
        "kernel",
        "scenarios on Linux 6.12",
        [*PRIVILEGED, *trial(NEWEST, "tests.kernel.suite_trixie")],
    ),
    Check(
        "kernel",
        "NVMe/TCP and keyrings on Linux 7.2, emulated",
        [*PRIVILEGED, *trial(NEWEST, "tests.kernel.suite_nvme")],
    ),
)


def run(check: Check) -> tuple[int, int]:
    """
    Run a check and show what it prints.

    @param check: the check.
    @return: how many tests passed and how many did not; a skipped test did
        not.  A command that is no test run counts as one test.
    """
    print(f"\n=== {check.title}", flush=True)
    passed = failed = 0
    started = time.monotonic()
    with subprocess.Popen(
        check.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if _SUMMARY.match(line.rstrip()):
                passed += sum(int(count) for count in _SUCCESSES.findall(line))
                failed += sum(int(count) for count in _PROBLEMS.findall(line))
    if not check.tests:
        passed, failed = (0, 1) if process.returncode else (1, 0)
    elif passed == 0 or (process.returncode and not failed):
        failed += 1
    print(
        f"=== {check.title}: {passed} passed, {failed} failed, {time.monotonic() - started:.0f} s",
        flush=True,
    )
    return passed, failed


def main(groups: Sequence[str]) -> int:
    """
    Run the checks of some groups.

    @param groups: the groups; none means all.
    @return: the exit status.
    """
    unknown = set(groups) - {check.group for check in CHECKS}
    if unknown:
        sys.exit(f"unknown: {' '.join(sorted(unknown))}")
    chosen = [check for check in CHECKS if not groups or check.group in groups]
    results = [(check, run(check)) for check in chosen]
    print("\n=== summary")
    for check, (passed, failed) in results:
        print(f"{passed:6} passed {failed:4} failed  {check.title}")
    total = sum(passed for _check, (passed, _failed) in results)
    wrong = sum(failed for _check, (_passed, failed) in results)
    print(f"{total} passed, {wrong} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
