"""Tests of L{ktlsagent.protocols.verification}."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import cast

from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import statusOf
from ktlsagent.protocols.verification import alertError, chainError, describeName
from tests.support import certificates
from tests.support.properties import patient


class DescribeNameTests(SynchronousTestCase):
    """Tests of L{describeName}."""

    def test_name(self) -> None:
        """A name is shown as RFC 4514 does."""
        self.assertEqual(describeName(certificates.server().certificate.subject), "CN=server.lab")

    @patient
    @given(
        st.lists(
            st.lists(st.text("a\x00\\,+=# \u2028", min_size=1, max_size=6), min_size=1, max_size=3),
            max_size=9,
        )
    )
    def test_short(self, values: list[list[str]]) -> None:
        """So is any that is not too long."""
        oids = (NameOID.COMMON_NAME, NameOID.USER_ID, NameOID.ORGANIZATION_NAME)
        name = x509.Name(
            x509.RelativeDistinguishedName(map(x509.NameAttribute, oids, some)) for some in values
        )
        self.assertEqual(describeName(name), name.rfc4514_string() or "(empty)")

    def test_long(self) -> None:
        """Of a long one the beginning is shown, and what is behind it not even rendered."""
        rendered: list[str] = []

        class Attribute:
            def rfc4514_string(self) -> str:
                rendered.append("OU=unit")
                return "OU=unit"

        for rdns in ([[Attribute()]] * 6000, [[Attribute()] * 6000]):
            rendered.clear()
            text = describeName(cast(x509.Name, SimpleNamespace(rdns=rdns)))
            self.assertRegex(text, r"^(OU=unit[,+]){50}\.\.\.$")
            self.assertEqual(len(rendered), 51)

    def test_empty(self) -> None:
        """An empty name is not shown as nothing."""
        self.assertEqual(describeName(x509.Name([])), "(empty)")


class ChainErrorTests(SynchronousTestCase):
    """Tests of L{chainError}; numbers are those of C{openssl/x509_vfy.h}."""

    def test_expired(self) -> None:
        """An expired certificate: whose, and since when."""
        certificate = certificates.expired().certificate
        error = chainError(10, 0, certificate, "server")
        self.assertEqual(error.code, "certificate-expired")
        when = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
        self.assertEqual(
            error.reason, f"the server's certificate (CN=expired.lab) expired at {when}"
        )

    def test_notYetValid(self) -> None:
        """A certificate of the future: whose, and from when."""
        certificate = certificates.notYetValid().certificate
        error = chainError(9, 0, certificate, "client")
        self.assertEqual(error.code, "certificate-not-yet-valid")
        when = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC"
        self.assertEqual(
            error.reason, f"the client's certificate (CN=early.lab) is not valid before {when}"
        )

    def test_unknownAuthority(self) -> None:
        """Each way of having no known issuer says what was expected and found."""
        certificate = certificates.ofOtherAuthority().certificate
        for number in (2, 19, 20, 21):
            error = chainError(number, 0, certificate, "server")
            self.assertEqual(error.code, "unknown-ca")
            self.assertEqual(
                error.reason,
                "expected a chain to a CA of the trust store, found the server's certificate "
                "(CN=stranger.lab) issued by CN=Other CA",
            )

    def test_selfSigned(self) -> None:
        """A certificate that no CA has signed is said to be so."""
        error = chainError(18, 0, certificates.selfSigned().certificate, "server")
        self.assertEqual(error.code, "self-signed")
        self.assertIn("(CN=self.lab) signed by itself", error.reason)

    def test_authorityInTheChain(self) -> None:
        """An error above the peer's certificate says where."""
        error = chainError(10, 1, certificates.authority().certificate, "server")
        self.assertIn("the CA certificate at depth 1 (CN=Lab CA) expired", error.reason)

    def test_revocationLists(self) -> None:
        """A CRL that cannot be used: whose it is, and what to do."""
        certificate = certificates.chained().certificate
        expected = (
            "expected a current CRL of CN=Lab Issuing CA, which issued the client's certificate "
            "(CN=server.lab), found "
        )
        for number, code, found in (
            (3, "crl-missing", "none; add it to x509.crl"),
            (11, "crl-not-yet-valid", "one whose time has not come; look at the clocks"),
            (12, "crl-expired", "one that has expired; put the CA's newest one in its place"),
        ):
            error = chainError(number, 0, certificate, "client")
            self.assertEqual((error.code, error.reason), (code, expected + found))

    def test_others(self) -> None:
        """All other errors have a code of their own and OpenSSL's words."""
        certificate = certificates.server().certificate
        for number, code in (
            (7, "bad-signature"),
            (8, "bad-signature"),
            (23, "certificate-revoked"),
            (26, "wrong-key-purpose"),
            (66, "weak-certificate"),
            (67, "weak-certificate"),
            (68, "weak-certificate"),
        ):
            error = chainError(number, 0, certificate, "server")
            self.assertEqual(error.code, code)
            words = crypto._lib.X509_verify_cert_error_string(number)  # type: ignore[attr-defined]
            self.assertIn("(CN=server.lab), issued by CN=Lab CA: ", error.reason)
            self.assertTrue(
                error.reason.endswith(crypto._ffi.string(words).decode()),  # type: ignore[attr-defined]
                error.reason,
            )

    def test_unknownNumber(self) -> None:
        """An error that nobody has heard of refuses the certificate as well."""
        error = chainError(9999, 0, certificates.server().certificate, "server")
        self.assertEqual(error.code, "certificate-invalid")
        self.assertEqual(statusOf(error), errno.EACCES)


class AlertErrorTests(SynchronousTestCase):
    """Tests of L{alertError}."""

    def test_notYetValid(self) -> None:
        """A certificate of the future gets the alert of an expired one (RFC 8446, section 6.2)."""
        self.assertEqual(alertError(9), 10)

    def test_others(self) -> None:
        """All other errors stay what they are."""
        for number in (1, 10, 18, 19, 20, 23, 26, 62):
            self.assertEqual(alertError(number), number)
