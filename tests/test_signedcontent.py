"""Tests for L{ktlsagent.peers.signedcontent}."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.peers.signedcontent import contentDigest, keyDigest, otherForms
from ktlsagent.protocols.asn1 import elements, encode, onlyElement
from tests.support import certificates
from tests.support.anycertificate import anyBuilder, anyCertificate
from tests.support.properties import patient

CURVES = (
    *(ec.SECP224R1, ec.SECP256R1, ec.SECP384R1, ec.SECP521R1, ec.SECP256K1),
    *(ec.BrainpoolP256R1, ec.BrainpoolP384R1, ec.BrainpoolP512R1),
)

PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


@functools.cache
def rsaKey() -> rsa.RSAPrivateKey:
    """
    Make a key.

    @return: always the same.
    """
    return rsa.generate_private_key(65537, 2048)


def issued(
    key: CertificateIssuerPrivateKeyTypes,
    serial: int = 1,
    algorithm: hashes.HashAlgorithm | None = hashes.SHA256(),  # noqa: B008 - it has no state
    pss: padding.PSS | None = None,
) -> tuple[x509.Certificate, x509.Certificate]:
    """
    Make a certificate and the one of its issuer.

    @param key: the issuer's key.
    @param serial: the serial number.
    @param algorithm: the hash that is signed.
    @param pss: the padding, if it is RSASSA-PSS.
    @return: both.
    """
    subject, issuer = (
        anyBuilder(public, subject=name, issuer="CN=CA", serial=serial).sign(
            key,
            algorithm,  # type: ignore[arg-type]
            rsa_padding=pss,
        )
        for name, public in (
            ("CN=a", ec.generate_private_key(ec.SECP256R1()).public_key()),
            ("CN=CA", key.public_key()),
        )
    )
    return subject, issuer


def loaded(encoded: bytes) -> x509.Certificate:
    """
    Read a certificate.

    @param encoded: the certificate in DER.
    @return: it.
    """
    return x509.load_der_x509_certificate(encoded)


def outer(certificate: x509.Certificate, algorithm: bytes, bits: bytes) -> bytes:
    """
    Put something else around what is signed.

    @param certificate: the certificate.
    @param algorithm: the algorithm in DER.
    @param bits: what is in the BIT STRING.
    @return: a certificate in DER.
    """
    content = certificate.tbs_certificate_bytes + algorithm + encode(3, bits)
    return encode(0x30, content)


class DigestTests(SynchronousTestCase):
    """Tests for L{contentDigest} and L{keyDigest}."""

    def test_digests(self) -> None:
        """Both are digests of what OpenSSL says that is in there, in any version."""
        good = anyCertificate()
        old = loaded(_withoutVersion(good))
        for certificate in (good, old):
            public = good.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self.assertEqual(keyDigest(certificate), hashlib.sha256(public).digest())
            content = certificate.tbs_certificate_bytes
            self.assertEqual(contentDigest(certificate), hashlib.sha256(content).digest())

    def test_otherForms(self) -> None:
        """They are the same for all forms of a certificate."""
        certificate, signer = issued(ec.generate_private_key(ec.SECP256R1()))
        for form in otherForms(certificate, signer) or ():
            self.assertEqual(contentDigest(loaded(form)), contentDigest(certificate))
            self.assertEqual(keyDigest(loaded(form)), keyDigest(certificate))


def _withoutVersion(certificate: x509.Certificate) -> bytes:
    """Make a certificate of version 1; its signature is not good."""
    _version, *fields = elements(onlyElement(certificate.tbs_certificate_bytes, 0x30))
    content = encode(0x30, b"".join(field.encoded for field in fields[:6]))
    algorithm = fields[1].encoded
    return encode(0x30, content + algorithm + encode(3, b"\x00" + certificate.signature))


class OtherFormsTests(SynchronousTestCase):
    """Tests for L{otherForms}."""

    def trusted(self, encoded: bytes, signer: x509.Certificate) -> bool:
        """
        Ask OpenSSL for its opinion.

        @param encoded: a certificate in DER.
        @param signer: the one that is trusted.
        @return: whether the chain is good.
        """
        store = crypto.X509Store()
        store.add_cert(crypto.X509.from_cryptography(signer))
        store.set_time(certificates.NOW.replace(tzinfo=None))
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        shown = crypto.load_certificate(crypto.FILETYPE_ASN1, encoded)
        try:
            crypto.X509StoreContext(store, shown).verify_certificate()
        except crypto.X509StoreContextError:
            return False
        return True

    def check(self, certificate: x509.Certificate, signer: x509.Certificate, count: int) -> None:
        """
        Check that all forms of a certificate are found from each of them.

        @param certificate: the certificate.
        @param signer: its issuer's.
        @param count: how many others there have to be.
        """
        others = otherForms(certificate, signer)
        assert others is not None
        self.assertEqual(len(set(others)), count)
        forms = {certificate.public_bytes(Encoding.DER), *others}
        self.assertEqual(len(forms), count + 1)
        for form in forms:
            again = otherForms(loaded(form), signer)
            assert again is not None
            self.assertEqual({form, *again}, forms)

    def test_ellipticCurves(self) -> None:
        """With ECDSA there are two forms on each curve, and OpenSSL takes both."""
        for curve in CURVES:
            key = ec.generate_private_key(curve())
            for serial in range(1, 5):
                certificate, signer = issued(key, serial)
                self.check(certificate, signer, 1)
                (other,) = otherForms(certificate, signer) or ()
                key.public_key().verify(
                    loaded(other).signature,
                    certificate.tbs_certificate_bytes,
                    ec.ECDSA(hashes.SHA256()),
                )
        for certificate in (anyCertificate(), anyCertificate(algorithm=hashes.SHA3_256())):
            self.check(certificate, certificate, 1)

    def test_inAChain(self) -> None:
        """OpenSSL builds a chain with each form."""
        authority = certificates.authority().certificate
        certificate = certificates.client().certificate
        (other,) = otherForms(certificate, authority) or ()
        for form in (certificate.public_bytes(Encoding.DER), other):
            self.assertTrue(self.trusted(form, authority))
        broken = bytearray(other)
        broken[-1] ^= 1
        self.assertFalse(self.trusted(bytes(broken), authority))

    def test_unusedBits(self) -> None:
        """A signature that claims to end within an octet has forms that nobody can list."""
        certificate, signer = issued(ec.generate_private_key(ec.SECP256R1()))
        encoded = certificate.public_bytes(Encoding.DER)
        start = len(encoded) - len(certificate.signature) - 1
        for unused in (1, 7):
            odd = bytearray(encoded)
            odd[start], odd[-1] = unused, 0
            self.assertIsNone(otherForms(loaded(bytes(odd)), signer))

    def test_lowAndHigh(self) -> None:
        """The other signature is right however long its numbers are."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate, signer = issued(key)
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        (algorithm,) = elements(onlyElement(certificate.public_bytes(Encoding.DER), 0x30))[1:2]
        for s in (1, 127, 128, 255, 256, 2**255, order - 128, order - 1):
            signature = b"\x00" + encode_dss_signature(5, s)
            (other,) = (
                otherForms(loaded(outer(certificate, algorithm.encoded, signature)), signer) or ()
            )
            self.assertEqual(decode_dss_signature(loaded(other).signature), (5, order - s))
            self.assertEqual(loaded(other).signature, encode_dss_signature(5, order - s))

    def shortened(self, pss: padding.PSS | None) -> tuple[x509.Certificate, x509.Certificate]:
        """
        Find a certificate with a signature that begins with a zero.

        @param pss: the padding, if it is RSASSA-PSS.
        @return: it and its issuer's.
        """
        for serial in itertools.count(1):
            certificate = anyBuilder(rsaKey().public_key(), issuer="CN=CA", serial=serial).sign(
                rsaKey(), hashes.SHA256(), rsa_padding=pss
            )
            if certificate.signature[0] == 0:
                break
        _subject, signer = issued(rsaKey())
        return certificate, signer

    def test_leadingZeroes(self) -> None:
        """With RSA, and so with RSASSA-PSS, a signature without its leading zeroes is another."""
        for pss in (None, PSS):
            certificate, signer = self.shortened(pss)
            zeroes = 256 - len(certificate.signature.lstrip(b"\x00"))
            self.check(certificate, signer, zeroes)
            others = otherForms(certificate, signer) or ()
            if pss:
                taken = [loaded(form).signature for form in others if self.verifies(form)]
                self.assertEqual([len(one) for one in taken], [*range(256 - zeroes, 256)])

    def verifies(self, form: bytes) -> bool:
        """
        Ask OpenSSL whether a signature is good.

        @param form: the certificate in DER.
        @return: whether it is.
        """
        certificate = loaded(form)
        try:
            rsaKey().public_key().verify(
                certificate.signature, certificate.tbs_certificate_bytes, PSS, hashes.SHA256()
            )
        except InvalidSignature:
            return False
        return True

    def test_oneForm(self) -> None:
        """There is no other form with RSA otherwise, nor with EdDSA."""
        for serial in itertools.count(1):
            certificate, signer = issued(rsaKey(), serial)
            if certificate.signature[0]:
                break
        self.check(certificate, signer, 0)
        for key in (ed25519.Ed25519PrivateKey.generate(), ed448.Ed448PrivateKey.generate()):
            self.check(*issued(key, algorithm=None), 0)

    def test_whoKnows(self) -> None:
        """Nobody can tell with other algorithms, other curves, and other keys than the signer's."""
        certificate, signer = issued(ec.generate_private_key(ec.SECP256R1()))
        _other, stranger = issued(rsaKey())
        unknown, unknownSigner = issued(dsa.generate_private_key(2048))
        # Of a curve that has no name.
        curve = bytes.fromhex("06082a8648ce3d030107")
        public = signer.public_bytes(Encoding.DER)
        curveSigner = loaded(public.replace(curve, curve[:-1] + b"\x7f"))
        short, shortSigner = issued(rsa.generate_private_key(65537, 1024))
        for one, issuer in (
            (certificate, None),
            (certificate, stranger),
            (unknown, unknownSigner),
            (certificate, curveSigner),
            (_other, shortSigner),
            (short, stranger),
            (stranger, signer),
        ):
            self.assertIsNone(otherForms(one, issuer))

    def test_otherEncodings(self) -> None:
        """Nor if what is around the signed content is not as it has to be."""
        certificate, signer = issued(ec.generate_private_key(ec.SECP256R1()))
        encoded = certificate.public_bytes(Encoding.DER)
        _content, algorithm, bits = elements(onlyElement(encoded, 0x30))
        r, s = decode_dss_signature(certificate.signature)
        number = s.to_bytes(40, "big")
        good = (algorithm.encoded, bits.content)
        self.assertIsNotNone(otherForms(loaded(outer(certificate, *good)), signer))
        for changed in self.changes(algorithm.encoded, bits.content, r, number):
            try:
                found = loaded(outer(certificate, *changed))
            except ValueError:
                # The library refuses it, and so would the handshake.
                continue
            self.assertIsNone(otherForms(found, signer))

    def changes(
        self, algorithm: bytes, bits: bytes, r: int, s: bytes
    ) -> Iterator[tuple[bytes, bytes]]:
        """
        Make other encodings.

        @param algorithm: the algorithm in DER.
        @param bits: what is in the BIT STRING.
        @param r: a number of the signature.
        @param s: the other one, with zeroes before it.
        @return: both, one of them changed.
        """
        sha1 = bytes.fromhex("300906072a8648ce3d0401")
        sha512 = bytes.fromhex("300a06082a8648ce3d040304")
        withNull = bytes.fromhex("300c06082a8648ce3d0403020500")
        longLength = b"\x30\x81" + algorithm[1:]
        for other in (sha1, sha512, withNull, longLength, algorithm + b"\x05\x00"):
            yield other, bits
        for unused in (1, 7, 8):
            yield algorithm, bytes([unused]) + bits[1:]
        yield algorithm, b""
        yield algorithm, bits + b"\x00"
        yield algorithm, b"\x00" + encode_dss_signature(r, 1)[:-1]

    @patient
    @given(st.binary(max_size=100))
    def test_anySignature(self, signature: bytes) -> None:
        """Whatever is in the place of a signature, nothing is raised."""
        certificate, signer = self.pair()
        algorithm = elements(onlyElement(certificate.public_bytes(Encoding.DER), 0x30))[1]
        shown = loaded(outer(certificate, algorithm.encoded, b"\x00" + signature))
        others = otherForms(shown, signer)
        for form in others or ():
            self.assertEqual(contentDigest(loaded(form)), contentDigest(certificate))

    @functools.cache  # noqa: B019 - there is one instance for each test
    def pair(self) -> tuple[x509.Certificate, x509.Certificate]:
        """
        Make a certificate and its issuer's.

        @return: always the same.
        """
        return issued(ec.generate_private_key(ec.SECP256R1()))
