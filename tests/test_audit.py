"""Tests of L{tests.audit}, and of setup.py's lowest versions."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.audit import ADVISORIES, Advisory, compare, digest, faultsOf, isBefore
from tests.requirements import requirements


class AuditTests(SynchronousTestCase):
    """What is known to be broken is not allowed."""

    def test_lowestVersions(self) -> None:
        """The lowest versions in setup.py have no fault that matters."""
        lowest = dict(one.lower().split(">=") for one in requirements())
        faults = [(version, one) for version, one in faultsOf(lowest) if not one.harmless]
        self.assertEqual(faults, [])

    def test_names(self) -> None:
        """Advisories are about packages in lower case, and each says what it is."""
        for one in ADVISORIES:
            self.assertEqual(one.package, one.package.lower())
            self.assertTrue(one.name and one.about and one.fixed)

    def test_order(self) -> None:
        """Versions are compared by their numbers."""
        for lower, higher in (("3.7", "3.10"), ("43", "43.0.1"), ("6.0rc1", "6.1"), ("0.6", "1")):
            self.assertTrue(isBefore(lower, higher), (lower, higher))
            self.assertFalse(isBefore(higher, lower), (lower, higher))
        for one, same in (("43", "43.0.0"), ("26.0.0", "26.0.0"), ("1.0+local2", "1.0")):
            self.assertFalse(isBefore(one, same), (one, same))

    def test_compare(self) -> None:
        """A fault that matters fails, one that does not is only said."""
        self.assertEqual(compare({"cryptography": "43.0.3"}), 1)
        self.assertEqual(compare({"twisted": "24.11.0", "other": "1"}), 0)
        self.assertEqual(compare({}), 0)

    def test_online(self) -> None:
        """Who could not be asked about is not without faults."""
        harmless = next(one for one in ADVISORIES if one.harmless)
        report: list[dict[str, Any]] = [
            {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"]}]},
            {"name": "b", "version": "2", "vulns": []},
            {"name": "c", "version": "3", "vulns": [{"id": "P", "aliases": [harmless.name]}]},
            {"name": "d", "skip_reason": "not found"},
        ]
        self.assertEqual(digest(report), (["a 1: PYSEC-1"], ["d"]))

    def test_known(self) -> None:
        """A package that is not installed has no faults."""
        self.assertEqual(faultsOf({}), [])
        ((version, one),) = faultsOf({"pyyaml": "5.3"})
        self.assertEqual((version, type(one)), ("5.3", Advisory))
