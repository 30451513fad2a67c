"""Tests for L{ktlsagent.peers.folding}."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.peers.folding import folded, foldedEmail, foldedURI
from tests.support.properties import patient


class FoldingTests(SynchronousTestCase):
    """Tests for the forms in which texts are compared."""

    def test_onlyASCII(self) -> None:
        """No letter that is not ASCII's becomes one that is, or any other one."""
        others = "\u212a\u017f\u0130\u0131\u1e9e\u00c4\uff21\u2160"
        self.assertEqual(folded(f"A{others}Z"), f"a{others}z")
        self.assertEqual(foldedURI(f"A://{others}A/A"), f"a://{others}a/A")
        self.assertEqual(foldedEmail(f"A@{others}A"), f"A@{others}a")

    @patient
    @given(st.text())
    @example("\u212a")
    def test_asOctets(self, text: str) -> None:
        """It is what OpenSSL does with octets: only A to Z have another case."""
        octets = text.encode("utf-8", "surrogatepass")
        self.assertEqual(folded(text).encode("utf-8", "surrogatepass"), octets.lower())

    def test_uri(self) -> None:
        """Scheme and authority of a URI are in lower case, the rest is as it was."""
        for uri, expected in (
            ("SPIFFE://Example.ORG/Ns/A", "spiffe://example.org/Ns/A"),
            ("HTTPS://A:80?B", "https://a:80?B"),
            ("HTTPS://A#B", "https://a#B"),
            ("SPIFFE://A", "spiffe://a"),
            ("URN:UUID:F8", "urn:UUID:F8"),
            ("File:/A", "file:/A"),
            ("A/B:C", "A/B:C"),
            ("ABC", "ABC"),
            ("", ""),
        ):
            self.assertEqual(foldedURI(uri), expected)

    def test_email(self) -> None:
        """The domain, behind the last at sign, is in lower case."""
        for address, expected in (
            ("Root@Example.ORG", "Root@example.org"),
            ('"A@B"@C', '"A@B"@c'),
            ("Example", "example"),
        ):
            self.assertEqual(foldedEmail(address), expected)
