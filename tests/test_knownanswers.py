"""Tests of L{ktlsagent.protocols.knownanswers}."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import StartError
from ktlsagent.protocols import knownanswers
from ktlsagent.protocols.knownanswers import (
    KNOWN_ANSWERS,
    ROOT,
    accepts,
    load,
    requireKnownAnswers,
)
from ktlsagent.protocols.knownchains import CERTIFICATES


def _names(name: str) -> list[object]:
    """List what a certificate has in subjectAltName."""
    extensions = load(name).to_cryptography().extensions
    listed = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(one.value) for one in listed]


class KnownAnswersTests(SynchronousTestCase):
    """OpenSSL is right, or the agent does not start."""

    def test_right(self) -> None:
        """The OpenSSL that these tests run with gives all the answers."""
        requireKnownAnswers()

    def test_goodIsAccepted(self) -> None:
        """It refuses for what is wrong: what is good is accepted at the same time."""
        self.assertTrue(accepts(load(ROOT), [load("constrained")], load("good")))

    def test_everyCertificateIsUsed(self) -> None:
        """There is no certificate beside those that answers are known of."""
        used = {ROOT, "good"}.union(*({name, issuer} for name, issuer, _flaw in KNOWN_ANSWERS))
        self.assertEqual(set(CERTIFICATES), used)

    def test_flaws(self) -> None:
        """The names are what the answers are about."""
        self.assertEqual(_names("good"), ["spiffe://a.good.example/x:y"])
        self.assertEqual(_names("uriColon"), ["spiffe://bad.example/x.good.example:y"])
        self.assertEqual(_names("uriUser"), ["spiffe://a.good.example:y@bad.example/x"])
        self.assertEqual(_names("host"), ["a.bad.example"])
        self.assertEqual(_names("address"), ["10.0.0.1"])

    def test_reasons(self) -> None:
        """Each is refused for its own reason (C{X509_V_ERR_*}), not for its time or signature."""
        reasons = {"host": 48, "address": 48, "policyTwice": 42}
        for name, issuer, _flaw in KNOWN_ANSWERS:
            store = crypto.X509Store()
            store.set_flags(crypto.X509StoreFlags.POLICY_CHECK)
            store.set_time(knownanswers._AT)
            store.add_cert(load(ROOT))
            context = crypto.X509StoreContext(store, load(name), [load(issuer)])
            error = self.assertRaises(crypto.X509StoreContextError, context.verify_certificate)
            expected = {79, 24} if name == "below" else {reasons.get(name, 47)}
            self.assertIn(error.errors[0], expected, name)

    def test_broken(self) -> None:
        """An OpenSSL that accepts any one of them is refused, and it says what it accepts."""
        for broken, _issuer, flaw in KNOWN_ANSWERS:
            wrong = load(broken).to_cryptography()

            def verify(
                anchor: crypto.X509,
                intermediates: Sequence[crypto.X509],
                certificate: crypto.X509,
                wrong: x509.Certificate = wrong,
            ) -> bool:
                valid = accepts(anchor, intermediates, certificate)
                return valid or certificate.to_cryptography() == wrong

            error: StartError = self.assertRaises(StartError, requireKnownAnswers, verify)
            self.assertIn(f"refuses a certificate with {flaw}, found that OpenSSL ", str(error))
            self.assertIn(SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode(), str(error))
            self.assertIn("package cryptography", str(error))
