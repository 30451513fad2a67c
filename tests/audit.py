"""
Looks for known faults in what the agent depends on: C{python -m tests.audit} compares
what the interpreter has installed with the table below; C{python -m tests.audit online}
asks C{pip-audit}, and says so if nobody could be asked.

The table is for machines that reach no service for vulnerabilities.  Whoever raises a
bound in setup.py, or hears of an advisory, adds to it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_PIP_AUDIT = _ROOT / ".venv-audit" / "bin" / "pip-audit"


@dataclass(frozen=True)
class Advisory:
    """
    A known fault.

    @ivar package: the package, in lower case.
    @ivar fixed: the first version without it.
    @ivar name: what it is called.
    @ivar about: what it is.
    @ivar harmless: why it does not matter here; empty if it does.
    """

    package: str
    fixed: str
    name: str
    about: str
    harmless: str = ""


ADVISORIES = (
    Advisory(
        *("cryptography", "44.0.1", "CVE-2024-12797"),
        "OpenSSL before 3.4.1 in the wheel: handshakes with raw public keys go on unverified",
    ),
    Advisory(
        *("cryptography", "45.0.1", "OpenSSL before 3.5.0 in the wheel"),
        "name constraints on URIs are bypassed, see ktlsagent.protocols.knownanswers",
    ),
    Advisory(
        *("cryptography", "46.0.5", "CVE-2026-26007"),
        "points of elliptic curves over binary fields are not checked",
    ),
    Advisory(
        *("cryptography", "46.0.6", "CVE-2026-34073"),
        "name constraints are not applied where there is a wildcard, in its own verifier",
    ),
    Advisory(
        *("cryptography", "46.0.7", "CVE-2026-39892"),
        "buffers that are not contiguous overflow",
    ),
    Advisory(
        *("cryptography", "48.0.1", "GHSA-537c-gmf6-5ccf"),
        "OpenSSL before 4.0.1 in the wheel, advisory of 2026-06-09: reads out of bounds in ASN.1",
    ),
    Advisory(
        *("cryptography", "50.0.0", "CVE-2026-69247"),
        "PKCS#7 decryption is an oracle",
        "nothing here decrypts PKCS#7",
    ),
    Advisory(
        *("cryptography", "50.0.1", "OpenSSL before 4.0.2 in the wheel"),
        "advisory of 2026-08-25: QUIC, DTLS, CMS, CMP, raw public keys, empty AEAD messages",
        "none of them is used: TLS 1.3 over TCP, with certificates or pre-shared keys",
    ),
    Advisory(
        *("cryptography", "50.0.2", "OpenSSL 4.0.0 to 4.0.2 in the wheel"),
        "CAs that have a new key under their old name are refused (PKITS 4.5.1 and others)",
    ),
    Advisory(
        *("pyopenssl", "26.0.0", "CVE-2026-27459"),
        "a DTLS cookie that is too long overflows its buffer",
    ),
    Advisory(
        *("pyopenssl", "26.0.0", "CVE-2026-27448"),
        "exceptions in the callback for server_name let the handshake go on",
    ),
    Advisory(
        *("pyopenssl", "26.1.0", "CVE-2026-40475"),
        "names that are set are cut at an octet 0",
    ),
    Advisory(
        *("twisted", "24.7.0", "CVE-2024-41671, CVE-2024-41810"),
        "requests of HTTP out of order, injection into redirects",
    ),
    Advisory(
        *("twisted", "26.4.0", "CVE-2026-42304"),
        "DNS names that are compressed exhaust the memory",
        "twisted.names is not imported: the agent never asks DNS",
    ),
    Advisory(*("idna", "3.7", "CVE-2024-3651"), "encoding takes quadratic time"),
    Advisory(*("idna", "3.15", "CVE-2026-45409"), "so it does still, with other input"),
    Advisory(*("pyyaml", "5.4", "CVE-2020-14343"), "its full loader runs code"),
    Advisory(*("pyasn1", "0.6.2", "CVE-2026-23490"), "object identifiers without end"),
    Advisory(*("pyasn1", "0.6.3", "CVE-2026-30922"), "recursion without bound"),
    Advisory(*("pyasn1", "0.6.4", "CVE-2026-59886"), "REAL values exhaust memory and processor"),
)
"""Faults of the packages in setup.py, and of those that they need in turn."""


def isBefore(version: str, fixed: str) -> bool:
    """
    Compare two versions by their numbers.

    @param version: a version.
    @param fixed: another one.
    @return: whether the first is the lower one.
    """
    left, right = (
        [int(part) for part in text.split("+")[0].split(".") if part.isdigit()]
        for text in (version, fixed)
    )
    length = max(len(left), len(right))
    return left + [0] * (length - len(left)) < right + [0] * (length - len(right))


def faultsOf(versions: Mapping[str, str]) -> list[tuple[str, Advisory]]:
    """
    Find known faults.

    @param versions: the versions of packages, by their names in lower case.
    @return: the faults that they have, harmless ones as well, with the versions.
    """
    return [
        (versions[one.package], one)
        for one in ADVISORIES
        if one.package in versions and isBefore(versions[one.package], one.fixed)
    ]


def installed() -> dict[str, str]:
    """
    List what this interpreter has installed.

    @return: the versions, by the names in lower case.
    """
    return {one.metadata["Name"].lower(): one.version for one in distributions()}


def compare(versions: Mapping[str, str]) -> int:
    """
    Compare versions with the table, and print what is to be known.

    @param versions: the versions of packages, by their names in lower case.
    @return: the exit status.
    """
    failed = False
    for version, one in faultsOf(versions):
        words = f"{one.package} {version}: {one.name}: {one.about}; mended in {one.fixed}"
        print(f"{words} (harmless: {one.harmless})" if one.harmless else f"{words}: upgrade it")
        failed = failed or not one.harmless
    count = len({one.package for one in ADVISORIES} & versions.keys())
    print(f"{len(ADVISORIES)} advisories about {count} of the packages that are installed")
    return int(failed)


def digest(report: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """
    Read a report of C{pip-audit}.

    @param report: its C{dependencies}.
    @return: the faults that do not count as harmless in the table, in words, and the
        packages that nobody could be asked about.
    """
    harmless = {name for one in ADVISORIES if one.harmless for name in one.name.split(", ")}
    found = [
        f"{package['name']} {package['version']}: {fault['id']}"
        for package in report
        for fault in package.get("vulns", ())
        if harmless.isdisjoint({fault["id"], *fault.get("aliases", ())})
    ]
    unasked = [str(package["name"]) for package in report if "skip_reason" in package]
    return found, unasked


def askOnline(python: str) -> int:
    """
    Ask the service that C{pip-audit} asks, and print what comes of it.

    @param python: whose packages are asked about.
    @return: the exit status: 2 if nobody could be asked.
    """
    frozen = subprocess.run(
        [python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True
    ).stdout
    listed = _ROOT / ".venv-audit" / "requirements.txt"
    listed.write_text(frozen)
    options = ("--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off", "-r")
    command = [str(_PIP_AUDIT), *options, str(listed)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        found, unasked = digest(json.loads(done.stdout)["dependencies"])
    except ValueError:
        found, unasked = [], ["anything"]
    for fault in found:
        print(f"{fault}: upgrade it, or add to the table why it is harmless")
    if unasked:
        print(f"COULD NOT ASK about {', '.join(unasked)}: this says nothing of them")
    return 1 if found else 2 * bool(unasked)


if __name__ == "__main__":
    if sys.argv[1:2] == ["online"]:
        sys.exit(max(map(askOnline, sys.argv[2:])))
    sys.exit(compare(installed()))
