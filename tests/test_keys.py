"""Tests for L{ktlsagent.keys}."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent import keys
from ktlsagent.errors import HandshakeError, KeyForbidden, KeyUnusable
from ktlsagent.interfaces import KeyDescription
from ktlsagent.keys import RequestKeys
from ktlsagent.protocols.psk import SHA256, SHA384, PreSharedKey
from tests.support import certificates
from tests.support.fakekeyrings import FakeKeyrings, _Key
from tests.support.keyringstests import LINK, NEW, READ, SEARCH, SETATTR, VIEW, WRITE

NVME = b"NVMe1R01 nqn.host nqn.target dig=="


class KeysTestCase(SynchronousTestCase):
    """Has a keyring C{.nvme} that is linked for a request."""

    def setUp(self) -> None:
        self.fake = FakeKeyrings()
        self.ring = self.fake.addKeyring(".nvme")
        self.fake.link(self.ring)
        self.keys = RequestKeys(self.fake, (self.ring,))

    def refusal(self, error: HandshakeError, code: str) -> str:
        """
        Look at a refusal.

        @param error: the refusal.
        @param code: its code.
        @return: its words.
        """
        self.assertEqual(error.code, code)
        self.assertIn("expected ", error.reason)
        self.assertIn(", found ", error.reason)
        return error.reason


class PreSharedKeyTests(KeysTestCase):
    """Tests for L{RequestKeys.preSharedKey}."""

    def refused(self, serial: int, code: str = "key-unusable") -> str:
        """
        Read a key that is of no use.

        @param serial: its serial.
        @param code: the expected code.
        @return: the words.
        """
        error: KeyUnusable = self.assertRaises(KeyUnusable, self.keys.preSharedKey, serial)
        return self.refusal(error, code)

    def test_types(self) -> None:
        """A key of the type psk or user has its description for identity."""
        for kind in ("psk", "user"):
            serial = self.fake.addKey(self.ring, NVME, b"k" * 32, type=kind)
            expected = PreSharedKey(NVME, b"k" * 32, SHA256, serial)
            self.assertEqual(self.keys.preSharedKey(serial), expected)

    def test_otherTypes(self) -> None:
        """A key of another type is refused by it, and not read."""
        for kind in ("logon", "asymmetric", "big_key", "keyring"):
            serial = self.fake.addKey(self.ring, NVME, type=kind)
            words = self.refused(serial)
            self.assertIn(f"found key {serial} of the type {kind}", words)
        self.assertIn("of the type keyring", self.refused(self.ring))
        self.assertEqual(self.fake.reads, [])

    def test_hashes(self) -> None:
        """The hash is that of the identity, or of the length."""
        for identity, length, expected in (
            (b"NVMe0R02 a b", 48, SHA384),
            (b"NVMe1R02 a b c", 32, SHA384),
            (b"generic", 48, SHA384),
            (b"generic", 32, SHA256),
        ):
            serial = self.fake.addKey(self.ring, identity, b"k" * length)
            self.assertEqual(self.keys.preSharedKey(serial).hash, expected)
        self.refused(self.fake.addKey(self.ring, b"NVMe1R07 a b c"), "unknown-hash")

    def test_lengths(self) -> None:
        """A key that OpenSSL would not take is refused by its length, and not shown."""
        for length in (16, 512):
            self.keys.preSharedKey(self.fake.addKey(self.ring, NVME, b"k" * length))
        for length in (0, 15, 513):
            serial = self.fake.addKey(self.ring, NVME, b"k" * length)
            words = self.refused(serial)
            self.assertIn("of 16 to 512 octets", words)
            self.assertTrue(words.endswith(f"found key {serial} with {length}"), words)
            self.assertNotIn("kkk", words)

    def test_absent(self) -> None:
        """A serial without a key is refused with the keyrings in which keys are."""
        words = self.refused(4711)
        self.assertEqual(
            words,
            "expected a pre-shared key as key 4711, found none with that serial; linked is .nvme",
        )

    def test_nothingLinked(self) -> None:
        """If no keyring could be linked, that is said; one without a name by its serial."""
        for rings, words in (((), "no keyring"), ((4712, self.ring), "4712, .nvme")):
            self.keys = RequestKeys(self.fake, rings)
            self.assertTrue(self.refused(4711).endswith(f"; linked is {words}"))

    def test_spoiled(self) -> None:
        """A key that has been revoked or has expired is refused with that word."""
        for number, word in (
            (errno.EKEYREVOKED, "that it was revoked"),
            (errno.EKEYEXPIRED, "that it has expired"),
            (errno.EKEYREJECTED, "that it was rejected"),
            (errno.EIO, "Input/output error"),
        ):
            serial = self.fake.addKey(self.ring, NVME)
            self.fake.spoil(serial, number)
            words = self.refused(serial)
            self.assertIn(f"as key {serial}, found {word}; linked is .nvme", words)

    def test_forbidden(self) -> None:
        """A key that may not be read is refused with the permission that it needs."""
        serial = self.fake.addKey(self.ring, NVME, readable=False)
        error = self.assertRaises(KeyForbidden, self.keys.preSharedKey, serial)
        words = self.refusal(error, "key-forbidden")
        self.assertIn(f"found that key {serial} may not be read: linked is .nvme;", words)
        self.assertIn("needs read permission", words)

    def test_notPossessed(self) -> None:
        """So is one in a keyring that could not be linked."""
        serial = self.fake.addKey(self.fake.addKeyring("other"), NVME)
        self.assertRaises(KeyForbidden, self.keys.preSharedKey, serial)

    def test_untrusted(self) -> None:
        """A key that is not root's, or that others may change, is not used, and is not read."""
        for uid, permissions, words in (
            (4711, NEW, "that it belongs to the user 4711; keyctl chown"),
            (0, NEW | WRITE, "that anybody may write;"),
            (0, NEW | SETATTR << 8, "that its group may set its attributes;"),
            (0, NEW | LINK, "that anybody may link;"),
        ):
            serial = self.fake.addKey(self.ring, NVME)
            self.fake.own(serial, uid, permissions)
            error = self.assertRaises(KeyForbidden, self.keys.preSharedKey, serial)
            self.assertIn(f"key {serial} {words}", self.refusal(error, "key-untrusted"))
        self.assertEqual(self.fake.reads, [])

    def test_readableByOthers(self) -> None:
        """Who may only see or read it cannot change it."""
        serial = self.fake.addKey(self.ring, NVME)
        self.fake.own(serial, 0, NEW | VIEW | READ | SEARCH)
        self.assertEqual(self.keys.preSharedKey(serial).serial, serial)

    def test_replaced(self) -> None:
        """A key whose serial becomes another one's in between is not taken for it."""
        for change in (
            lambda serial: self.fake.own(serial, 4711),
            lambda serial: self.fake.spoil(serial, errno.EKEYREVOKED),
            lambda serial: self.fake.addKeyring("another of the same serial", serial),
        ):
            serial = self.fake.addKey(self.ring, NVME)

            def read(read: int, change: Callable[[int], object] = change) -> bytes:
                change(read)
                return b"k" * 32

            self.patch(self.fake, "read", read)
            self.assertRaises(HandshakeError, self.keys.preSharedKey, serial)


class LookUpTests(KeysTestCase):
    """Tests for L{RequestKeys.lookUp}."""

    def unknown(self, *offered: bytes) -> str:
        """
        Look for identities none of which is known.

        @param offered: the identities.
        @return: the words.
        """
        error: KeyUnusable = self.assertRaises(KeyUnusable, self.keys.lookUp, offered)
        return self.refusal(error, "unknown-identity")

    def test_first(self) -> None:
        """The first of the offered identities that is there wins, and only its key is read."""
        serials = [self.fake.addKey(self.ring, name, type="psk") for name in (b"a", b"b", b"c")]
        self.assertEqual(self.keys.lookUp([b"x", b"c", b"a"]).serial, serials[2])
        self.assertEqual(self.keys.lookUp([b"b"]).serial, serials[1])
        self.assertEqual(self.fake.reads, [serials[2], serials[1]])

    def test_equality(self) -> None:
        """A name that is longer or shorter is another one, which the kernel does not think."""
        self.fake.addKey(self.ring, b"NVMe1R01 a b c")
        for offered in (b"NVMe1R01 a b", b"NVMe1R01 a b ", b"NVMe1R01 a b c d", b"", b"NVMe1R01"):
            self.unknown(offered)
        self.keys.lookUp([b"NVMe1R01 a b c"])

    def test_words(self) -> None:
        """The refusal has the identities that were offered and those that are there."""
        self.assertEqual(
            self.unknown(b"x", b"y\xff"),
            "expected a key for 'x', 'y\\xff', found keys for no identity in 1 keyrings",
        )
        for name in (b"b", b"a"):
            self.fake.addKey(self.ring, name, b"not for you" * 3)
        words = self.unknown(b"x")
        self.assertEqual(words, "expected a key for 'x', found keys for 'a', 'b' in 1 keyrings")

    def test_otherTypes(self) -> None:
        """Keys of other types have no identity."""
        for kind in ("logon", "keyring", "asymmetric"):
            self.fake.addKey(self.ring, NVME, type=kind)
        self.unknown(NVME)
        serial = self.fake.addKey(self.ring, NVME, type="psk")
        self.assertEqual(self.keys.lookUp([NVME]).serial, serial)

    def test_severalKeyrings(self) -> None:
        """All keyrings are looked into; of two keys with one name that of the first is taken."""
        other = self.fake.addKeyring("other")
        self.fake.link(other)
        self.keys = RequestKeys(self.fake, (self.ring, other))
        first = self.fake.addKey(self.ring, b"a")
        second = self.fake.addKey(other, b"b")
        self.fake.addKey(other, b"a")
        self.assertEqual(self.keys.lookUp([b"a"]).serial, first)
        self.assertEqual(self.keys.lookUp([b"b"]).serial, second)
        self.assertIn("in 2 keyrings", self.unknown(b"c"))

    def test_spoiledKey(self) -> None:
        """A key that is of no use does not hide the others, and is named if it may be missing."""
        spoiled = self.fake.addKey(self.ring, NVME)
        good = self.fake.addKey(self.ring, b"good")
        self.fake.spoil(spoiled, errno.EKEYREVOKED)
        self.assertEqual(self.keys.lookUp([NVME, b"good"]).serial, good)
        words = self.unknown(NVME)
        self.assertIn(f"; key {spoiled} cannot be used: Key has been revoked", words)

    def test_spoiledKeyring(self) -> None:
        """A keyring that is of no use does not hide the others; if the key is nowhere, it is it."""
        other = self.fake.addKeyring("other")
        self.fake.link(other)
        self.keys = RequestKeys(self.fake, (other, self.ring))
        good = self.fake.addKey(self.ring, b"good")
        self.fake.spoil(other, errno.EKEYREVOKED)
        self.assertEqual(self.keys.lookUp([b"good"]).serial, good)
        error = self.assertRaises(KeyUnusable, self.keys.lookUp, [NVME])
        words = self.refusal(error, "key-unusable")
        self.assertIn(f"a keyring with pre-shared keys as key {other}, found that it was", words)

    def test_forbidden(self) -> None:
        """A key or a keyring that may not be read is refused with the permission."""
        serial = self.fake.addKey(self.ring, NVME, readable=False)
        error = self.assertRaises(KeyForbidden, self.keys.lookUp, [NVME])
        self.assertIn(f"key {serial} may not be read", self.refusal(error, "key-forbidden"))
        self.fake.forbid(self.ring)
        error = self.assertRaises(KeyForbidden, self.keys.lookUp, [NVME])
        self.assertIn(f"key {self.ring} may not be read", self.refusal(error, "key-forbidden"))

    def test_onlyWhatIsWanted(self) -> None:
        """Of many keys only the one that is wanted is looked at."""
        serials = [self.fake.addKey(self.ring, b"%05d" % n, type="psk") for n in range(200)]
        self.fake.describes = 0
        self.assertEqual(self.keys.lookUp([b"00150"]).serial, serials[150])
        self.assertLess(self.fake.describes, 6)

    def test_absentAmongMany(self) -> None:
        """That an identity is not there takes no longer if there are many others."""
        for number in range(200):
            self.fake.addKey(self.ring, b"%05d" % number, type="psk")
        self.fake.describes = 0
        words = self.unknown(b"stranger")
        self.assertLess(self.fake.describes, 12)
        self.assertIn("found keys for '00000', '00001', ", words)
        self.assertTrue(words.endswith("'00007' and more in 1 keyrings"), words)

    def test_beginsAlike(self) -> None:
        """A key is found behind one whose name begins with its own, whichever comes first."""
        longer = self.fake.addKey(self.ring, b"NVMe1R01 a b c", type="psk")
        exact = self.fake.addKey(self.ring, b"NVMe1R01 a b", type="psk")
        self.assertEqual(self.keys.lookUp([b"NVMe1R01 a b"]).serial, exact)
        self.assertEqual(self.keys.lookUp([b"NVMe1R01 a b", b"NVMe1R01 a b c"]).serial, exact)
        self.assertEqual(self.keys.lookUp([b"NVMe1R01 a b c"]).serial, longer)

    def test_beginsAlikeAmongMany(self) -> None:
        """Who makes the kernel find another key makes us look at all of them once, not again."""
        for number in range(200):
            self.fake.addKey(self.ring, b"NVMe0R01 host disk%03d" % number, type="psk")
        self.unknown(b"NVMe0R01 host disk")
        self.fake.describes = 0
        self.unknown(b"NVMe0R01 host disk")
        self.assertLess(self.fake.describes, 6)
        new = self.fake.addKey(self.ring, b"NVMe0R01 host disk", type="psk")
        self.assertEqual(self.keys.lookUp([b"NVMe0R01 host disk"]).serial, new)

    def test_seenOnce(self) -> None:
        """What was seen of a key is asked again before it is used."""
        longer = self.fake.addKey(self.ring, b"NVMe0R01 host disk2", type="psk")
        serial = self.fake.addKey(self.ring, b"NVMe0R01 host disk", type="psk")
        self.assertEqual(self.keys.lookUp([b"NVMe0R01 host disk"]).serial, serial)
        self.fake.own(serial, 0, NEW | WRITE)
        error = self.assertRaises(KeyForbidden, self.keys.lookUp, [b"NVMe0R01 host disk"])
        self.refusal(error, "key-untrusted")
        self.fake.own(serial, 0)
        self.fake.forget(serial)
        self.assertIsNotNone(longer)
        self.fake._add(
            _Key(KeyDescription("psk", b"NVMe0R01 host other", 0, NEW), b"k" * 32), serial
        )
        for _again in range(2):
            self.unknown(b"NVMe0R01 host disk")
        self.assertEqual(self.keys.lookUp([b"NVMe0R01 host other"]).serial, serial)

    def test_seenBound(self) -> None:
        """Not all keys that there ever were are remembered."""
        self.patch(keys, "_MOST_SEEN", 3)
        for number in range(8):
            self.fake.addKey(self.ring, b"NVMe0R01 host disk%d" % number, type="psk")
        self.unknown(b"NVMe0R01 host disk")
        self.assertLessEqual(len(self.keys.seen), 3)

    def test_strangeIdentities(self) -> None:
        """What is no description of a key is the identity of none."""
        self.fake.addKey(self.ring, NVME)
        self.fake.addKey(self.ring, NVME, type="psk")
        for identity in (NVME + b"\x00", NVME + b"\x00x", b"\x00" + NVME, b"x" * 2**15):
            self.unknown(identity)

    def test_untrustedKey(self) -> None:
        """A key that others have made or may change is as good as none, and is named."""
        for uid, permissions in ((4711, NEW), (0, NEW | WRITE), (0, NEW | LINK << 8)):
            serial = self.fake.addKey(self.ring, NVME)
            self.fake.own(serial, uid, permissions)
            self.assertIn(f"; key {serial} cannot be used: found that ", self.unknown(NVME))
        good = self.fake.addKey(self.ring, NVME, type="psk")
        self.assertEqual(self.keys.lookUp([NVME]).serial, good)

    def test_untrustedKeyring(self) -> None:
        """Keys in a keyring that others may fill are not looked at, whoever owns them."""
        theirs = self.fake.addKeyring("theirs")
        self.fake.linkAtAccept(theirs)
        planted = self.fake.addKey(theirs, NVME)
        good = self.fake.addKey(self.ring, b"good")
        self.keys = RequestKeys(self.fake, (theirs, self.ring))
        for uid, permissions in ((4711, NEW), (0, NEW | SEARCH), (0, NEW | WRITE << 8)):
            self.fake.own(theirs, uid, permissions)
            error = self.assertRaises(KeyForbidden, self.keys.lookUp, [NVME])
            self.assertIn(f"found of key {theirs} that", self.refusal(error, "key-untrusted"))
            self.assertEqual(self.keys.lookUp([b"good"]).serial, good)
        self.assertNotIn(planted, self.fake.reads)

    def test_insideAnother(self) -> None:
        """A key in a keyring inside of the keyring is not in it, although the kernel finds it."""
        inner = self.fake.addKeyring("inner")
        deep = self.fake.addKey(inner, NVME)
        self.patch(self.fake, "search", lambda *_arguments: deep)
        self.unknown(NVME)

    def test_nothingLinked(self) -> None:
        """Without a keyring no identity is known."""
        self.keys = RequestKeys(self.fake, ())
        self.assertIn("in 0 keyrings", self.unknown(NVME))


class OwnCertificateTests(KeysTestCase):
    """Tests for L{RequestKeys.ownCertificate}."""

    def add(self, payload: bytes) -> int:
        """
        Put something into the keyring.

        @param payload: the octets.
        @return: the key's serial.
        """
        return self.fake.addKey(self.ring, b"%d" % len(self.fake.keys(self.ring)), payload)

    def addCertificate(self, encoding: Encoding = Encoding.DER) -> int:
        """
        Put the certificate of a client into the keyring.

        @param encoding: how.
        @return: the key's serial.
        """
        return self.add(certificates.client().certificate.public_bytes(encoding))

    def refused(self, certificate: int | None, privateKey: int | None) -> str:
        """
        Read a pair that is of no use.

        @param certificate: the certificate's serial.
        @param privateKey: the private key's serial.
        @return: the words.
        """
        error: KeyUnusable = self.assertRaises(
            KeyUnusable, self.keys.ownCertificate, certificate, privateKey, None
        )
        return self.refusal(error, "key-unusable")

    def privateKey(self, content: bytes) -> crypto.PKey:
        """
        Read a private key.

        @param content: the key's payload.
        @return: the key.
        """
        return self.keys.ownCertificate(self.addCertificate(), self.add(content), None).key

    def test_certificates(self) -> None:
        """A certificate may be in DER or in PEM, with its chain and with words around it."""
        chained = certificates.chained()
        key = self.add(chained.keyPEM)
        for payload, expected in (
            (chained.certificate.public_bytes(Encoding.DER), 1),
            (chained.certificatePEM, 1 + len(chained.intermediates)),
            (b"Certificate:\n  CN=chained.lab\n" + chained.certificatePEM, 2),
        ):
            own = self.keys.ownCertificate(self.add(payload), key, None)
            self.assertEqual(len(own.chain), expected)
            self.assertEqual(own.chain[0].to_cryptography(), chained.certificate)

    def test_privateKeys(self) -> None:
        """A private key may be PKCS#8, PKCS#1 or SEC1, in DER or in PEM."""
        curve = ec.generate_private_key(ec.SECP256R1())
        factors = rsa.generate_private_key(65537, 2048)
        for key in (curve, factors):
            for encoding in (Encoding.DER, Encoding.PEM):
                for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
                    content = key.private_bytes(encoding, form, NoEncryption())
                    found = self.privateKey(content).to_cryptography_key()
                    assert isinstance(found, type(key))
                    self.assertEqual(found.private_numbers(), key.private_numbers())
        edwards = ed25519.Ed25519PrivateKey.generate()
        content = edwards.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        self.privateKey(content)

    def test_eitherAlone(self) -> None:
        """What the request does not name comes from the configuration, chain and all."""
        configured = certificates.chained().own()
        own = self.keys.ownCertificate(self.addCertificate(), None, configured)
        self.assertEqual(len(own.chain), 1)
        self.assertEqual(own.chain[0].to_cryptography(), certificates.client().certificate)
        self.assertIs(own.key, configured.key)
        own = self.keys.ownCertificate(None, self.add(certificates.client().keyPEM), configured)
        self.assertEqual(own.chain, configured.chain)
        self.assertIsNot(own.key, configured.key)

    def test_both(self) -> None:
        """What the request names wins over the configuration."""
        configured = certificates.chained().own()
        own = self.keys.ownCertificate(
            self.addCertificate(), self.add(certificates.client().keyPEM), configured
        )
        self.assertEqual(len(own.chain), 1)
        self.assertIsNot(own.key, configured.key)

    def test_slowConfiguredKey(self) -> None:
        """A configured key outside the process is slow with another certificate, too."""
        configured = replace(certificates.chained().own(), slow=True)
        own = self.keys.ownCertificate(self.addCertificate(), None, configured)
        self.assertTrue(own.slow)
        own = self.keys.ownCertificate(None, self.add(certificates.client().keyPEM), configured)
        self.assertFalse(own.slow)

    def test_eitherAloneUnconfigured(self) -> None:
        """One alone is not enough if none is configured; nothing is read for it."""
        for serials in ((self.addCertificate(), None), (None, self.addCertificate())):
            error = self.assertRaises(KeyUnusable, self.keys.ownCertificate, *serials, None)
            words = self.refusal(error, "no-certificate")
            self.assertIn("[authenticate.client]", words)
        self.assertEqual(self.fake.reads, [])

    def test_noCertificate(self) -> None:
        """What is no certificate is refused, and not quoted."""
        key = self.add(certificates.client().keyPEM)
        der = certificates.client().certificate.public_bytes(Encoding.DER)
        version = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
        self.assertNotEqual(version, der)
        for payload in (
            b"",
            b"SECRETSECRET",
            certificates.client().keyPEM,
            der[:-1],
            version,
            b"-----BEGIN CERTIFICATE-----\nSECRET\n-----END CERTIFICATE-----\n",
        ):
            serial = self.add(payload)
            words = self.refused(serial, key)
            self.assertEqual(
                words, f"expected a certificate in DER or PEM, found something else in key {serial}"
            )

    def test_noPrivateKey(self) -> None:
        """What is no private key is refused, and not quoted, also not as a cause."""
        certificate = self.addCertificate()
        curve = ec.generate_private_key(ec.SECP256R1())
        locked = serialization.BestAvailableEncryption(b"secret")
        exchange = x25519.X25519PrivateKey.generate()
        for payload in (
            b"",
            b"SECRETSECRET",
            certificates.client().certificatePEM,
            curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked),
            curve.private_bytes(Encoding.DER, PrivateFormat.PKCS8, locked),
            exchange.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
            b"-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n",
        ):
            serial = self.add(payload)
            error = self.assertRaises(
                KeyUnusable, self.keys.ownCertificate, certificate, serial, None
            )
            words = self.refusal(error, "key-unusable")
            self.assertIn("an unencrypted private key in DER or PEM", words)
            self.assertTrue(words.endswith(f"found something else in key {serial}"))
            self.assertIsNone(error.__cause__)
            self.assertTrue(error.__suppress_context__)

    def test_algorithmOfALaterTime(self) -> None:
        """A private key of a kind that nobody knows is refused as well."""

        def load(_payload: bytes, password: bytes | None) -> None:
            raise UnsupportedAlgorithm("a test")

        self.patch(serialization, "load_der_private_key", load)
        self.assertIn("something else", self.refused(self.addCertificate(), self.add(b"0\x00")))

    def test_spoiled(self) -> None:
        """A part that cannot be read says which one it is, and why."""
        certificate, key = self.addCertificate(), self.add(certificates.client().keyPEM)
        self.fake.spoil(key, errno.EKEYREVOKED)
        words = self.refused(certificate, key)
        self.assertIn(f"expected a private key as key {key}, found that it was revoked", words)
        self.fake.spoil(certificate, errno.EKEYEXPIRED)
        words = self.refused(certificate, key)
        self.assertIn(f"expected a certificate as key {certificate}, found that it has", words)

    def test_untrusted(self) -> None:
        """So does one that others have made or may change."""
        certificate, key = self.addCertificate(), self.add(certificates.client().keyPEM)
        for serial, what in ((key, "a private key"), (certificate, "a certificate")):
            self.fake.own(serial, 4711)
            error = self.assertRaises(
                KeyForbidden, self.keys.ownCertificate, certificate, key, None
            )
            words = self.refusal(error, "key-untrusted")
            self.assertIn(f"expected {what} of root's that nobody else may change", words)

    def test_forbidden(self) -> None:
        """So does one that may not be read."""
        certificate, key = self.addCertificate(), self.add(certificates.client().keyPEM)
        self.fake.forbid(key)
        error = self.assertRaises(KeyForbidden, self.keys.ownCertificate, certificate, key, None)
        words = self.refusal(error, "key-forbidden")
        self.assertIn(f"expected a private key, found that key {key} may not be read", words)
