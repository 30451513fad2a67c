"""Tests for L{ktlsagent.credentials.owncertificates}."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from hypothesis import given
from OpenSSL import crypto

from ktlsagent.credentials.files import Files
from ktlsagent.credentials.owncertificates import Missing, OwnFiles, readOwn
from ktlsagent.credentials.tokens import TokenKey
from ktlsagent.errors import Mistake
from ktlsagent.profiles import CertificateFiles, Match, Own, Profile
from ktlsagent.protocols.session import Role
from tests.support import certificates
from tests.support.certificates import DAY, NOW, PEM, CertificateAuthority, Credentials
from tests.support.folder import FolderTestCase, block
from tests.support.properties import changes, patient


def pemOf(*made: x509.Certificate) -> bytes:
    """
    Write certificates into a file.

    @param made: the certificates.
    @return: the file's content.
    """
    return b"".join(one.public_bytes(PEM) for one in made)


def _crossed(
    certified: CertificateAuthority,
    by: CertificateAuthority,
    notBefore: datetime,
    notAfter: datetime,
    *,
    identified: bool = True,
) -> x509.Certificate:
    """
    Have a CA certify another one.

    @param certified: the CA that gets one more certificate.
    @param by: the one that signs it.
    @param notBefore: the start of its validity.
    @param notAfter: its end.
    @param identified: whether it names both keys.
    @return: the certificate.
    """
    builder = (
        x509.CertificateBuilder()
        .subject_name(certified.certificate.subject)
        .issuer_name(by.certificate.subject)
        .public_key(certified.certificate.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(notBefore)
        .not_valid_after(notAfter)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if identified:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(by._key.public_key())
        subject = x509.SubjectKeyIdentifier.from_public_key(certified._key.public_key())
        builder = builder.add_extension(authority, critical=False)
        builder = builder.add_extension(subject, critical=False)
    return builder.sign(by._key, hashes.SHA256())


class _OwnTestCase(FolderTestCase):
    """
    Has a directory and a good certificate in it.

    @ivar role: the role that certificates are for.
    @ivar now: the time of day.
    @ivar inUse: what was read before.
    @ivar missing: what was found to be missing.
    """

    def setUp(self) -> None:
        super().setUp()
        self.files = Files()
        self.role = Role.SERVER
        self.now = NOW
        self.inUse: dict[str, OwnFiles] = {}
        self.missing: Missing | None = None
        good = certificates.server()
        self.certificate = self.write("own.pem", good.certificatePEM)
        self.key = self.write("own.key", good.keyPEM)

    def read(
        self, *pairs: CertificateFiles, acceptExpired: bool = False, pin: str | None = None
    ) -> Sequence[OwnFiles]:
        """
        Read certificates and keys.

        @param pairs: where they are.
        @param acceptExpired: whether it does not matter that they have ended.
        @param pin: where the PIN of a token is.
        @return: what was found.
        """
        self.files = Files()
        own = Own(pairs, pin, acceptExpired)
        profile = Profile("profile.a", Match(roles=(self.role,)), own=own)
        found, self.missing = readOwn(self.files, profile, self.now, self.inUse)
        return found

    def mistake(
        self, certificate: str | None = None, key: str | None = None, *, whole: bool = False
    ) -> Mistake:
        """
        Read files with one mistake.

        @param certificate: the file of the certificate; by default the good one.
        @param key: the file of the key; by default the good one.
        @param whole: whether there is something to read all the same.
        @return: the mistake.
        """
        found = self.read(CertificateFiles(certificate or self.certificate, key or self.key))
        self.assertEqual(bool(found), whole)
        (mistake,) = self.files.mistakes
        self.assertEqual(mistake.section, "profile.a")
        return mistake


class GoodTests(_OwnTestCase):
    """Certificates that can be used."""

    def subjects(self, *made: x509.Certificate, issued: Credentials) -> list[str]:
        """
        Read a chain.

        @param made: the certificates in their order in the file.
        @param issued: whose key is used.
        @return: the common names in the order in which they are sent.
        """
        (own,) = self.read(
            CertificateFiles(
                self.write("chain.pem", pemOf(*made)), self.write("chain.key", issued.keyPEM)
            )
        )
        self.assertEqual(self.files.mistakes, [])
        return [str(one.get_subject().CN) for one in own.chain]

    def test_one(self) -> None:
        """A certificate and its key are read."""
        (own,) = self.read(CertificateFiles(self.certificate, self.key))
        self.assertEqual(self.files.mistakes, [])
        self.assertEqual(own.path, self.certificate)
        self.assertEqual(own.kind, "ECDSA")
        self.assertEqual(
            own.ders, [certificates.server().certificate.public_bytes(certificates.DER)]
        )
        self.assertIsInstance(own.key, crypto.PKey)
        self.assertEqual(self.files.paths, {self.certificate, self.key})
        self.assertNotIn("PKey", repr(own))

    def test_several(self) -> None:
        """There may be one for each kind of key, ML-DSA included; their order stays."""
        authority = certificates.authority()
        kinds = {"Ed25519": certificates.ed25519Key(), "RSA": certificates.rsaKey()}
        mldsaKey = certificates.mldsaKey()
        if mldsaKey is not None:
            kinds = {"ML-DSA-65": mldsaKey, **kinds}
        pairs = [self.writePair(kind, authority.issueFor(key)) for kind, key in kinds.items()]
        found = self.read(*pairs, CertificateFiles(self.certificate, self.key))
        self.assertEqual(self.files.mistakes, [])
        self.assertEqual([own.kind for own in found], [*kinds, "ECDSA"])

    def test_chain(self) -> None:
        """A chain is sent as it is in the file."""
        chained = certificates.chained()
        issuing = certificates.intermediateAuthority().certificate
        expected = ["server.lab", "Lab Issuing CA"]
        self.assertEqual(self.subjects(chained.certificate, issuing, issued=chained), expected)

    def test_order(self) -> None:
        """A file in another order is put in order; a root is left out, and what is there twice."""
        chained = certificates.chained()
        issuing = certificates.intermediateAuthority().certificate
        root = certificates.authority().certificate
        for made in (
            (root, issuing, chained.certificate),
            (issuing, chained.certificate, root, issuing, chained.certificate),
        ):
            self.assertEqual(self.subjects(*made, issued=chained), ["server.lab", "Lab Issuing CA"])
            self.assertEqual(self.files.notices, [])

    def test_selfSigned(self) -> None:
        """A certificate that is signed by itself is sent, as there is no other."""
        own = certificates.selfSigned()
        self.assertEqual(self.subjects(own.certificate, issued=own), ["self.lab"])

    def test_crossSigned(self) -> None:
        """A CA that two others have signed is sent in both forms."""
        one, two = CertificateAuthority("One"), CertificateAuthority("Two")
        issuing = CertificateAuthority("Issuing", one)
        # By its name; nobody looks at signatures here.
        crossed = CertificateAuthority("Issuing", two).certificate
        leaf = issuing.issue("leaf.lab")
        self.assertEqual(
            self.subjects(leaf.certificate, issuing.certificate, crossed, issued=leaf),
            ["leaf.lab", "Issuing", "Issuing"],
        )

    def test_stranger(self) -> None:
        """A certificate that has nothing to do with ours is not sent, and that is said."""
        own, other = certificates.server(), certificates.client()
        self.assertEqual(
            self.subjects(own.certificate, other.certificate, issued=own), ["server.lab"]
        )
        self.assertEqual(
            self.files.notices,
            [f"CN=client.lab in {self.path('chain.pem')} is not sent: it is not part of the chain"],
        )

    def test_together(self) -> None:
        """Certificate and key may be in one file."""
        own = certificates.server()
        path = self.write("both.pem", own.keyPEM + own.certificatePEM)
        self.assertEqual(len(self.read(CertificateFiles(path, path))), 1)
        self.assertEqual(self.files.mistakes, [])

    def test_expiries(self) -> None:
        """It is known until when the certificate and its CA certificates are good."""
        chained = certificates.chained()
        (own,) = self.read(self.writePair("chain", chained.own()))
        path = self.path("chain.pem")
        self.assertEqual(
            [(expiry.what, expiry.path, expiry.notAfter) for expiry in own.expiries()],
            [
                ("the certificate CN=server.lab", path, chained.certificate.not_valid_after_utc),
                ("the CA certificate CN=Lab Issuing CA", path, NOW + 30 * DAY),
            ],
        )

    def test_unknownKind(self) -> None:
        """A kind of key that has no name here has its OID."""
        own = certificates.authority().issueFor(certificates.ed25519Key())
        der = crypto.dump_certificate(crypto.FILETYPE_ASN1, own.chain[0])
        other = der.replace(b"\x06\x03\x2b\x65\x70", b"\x06\x03\x2b\x65\x6e")
        certificate = crypto.load_certificate(crypto.FILETYPE_ASN1, other)
        self.assertEqual(OwnFiles("", (certificate,), own.key).kind, "1.3.101.110")


class TokenTests(_OwnTestCase):
    """Keys that are in a token are named, not loaded."""

    def test_pem(self) -> None:
        """A key's file may say that the key is in a token."""
        path = self.write("tpm.key", block("TSS2 PRIVATE KEY", b"wrapped"))
        (own,) = self.read(CertificateFiles(self.certificate, path), pin="/run/pin")
        self.assertEqual(self.files.mistakes, [])
        key = own.key
        assert isinstance(key, TokenKey)
        self.assertEqual((key.name, key.pin), (path, "/run/pin"))
        self.assertIn(path, self.files.paths)

    def test_uri(self) -> None:
        """A key may be named by its URI."""
        (own,) = self.read(CertificateFiles(self.certificate, "pkcs11:object=own"))
        self.assertEqual(self.files.mistakes, [])
        self.assertIsInstance(own.key, TokenKey)
        self.assertEqual(self.files.paths, {self.certificate})

    def test_badURI(self) -> None:
        """A URI that cannot be used is a mistake, and what may be a PIN is not repeated."""
        mistake = self.mistake(key="pkcs11:pin-value=1234?")
        self.assertEqual(mistake.key, "x509.private_key")
        self.assertEqual(mistake.expected, "a PKCS#11 URI (RFC 7512)")
        self.assertNotIn("1234", str(mistake))

    def test_order(self) -> None:
        """Without the key the certificate that has issued no other is taken for ours."""
        chained = certificates.chained()
        issuing = certificates.intermediateAuthority().certificate
        root = certificates.authority().certificate
        path = self.write("chain.pem", pemOf(root, issuing, chained.certificate))
        (own,) = self.read(CertificateFiles(path, "pkcs11:object=own"))
        self.assertEqual(
            [one.get_subject().CN for one in own.chain], ["server.lab", "Lab Issuing CA"]
        )

    def test_circle(self) -> None:
        """If each has issued another one the first is taken."""
        one, two = CertificateAuthority("One"), CertificateAuthority("Two")
        circle = (CertificateAuthority("Two", one), CertificateAuthority("One", two))
        path = self.write("chain.pem", pemOf(*(ca.certificate for ca in circle)))
        (own,) = self.read(CertificateFiles(path, "pkcs11:object=own"))
        self.assertEqual([one.get_subject().CN for one in own.chain], ["Two", "One"])


class BadTests(_OwnTestCase):
    """Every mistake says what was expected and what was found."""

    def test_missing(self) -> None:
        """Files that are not there are named, both of them at once."""
        self.read(CertificateFiles("/nonexistent/own.pem", "/nonexistent/own.key"))
        self.assertEqual(
            [(mistake.key, mistake.found) for mistake in self.files.mistakes],
            [
                ("x509.certificate", "/nonexistent/own.pem: No such file or directory"),
                ("x509.private_key", "/nonexistent/own.key: No such file or directory"),
            ],
        )

    def test_noCertificate(self) -> None:
        """A file without a certificate is a mistake, and so is one with a broken one."""
        for content, found in (
            (b"", "an empty file in "),
            (b"# to come", "none in "),
            (certificates.server().keyPEM, "a private key and no certificate in "),
            (certificates.server().certificatePEM[:-30], "a PEM block without its end in "),
            (block("CERTIFICATE", b"0"), "a broken one ("),
        ):
            mistake = self.mistake(certificate=self.write("bad.pem", content))
            self.assertEqual(
                (mistake.key, mistake.expected),
                ("x509.certificate", "a PEM file with our certificate and its chain"),
            )
            self.assertTrue(mistake.found.startswith(found), mistake.found)

    def test_noKey(self) -> None:
        """A file without a key, or with half of one, is a mistake that does not quote it."""
        for content, found in (
            (b"", "an empty file"),
            (b"# to come", "none"),
            (certificates.server().certificatePEM, "a certificate and no private key"),
            (
                b"-----BEGIN PRIVATE KEY-----\nSECRETSECRET\n-----END PRIVATE KEY-----\n",
                r"none \(.+\)",
            ),
            (b"-----BEGIN PRIVATE KEY-----\nSECRETSECRET\n", r"none \(.+\)"),
        ):
            mistake = self.mistake(key=self.write("bad.key", content))
            self.assertEqual(
                (mistake.key, mistake.expected),
                ("x509.private_key", "a PEM file with an unencrypted private key"),
            )
            self.assertRegex(mistake.found, rf"^{found} in {self.path('bad.key')}$")
            self.assertNotIn("SECRET", str(mistake))

    def test_encryptedKey(self) -> None:
        """An encrypted key is recognised, and nobody is asked for its passphrase."""
        key = certificates.server().key
        for form in (
            serialization.PrivateFormat.PKCS8,
            serialization.PrivateFormat.TraditionalOpenSSL,
        ):
            protection = serialization.BestAvailableEncryption(b"secret")
            content = key.private_bytes(serialization.Encoding.PEM, form, protection)
            mistake = self.mistake(key=self.write("locked.key", content))
            path = self.path("locked.key")
            self.assertEqual(mistake.found, f"an encrypted one in {path}")
            self.assertEqual(
                mistake.advice, f"(umask 077; openssl pkey -in {path} -out {path}.pem)"
            )

    def test_openKey(self) -> None:
        """A key that everybody can read is refused."""
        path = self.write("open.key", certificates.server().keyPEM, 0o644)
        self.assertEqual(self.mistake(key=path, whole=True).found, f"{path} with mode 0644")

    def test_otherKey(self) -> None:
        """A key that does not belong to the certificate is named with it, whatever its kind."""
        rsa = crypto.dump_privatekey(crypto.FILETYPE_PEM, certificates.rsaKey())
        for content in (certificates.client().keyPEM, rsa):
            mistake = self.mistake(key=self.write("other.key", content))
            self.assertEqual(mistake.key, "x509.private_key")
            self.assertEqual(mistake.expected, f"the private key of {self.certificate}")
            found = f"one that does not belong to it in {self.path('other.key')} ("
            self.assertTrue(mistake.found.startswith(found), mistake.found)

    def test_sameKind(self) -> None:
        """OpenSSL cannot choose between two of the same kind."""
        client = certificates.client()
        other = CertificateFiles(
            self.write("other.pem", client.certificatePEM), self.write("other.key", client.keyPEM)
        )
        self.read(CertificateFiles(self.certificate, self.key), other)
        (mistake,) = self.files.mistakes
        self.assertEqual(mistake.expected, "certificates with keys of different kinds")
        self.assertEqual(
            mistake.found, f"ECDSA keys of both {self.certificate} and {other.certificate}"
        )
        self.assertEqual(mistake.advice, "remove one of the two")

    def test_dates(self) -> None:
        """A certificate that has ended is refused, unless that is accepted."""
        pair = self.writePair("dated", certificates.expired().own())
        mistake = self.mistake(pair.certificate, pair.privateKey, whole=True)
        self.assertEqual(mistake.key, "x509.certificate")
        self.assertEqual(mistake.expected, "certificates that are valid now")
        which = f"the certificate CN=expired.lab in {pair.certificate}, which ended 24 hours ago, "
        self.assertIn(which, mistake.found)
        self.assertEqual(mistake.advice, "renew it, or set own_expired=accept")
        self.assertEqual(len(self.read(pair, acceptExpired=True)), 1)
        self.assertEqual(self.files.mistakes, [])

    def test_notYet(self) -> None:
        """A certificate whose time has not come is waited for, and that is said."""
        made = certificates.notYetValid()
        pair = self.writePair("early", made.own())
        self.assertEqual(self.read(pair), [])
        self.assertEqual(self.files.mistakes, [])
        assert self.missing is not None
        self.assertEqual(self.missing.begins, made.certificate.not_valid_before_utc)
        which = f"the certificate CN=early.lab in {pair.certificate}, which begins in 24 hours"
        self.assertIn(which, self.missing.found)
        (notice,) = self.files.notices
        self.assertIn(f"{which}, at ", notice)
        self.assertIn("it is used from then on", notice)
        self.assertEqual(len(self.read(pair, acceptExpired=True)), 1)
        self.assertIsNone(self.missing)
        self.now = made.certificate.not_valid_before_utc
        self.assertEqual(len(self.read(pair)), 1)
        self.assertIsNone(self.missing)

    def test_usedUntilThen(self) -> None:
        """What was in the file before is used on, as long as its own time is not over."""
        (before,) = self.read(CertificateFiles(self.certificate, self.key))
        (old,) = self.read(self.writePair("old", certificates.expired().own()), acceptExpired=True)
        early = certificates.notYetValid()
        self.write("own.pem", early.certificatePEM)
        self.write("own.key", early.keyPEM)
        for inUse, used in ((before, [before]), (old, [])):
            self.inUse = {self.certificate: inUse}
            self.assertEqual(self.read(CertificateFiles(self.certificate, self.key)), used)
            self.assertIsNotNone(self.missing)

    def test_notThere(self) -> None:
        """A client's certificate may not be there yet, with its key; a server's has to be."""
        gone = CertificateFiles(self.path("gone.pem"), self.path("gone.key"))
        good = CertificateFiles(self.certificate, self.key)
        self.role = Role.CLIENT
        self.assertEqual(self.read(gone), [])
        self.assertEqual(self.files.mistakes, [])
        assert self.missing is not None
        self.assertIsNone(self.missing.begins)
        self.assertIn(gone.certificate, self.missing.found)
        (notice,) = self.files.notices
        self.assertIn("xprtsec=mtls", notice)
        self.assertEqual(self.files.paths, {gone.certificate, gone.privateKey})
        self.assertEqual(len(self.read(gone, good)), 1)
        self.assertEqual(self.files.mistakes, [])
        for half in (
            CertificateFiles(self.certificate, gone.privateKey),
            CertificateFiles(gone.certificate, self.key),
            CertificateFiles(gone.certificate, "pkcs11:object=own"),
        ):
            self.read(half)
            self.assertEqual(len(self.files.mistakes), 1)
        self.inUse = {gone.certificate: self.read(good)[0]}
        self.read(gone)
        self.assertEqual(len(self.files.mistakes), 2)
        self.inUse.clear()
        self.role = Role.SERVER
        self.read(gone)
        self.assertEqual(len(self.files.mistakes), 2)
        self.role = Role.CLIENT
        os.symlink("/nonexistent", gone.certificate)
        self.read(gone)
        self.assertEqual(len(self.files.mistakes), 2)

    def test_cannotSign(self) -> None:
        """A key that TLS 1.3 has no signature scheme for is refused, and says so."""
        authority = certificates.authority()
        for key, words in (
            (ec.generate_private_key(ec.SECP256K1()), "one on the curve secp256k1 in "),
            (ec.generate_private_key(ec.SECP224R1()), "one on the curve secp224r1 in "),
            (dsa.generate_private_key(2048), "one of 2048 bits for DSA in "),
        ):
            pair = self.writePair("odd", authority.issueFor(crypto.PKey.from_cryptography_key(key)))
            mistake = self.mistake(pair.certificate, pair.privateKey)
            self.assertEqual(mistake.key, "x509.private_key")
            self.assertIn("signature scheme of TLS 1.3", mistake.expected)
            self.assertTrue(mistake.found.startswith(words), mistake.found)
            self.assertIn("openssl genpkey", mistake.advice)

    def test_canSign(self) -> None:
        """All others that OpenSSL has schemes for are taken."""
        authority = certificates.authority()
        keys: list[ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed448.Ed448PrivateKey] = [
            ec.generate_private_key(curve())
            for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1, ec.BrainpoolP256R1)
        ]
        keys += rsa.generate_private_key(65537, 3072), ed448.Ed448PrivateKey.generate()
        for key in keys:
            pair = self.writePair(
                "good", authority.issueFor(crypto.PKey.from_cryptography_key(key))
            )
            self.assertEqual(len(self.read(pair)), 1)
            self.assertEqual(self.files.mistakes, [])

    def test_shortKey(self) -> None:
        """A key that is too short is called that, and not another one's."""
        authority = certificates.authority()
        for bits in (1024, 1536):
            pair = self.writePair("short", authority.issueFor(certificates.rsaKey(bits)))
            mistake = self.mistake(pair.certificate, pair.privateKey)
            self.assertEqual(mistake.expected, "an RSA key of at least 2048 bits")
            self.assertEqual(mistake.found, f"one of {bits} bits in {pair.privateKey}")

    def test_oldCrossCertificate(self) -> None:
        """A CA certificate that has ended and that nobody needs is left out, and that is said."""
        root = CertificateAuthority("New Root")
        issuing = CertificateAuthority("Issuing", root)
        leaf = issuing.issue("leaf.lab")
        for notBefore, notAfter, words in (
            (NOW - 9 * DAY, NOW - DAY, "ended 24 hours ago, at "),
            (NOW + DAY, NOW + 9 * DAY, "begins in 24 hours, at "),
        ):
            crossed = _crossed(root, CertificateAuthority("Old Root"), notBefore, notAfter)
            path = self.write("crossed.pem", pemOf(leaf.certificate, issuing.certificate, crossed))
            (own,) = self.read(CertificateFiles(path, self.write("crossed.key", leaf.keyPEM)))
            self.assertEqual(self.files.mistakes, [])
            self.assertEqual([one.get_subject().CN for one in own.chain], ["leaf.lab", "Issuing"])
            (notice,) = self.files.notices
            self.assertIn(
                f"the CA certificate CN=New Root in {path} is not sent: it {words}", notice
            )
            (own,) = self.read(CertificateFiles(path, self.path("crossed.key")), acceptExpired=True)
            self.assertEqual(len(own.chain), 3)

    def test_oldIssuerBesideANewOne(self) -> None:
        """Of two certificates of the CA that has issued ours the one that is good is sent."""
        root = CertificateAuthority("Root")
        issuing = CertificateAuthority("Issuing", root)
        old = _crossed(issuing, root, NOW - 9 * DAY, NOW - DAY)
        leaf = issuing.issue("leaf.lab")
        for order in ((issuing.certificate, old), (old, issuing.certificate)):
            path = self.write("two.pem", pemOf(leaf.certificate, *order))
            (own,) = self.read(CertificateFiles(path, self.write("two.key", leaf.keyPEM)))
            self.assertEqual(self.files.mistakes, [])
            self.assertEqual(own.ders[1:], [issuing.certificate.public_bytes(certificates.DER)])

    def test_linkCertificate(self) -> None:
        """The new key of a CA that its old one has signed is sent: it is no root."""
        old, new = CertificateAuthority("CA"), CertificateAuthority("CA")
        leaf = new.issue("leaf.lab")
        for identified in (True, False):
            link = _crossed(new, old, NOW - DAY, NOW + 9 * DAY, identified=identified)
            path = self.write("link.pem", pemOf(leaf.certificate, link, new.certificate))
            (own,) = self.read(CertificateFiles(path, self.write("link.key", leaf.keyPEM)))
            self.assertEqual((self.files.mistakes, self.files.notices), ([], []))
            self.assertEqual(own.ders[1:], [link.public_bytes(certificates.DER)])

    def test_indented(self) -> None:
        """Blanks before lines, and blocks without a line end between them, do not matter."""
        good = certificates.server()
        indented = b"\n".join(b" \t" + line + b" " for line in good.keyPEM.splitlines())
        glued = good.certificatePEM.rstrip() + good.keyPEM
        for content in (
            indented,
            glued,
            good.keyPEM.replace(b"\n", b"\r\n"),
            b"\xef\xbb\xbf" + glued,
        ):
            self.assertEqual(
                len(self.read(CertificateFiles(self.certificate, self.write("odd.key", content)))),
                1,
            )
            self.assertEqual(self.files.mistakes, [])

    def test_datesOfTheChain(self) -> None:
        """Our own issuer's certificate has to be good as well; a root is not looked at."""
        old = CertificateAuthority(
            "Old CA", certificates.authority(), notBefore=NOW - 9 * DAY, notAfter=NOW - DAY
        )
        pair = self.writePair("old", old.issue("leaf.lab").own())
        mistake = self.mistake(pair.certificate, pair.privateKey, whole=True)
        self.assertIn("the CA certificate CN=Old CA in ", mistake.found)
        root = CertificateAuthority("Old Root", notBefore=NOW - 9 * DAY, notAfter=NOW - DAY)
        leaf = root.issue("leaf.lab")
        pair = CertificateFiles(
            self.write("root.pem", pemOf(leaf.certificate, root.certificate)),
            self.write("root.key", leaf.keyPEM),
        )
        self.assertEqual(len(self.read(pair)), 1)
        self.assertEqual(self.files.mistakes, [])

    @patient
    @given(changes)
    def test_anyChange(self, made: list[tuple[int, int]]) -> None:
        """Whatever has happened to the octets of a certificate, it is read or refused."""
        der = bytearray(certificates.server().certificate.public_bytes(certificates.DER))
        for place, octet in made:
            der[place % len(der)] = octet
        path = self.write("changed.pem", block("CERTIFICATE", bytes(der)))
        for own in self.read(CertificateFiles(path, "pkcs11:object=own")):
            self.assertEqual(len(list(own.expiries())), 1)
