"""Tests for L{ktlsagent.credentials.inventory}."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.credentials.inventory import Inventory, Revocations, delta
from tests.support import certificates

MADE = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SAYS = "of 2026-11-23 12:00:00 UTC"


def der(credentials: certificates.Credentials | certificates.CertificateAuthority) -> bytes:
    """
    Get a certificate in DER.

    @param credentials: what has it.
    @return: the certificate.
    """
    return credentials.certificate.public_bytes(certificates.DER)


def words(credentials: certificates.Credentials | certificates.CertificateAuthority) -> str:
    """
    Describe a certificate as a delta does.

    @param credentials: what has it.
    @return: its description.
    """
    certificate = credentials.certificate
    until = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    digest = hashlib.sha256(der(credentials)).hexdigest()
    return f"{certificate.subject.rfc4514_string()} (until {until}, SHA-256 {digest})"


class AnchorsTests(SynchronousTestCase):
    """What is said about trust anchors."""

    def changes(self, old: Sequence[bytes], new: Sequence[bytes]) -> Sequence[str]:
        """
        Compare the anchors of a file.

        @param old: the old ones.
        @param new: the new ones.
        @return: what is different.
        """
        return delta(Inventory(anchors={"/ca": old}), Inventory(anchors={"/ca": new}))

    def test_same(self) -> None:
        """Nothing is said about those that stay, in whatever order."""
        one, two = der(certificates.authority()), der(certificates.otherAuthority())
        self.assertEqual(self.changes([one, two], [two, one]), [])

    def test_changed(self) -> None:
        """Those that come and go are named with their fingerprints."""
        one, two = certificates.authority(), certificates.otherAuthority()
        self.assertEqual(
            self.changes([der(one)], [der(two)]),
            [
                f"added the trust anchor {words(two)} in /ca",
                f"removed the trust anchor {words(one)} in /ca",
            ],
        )

    def test_files(self) -> None:
        """A file that is used no more, or from now on, counts with all that is in it."""
        anchor = certificates.authority()
        self.assertEqual(
            delta(
                Inventory(anchors={"/old": [der(anchor)]}),
                Inventory(anchors={"/new": [der(anchor)]}),
            ),
            [
                f"added the trust anchor {words(anchor)} in /new",
                f"removed the trust anchor {words(anchor)} in /old",
            ],
        )

    def test_many(self) -> None:
        """Of very many the first are named, and the others counted."""
        found = self.changes([], [bytes([number]) for number in range(23)])
        self.assertEqual(len(found), 21)
        self.assertEqual(found[-1], "added 3 more trust anchors in /ca")

    def test_unreadable(self) -> None:
        """What OpenSSL can read and cryptography cannot has its fingerprint at least."""
        digest = hashlib.sha256(b"?").hexdigest()
        self.assertEqual(
            self.changes([], [b"?"]),
            [f"added the trust anchor (unreadable, SHA-256 {digest}) in /ca"],
        )


class RevocationsTests(SynchronousTestCase):
    """What is said about CRLs."""

    def change(self, old: Revocations | None, new: Revocations | None) -> str:
        """
        Compare an issuer's CRLs.

        @param old: the old one, if there was one.
        @param new: the new one, if there is one.
        @return: what is different; empty for nothing.
        """
        before, after = ({"CN=a": crl} if crl else {} for crl in (old, new))
        return "".join(delta(Inventory(crls=before), Inventory(crls=after)))

    def test_comeAndGo(self) -> None:
        """A CRL that comes or goes is named with its number and what is revoked."""
        crl = Revocations(7, MADE, frozenset({0x10, 0xABC}))
        says = f"the CRL of CN=a: number 7 {SAYS}, 2 revoked (10, 0abc)"
        self.assertEqual(self.change(None, crl), f"added {says}")
        self.assertEqual(self.change(crl, None), f"removed {says}")
        self.assertEqual(self.change(crl, crl), "")

    def test_replaced(self) -> None:
        """A newer CRL is told with what has been revoked since, and what is no longer."""
        self.assertEqual(
            self.change(
                Revocations(7, MADE, frozenset({1, 2})), Revocations(8, MADE, frozenset({2, 3, 4}))
            ),
            f"replaced the CRL of CN=a: number 7 {SAYS} -> number 8 {SAYS}, 2 newly revoked "
            "(03, 04), 1 no longer revoked (01)",
        )

    def test_onlyNewer(self) -> None:
        """A CRL without a number has its date, and one that revokes no others just that."""
        later = MADE.replace(hour=13)
        self.assertEqual(
            self.change(Revocations(None, MADE), Revocations(None, later)),
            f"replaced the CRL of CN=a: {SAYS} -> of 2026-11-23 13:00:00 UTC",
        )
        self.assertEqual(
            self.change(None, Revocations(None, MADE)), f"added the CRL of CN=a: {SAYS}, 0 revoked"
        )

    def test_many(self) -> None:
        """Of very many serial numbers the first are listed."""
        found = self.change(None, Revocations(None, MADE, frozenset(range(100))))
        self.assertTrue(
            found.endswith(", 100 revoked (" + "".join(f"{n:02x}, " for n in range(20)) + "...)")
        )


class ChainsTests(SynchronousTestCase):
    """What is said about our own certificates."""

    def change(self, old: Sequence[bytes] | None, new: Sequence[bytes] | None) -> str:
        """
        Compare what is in the file of a certificate.

        @param old: the old chain, if there was one.
        @param new: the new chain, if there is one.
        @return: what is different; empty for nothing.
        """
        before, after = ({"/own": chain} if chain else {} for chain in (old, new))
        return "".join(delta(Inventory(chains=before), Inventory(chains=after)))

    def test_all(self) -> None:
        """A certificate that comes, goes or is replaced is named, also if only its chain is."""
        one, two, ca = certificates.server(), certificates.client(), certificates.authority()
        self.assertEqual(self.change([der(one)], [der(one)]), "")
        self.assertEqual(
            self.change(None, [der(one)]), f"added the certificate {words(one)} in /own"
        )
        self.assertEqual(
            self.change([der(one), der(ca)], None), f"removed the certificate {words(one)} in /own"
        )
        self.assertEqual(
            self.change([der(one)], [der(two)]),
            f"replaced the certificate in /own: {words(one)} -> {words(two)}",
        )
        self.assertEqual(
            self.change([der(one)], [der(one), der(ca)]),
            f"replaced the CA certificates that are sent with {words(one)} in /own",
        )
