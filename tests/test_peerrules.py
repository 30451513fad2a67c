"""Tests for L{ktlsagent.peers.peerrules}, on plain certificates, and then in handshakes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import HandshakeError, PeerRejected
from ktlsagent.peers import peerrules
from ktlsagent.peers.certificatefields import fieldsOf
from ktlsagent.peers.peerrules import judgeChain, remember
from ktlsagent.peers.signedcontent import keyDigest
from ktlsagent.profiles import Trust
from ktlsagent.protocols import openssl
from ktlsagent.protocols.asn1 import elements, encode, onlyElement
from ktlsagent.protocols.boundedcache import BoundedCache
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.interfaces import TLSParameters
from ktlsagent.protocols.session import Demand, Role
from ktlsagent.protocols.verification import CHAIN_ERRORS
from tests.support import certificates
from tests.support.certificates import RPC_TLS_CLIENT, RPC_TLS_SERVER, CertificateAuthority
from tests.support.properties import patient
from tests.support.tlspeers import StdlibPeer, converse, pair, stdlibContext

SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
OTHER = ObjectIdentifier("1.2.3.4")

NO_CA = Trust(stores=(), pins=frozenset({b"x" * 32}))
"""Pins alone, and not those of any key."""

_KEYS = [
    certificates.server().own().key,
    certificates.rsaKey(),
    certificates.ed25519Key(),
    *([] if (key := certificates.mldsaKey()) is None else [key]),
]
"""A key of each type that this OpenSSL has."""


def certificateFor(key: crypto.PKey) -> x509.Certificate:
    """
    Make a certificate of the usual CA.

    @param key: its key.
    @return: the certificate.
    """
    return certificates.authority().issueFor(key).chain[0].to_cryptography()


def keyUsage(*, signs: bool) -> x509.KeyUsage:
    """
    Make the extension of a key usage.

    @param signs: whether it has signatures.
    @return: the extension.
    """
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=True,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


ANY_KEY = crypto.PKey.from_cryptography_key(ec.generate_private_key(ec.SECP256R1()))

_SEQUENCE = 0x30

_ODD = {
    "CA:FALSE, pathlen:0": "300c 0603551d13 0405 3003020100",
    "empty AIA": "300e 06082b06010505070101 0402 3000",
    "two TLSFeatures": "3014 06082b06010505070118 0408 3006 020105 020111",
    "unknown qualifier": "301c 0603551d20 0415 3013 3011 06022a03 300b 3009 06032a0304 0c026162",
    "names that are none": "300b 0603551d11 0404 3002a300",
    "no DER at all": "3009 0603551d12 0402 3080",
}
"""Extensions that some parser refuses, in hexadecimal."""


def _rebuilt(certificate: x509.Certificate, fields: Sequence[bytes]) -> x509.Certificate:
    """Put other fields into a certificate, whose signature is wrong then."""
    _tbs, algorithm, signature = elements(
        onlyElement(certificate.public_bytes(serialization.Encoding.DER), _SEQUENCE)
    )
    tbs = encode(_SEQUENCE, bytes.fromhex("a003020102") + b"".join(fields))
    content = tbs + algorithm.encoded + signature.encoded
    return x509.load_der_x509_certificate(encode(_SEQUENCE, content))


def _withExtension(certificate: x509.Certificate, extension: str) -> x509.Certificate:
    """Put one extension in the place of all."""
    *fields, _extensions = (field.encoded for field in fieldsOf(certificate))
    listed = encode(_SEQUENCE, bytes.fromhex(extension))
    return _rebuilt(certificate, [*fields, encode(0xA3, listed)])


def _withPoint(certificate: x509.Certificate, point: bytes) -> x509.Certificate:
    """Put another point in the place of the key."""
    fields = [field.encoded for field in fieldsOf(certificate)]
    algorithm, _key = elements(onlyElement(fields[5], _SEQUENCE))
    fields[5] = encode(_SEQUENCE, algorithm.encoded + encode(0x03, b"\0" + point))
    return _rebuilt(certificate, fields)


class JudgeTestCase(SynchronousTestCase):
    """Has verdicts."""

    def refusal(
        self, chain: Sequence[x509.Certificate], trust: Trust, role: Role = Role.CLIENT
    ) -> PeerRejected:
        """
        Expect that a chain is refused.

        @param chain: the chain.
        @param trust: what is asked for.
        @param role: our role.
        @return: the refusal.
        """
        verdict = judgeChain(chain, role, trust)
        if verdict is None:
            raise self.failureException("it is good")
        return verdict

    def assertGood(
        self, chain: Sequence[x509.Certificate], trust: Trust, role: Role = Role.CLIENT
    ) -> None:
        """
        Expect that a chain is good.

        @param chain: the chain.
        @param trust: what is asked for.
        @param role: our role.
        """
        self.assertIsNone(judgeChain(chain, role, trust))


class StrengthTests(JudgeTestCase):
    """Keys and signatures are strong enough."""

    def test_usual(self) -> None:
        """Keys of all types are good by default."""
        root = certificates.authority().certificate
        for key in _KEYS:
            self.assertGood([certificateFor(key), root], Trust())

    def test_rsa(self) -> None:
        """An RSA key may be as short as the profile says, and no shorter."""
        chain = [certificateFor(certificates.rsaKey(2048)), certificates.authority().certificate]
        self.assertGood(chain, Trust(rsaBits=2048))
        error = self.refusal(chain, Trust(rsaBits=2049))
        self.assertEqual(error.code, "weak-certificate")
        self.assertEqual(
            error.reason,
            "expected RSA keys of at least 2049 bits, found one of 2048 in the server's "
            "certificate (CN=server.lab)",
        )

    def test_curves(self) -> None:
        """Keys on elliptic curves need 224 bits, whatever OpenSSL's security level is."""
        for curve, good in (
            (ec.SECP192R1(), False),
            (ec.SECP224R1(), True),
            (ec.SECP256R1(), True),
            (ec.SECP521R1(), True),
        ):
            key = crypto.PKey.from_cryptography_key(ec.generate_private_key(curve))
            root = certificates.authority().certificate
            chains = [[certificateFor(key), root], [certificateFor(ANY_KEY), certificateFor(key)]]
            for chain in chains:
                if good:
                    self.assertGood(chain, Trust())
                else:
                    self.assertEqual(self.refusal(chain, Trust()).code, "weak-certificate")

    def test_compressed(self) -> None:
        """A point may be there with one coordinate."""
        for curve, good in ((ec.SECP192R1(), False), (ec.SECP256R1(), True)):
            public = ec.generate_private_key(curve).public_key()
            point = public.public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
            )
            compressed = _withPoint(certificates.server().certificate, point)
            verdict = judgeChain(
                [compressed, certificates.authority().certificate], Role.CLIENT, Trust()
            )
            self.assertEqual(verdict is None, good)

    def test_rsaAbove(self) -> None:
        """So may those of its CAs, the root's as well."""
        short = certificateFor(certificates.rsaKey(1024))
        for chain in (
            [certificates.server().certificate, short, certificates.authority().certificate],
            [certificates.server().certificate, short],
        ):
            error = self.refusal(chain, Trust(), Role.SERVER)
            self.assertEqual(error.code, "weak-certificate")
            self.assertIn("found one of 1024 in the CA certificate at depth 1", error.reason)
            self.assertGood(chain, Trust(rsaBits=1024), Role.SERVER)

    def broken(self, digest: str) -> x509.Certificate:
        """
        Make a certificate with a bad signature.

        @param digest: the signature's hash.
        @return: the certificate.
        """
        good = certificates.server().certificate
        return certificates.resigned(good, certificates.rsaKey(), digest)

    def test_signature(self) -> None:
        """A signature with a broken hash is refused."""
        root = certificates.authority().certificate
        for digest in ("md5", "sha1"):
            error = self.refusal([self.broken(digest), root], Trust())
            self.assertEqual(error.code, "weak-certificate")
            self.assertEqual(
                error.reason,
                f"expected signatures without MD5 and SHA-1, found {digest} in that of "
                "the server's certificate (CN=server.lab)",
            )
        self.assertGood([self.broken("sha512"), root], Trust())

    def test_signatureAbove(self) -> None:
        """So is that of a CA below the root, but not that of a trust anchor."""
        leaf, root = certificates.server().certificate, certificates.authority().certificate
        error = self.refusal([leaf, self.broken("sha1"), root], Trust())
        self.assertIn("found sha1 in that of the CA certificate at depth 1", error.reason)
        self.assertGood([leaf, self.broken("sha1")], Trust())
        self.assertGood([self.broken("sha1")], Trust())

    def test_signatureWithoutAuthority(self) -> None:
        """Where there is no CA, the only certificate is no trust anchor."""
        broken = self.broken("sha1")
        error = self.refusal([broken], replace(NO_CA, pins=frozenset({keyDigest(broken)})))
        self.assertEqual(error.code, "weak-certificate")

    def test_strengthComesFirst(self) -> None:
        """A certificate with several flaws is refused for the first of strength, purpose, pin."""
        chain = [certificateFor(certificates.rsaKey(2048))]
        trust = Trust(rsaBits=3072, rpcPurpose=Demand.REQUIRE, pins=NO_CA.pins)
        self.assertEqual(self.refusal(chain, trust).code, "weak-certificate")
        trust = replace(trust, rsaBits=2048)
        self.assertEqual(self.refusal(chain, trust).code, "wrong-key-purpose")
        trust = replace(trust, rpcPurpose=Demand.ACCEPT)
        self.assertEqual(self.refusal(chain, trust).code, "pin-mismatch")

    def test_pinComesFirstAlone(self) -> None:
        """Where pins alone say who somebody is, nothing of a stranger is read before them."""
        broken = self.broken("sha1")
        self.assertEqual(self.refusal([broken], NO_CA).code, "pin-mismatch")


class PurposeTests(JudgeTestCase):
    """Certificates are for what they are used for."""

    def chain(
        self,
        *leaf: ObjectIdentifier,
        above: Sequence[ObjectIdentifier] = (),
        root: Sequence[ObjectIdentifier] = (),
    ) -> list[x509.Certificate]:
        """
        Make a chain of three.

        @param leaf: the purposes of the peer's own certificate, if it lists any.
        @param above: those of its issuer.
        @param root: those of the root.
        @return: the chain.
        """
        top = CertificateAuthority("Root", purposes=root)
        issuer = CertificateAuthority("Issuer", top, purposes=above)
        own = issuer.issue("peer.lab", purposes=leaf)
        return [own.certificate, issuer.certificate, top.certificate]

    def assertVerdicts(self, chain: Sequence[x509.Certificate], *good: tuple[Role, Demand]) -> None:
        """
        Judge a chain for all uses.

        @param chain: the chain.
        @param good: our role and the wish for the purposes of RPC-with-TLS,
            where the chain is good.
        """
        found = []
        for role in Role:
            for wish in Demand:
                verdict = judgeChain(chain, role, Trust(rpcPurpose=wish))
                if verdict is None:
                    found.append((role, wish))
                else:
                    self.assertEqual(verdict.code, "wrong-key-purpose")
        self.assertEqual(sorted(found, key=str), sorted(good, key=str))

    def test_serverAuth(self) -> None:
        """What is for a TLS server is for a server of RPC-with-TLS, unless more is asked for."""
        good = [(Role.CLIENT, Demand.OFF), (Role.CLIENT, Demand.ACCEPT)]
        self.assertVerdicts(self.chain(SERVER_AUTH), *good)
        self.assertVerdicts(self.chain(OTHER, ANY, SERVER_AUTH), *good)

    def test_clientAuth(self) -> None:
        """It is the same with clients."""
        good = [(Role.SERVER, Demand.OFF), (Role.SERVER, Demand.ACCEPT)]
        self.assertVerdicts(self.chain(CLIENT_AUTH), *good)

    def test_rpcServer(self) -> None:
        """What is for a server of RPC-with-TLS alone is good where that purpose is known."""
        good = [(Role.CLIENT, Demand.ACCEPT), (Role.CLIENT, Demand.REQUIRE)]
        self.assertVerdicts(self.chain(RPC_TLS_SERVER), *good)

    def test_rpcClient(self) -> None:
        """It is the same with clients."""
        good = [(Role.SERVER, Demand.ACCEPT), (Role.SERVER, Demand.REQUIRE)]
        self.assertVerdicts(self.chain(RPC_TLS_CLIENT), *good)

    def test_both(self) -> None:
        """A certificate with both is good everywhere."""
        good = [(Role.CLIENT, wish) for wish in Demand]
        self.assertVerdicts(self.chain(SERVER_AUTH, RPC_TLS_SERVER), *good)

    def test_none(self) -> None:
        """A certificate that lists no purposes is for any, but not if one has to be there."""
        good = [(role, wish) for role in Role for wish in (Demand.OFF, Demand.ACCEPT)]
        self.assertVerdicts(self.chain(), *good)
        error = self.refusal(self.chain(), Trust(rpcPurpose=Demand.REQUIRE))
        self.assertEqual(
            error.reason,
            "expected the server's certificate (CN=peer.lab) to be for id-kp-rpcTLSServer, found "
            "no key purposes in it",
        )

    def test_any(self) -> None:
        """The purpose anyExtendedKeyUsage is none of TLS's purposes, as in OpenSSL."""
        self.assertVerdicts(self.chain(ANY))

    def test_words(self) -> None:
        """A refusal says what was expected and what was found."""
        error = self.refusal(self.chain(CLIENT_AUTH, OTHER, ANY), Trust())
        self.assertEqual(
            error.reason,
            "expected the server's certificate (CN=peer.lab) to be for serverAuth or "
            "id-kp-rpcTLSServer, found one for clientAuth or 1.2.3.4 or anyExtendedKeyUsage",
        )

    def test_authorities(self) -> None:
        """A CA that lists purposes has to list the one that it is needed for."""
        both = (SERVER_AUTH, RPC_TLS_SERVER)
        off, accept, require = ((Role.CLIENT, wish) for wish in Demand)
        for place in ("above", "root"):
            for purposes, good in (
                (both, [off, accept, require]),
                ((SERVER_AUTH,), [off, accept]),
                ((RPC_TLS_SERVER,), [accept, require]),
                ((CLIENT_AUTH,), []),
                ((ANY,), []),
            ):
                self.assertVerdicts(self.chain(*both, **{place: purposes}), *good)

    def test_onePurposeForAll(self) -> None:
        """A CA for one purpose cannot give another; they all have to have one in common."""
        chain = self.chain(RPC_TLS_SERVER, above=(SERVER_AUTH,))
        self.assertVerdicts(chain)
        error = self.refusal(chain, Trust(rpcPurpose=Demand.ACCEPT))
        self.assertEqual(
            error.reason,
            "expected the CA certificate at depth 1 (CN=Issuer) to be for id-kp-rpcTLSServer, "
            "found one for serverAuth",
        )
        self.assertVerdicts(
            self.chain(SERVER_AUTH, RPC_TLS_SERVER, above=(SERVER_AUTH,), root=(RPC_TLS_SERVER,))
        )

    def test_authoritiesNeedNone(self) -> None:
        """A CA without a list is for any purpose, also where the peer has to have one."""
        self.assertGood(self.chain(RPC_TLS_SERVER), Trust(rpcPurpose=Demand.REQUIRE))

    def test_noAuthority(self) -> None:
        """Without a trusted CA those that were sent do not count."""
        chain = self.chain(SERVER_AUTH, above=(CLIENT_AUTH,))
        self.assertGood(chain, Trust(stores=(), pins=frozenset({keyDigest(chain[0])})))

    def test_keyUsage(self) -> None:
        """A key usage, if there is one, has to have signatures: TLS 1.3 makes one."""
        for signs in (True, False):
            own = certificates.authority().issue("peer.lab", extensions=(keyUsage(signs=signs),))
            for wish in (Demand.OFF, Demand.ACCEPT):
                verdict = judgeChain([own.certificate], Role.SERVER, Trust(rpcPurpose=wish))
                if signs:
                    self.assertIsNone(verdict)
                    continue
                assert verdict is not None
                self.assertEqual(verdict.code, "wrong-key-purpose")
                self.assertEqual(
                    verdict.reason,
                    "expected the client's certificate (CN=peer.lab) to be for signatures, found "
                    "a key usage without digitalSignature",
                )


class PinTests(JudgeTestCase):
    """Keys are known by their digests."""

    def test_keyDigest(self) -> None:
        """A pin is the digest of what OpenSSL takes for the public key, with keys of all types."""
        for key in _KEYS:
            expected = hashlib.sha256(crypto.dump_publickey(crypto.FILETYPE_ASN1, key)).digest()
            self.assertEqual(keyDigest(certificateFor(key)), expected)

    def test_longAndShort(self) -> None:
        """It does not depend on how long the rest of the certificate is."""
        for name in ("", "x", "x" * 60):
            for hosts in range(0, 60, 7):
                own = certificates.authority().issue(
                    name, hosts=[f"host-{number}.lab" for number in range(hosts)]
                )
                public = own.key.public_key().public_bytes(
                    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
                )
                self.assertEqual(keyDigest(own.certificate), hashlib.sha256(public).digest())

    def test_oldVersion(self) -> None:
        """A certificate of version 1 has one field less."""
        key = certificates.rsaKey()
        old = crypto.X509()
        old.set_pubkey(key)
        old.gmtime_adj_notBefore(0)
        old.gmtime_adj_notAfter(60)
        old.sign(key, "sha256")
        self.flushWarnings()
        certificate = old.to_cryptography()
        self.assertIs(certificate.version, x509.Version.v1)
        expected = hashlib.sha256(crypto.dump_publickey(crypto.FILETYPE_ASN1, key)).digest()
        self.assertEqual(keyDigest(certificate), expected)

    def test_known(self) -> None:
        """One of the pins has to be that of the peer's own key."""
        certificate = certificates.server().certificate
        pins = frozenset({b"x" * 32, keyDigest(certificate)})
        for stores in ((), ("system",)):
            self.assertGood([certificate], Trust(stores=stores, pins=pins))

    def test_unknown(self) -> None:
        """Else the refusal has the pin that was found, as the configuration spells it."""
        chain = [certificates.server().certificate, certificates.authority().certificate]
        for trust in (NO_CA, replace(NO_CA, stores=("system",)), Trust(pins=NO_CA.pins)):
            error = self.refusal(chain, trust)
            pin = base64.b64encode(keyDigest(chain[0])).decode()
            self.assertEqual(error.code, "pin-mismatch")
            self.assertEqual(
                error.reason,
                "expected a pinned key in the server's certificate (CN=server.lab), found "
                f"sha256:{pin}; if that is the right one, add it to spki_pins",
            )

    def test_authorityIsNotPinned(self) -> None:
        """The pin of a CA is none of the peer."""
        chain = [certificates.server().certificate, certificates.authority().certificate]
        trust = Trust(pins=frozenset({keyDigest(chain[1])}))
        self.assertEqual(self.refusal(chain, trust).code, "pin-mismatch")


class UnreadableTests(JudgeTestCase):
    """Whatever a peer sends, the verdict is a verdict."""

    def test_extension(self) -> None:
        """Extensions that cannot be read are a refusal, and it says whose they are."""
        for oid, content in (
            ("2.5.29.37", b"\x30\x80"),
            ("2.5.29.15", b"\x05\x00"),
        ):
            extension = x509.UnrecognizedExtension(ObjectIdentifier(oid), content)
            purposes = () if oid == "2.5.29.37" else certificates.BOTH_PURPOSES
            bad = certificates.authority().issue(
                "bad.lab", purposes=purposes, extensions=(extension,)
            )
            error = self.refusal([bad.certificate], Trust())
            self.assertEqual(error.code, "certificate-invalid")
            self.assertIn("to be able to read the server's certificate (CN=bad.lab)", error.reason)
            good = certificates.server().certificate
            error = self.refusal([good, bad.certificate], Trust())
            self.assertIn("read the CA certificate at depth 1 (CN=bad.lab)", error.reason)

    def test_nobodyAsks(self) -> None:
        """What no rule asks for may be as it likes, in the peer's certificate and in CAs'."""
        root = certificates.authority().certificate
        for name, extension in _ODD.items():
            odd = _withExtension(certificates.server().certificate, extension)
            self.assertGood([odd, root], Trust())
            self.assertGood([certificates.server().certificate, odd, root], Trust(), Role.CLIENT)
            self.assertNotEqual(odd, certificates.server().certificate, name)

    def test_key(self) -> None:
        """So is an RSA key that is none."""
        good = certificateFor(certificates.rsaKey())
        content = good.public_bytes(serialization.Encoding.DER)
        # The key's BIT STRING holds a SEQUENCE (RFC 8017, appendix A.1.1).
        at = content.index(bytes.fromhex("0382010f003082010a")) + 5
        bad = x509.load_der_x509_certificate(content[:at] + b"\x31" + content[at + 1 :])
        error = self.refusal([bad], Trust())
        self.assertEqual(error.code, "certificate-invalid")

    def test_newSignature(self) -> None:
        """A signature algorithm that nobody here knows is OpenSSL's business."""
        good = certificates.server().certificate
        content = good.public_bytes(serialization.Encoding.DER)
        # ecdsa-with-SHA256, and something that is not yet.
        known, unknown = (
            bytes.fromhex("06082a8648ce3d040302"),
            bytes.fromhex("06082a8648ce3d04037f"),
        )
        self.assertEqual(content.count(known), 2)
        new = x509.load_der_x509_certificate(content.replace(known, unknown))
        self.assertGood([new, certificates.authority().certificate], Trust())

    @patient
    @given(st.integers(min_value=0), st.integers(1, 255), st.sampled_from(list(Demand)))
    def test_anything(self, place: int, change: int, wish: Demand) -> None:
        """A certificate with one wrong octet is judged like any other."""
        for base in _BASES:
            content = bytearray(base)
            content[place % len(content)] ^= change
            try:
                certificate = x509.load_der_x509_certificate(bytes(content))
            except Exception:  # noqa: BLE001 - then the engine refuses it
                continue
            trust = Trust(rpcPurpose=wish, pins=NO_CA.pins)
            error = self.refusal([certificate, certificates.authority().certificate], trust)
            self.assertIn(
                error.code,
                ("certificate-invalid", "weak-certificate", "wrong-key-purpose", "pin-mismatch"),
            )


class RememberedTests(JudgeTestCase):
    """What is known of those who were let in is looked up."""

    def setUp(self) -> None:
        self.known: BoundedCache[bytes, object] = BoundedCache(100_000)
        self.patch(peerrules, "_known", self.known)

    def test_sameVerdicts(self) -> None:
        """Whether somebody is remembered makes no difference to the verdict."""
        root = certificates.authority().certificate
        chains = [
            [certificateFor(certificates.rsaKey(1024)), root],
            [certificates.clientOnly().certificate, root],
            [certificates.server().certificate, root],
        ]
        for role in Role:
            for purpose in Demand:
                trust = Trust(rpcPurpose=purpose)
                before = [str(judgeChain(chain, role, trust)) for chain in chains]
                for chain in chains:
                    remember(chain)
                after = [str(judgeChain(chain, role, trust)) for chain in chains]
                self.assertEqual(before, after)
        self.assertEqual(len(self.known._entries), 4)

    def test_judgingKeepsNothing(self) -> None:
        """To be judged, even well, is not to be let in."""
        self.assertGood(
            [certificates.server().certificate, certificates.authority().certificate], Trust()
        )
        self.assertEqual(self.known.octets, 0)

    def test_manyPurposes(self) -> None:
        """What somebody has written into a certificate counts with its length."""
        many = [ObjectIdentifier(f"1.2.3.{number}") for number in range(300)]
        remember([certificates.authority().issue("many.lab", purposes=many).certificate])
        self.assertGreater(self.known.octets, 300 * 100)


_BASES = [
    certificate.public_bytes(serialization.Encoding.DER)
    for certificate in (
        certificateFor(certificates.rsaKey()),
        certificates.authority()
        .issue("peer.lab", purposes=(RPC_TLS_SERVER,), extensions=(keyUsage(signs=True),))
        .certificate,
    )
]


class HandshakeTests(SynchronousTestCase):
    """What OpenSSL has checked before, and what is left to these rules."""

    def client(self, store: crypto.X509Store, trust: Trust) -> TLSEngine:
        """
        Make a client.

        @param store: whom it trusts.
        @param trust: what it asks for.
        @return: the client.
        """
        context = TLSContext(
            store=store,
            suites=tuple(CIPHER_SUITES),
            groups=(),
            tolerated=frozenset() if trust.stores else CHAIN_ERRORS,
        )
        return TLSEngine(
            TLSParameters(
                Role.CLIENT, context, None, lambda chain: judgeChain(chain, Role.CLIENT, trust)
            )
        )

    def connect(
        self, own: OwnCertificate, store: crypto.X509Store, trust: Trust
    ) -> HandshakeError | None:
        """
        Let a client judge a server.

        @param own: the server's certificate.
        @param store: whom the client trusts.
        @param trust: what it asks for.
        @return: the client's refusal, C{None} if there is a session.
        """
        client = self.client(store, trust)
        context = TLSContext(store=store, own=(own,), suites=tuple(CIPHER_SUITES), groups=())
        server = TLSEngine(TLSParameters(Role.SERVER, context, None, lambda _chain: None))
        pair(client, server)
        self.assertIs(client.session is None, client.error is not None)
        return client.error

    def assertRefused(self, error: HandshakeError | None, code: str) -> None:
        """
        Expect a refusal.

        @param error: the client's error.
        @param code: the error's code.
        """
        if error is None:
            raise self.failureException("there is a session")
        self.assertEqual(error.code, code)

    def anyPurpose(self, authority: CertificateAuthority | None = None) -> crypto.X509Store:
        """
        Make a trust store that leaves key purposes to us.

        @param authority: the CA that it has, usually that of all tests.
        @return: the store.
        """
        store = (authority or certificates.authority()).store()
        openssl.setAnyPurpose(store)
        return store

    def test_rpcPurpose(self) -> None:
        """A certificate for RPC-with-TLS alone is taken where the purpose is left to us."""
        own = certificates.authority().issue("server.lab", purposes=(RPC_TLS_SERVER,)).own()
        trust = Trust(rpcPurpose=Demand.ACCEPT)
        self.assertIsNone(self.connect(own, self.anyPurpose(), trust))
        self.assertRefused(
            self.connect(own, certificates.authority().store(), trust), "wrong-key-purpose"
        )

    def test_wrongPurpose(self) -> None:
        """Any other certificate is refused as OpenSSL does it, with the same alert."""
        own = certificates.clientOnly().own()
        for store in (self.anyPurpose(), certificates.authority().store()):
            self.assertRefused(self.connect(own, store, Trust()), "wrong-key-purpose")

    def test_allElseIsChecked(self) -> None:
        """Whether key purposes are left to us or not, a chain is a chain, and dates are dates."""
        root = certificates.authority()
        narrow = CertificateAuthority("Narrow CA", root, pathLength=0)
        below = CertificateAuthority("Below", narrow)
        old = CertificateAuthority(
            "Old CA",
            root,
            notBefore=certificates.NOW - 9 * certificates.DAY,
            notAfter=certificates.NOW - certificates.DAY,
        )
        noAuthority = certificates.server()
        byLeaf = CertificateAuthority("No CA", root)
        byLeaf._key = noAuthority.key
        byLeaf._subject = noAuthority.certificate.subject
        byLeaf.intermediates = (noAuthority.certificate,)
        for own, code in (
            (certificates.expired(), "certificate-expired"),
            (certificates.notYetValid(), "certificate-not-yet-valid"),
            (certificates.ofOtherAuthority(), "unknown-ca"),
            (certificates.selfSigned(), "self-signed"),
            (old.issue("server.lab"), "certificate-expired"),
            (below.issue("server.lab"), "certificate-invalid"),
            (byLeaf.issue("below.lab"), "certificate-invalid"),
        ):
            for store in (self.anyPurpose(), root.store()):
                self.assertRefused(self.connect(own.own(), store, Trust()), code)

    def test_pinsAlone(self) -> None:
        """Who is known by a pin needs no CA, whoever has signed the certificate."""
        for own in (
            certificates.selfSigned().own(),
            certificates.server().own(),
            certificates.chained().own(),
            *(certificates.authority().issueFor(key) for key in _KEYS),
        ):
            pin = keyDigest(own.chain[0].to_cryptography())
            trust = Trust(stores=(), pins=frozenset({pin}))
            self.assertIsNone(self.connect(own, crypto.X509Store(), trust))
            self.assertRefused(self.connect(own, crypto.X509Store(), NO_CA), "pin-mismatch")

    def test_pinsAloneButDates(self) -> None:
        """A pinned certificate is refused all the same before and after its time."""
        for own, code in (
            (certificates.expired(), "certificate-expired"),
            (certificates.notYetValid(), "certificate-not-yet-valid"),
        ):
            trust = Trust(stores=(), pins=frozenset({keyDigest(own.certificate)}))
            self.assertRefused(self.connect(own.own(), crypto.X509Store(), trust), code)

    def test_pinsAloneButStrength(self) -> None:
        """It is refused as well if nobody should rely on its signature."""
        key = certificates.rsaKey()
        good = certificates.authority().issueFor(key).chain[0].to_cryptography()
        weak = certificates.resigned(good, key, "sha1")
        context = stdlibContext("server")
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        pem = weak.public_bytes(serialization.Encoding.PEM)
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(pem + crypto.dump_privatekey(crypto.FILETYPE_PEM, key))
        context.load_cert_chain(path)
        trust = Trust(stores=(), pins=frozenset({keyDigest(weak)}))
        client = self.client(crypto.X509Store(), trust)
        converse(client, StdlibPeer(context))
        self.assertRefused(client.error, "weak-certificate")
