"""Tests for L{ktlsagent.policy}."""

from __future__ import annotations

import errno
import hashlib
import ipaddress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.credentials.contexts import ProfileContexts, ProfileSet
from ktlsagent.credentials.owncertificates import Missing
from ktlsagent.errors import HandshakeError, KeyUnusable, NotYet, RequestRefused, RequestUnsupported
from ktlsagent.keys import RequestKeys
from ktlsagent.peers.authorisation import Access, parseRule
from ktlsagent.peers.generalnames import DNS, URI
from ktlsagent.peers.names import referenceName
from ktlsagent.peers.signedcontent import otherForms
from ktlsagent.peers.tags import TagSet, loadTags
from ktlsagent.policy import (
    CLIENT_SECONDS,
    MARGIN_SECONDS,
    PEER_AUTHENTICATED,
    RETRY_PAUSE_SECONDS,
    SERVER_SECONDS,
    SETTLE_SECONDS,
    Served,
    allowedSeconds,
    askedOf,
    choose,
    keyringsFor,
    modeName,
    pauseSeconds,
    plan,
    remoteAuth,
    roleOf,
    settleSeconds,
)
from ktlsagent.profiles import Asked, Endpoint, Match, Profile, Trust
from ktlsagent.protocols.asn1 import encode
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.handshakefamily import AuthMode, HandshakeRequest, MessageType
from ktlsagent.protocols.interfaces import TLSParameters
from ktlsagent.protocols.psk import SHA256, SHA384, PreSharedKey
from ktlsagent.protocols.pskserver import PreSharedKeyParameters
from ktlsagent.protocols.session import EstablishedSession, Role
from tests.support import certificates
from tests.support.anycertificate import anyCertificate, otherName
from tests.support.certificates import Credentials
from tests.support.fakekeyrings import FakeKeyrings
from tests.support.ktlstests import makeSessions
from tests.support.unreadable import rawNames

CLIENT = HandshakeRequest(5, MessageType.CLIENTHELLO, AuthMode.UNAUTH, peerName=b"server.lab")
MUTUAL_CLIENT = replace(CLIENT, authMode=AuthMode.X509)
BAR = replace(CLIENT, peerName=b"bar.a.lab")
SERVER = HandshakeRequest(5, MessageType.SERVERHELLO, AuthMode.X509)
KEY_CLIENT = HandshakeRequest(5, MessageType.CLIENTHELLO, AuthMode.PSK)
KEY_SERVER = HandshakeRequest(5, MessageType.SERVERHELLO, AuthMode.PSK)


class RequestTests(SynchronousTestCase):
    """What can be said about a request without looking at the configuration."""

    def test_role(self) -> None:
        """The message type is the role; an unknown one is none."""
        self.assertIs(roleOf(CLIENT), Role.CLIENT)
        self.assertIs(roleOf(SERVER), Role.SERVER)
        self.assertIsNone(roleOf(replace(CLIENT, messageType=3)))

    def test_mode(self) -> None:
        """Modes have the kernel's names; an unknown one is its number."""
        names = [modeName(replace(CLIENT, authMode=number)) for number in range(5)]
        self.assertEqual(names, ["0", "unauth", "psk", "x509", "4"])

    def test_kernelsTime(self) -> None:
        """What the kernel allows without saying so is less for a server than for a client."""
        self.assertEqual(allowedSeconds(CLIENT), CLIENT_SECONDS - MARGIN_SECONDS)
        self.assertEqual(allowedSeconds(SERVER), SERVER_SECONDS - MARGIN_SECONDS)
        self.assertEqual(allowedSeconds(replace(CLIENT, messageType=9)), 9.5)

    def test_ownTime(self) -> None:
        """What the kernel says goes first, and the margin never takes more than half of it."""
        for milliseconds, seconds in ((30000, 29.5), (1000, 0.5), (600, 0.3), (2, 0.001)):
            for request in (CLIENT, SERVER):
                asked = replace(request, timeoutMilliseconds=milliseconds)
                self.assertAlmostEqual(allowedSeconds(asked), seconds)

    def test_pause(self) -> None:
        """Only what makes the NFS client try again at once is held back."""
        for request, status, seconds in (
            (CLIENT, errno.ETIMEDOUT, RETRY_PAUSE_SECONDS),
            (MUTUAL_CLIENT, errno.ETIMEDOUT, RETRY_PAUSE_SECONDS),
            (CLIENT, errno.EACCES, 0),
            (CLIENT, 0, 0),
            (SERVER, errno.ETIMEDOUT, 0),
            (replace(CLIENT, authMode=AuthMode.PSK), errno.ETIMEDOUT, 0),
        ):
            self.assertEqual(pauseSeconds(request, status), seconds)


class SettleTests(SynchronousTestCase):
    """How long a handshake waits before it begins."""

    def test_onlyNFSClientsWait(self) -> None:
        """The kernel has read from an NFS client's connection before, and from no other."""
        for messageType, authMode, seconds in (
            (MessageType.CLIENTHELLO, AuthMode.X509, SETTLE_SECONDS),
            (MessageType.CLIENTHELLO, AuthMode.UNAUTH, SETTLE_SECONDS),
            (MessageType.CLIENTHELLO, AuthMode.PSK, 0.0),
            (MessageType.SERVERHELLO, AuthMode.X509, 0.0),
        ):
            request = HandshakeRequest(3, messageType, authMode)
            self.assertEqual(settleSeconds(request), seconds)


class ServedTestCase(SynchronousTestCase):
    """
    Tests with what requests are served with.

    @ivar keys: the kernel's keys.
    @ivar ring: the keyring that is linked for the request.
    @ivar made: the certificates that contexts were made with.
    @ivar clientContexts: what clients are served with.
    @ivar serverContexts: what servers are served with.
    @ivar tags: the session tags.
    """

    def setUp(self) -> None:
        self.keys = FakeKeyrings()
        self.ring = self.keys.addKeyring("keys")
        self.keys.link(self.ring)
        self.made: list[OwnCertificate] = []
        self.clientContexts = ProfileContexts(
            Profile("authenticate.client", Match(roles=(Role.CLIENT,))),
            anonymousClient=self.context(own=False),
            client=self.context(own=True),
            clientCertificate=certificates.server().own(),
            clientWith=self.clientWith,
            preSharedKey=self.keyContexts(Role.CLIENT),
        )
        self.serverContexts = ProfileContexts(
            Profile("authenticate.server", Match(roles=(Role.SERVER,))),
            server=self.context(own=True),
            preSharedKey=self.keyContexts(Role.SERVER),
        )
        self.tags = TagSet()

    def keyContexts(self, role: Role) -> dict[str, TLSContext]:
        """
        Make the contexts for pre-shared keys.

        @param role: our side.
        @return: the contexts by hash.
        """
        return {
            name: TLSContext(role=role, suites=[suite], groups=())
            for name, suite in (
                (SHA256, "TLS_AES_128_GCM_SHA256"),
                (SHA384, "TLS_AES_256_GCM_SHA384"),
            )
        }

    def context(self, *, own: bool) -> TLSContext:
        """
        Make a context.

        @param own: whether it has a certificate.
        @return: the context.
        """
        return self.clientWith(certificates.server().own() if own else None)

    def clientWith(self, own: OwnCertificate | None) -> TLSContext:
        """
        Make a context with a certificate.

        @param own: the certificate.
        @return: the context.
        """
        if own is not None:
            self.made.append(own)
        return TLSContext(
            store=certificates.authority().store(),
            own=() if own is None else (own,),
            suites=tuple(CIPHER_SUITES),
            groups=(),
        )

    def serve(self, request: HandshakeRequest, peer: Endpoint | None = None) -> Served:
        """
        Choose what a request is served by.

        @param request: the request.
        @param peer: where it comes from.
        @return: what it is served by.
        """
        asked = askedOf(request, local=None, peer=peer, keyring=None, namespaces=frozenset())
        return choose(asked, ProfileSet((self.clientContexts, self.serverContexts), tags=self.tags))

    def planAny(self, request: HandshakeRequest) -> TLSParameters | PreSharedKeyParameters:
        """
        Plan a handshake.

        @param request: the request.
        @return: how to run its handshake.
        """
        return plan(request, self.serve(request), RequestKeys(self.keys, (self.ring,)))

    def plan(self, request: HandshakeRequest) -> TLSParameters:
        """
        Plan a handshake that begins at once.

        @param request: the request.
        @return: how to run its handshake.
        """
        found = self.planAny(request)
        assert isinstance(found, TLSParameters)
        return found


class PlanTests(ServedTestCase):
    """Tests for L{plan}."""

    def test_client(self) -> None:
        """C{xprtsec=tls}: a client without a certificate, for the name of the mount."""
        found = self.plan(CLIENT)
        self.assertIsNone(found.refusal)
        self.assertIs(found.role, Role.CLIENT)
        self.assertIs(found.context, self.clientContexts.anonymousClient)
        self.assertEqual(found.serverName, "server.lab")
        self.assertIsNone(found.server)
        self.assertIsNone(found.judge([certificates.server().certificate]))
        self.assertIsNotNone(found.judge([certificates.client().certificate]))

    def test_ticketsOfWhom(self) -> None:
        """A client's tickets are those of a server by its name and its address."""
        servers = set()
        for name in (b"server.lab", b"other.lab"):
            for address in ("10.0.0.2", "10.0.0.3"):
                for port in (2049, 20049):
                    peer = Endpoint(ipaddress.ip_address(address), port)
                    request = replace(CLIENT, peerName=name)
                    keys = RequestKeys(self.keys, (self.ring,))
                    found = plan(request, self.serve(request, peer), keys)
                    assert isinstance(found, TLSParameters)
                    servers.add(found.server)
        self.assertEqual(len(servers), 4)

    def test_mutualClient(self) -> None:
        """C{xprtsec=mtls}: a client with its certificate."""
        found = self.plan(replace(MUTUAL_CLIENT, peerName=b"10.0.0.2"))
        self.assertIs(found.context, self.clientContexts.client)
        self.assertIsNone(found.serverName)
        self.assertIsNone(found.judge([certificates.server().certificate]))

    def test_server(self) -> None:
        """A server takes any client whose chain is good."""
        found = self.plan(SERVER)
        self.assertIsNone(found.refusal)
        self.assertIs(found.role, Role.SERVER)
        self.assertIs(found.context, self.serverContexts.server)
        self.assertIsNone(found.serverName)
        self.assertIsNone(found.judge([certificates.client().certificate]))

    def test_serverWithoutCertificate(self) -> None:
        """A server without a certificate has its refusal ready: its peer is owed an alert."""
        self.serverContexts = replace(self.serverContexts, server=self.context(own=False))
        found = self.plan(SERVER)
        self.assertIs(found.context, self.serverContexts.server)
        assert found.refusal is not None
        self.assertEqual(found.refusal.code, "no-certificate")
        self.assertIn("[authenticate.server]", found.refusal.reason)

    def test_serverWithoutItsKey(self) -> None:
        """A server that cannot use its key says why, and not that it has no certificate."""
        self.serverContexts = replace(self.serverContexts, server=self.context(own=False))
        refusal = KeyUnusable("pin-refused", "expected another PIN")
        served = replace(self.serve(SERVER), refusal=refusal)
        found = plan(SERVER, served, RequestKeys(self.keys, (self.ring,)))
        assert isinstance(found, TLSParameters)
        self.assertIs(found.refusal, refusal)

    def test_clientWithoutCertificate(self) -> None:
        """C{xprtsec=mtls} without a certificate is refused; C{xprtsec=tls} needs none."""
        self.clientContexts = replace(self.clientContexts, client=None)
        error = self.assertRaises(RequestRefused, self.plan, MUTUAL_CLIENT)
        self.assertEqual(error.code, "no-certificate")
        self.assertIn("[authenticate.client]", error.reason)
        self.plan(CLIENT)

    def test_certificateMissing(self) -> None:
        """A certificate that is not there yet is a reason of its own, one to come a retry."""
        for missing, kind in (
            (Missing("neither /a.pem nor /a.key"), RequestRefused),
            (Missing("one which begins tomorrow", certificates.NOW), NotYet),
        ):
            self.clientContexts = replace(self.clientContexts, client=None, missing=missing)
            self.serverContexts = replace(
                self.serverContexts, server=self.context(own=False), missing=missing
            )
            error: HandshakeError = self.assertRaises(kind, self.plan, MUTUAL_CLIENT)
            refusal = self.plan(SERVER).refusal
            for one in error, refusal:
                assert isinstance(one, kind)
                self.assertEqual(one.code, "no-certificate")
                self.assertTrue(one.reason.endswith(f", found {missing.found}"), one.reason)

    def test_keyringCertificate(self) -> None:
        """A certificate and a key that the mount names win over the configured ones."""
        own = certificates.client()
        content = own.certificate.public_bytes(serialization.Encoding.DER)
        certificate = self.keys.addKey(self.ring, b"certificate", content)
        key = self.keys.addKey(self.ring, b"key", own.keyPEM)
        for configured in (self.clientContexts.clientCertificate, None):
            self.clientContexts = replace(
                self.clientContexts, client=None, clientCertificate=configured
            )
            found = self.plan(replace(MUTUAL_CLIENT, certificate=certificate, privateKey=key))
            self.assertTrue(found.context.hasCertificate)
            self.assertEqual(found.serverName, "server.lab")
            self.assertIsNotNone(found.judge([certificates.client().certificate]))
            self.assertEqual(self.made[-1].chain[0].to_cryptography(), own.certificate)

    def test_halfAPair(self) -> None:
        """Either alone goes with the configured other, and has to belong to it."""
        configured = certificates.server()
        content = configured.certificate.public_bytes(serialization.Encoding.DER)
        certificate = self.keys.addKey(self.ring, b"certificate", content)
        key = self.keys.addKey(self.ring, b"key", configured.keyPEM)
        self.plan(replace(MUTUAL_CLIENT, certificate=certificate))
        self.plan(replace(MUTUAL_CLIENT, privateKey=key))
        self.clientContexts = replace(
            self.clientContexts, clientCertificate=certificates.client().own()
        )
        for request, words in (
            (
                replace(MUTUAL_CLIENT, certificate=certificate),
                f"key (configured) does not belong to certificate {certificate}",
            ),
            (
                replace(MUTUAL_CLIENT, privateKey=key),
                f"key {key} does not belong to certificate (configured)",
            ),
        ):
            error = self.assertRaises(KeyUnusable, self.plan, request)
            self.assertEqual(error.code, "key-mismatch")
            self.assertIn(words, error.reason)

    def test_mismatch(self) -> None:
        """A pair that is none is refused by both serials, also if the kinds differ."""
        other = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        content = certificates.client().certificate.public_bytes(serialization.Encoding.DER)
        certificate = self.keys.addKey(self.ring, b"certificate", content)
        for payload in (certificates.server().keyPEM, other):
            key = self.keys.addKey(self.ring, b"key", payload)
            request = replace(MUTUAL_CLIENT, certificate=certificate, privateKey=key)
            error = self.assertRaises(KeyUnusable, self.plan, request)
            self.assertEqual(error.code, "key-mismatch")
            self.assertIn(f"key {key} does not belong to certificate {certificate}", error.reason)

    def test_keyringCertificateOfServer(self) -> None:
        """A server's certificate is the configured one; serials are not passed over."""
        for request in (replace(SERVER, certificate=7), replace(SERVER, privateKey=8)):
            error = self.assertRaises(RequestUnsupported, self.plan, request)
            self.assertEqual(error.code, "keyring-certificate")
            self.assertIn("found key serials", error.reason)

    def test_keyClient(self) -> None:
        """A client with a pre-shared key offers the one that the kernel names first."""
        for name, payload in ((SHA256, b"k" * 32), (SHA384, b"k" * 48)):
            serial = self.keys.addKey(self.ring, b"client", payload)
            found = self.plan(replace(KEY_CLIENT, peerIdentities=(serial, 4711)))
            self.assertEqual(found.preSharedKey, PreSharedKey(b"client", payload, name, serial))
            self.assertIs(found.context, self.clientContexts.preSharedKey[name])
            self.assertIs(found.role, Role.CLIENT)
            self.assertIsNone(found.serverName)

    def test_noKey(self) -> None:
        """A client that is to use a key and is given none is refused."""
        error = self.assertRaises(RequestRefused, self.plan, KEY_CLIENT)
        self.assertEqual(error.code, "no-psk")

    def test_noSuite(self) -> None:
        """A key for whose hash there is no suite is refused by both."""
        self.clientContexts = replace(self.clientContexts, preSharedKey={})
        serial = self.keys.addKey(self.ring, b"client")
        request = replace(KEY_CLIENT, peerIdentities=(serial,))
        error = self.assertRaises(KeyUnusable, self.plan, request)
        self.assertEqual(error.code, "no-suite")
        self.assertIn("with sha256", error.reason)
        self.assertIn("'client'", error.reason)

    def test_keyServer(self) -> None:
        """A server with pre-shared keys has a context for each hash, and where to look."""
        found = self.planAny(KEY_SERVER)
        assert isinstance(found, PreSharedKeyParameters)
        self.assertEqual(set(found.contexts), {SHA256, SHA384})
        for name, context in found.contexts.items():
            self.assertIs(context, self.serverContexts.preSharedKey[name])
        serial = self.keys.addKey(self.ring, b"client")
        self.assertEqual(found.lookUp([b"other", b"client"]).serial, serial)

    def test_noName(self) -> None:
        """A client that does not know whom it talks to is refused."""
        for request in (CLIENT, MUTUAL_CLIENT):
            for name in (None, b""):
                unnamed = replace(request, peerName=name)
                error = self.assertRaises(RequestRefused, self.plan, unnamed)
                self.assertEqual(error.code, "no-name")

    def test_badName(self) -> None:
        """A name that is none is refused before anything is sent."""
        error = self.assertRaises(RequestRefused, self.plan, replace(CLIENT, peerName=b"a b"))
        self.assertEqual(error.code, "bad-name")

    def test_profileWithoutContexts(self) -> None:
        """A profile that cannot serve a request that it matches does not."""
        bare = ProfileContexts(Profile("profile.bare"))
        request = replace(MUTUAL_CLIENT, certificate=1, privateKey=2)
        own = certificates.server()
        content = own.certificate.public_bytes(serialization.Encoding.DER)
        request = replace(
            MUTUAL_CLIENT,
            certificate=self.keys.addKey(self.ring, b"certificate", content),
            privateKey=self.keys.addKey(self.ring, b"key", own.keyPEM),
        )
        for asked in (SERVER, CLIENT, request):
            self.clientContexts = bare
            error = self.assertRaises(RequestRefused, self.planAny, asked)
            self.assertEqual(error.code, "no-profile")


class ChooseTests(ServedTestCase):
    """Tests for L{askedOf} and L{choose}."""

    def test_whatIsKnown(self) -> None:
        """All that a profile may ask for is in there."""
        here, there = (Endpoint(ipaddress.ip_address("10.0.0.1"), port) for port in (2049, 700))
        request = replace(MUTUAL_CLIENT, peerName="sch\xf6n.lab".encode())
        asked = askedOf(
            request, local=here, peer=there, keyring=".nfs", namespaces=frozenset({"blue"})
        )
        self.assertEqual(
            asked,
            Asked(
                Role.CLIENT,
                AuthMode.X509,
                here,
                there,
                "sch\xf6n.lab",
                ".nfs",
                frozenset({"blue"}),
            ),
        )
        nameless = askedOf(SERVER, local=None, peer=None, keyring=None, namespaces=frozenset())
        self.assertEqual(nameless, Asked(Role.SERVER, AuthMode.X509))

    def test_unsupported(self) -> None:
        """Every other combination of role and mode is refused, by its numbers and names."""
        supported = {(1, 1), (1, 2), (1, 3), (2, 2), (2, 3)}
        for messageType in range(4):
            for authMode in range(5):
                if (messageType, authMode) not in supported:
                    request = replace(CLIENT, messageType=messageType, authMode=authMode)
                    error = self.assertRaises(RequestUnsupported, self.serve, request)
                    self.assertEqual(error.code, "unsupported-mode")
                    self.assertIn(
                        f"found message type {messageType} with mode {modeName(request)}",
                        error.reason,
                    )

    def test_profile(self) -> None:
        """The first profile that matches serves the request."""
        self.assertIs(self.serve(CLIENT).contexts, self.clientContexts)
        self.assertIs(self.serve(SERVER).contexts, self.serverContexts)

    def test_none(self) -> None:
        """Without a profile that matches there is a refusal."""
        self.serverContexts = self.clientContexts
        error = self.assertRaises(RequestRefused, self.serve, SERVER)
        self.assertEqual(error.code, "no-profile")
        self.assertIn("of a server with mode x509", error.reason)


class JudgeTests(ServedTestCase):
    """Tests for L{Served.judge} and L{Served.tags}."""

    def judge(
        self,
        request: HandshakeRequest,
        shown: Credentials,
        peer: str | None = None,
        **settings: Any,
    ) -> str | None:
        """
        Judge a peer whose chain is good.

        @param request: the request.
        @param shown: the peer's certificate.
        @param peer: its address.
        @param settings: what the profile says.
        @return: the code of the refusal, if it is refused.
        """
        self.clientContexts, self.serverContexts = (
            replace(contexts, profile=replace(contexts.profile, **settings))
            for contexts in (self.clientContexts, self.serverContexts)
        )
        endpoint = None if peer is None else Endpoint(ipaddress.ip_address(peer), 700)
        reference = None if request.peerName is None else referenceName(request.peerName)
        chain = (shown.certificate, certificates.authority().certificate)
        refusal = self.serve(request, endpoint).judge(reference)(chain)
        return None if refusal is None else refusal.code

    def test_name(self) -> None:
        """A server's certificate has to be for the name, a client's need not."""
        self.assertIsNone(self.judge(CLIENT, certificates.server()))
        self.assertEqual(self.judge(CLIENT, certificates.client()), "name-mismatch")
        self.assertIsNone(self.judge(SERVER, certificates.client()))

    def test_constraints(self) -> None:
        """CAs have to be allowed to vouch for what is asked for, and for all URIs."""
        wild = certificates.authority().issue("a", hosts=["*.a.lab"])
        shown = rawNames((DNS, b"bar.a.lab"), (URI, b"spiffe://a.lab/x"))
        for constrained, certificate, request, code in (
            ((DNS, b"bar.a.lab"), wild.certificate, BAR, "name-mismatch"),
            ((DNS, b"foo.a.lab"), wild.certificate, BAR, None),
            ((URI, b""), shown, BAR, "certificate-invalid"),
            ((URI, b""), shown, SERVER, "certificate-invalid"),
            ((URI, b"b.lab"), shown, SERVER, None),
        ):
            subtree = encode(0x30, encode(0xA1, encode(0x30, encode(*constrained))))
            extension = x509.UnrecognizedExtension(x509.OID_NAME_CONSTRAINTS, subtree)
            chain = (certificate, anyCertificate(extension))
            reference = None if request.peerName is None else referenceName(request.peerName)
            refusal = self.serve(request).judge(reference)(chain)
            self.assertEqual(refusal and refusal.code, code)

    def test_chain(self) -> None:
        """The profile's rules on chains hold, before the name is looked at."""
        pinned = Trust(pins=frozenset({b"p" * 32}))
        for request in (CLIENT, SERVER):
            self.assertEqual(
                self.judge(request, certificates.client(), trust=pinned), "pin-mismatch"
            )

    def test_pinsAlone(self) -> None:
        """Where pins decide alone the name is not looked at."""
        client = certificates.client()
        pin = hashlib.sha256(
            client.key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        ).digest()
        for stores, code in (((), None), (("system",), "name-mismatch")):
            trust = Trust(stores=stores, pins=frozenset({pin}))
            self.assertEqual(self.judge(CLIENT, client, trust=trust), code)

    def test_access(self) -> None:
        """The profile's rules on who may come in are asked last, with the peer's address."""
        access = Access(deny=(parseRule("dns:client.lab"),))
        self.assertEqual(self.judge(SERVER, certificates.client(), access=access), "denied")
        access = Access(addressInCertificate=True)
        shown = certificates.server()
        self.assertIsNone(self.judge(SERVER, shown, "10.0.0.2", access=access))
        for peer in ("10.0.0.3", None):
            self.assertEqual(self.judge(SERVER, shown, peer, access=access), "address-mismatch")

    def test_fingerprints(self) -> None:
        """Who is denied by the fingerprint of one form does not come back in another one."""
        shown, authority = certificates.client(), certificates.authority().certificate
        (form,) = otherForms(shown.certificate, authority) or ()
        for chain, fingerprint, stores, code in (
            ((shown.certificate, authority), shown.fingerprint, True, "denied"),
            ((shown.certificate, authority), hashlib.sha256(form).hexdigest(), True, "denied"),
            ((shown.certificate, authority), 64 * "0", True, None),
            # A trust anchor is what it is.
            ((authority,), 64 * "0", True, None),
            # Nobody has signed it: it could be shown in any form.
            ((shown.certificate,), 64 * "0", False, "denied"),
        ):
            access = Access(deny=(parseRule(f"fingerprint:{fingerprint}"),))
            trust = Trust(stores=("system",) if stores else (), pins=frozenset())
            self.judge(SERVER, shown, access=access, trust=trust)
            refusal = self.serve(SERVER).judge(None)(chain)
            self.assertEqual(refusal and refusal.code, code)

    def test_tagRules(self) -> None:
        """A rule may be about a tag, also one that the profile does not give."""
        self.tags = self.tagSet()
        access = Access(allow=(parseRule("tag:lab"),))
        self.assertIsNone(self.judge(SERVER, certificates.client(), access=access, tags=()))
        access = Access(allow=(parseRule("tag:other"),))
        self.assertEqual(self.judge(SERVER, certificates.client(), access=access), "not-allowed")

    def test_tagThatNobodyCanTell(self) -> None:
        """A tag that needs what cannot be read denies, and is neither allowed nor given."""
        self.tags = self.tagSet()
        noText = otherName("1.2.3", b"\x05\x00")
        shown = certificates.authority().issue("client.lab", names=[noText])
        for name in ("host", "no-host", "lab-host"):
            rule = parseRule(f"tag:{name}")
            access = Access(deny=(rule,))
            self.assertEqual(self.judge(SERVER, shown, access=access), "denied")
            access = Access(allow=(rule,))
            self.assertEqual(self.judge(SERVER, shown, access=access), "not-allowed")
        access = Access(deny=(parseRule("tag:stranger-host"),))
        self.assertIsNone(self.judge(SERVER, shown, access=access))
        self.assertEqual(self.serve(SERVER).tags([shown.certificate]), ["ca", "lab"])

    def test_tags(self) -> None:
        """A profile gives all tags that match, or those that it lists."""
        self.tags = self.tagSet()
        certificate = certificates.client().certificate
        self.assertEqual(self.serve(SERVER).tags([certificate]), ["ca", "lab", "no-host"])
        for given, expected in ((("lab", "other"), ["lab"]), ((), [])):
            self.judge(SERVER, certificates.client(), tags=given)
            self.assertEqual(self.serve(SERVER).tags([certificate]), expected)
        self.assertEqual(self.serve(SERVER).tags([]), [])

    def test_tagsOfServers(self) -> None:
        """Servers get no tags, which are names for kinds of clients; rules may ask for them."""
        self.tags = self.tagSet()
        self.assertEqual(self.serve(CLIENT).tags([certificates.server().certificate]), [])
        for name, verdict in (("ca", None), ("other", "not-allowed")):
            access = Access(allow=(parseRule(f"tag:{name}"),))
            self.assertEqual(self.judge(CLIENT, certificates.server(), access=access), verdict)

    def tagSet(self) -> TagSet:
        """
        Load some tags.

        @return: the tags.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "tags.yml").write_text(
            "filters:\n"
            "  client: {type: x509.tbs.subject, pattern: 'CN=*.lab'}\n"
            "  issuer: {type: x509.tbs.issuer, pattern: '*Lab CA*'}\n"
            "  nobody: {type: x509.tbs.subject, pattern: 'CN=nobody'}\n"
            "  host: {type: x509.extension.subjectAltName.otherName, pattern: 1.2.3=a}\n"
            "tags:\n"
            "  lab: {filter: [client]}\n"
            "  host: {filter: [host]}\n"
            "  no-host: {filter: [not host]}\n"
            "  lab-host: {filter: [client, host]}\n"
            "  stranger-host: {filter: [nobody, host]}\n"
            "  ca: {filter: [issuer, not nobody]}\n"
            "  other: {filter: [nobody]}\n"
        )
        return loadTags(str(folder))


class KeyringsForTests(SynchronousTestCase):
    """Tests for L{keyringsFor}."""

    def keyringsFor(self, request: HandshakeRequest, *more: str) -> list[str]:
        """
        Ask for the keyrings of a request.

        @param request: the request.
        @param more: the configured keyrings.
        @return: their names.
        """
        return list(keyringsFor(request, more))

    def test_noKeys(self) -> None:
        """A request that needs no keys needs no keyring."""
        for request in (CLIENT, MUTUAL_CLIENT, SERVER, replace(SERVER, keyring=7)):
            self.assertEqual(self.keyringsFor(request, "more"), [])

    def test_preSharedKey(self) -> None:
        """Pre-shared keys are in .nvme, unless the request has a keyring, and in others."""
        for request in (KEY_CLIENT, KEY_SERVER):
            self.assertEqual(self.keyringsFor(request), [".nvme"])
            self.assertEqual(self.keyringsFor(request, "more", "12"), [".nvme", "more", "12"])
            self.assertEqual(self.keyringsFor(replace(request, keyring=7), "more"), ["more"])

    def test_certificate(self) -> None:
        """Certificates and keys are in .nfs for a client, in .nfsd for a server, and in others."""
        for request in (MUTUAL_CLIENT, SERVER):
            own = ".nfs" if request is MUTUAL_CLIENT else ".nfsd"
            for named in (replace(request, certificate=7), replace(request, privateKey=8)):
                self.assertEqual(self.keyringsFor(named), [own])
                self.assertEqual(self.keyringsFor(named, "more"), [own, "more"])


class RemoteAuthTests(SynchronousTestCase):
    """Tests for L{remoteAuth}."""

    def session(self, certificate: x509.Certificate | None) -> EstablishedSession:
        """
        Make a session.

        @param certificate: what the peer has shown.
        @return: the session.
        """
        session, _other = makeSessions(CIPHER_SUITES["TLS_AES_128_GCM_SHA256"])
        return replace(session, peerChain=() if certificate is None else (certificate,))

    def test_verified(self) -> None:
        """A verified certificate is an identity that is not zero and no key's serial."""
        serials = remoteAuth(self.session(certificates.client().certificate))
        self.assertEqual(list(serials), [PEER_AUTHENTICATED])
        self.assertLess(PEER_AUTHENTICATED - 2**32, 0)

    def test_anonymous(self) -> None:
        """Without a certificate there is no identity."""
        self.assertEqual(list(remoteAuth(self.session(None))), [])

    def test_key(self) -> None:
        """A pre-shared key is named by its serial, once."""
        session = replace(self.session(None), keySerial=4711)
        self.assertEqual(list(remoteAuth(session)), [4711])
