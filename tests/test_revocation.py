"""
Tests of L{ktlsagent.peers.revocation}: who is on a list is refused, whatever OpenSSL
makes of the list, and however the peer arranges its chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.config import AgentConfig
from ktlsagent.credentials.loading import loadProfiles
from ktlsagent.peers.revocation import RevocationLists, foldedName
from ktlsagent.policy import Served
from ktlsagent.profiles import Asked, CRLScope, Match, Own, Profile, Tolerated, Trust
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.handshakefamily import AuthMode
from ktlsagent.protocols.interfaces import TLSParameters
from ktlsagent.protocols.record import AlertDescription
from ktlsagent.protocols.session import Role
from tests.support import certificates
from tests.support.certificates import DAY, DER, NOW, PEM, point
from tests.support.folder import FolderTestCase
from tests.support.tlspeers import pair
from tests.support.unreadable import unreadableNames, withIssuer

REVOKED = "certificate-revoked"
NOTHING: frozenset[Tolerated] = frozenset()
MISSING = frozenset({Tolerated.MISSING})
BOTH = frozenset({Tolerated.MISSING, Tolerated.EXPIRED})

FIRST, SECOND = b"1" * 20, b"2" * 20
"""Key identifiers."""

Key = ec.EllipticCurvePrivateKey


def newKey() -> Key:
    """Make a key."""
    return ec.generate_private_key(ec.SECP256R1())


def name(text: str, kind: _ASN1Type = _ASN1Type.UTF8String) -> x509.Name:
    """Make a distinguished name of a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text, kind)])


def issue(
    subject: x509.Name,
    key: Key,
    issuer: x509.Name,
    signer: Key,
    *,
    serial: int = 77,
    isCA: bool = False,
    identifier: bytes | None = None,
    authority: bytes | None = None,
) -> x509.Certificate:
    """
    Sign a certificate.

    @param subject: who it is for.
    @param key: whose key is in it.
    @param issuer: who issues it.
    @param signer: by which key.
    @param serial: its serial number.
    @param isCA: whether it is a CA's.
    @param identifier: its subjectKeyIdentifier, if it has one.
    @param authority: its authorityKeyIdentifier, if it has one.
    @return: the certificate.
    """
    builder = x509.CertificateBuilder(
        issuer, subject, key.public_key(), serial, NOW - DAY, NOW + DAY
    ).add_extension(x509.BasicConstraints(isCA, None), critical=True)
    if identifier is not None:
        builder = builder.add_extension(x509.SubjectKeyIdentifier(identifier), critical=False)
    if authority is not None:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier(authority, None, None), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def listOf(
    issuer: x509.Name,
    signer: Key,
    *serials: int,
    authority: bytes | None = None,
    nextUpdate: datetime = NOW + DAY,
    extensions: Sequence[x509.ExtensionType] = (),
) -> x509.CertificateRevocationList:
    """
    Sign a CRL.

    @param issuer: who issues it.
    @param signer: by which key.
    @param serials: what it revokes.
    @param authority: its authorityKeyIdentifier, if it has one.
    @param nextUpdate: when it ends.
    @param extensions: what else it says, all of it critical.
    @return: the CRL.
    """
    builder = x509.CertificateRevocationListBuilder(issuer, min(NOW, nextUpdate) - DAY, nextUpdate)
    if authority is not None:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier(authority, None, None), critical=False
        )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder(serial, NOW - DAY).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(signer, hashes.SHA256())


class AdmissionTests(FolderTestCase):
    """
    A server that has CRLs looks its client up, whose CA has one name, one key and two
    certificates: the client may send either.

    @ivar first: the CA's certificate whose key identifier is in the CRL.
    @ivar second: another one of the same key, with another identifier.
    """

    def setUp(self) -> None:
        super().setUp()
        self.rootKey, self.key, self.own = newKey(), newKey(), newKey()
        self.root = issue(
            *(name("Root"), self.rootKey, name("Root"), self.rootKey),
            isCA=True,
            identifier=b"R" * 20,
        )
        self.first = self.issuing(FIRST, 100)
        self.second = self.issuing(SECOND, 101)
        self.client = issue(name("client"), self.own, name("CA"), self.key, serial=5)

    def issuing(self, identifier: bytes, serial: int) -> x509.Certificate:
        """Make a certificate of the CA."""
        return issue(
            *(name("CA"), self.key, name("Root"), self.rootKey),
            serial=serial,
            isCA=True,
            identifier=identifier,
        )

    def verdict(
        self,
        *lists: x509.CertificateRevocationList,
        by: x509.Certificate | None = None,
        client: x509.Certificate | None = None,
        tolerated: frozenset[Tolerated] = MISSING,
        scope: CRLScope = CRLScope.LEAF,
    ) -> str:
        """
        Let the client come.

        @param lists: the CRLs that the server has.
        @param by: the CA's certificate that it sends.
        @param client: its own one; by default the usual one.
        @param tolerated: what the server tolerates.
        @param scope: what it looks up.
        @return: the code of the refusal; empty if it is let in.
        """
        anchors = self.write("root.pem", self.root.public_bytes(PEM))
        paths = tuple(
            self.write(f"{number}.crl", one.public_bytes(PEM)) for number, one in enumerate(lists)
        )
        trust = Trust((anchors,), paths, scope, tolerated)
        own = Own((self.writePair("server", certificates.server().own()),))
        profile = Profile("a", Match(roles=(Role.SERVER,)), trust, own)
        config = AgentConfig(profiles=(profile,), tagDirectory=self.path("tags.d"))
        loaded = loadProfiles(config, frozenset(CIPHER_SUITES))
        (contexts,) = loaded.profiles
        served = Served(Asked(Role.SERVER, AuthMode.X509), contexts, loaded.tags)
        assert contexts.server is not None
        shown = (client or self.client, by or self.second)
        chain = tuple(crypto.X509.from_cryptography(one) for one in shown)
        visitor = TLSContext(
            store=certificates.authority().store(),
            own=(OwnCertificate(chain, crypto.PKey.from_cryptography_key(self.own)),),
            suites=tuple(CIPHER_SUITES),
            groups=(),
            role=Role.CLIENT,
        )
        server = TLSEngine(TLSParameters(Role.SERVER, contexts.server, None, served.judge(None)))
        pair(TLSEngine(TLSParameters(Role.CLIENT, visitor, None, lambda _chain: None)), server)
        if server.error is None:
            return ""
        if server.error.code == REVOKED:
            self.assertEqual(server.alertSent, AlertDescription.CERTIFICATE_REVOKED)
        return server.error.code

    def both(self, *lists: x509.CertificateRevocationList, **arguments: Any) -> tuple[str, str]:
        """Give the verdicts with the one CA certificate and with the other."""
        first = self.verdict(*lists, by=self.first, **arguments)
        return first, self.verdict(*lists, by=self.second, **arguments)

    def test_eitherCertificate(self) -> None:
        """The client cannot choose a certificate of its CA for which there is no list."""
        with_, without = (
            listOf(name("CA"), self.key, serial, authority=FIRST) for serial in (5, 6)
        )
        self.assertEqual(self.both(with_), (REVOKED, REVOKED))
        self.assertEqual(self.both(without), ("", ""))
        self.assertEqual(self.both(without, tolerated=NOTHING), ("", "crl-missing"))

    def test_anotherListIsGood(self) -> None:
        """An entry counts even if there is a good list without it, and nothing is tolerated."""
        lists = (
            listOf(name("CA"), self.key, 5, authority=FIRST),
            listOf(name("CA"), self.key, authority=SECOND),
        )
        self.assertEqual(self.both(*lists, tolerated=NOTHING), (REVOKED, REVOKED))

    def test_expired(self) -> None:
        """A list that is out of date still revokes."""
        for authority in (None, FIRST, SECOND):
            old = listOf(name("CA"), self.key, 5, authority=authority, nextUpdate=NOW - DAY)
            self.assertEqual(self.both(old, tolerated=BOTH), (REVOKED, REVOKED))

    def test_part(self) -> None:
        """An entry counts whatever the list says that it is about."""
        for part in (point(caOnly=True), point(userOnly=True), point("http://lab/1")):
            one = listOf(name("CA"), self.key, 5, authority=FIRST, extensions=[part])
            self.assertNotIn("", self.both(one))

    def test_writtenDifferently(self) -> None:
        """A name is the same in another case, with other blanks, and as another string."""
        self.first = self.second = issue(
            *(name("Lab  ca"), self.key, name("Root"), self.rootKey), isCA=True, identifier=SECOND
        )
        self.client = issue(name("client"), self.own, name("Lab  ca"), self.key, serial=5)
        for text in ("Lab ca", "LAB CA", " lab  Ca "):
            for kind in (_ASN1Type.UTF8String, _ASN1Type.PrintableString, _ASN1Type.BMPString):
                one = listOf(name(text, kind), self.key, 5, authority=FIRST)
                self.assertEqual(self.verdict(one), REVOKED, (text, kind))

    def test_renamed(self) -> None:
        """A CA that has another name now has its old list."""
        for authority in (None, SECOND):
            self.client = issue(
                *(name("client"), self.own, name("CA"), self.key), serial=5, authority=authority
            )
            one = listOf(name("Old CA"), self.key, 5, authority=authority)
            self.assertEqual(self.verdict(one), REVOKED)

    def test_anotherAuthority(self) -> None:
        """An entry of another CA is none, also of one with the same name if that is certain."""
        other = newKey()
        self.assertEqual(self.verdict(listOf(name("Other"), other, 5, authority=FIRST)), "")
        self.assertEqual(self.verdict(listOf(name("CA"), other, 5, authority=FIRST)), REVOKED)
        self.client = issue(
            *(name("client"), self.own, name("CA"), self.key), serial=5, authority=SECOND
        )
        self.assertEqual(self.verdict(listOf(name("CA"), other, 5, authority=FIRST)), "")
        self.assertNotEqual(self.verdict(listOf(name("CA"), other, 5)), "")

    def test_sameKeyTwice(self) -> None:
        """A list whose key has two identifiers is known by its signature."""
        self.client = issue(
            *(name("client"), self.own, name("CA"), self.key), serial=5, authority=SECOND
        )
        self.assertEqual(self.verdict(listOf(name("CA"), self.key, 5, authority=FIRST)), REVOKED)

    def test_brokenSignature(self) -> None:
        """A list that is broken lets nobody in who is on it."""
        good = listOf(name("CA"), self.key, 5, authority=FIRST)
        content = bytearray(good.public_bytes(DER))
        content[-1] ^= 1
        self.assertNotIn("", self.both(x509.load_der_x509_crl(bytes(content))))

    def test_authorities(self) -> None:
        """CAs are looked up as well if the whole chain is."""
        one = listOf(name("Root"), self.rootKey, 101, authority=FIRST)
        self.assertEqual(self.both(one), ("", ""))
        self.assertEqual(self.both(one, scope=CRLScope.CHAIN), ("", REVOKED))

    def test_anchor(self) -> None:
        """A trust anchor is not: it is trusted whatever is said about it."""
        serial = self.root.serial_number
        one = listOf(name("Root"), self.rootKey, serial, authority=FIRST)
        self.assertEqual(self.both(one, scope=CRLScope.CHAIN), ("", ""))

    def test_largeSerial(self) -> None:
        """Serial numbers may have 20 octets."""
        large = 2**159 - 1
        self.client = issue(name("client"), self.own, name("CA"), self.key, serial=large)
        one = listOf(name("CA"), self.key, large, authority=FIRST)
        self.assertEqual(self.both(one), (REVOKED, REVOKED))
        one = listOf(name("CA"), self.key, large - 2**128, authority=FIRST)
        self.assertEqual(self.both(one), ("", ""))


class RevocationListsTests(SynchronousTestCase):
    """What cannot be told counts as revoked."""

    def test_nothing(self) -> None:
        """Without lists nobody is revoked."""
        self.assertIsNone(RevocationLists().judge([certificates.client().certificate], "client"))

    def test_words(self) -> None:
        """The refusal says which certificate is on which list."""
        crl = certificates.authority().revocationList(certificates.client())
        certificate = certificates.client().certificate
        lists = [("CN=Lab CA", crl, frozenset({certificate.serial_number}))]
        refusal = RevocationLists(lists).judge([certificate], "client")
        assert refusal is not None
        self.assertEqual(
            str(refusal),
            f"expected the client's certificate (CN=client.lab) to be on no CRL, found serial "
            f"number {certificate.serial_number:x} on the CRL of CN=Lab CA",
        )

    def test_unreadable(self) -> None:
        """A certificate whose issuer cannot be read is on the list, whatever else can be."""
        crl = listOf(name("CA"), newKey(), 1, authority=FIRST)
        nameless = withIssuer(b"\x14\x06\xff\xfe\x00\x1b!!")
        for certificate, revoked in (
            (nameless, True),
            *((other, False) for other in unreadableNames()),
        ):
            lists = [("CN=CA", crl, frozenset({certificate.serial_number}))]
            verdict = RevocationLists(lists).judge([certificate], "client")
            self.assertEqual(verdict is not None, revoked)

    def test_strangeKey(self) -> None:
        """A list whose signature nobody here can check is about an issuer of its name."""
        key, exchange = newKey(), x25519.X25519PrivateKey.generate().public_key()
        issuer = x509.CertificateBuilder(
            name("Root"), name("CA"), exchange, 1, NOW - DAY, NOW + DAY
        ).sign(key, hashes.SHA256())
        crl = listOf(name("CA"), key, 5, authority=FIRST)
        lists = RevocationLists([("CN=CA", crl, frozenset({5}))])
        for issuerName, revoked in (("CA", True), ("Other", False)):
            leaf = issue(*(name("a"), key, name(issuerName), key), serial=5, authority=SECOND)
            self.assertEqual(lists.judge([leaf, issuer], "client") is not None, revoked)

    def test_foldedName(self) -> None:
        """Attributes and their order count, and those of one RDN have none."""
        two = [
            x509.NameAttribute(NameOID.COMMON_NAME, "A"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "B"),
        ]
        one, other = (x509.RelativeDistinguishedName(some) for some in (two, two[::-1]))
        self.assertEqual(foldedName(x509.Name([one])), foldedName(x509.Name([other])))
        self.assertNotEqual(foldedName(x509.Name(two)), foldedName(x509.Name(two[::-1])))
        self.assertNotEqual(foldedName(x509.Name(two)), foldedName(x509.Name([one])))
        bits = x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, b"\0A", _ASN1Type.BitString)
        self.assertNotEqual(foldedName(x509.Name([bits])), foldedName(x509.Name([])))
