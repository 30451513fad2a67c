"""
NIST's Public Key Interoperability Test Suite (PKITS, version 1.0.1), judged as
a server judges its clients.

The suite has a certificate for each of its tests, with the CA certificates and
CRLs to go with it; the trust anchor and the kinds of its inputs that a TLS
server has no setting for are the suite's default ones.  Where our verdict is
another one than the suite's, L{DIFFERENCES} says so, and why.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cryptography_vectors
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.utils import CryptographyDeprecationWarning
from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

import ktlsagent
from ktlsagent.errors import ConfigError, PeerRejected
from ktlsagent.profiles import CertificateFiles, CRLScope, Own, Trust
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.interfaces import TLSParameters
from ktlsagent.protocols.session import Role
from ktlsagent.protocols.verification import CERTIFICATE_INVALID
from tests.support import certificates
from tests.support.tlspeers import pair
from tests.support.verifier import VALID, Verifier

DATA = Path(cryptography_vectors.__file__).parent / "x509" / "PKITS_data"

ROOT = "TrustAnchorRootCertificate"

SECTIONS = {
    "4.1": (6, "CertificatePath|(CA|EE|DSA)Signatures?|DSAParameterInheritance"),
    "4.2": (8, ".*not(Before|After)Date"),
    "4.3": (11, "NameChaining.*|NameUIDs|RFC3280.*|UTF8String.*|Rollover.*"),
    "4.4": (21, "(Missing|Wrong|Two|Bad|Unknown)CRL.*|Revoked.*|.*(nextUpdate|Number|CRLKeys)"),
    "4.5": (8, "BasicSelfIssued.*"),
    "4.6": (17, ".*basicConstraints.*|cAFalse|(SelfIssued)?pathLenConstraint"),
    "4.7": (5, "keyUsage.*"),
    "4.8": (20, "AllCertificates.*|(Different|Overlapping)Policies|AnyPolicy|.*Qualifier"),
    "4.9": (8, "(SelfIssued)?requireExplicitPolicy"),
    "4.10": (14, "PolicyMapping|Mapping(From|To)anyPolicy"),
    "4.11": (11, "(SelfIssued)?inhibitPolicyMapping"),
    "4.12": (10, "(SelfIssued)?inhibitAnyPolicy"),
    "4.13": (38, ".*nameConstraints"),
    "4.14": (35, ".*istributionPoint|only.*|IDPwithindirectCRL|cRLIssuer"),
    "4.15": (10, "deltaCRL.*"),
    "4.16": (2, "Unknown.*CertificateExtension"),
}
"""How many tests each section has, and what their certificates are called."""

INVALID = frozenset(f"4.8.{number}" for number in (4, 5, 7, 8, 9, 12))
"""The tests whose path is not valid although the names of their certificates do not say so."""

HANDSHAKES = (
    "4.1.1 4.1.3 4.2.8 4.3.4 4.4.2 4.5.1 4.6.17 4.7.2 4.8.2 4.9.3 4.10.2 4.11.1 4.12.1 4.13.13 "
    "4.13.34 4.14.5 4.14.3 4.16.2"
)
"""Tests that are run in handshakes, too: their keys take long to decrypt."""

CONFIGURATION = "configuration"
"""Stands for files that the agent does not start with."""


@dataclass(frozen=True)
class PKITSTest:
    """
    A test of the suite.

    @ivar number: its number, section included.
    @ivar name: what its certificate is called.
    @ivar valid: whether the path is, as the suite says.
    """

    number: str
    name: str
    valid: bool


@dataclass(frozen=True)
class Difference:
    """
    Tests of which our verdict is not the suite's.

    @ivar found: our verdict.
    @ivar why: why that is so.
    @ivar tests: the numbers of the tests.
    """

    found: str
    why: str
    tests: str

    def numbers(self) -> set[str]:
        """
        @return: the numbers one by one.
        """
        return set(self.tests.split())


DIFFERENCES = (
    Difference(
        CERTIFICATE_INVALID,
        "a CA demands that the path has a policy (requireExplicitPolicy): OpenSSL then wants "
        "to know which ones will do, and pyOpenSSL has no way to say that any will",
        "4.8.6 4.8.10 4.8.11 4.8.13 4.8.14 4.8.18 4.9.4 4.10.1 4.10.3 4.10.5 4.10.6 4.10.9 "
        "4.10.11 4.10.12 4.10.13 4.10.14 4.11.2 4.11.4 4.11.7 4.12.2 4.12.3 4.12.7 4.12.9",
    ),
    Difference(
        CONFIGURATION,
        "delta CRLs are not taken",
        "4.15.2 4.15.5 4.15.7 4.15.8",
    ),
    Difference(
        CONFIGURATION,
        "indirect CRLs are not taken",
        "4.14.22 4.14.24 4.14.25 4.14.28 4.14.29 4.14.30 4.14.33",
    ),
    Difference(
        CONFIGURATION,
        "CRLs for some reasons of revocation only are not taken",
        "4.14.18 4.14.19",
    ),
    Difference(
        "crl-missing",
        "a CRL has to be signed by the key that has signed the certificate",
        "4.4.19",
    ),
    Difference(
        CERTIFICATE_INVALID,
        "likewise; the CA has a CRL by another of its keys",
        "4.5.4 4.5.6",
    ),
    Difference(
        "weak-certificate",
        "a signature with SHA-1; besides, TLS 1.3 has no DSA keys",
        "4.1.4",
    ),
    Difference(
        "unknown-ca",
        "likewise; besides, a DSA key that inherits its parameters cannot be read",
        "4.1.5",
    ),
)
"""All that our verdict is another one in.  Nobody is accepted whom the suite does not accept."""

NEGATIVE_SERIAL_NUMBER = Difference(
    CONFIGURATION, "older versions of cryptography do not read negative serial numbers", "4.4.14"
)
"""One more, with some versions."""


def canonical(values: Sequence[str | bytes]) -> tuple[str, ...]:
    """
    Bring the values of a name into a form in which they can be compared (RFC
    5280, section 7.1, in short).

    @param values: the values.
    @return: the same without regard to case and spaces.
    """
    texts = (value if isinstance(value, str) else value.decode() for value in values)
    return tuple(" ".join(text.split()).casefold() for text in texts)


def nameOf(name: x509.Name | crypto.X509Name) -> tuple[str, ...]:
    """
    Tell names apart.

    @param name: a subject or an issuer.
    @return: its values.
    """
    if isinstance(name, x509.Name):
        return canonical([attribute.value for attribute in name])
    return canonical([value for _type, value in name.get_components()])


class Suite:
    """
    The files of the suite.

    @ivar certificates: its certificates by their names.
    @ivar tests: its tests by their numbers.
    """

    def __init__(self) -> None:
        self.certificates = {
            path.stem: crypto.load_certificate(crypto.FILETYPE_ASN1, path.read_bytes())
            for path in sorted((DATA / "certs").glob("*.crt"))
        }
        self._subjects = {
            name: nameOf(certificate.get_subject())
            for name, certificate in self.certificates.items()
        }
        self._crls = {path: self._issuer(path) for path in sorted((DATA / "crls").glob("*.crl"))}
        # This one has no certificate of its own.
        found = [("4.8.1", "ValidCertificatePathTest1EE")]
        for name in self.certificates:
            if parts := re.fullmatch(r"(?:Valid|Invalid)?(.*)Test(\d+)EE", name):
                found += [
                    (f"{section}.{parts[2]}", name)
                    for section, (_count, names) in SECTIONS.items()
                    if re.fullmatch(names, parts[1])
                ]
        self.tests = {
            number: PKITSTest(
                number, name, not name.startswith("Invalid") and number not in INVALID
            )
            for number, name in found
        }

    def _issuer(self, path: Path) -> tuple[str, ...]:
        """Name the issuer of a CRL."""
        try:
            return nameOf(x509.load_der_x509_crl(path.read_bytes()).issuer)
        except ValueError:
            # Older versions of cryptography cannot read all of them.
            return self._subjects[path.stem.removesuffix("CRL") + "Cert"]

    def way(self, test: PKITSTest) -> tuple[list[str], list[Path]]:
        """
        Find what a path may be made of: all certificates of all CAs that may
        have issued something on it, however many.

        @param test: the test.
        @return: the names of the certificates that the peer shows, its own
            first and without the root, and the CRLs that may be of use.
        """
        shown = [test.name]
        names: set[tuple[str, ...]] = set()
        for name in shown:
            for issuer in self._issuers(self.certificates[name]):
                names.add(issuer)
                shown += [
                    other
                    for other, subject in self._subjects.items()
                    if subject == issuer and other != ROOT and other not in shown
                ]
        return shown, [path for path, issuer in self._crls.items() if issuer in names]

    def _issuers(self, certificate: crypto.X509) -> Iterator[tuple[str, ...]]:
        """Name the issuers of a certificate, and of the CRLs that it is looked up in."""
        yield nameOf(certificate.get_issuer())
        try:
            extensions = certificate.to_cryptography().extensions
        except ValueError:
            return
        for extension in extensions:
            if isinstance(extension.value, x509.CRLDistributionPoints):
                for point in extension.value:
                    for name in point.crl_issuer or ():
                        yield nameOf(name.value)


@functools.cache
def suite() -> Suite:
    """
    Read the suite.

    @return: it.
    """
    return Suite()


class PKITSTests(SynchronousTestCase):
    """Our verdicts on the suite's paths."""

    maxDiff = None
    suppress = [(("ignore",), {"category": CryptographyDeprecationWarning})]  # noqa: RUF012

    def setUp(self) -> None:
        self.tags = self.mktemp()

    def verifier(self, crls: Sequence[Path], own: Own | None = None) -> Verifier:
        """
        Make a server's verifier.

        @param crls: the files of the CRLs that are configured.
        @param own: the server's own certificate.
        @return: the verifier, which trusts the suite's root.
        @raise ConfigError: if it would not start with these.
        """
        root = str(DATA / "certs" / f"{ROOT}.crt")
        trust = Trust((root,), tuple(str(path) for path in crls), CRLScope.CHAIN)
        return Verifier(Role.SERVER, trust, tagDirectory=self.tags, own=own)

    def verdict(self, test: PKITSTest) -> str:
        """
        Judge a path.

        @param test: the test that it is from.
        @return: the code of the refusal, or L{VALID}.
        """
        shown, crls = suite().way(test)
        try:
            verifier = self.verifier(crls)
        except ConfigError:
            return CONFIGURATION
        return verifier.verdict([suite().certificates[name] for name in shown])

    def shown(self, test: PKITSTest, verifier: Verifier) -> str:
        """
        Show a path to a server in a handshake.

        @param test: the test that it is from.
        @param verifier: what the server judges by.
        @return: the code of the refusal, or L{VALID}.
        """
        chain = tuple(suite().certificates[name] for name in suite().way(test)[0])
        content = (DATA / "pkcs12" / f"{test.name}.p12").read_bytes()
        key, _certificate, _more = pkcs12.load_key_and_certificates(content, b"password")
        assert isinstance(key, rsa.RSAPrivateKey)
        client = TLSContext(
            role=Role.CLIENT,
            suites=tuple(CIPHER_SUITES),
            groups=(),
            store=certificates.authority().store(),
            own=(OwnCertificate(chain, crypto.PKey.from_cryptography_key(key)),),
        )
        engines = [
            TLSEngine(TLSParameters(role, context, None, lambda _chain: None))
            for role, context in ((Role.CLIENT, client), (Role.SERVER, verifier.context))
        ]
        pair(*engines)
        server = engines[1]
        if isinstance(server.error, PeerRejected):
            return server.error.code
        self.assertIsNone(server.error)
        assert server.session is not None
        self.assertEqual(len(server.session.peerChain) > 1, test.valid)
        return VALID

    def test_complete(self) -> None:
        """Every test of the suite is there."""
        expected = {
            f"{section}.{number}"
            for section, (count, _names) in SECTIONS.items()
            for number in range(1, count + 1)
        }
        self.assertEqual(set(suite().tests), expected)
        self.assertEqual(len(expected), 224)
        used = {test.name for test in suite().tests.values()}
        self.assertEqual({name for name in suite().certificates if name.endswith("EE")}, used)

    def explained(self) -> dict[str, str]:
        """
        Look up the differences that are known.

        @return: our verdicts, by the numbers of the tests.
        """
        differences = list(DIFFERENCES)
        try:
            x509.load_der_x509_crl((DATA / "crls" / "NegativeSerialNumberCACRL.crl").read_bytes())
        except ValueError:
            differences.append(NEGATIVE_SERIAL_NUMBER)
        return {
            number: difference.found
            for difference in differences
            for number in difference.numbers()
        }

    def found(self) -> dict[str, str]:
        """
        Run the suite.

        @return: our verdicts where they are not the suite's, by the numbers of
            the tests.
        """
        verdicts = {test: self.verdict(test) for test in suite().tests.values()}
        return {
            test.number: verdict
            for test, verdict in verdicts.items()
            if (verdict == VALID) is not test.valid
        }

    def test_verdicts(self) -> None:
        """Every verdict is the suite's, but for the differences that are explained."""
        found = self.found()
        self.assertEqual(found, self.explained())
        self.assertNotIn(VALID, found.values(), "accepted, but not by the suite")

    def test_documented(self) -> None:
        """The documentation has the right numbers."""
        known = {number for difference in DIFFERENCES for number in difference.numbers()}
        lines = []
        for section, (count, _names) in (*SECTIONS.items(), ("all", (len(suite().tests), ""))):
            differ = [number for number in known if section in ("all", number.rpartition(".")[0])]
            lines.append((section, str(count), str(count - len(differ))))
        text = (Path(ktlsagent.__file__).parents[1] / "docs" / "verification.md").read_text()
        table = re.findall(r"^\| (all|4\.\d+)[^|]* \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
        self.assertEqual(table, lines)
        self.assertIn(f"The {len(known)} that are refused", text)

    def test_handshakes(self) -> None:
        """In a handshake the verdict is the same."""
        server = certificates.server()
        paths = {}
        for name, content in (("pem", server.certificatePEM), ("key", server.keyPEM)):
            path = Path(self.mktemp()).absolute()
            path.write_bytes(content)
            path.chmod(0o600)
            paths[name] = str(path)
        own = Own((CertificateFiles(paths["pem"], paths["key"]),))
        for number in HANDSHAKES.split():
            test = suite().tests[number]
            verifier = self.verifier(suite().way(test)[1], own)
            self.assertEqual(self.shown(test, verifier), self.verdict(test), number)
