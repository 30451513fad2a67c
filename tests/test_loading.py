"""Tests for L{ktlsagent.credentials.loading} and L{ktlsagent.credentials.parts}."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto

from ktlsagent.config import AgentConfig
from ktlsagent.credentials.contexts import ProfileContexts, ProfileSet
from ktlsagent.credentials.expiry import warnings
from ktlsagent.credentials.inventory import delta
from ktlsagent.credentials.loading import loadProfiles
from ktlsagent.credentials.tokens import TokenKey
from ktlsagent.errors import ConfigError, Mistake
from ktlsagent.peers.authorisation import Access, parseRule
from ktlsagent.profiles import (
    DEFAULT_GROUPS,
    SYSTEM,
    CertificateFiles,
    CRLScope,
    Handshake,
    Match,
    Own,
    Profile,
    Tolerated,
    Trust,
)
from ktlsagent.protocols import openssl
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.handshakefamily import AuthMode
from ktlsagent.protocols.interfaces import TLSParameters
from ktlsagent.protocols.psk import SHA256, SHA384
from ktlsagent.protocols.session import Demand, Role
from tests.support import certificates
from tests.support.certificates import DAY, NOW, PEM
from tests.support.clienthellos import keyShares
from tests.support.folder import FolderTestCase
from tests.support.tlspeers import pair

ALL = frozenset(CIPHER_SUITES)

TAGS = """\
filters:
  any: {type: x509.tbs.subject, pattern: "*"}
tags:
  known: {filter: [any]}
"""


class _ProfilesTestCase(FolderTestCase):
    """Has a directory with good files, and a profile of each role that names them."""

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.path("tags.d"))
        self.authority = certificates.authority()
        self.ca = self.write("ca.pem", self.authority.certificatePEM)
        server, client = certificates.server(), certificates.client()
        self.crl = self.writeCRL()
        self.server = Profile(
            "authenticate.server",
            Match(roles=(Role.SERVER,)),
            Trust(stores=(self.ca,), crls=(self.crl,)),
            Own((self.writePair("server", server.own()),)),
        )
        self.client = Profile(
            "authenticate.client",
            Match(roles=(Role.CLIENT,)),
            Trust(stores=(self.ca,)),
            Own((self.writePair("client", client.own()),)),
        )

    def writeCRL(self, *revoked: certificates.Credentials, number: int = 1) -> str:
        """
        Write the CA's CRL.

        @param revoked: whose certificates are revoked.
        @param number: its number.
        @return: its path.
        """
        crl = self.authority.revocationList(*revoked, number=number)
        return self.write("ca.crl", crl.public_bytes(PEM))

    def load(
        self,
        *profiles: Profile,
        suites: frozenset[str] = ALL,
        system: Sequence[str] = ("/nonexistent/system.pem",),
    ) -> ProfileSet:
        """
        Read the files and build the contexts.

        @param profiles: the profiles; by default the good ones.
        @param suites: the cipher suites that the kernel takes.
        @param system: where the system's trust store may be.
        @return: the result.
        """
        config = AgentConfig(
            profiles=profiles or (self.client, self.server),
            keyrings=("more",),
            tagDirectory=os.path.join(self.directory, "tags.d"),
        )
        return loadProfiles(config, suites, system)

    def contexts(self, profile: Profile) -> ProfileContexts:
        """
        Build the contexts of one profile.

        @param profile: the profile.
        @return: its contexts.
        """
        (contexts,) = self.load(profile).profiles
        return contexts

    def mistakes(self, *profiles: Profile) -> list[Mistake]:
        """
        Read files with mistakes.

        @param profiles: the profiles.
        @return: the mistakes.
        """
        error: ConfigError = self.assertRaises(ConfigError, self.load, *profiles)
        return list(error.mistakes)

    def verdict(self, server: TLSContext | None, client: TLSContext | None) -> str:
        """
        Let a client and a server do their handshake.

        @param server: the server's context.
        @param client: the client's context.
        @return: the code of the server's refusal, else of the client's; empty if
            there is none.
        """
        assert server is not None
        assert client is not None
        engines = [
            TLSEngine(TLSParameters(role, context, None, lambda _chain: None))
            for role, context in ((Role.CLIENT, client), (Role.SERVER, server))
        ]
        pair(engines[0], engines[1])
        return next((one.error.code for one in reversed(engines) if one.error is not None), "")

    def judged(self, server: Profile, client: Profile | None = None) -> str:
        """
        Let a client with a certificate and a server do their handshake.

        @param server: the server's profile.
        @param client: the client's profile; by default the good one.
        @return: the code of the refusal, if there is one.
        """
        ours, theirs = self.load(server, client or self.client).profiles
        return self.verdict(ours.server, theirs.client)


class ContextsTests(_ProfilesTestCase):
    """What contexts a profile gets."""

    def test_client(self) -> None:
        """A client has a context for each mode, and one with a certificate of the request."""
        contexts = self.contexts(self.client)
        self.assertIs(contexts.profile, self.client)
        assert contexts.anonymousClient is not None
        assert contexts.client is not None
        assert contexts.clientCertificate is not None
        assert contexts.clientWith is not None
        self.assertFalse(contexts.anonymousClient.hasCertificate)
        self.assertTrue(contexts.client.hasCertificate)
        self.assertIsNone(contexts.server)
        own = contexts.clientCertificate
        self.assertEqual(own.chain[0].to_cryptography(), certificates.client().certificate)
        other = certificates.server().own()
        self.assertTrue(contexts.clientWith(other).hasCertificate)
        self.assertRaises(SSL.Error, contexts.clientWith, OwnCertificate(own.chain, other.key))
        self.assertEqual(set(contexts.preSharedKey), {SHA256, SHA384})

    def test_server(self) -> None:
        """A server has one context for certificates, and those for pre-shared keys."""
        contexts = self.contexts(self.server)
        assert contexts.server is not None
        self.assertTrue(contexts.server.hasCertificate)
        self.assertEqual(
            (contexts.anonymousClient, contexts.client, contexts.clientWith), (None, None, None)
        )
        self.assertEqual(set(contexts.preSharedKey), {SHA256, SHA384})
        for context in contexts.preSharedKey.values():
            self.assertFalse(context.hasCertificate)

    def test_withoutCertificate(self) -> None:
        """Without certificates of its own a client has no context with one, a server a poor one."""
        self.assertIsNone(self.contexts(replace(self.client, own=Own())).client)
        server = self.contexts(replace(self.server, own=Own())).server
        assert server is not None
        self.assertFalse(server.hasCertificate)

    def test_modes(self) -> None:
        """What a profile cannot be asked for is not made, and its files are not read."""
        bad = Trust(stores=("/nonexistent/ca",), crls=("/nonexistent/crl",))
        files = Own((CertificateFiles("/nonexistent/pem", "/nonexistent/key"),))
        for profile in (self.client, self.server):
            match = replace(profile.match, modes=(AuthMode.PSK,))
            contexts = self.contexts(replace(profile, match=match, trust=bad, own=files))
            self.assertEqual(set(contexts.preSharedKey), {SHA256, SHA384})
            self.assertEqual(
                (contexts.anonymousClient, contexts.client, contexts.clientWith, contexts.server),
                (None, None, None, None),
            )
        match = replace(self.client.match, modes=(AuthMode.UNAUTH,))
        contexts = self.contexts(replace(self.client, match=match, own=files))
        self.assertIsNotNone(contexts.anonymousClient)
        self.assertEqual((contexts.client, contexts.clientWith), (None, None))
        self.assertEqual(contexts.preSharedKey, {})
        match = replace(self.client.match, modes=(AuthMode.X509,))
        contexts = self.contexts(replace(self.client, match=match))
        self.assertIsNone(contexts.anonymousClient)
        self.assertIsNotNone(contexts.client)

    def test_order(self) -> None:
        """Profiles stay in the order of the configuration, and the keyrings' names are there."""
        other = replace(self.server, name="profile.other")
        loaded = self.load(other, self.client, self.server)
        names = [contexts.profile.name for contexts in loaded.profiles]
        self.assertEqual(names, ["profile.other", "authenticate.client", "authenticate.server"])
        self.assertEqual(loaded.keyrings, ("more",))

    def test_defaults(self) -> None:
        """Without any configuration the system's trust anchors are used, without certificates."""
        config = AgentConfig(tagDirectory="/nonexistent/tags.d")
        loaded = loadProfiles(config, ALL, ("/nonexistent/a", self.ca, self.directory))
        self.assertEqual(
            [contexts.profile.trust.stores for contexts in loaded.profiles], [(SYSTEM,)] * 2
        )
        self.assertEqual(loaded.paths, {self.ca, "/nonexistent/tags.d"})
        self.assertEqual(loaded.expiries, [])

    def test_oneSuite(self) -> None:
        """One suite that both the profile and the kernel have is enough."""
        one = self.load(suites=frozenset({"TLS_AES_128_GCM_SHA256"}))
        for contexts in one.profiles:
            self.assertEqual(set(contexts.preSharedKey), {SHA256})

    def test_noDefaultGroup(self) -> None:
        """If OpenSSL has none of the default groups, or does not let us choose, it chooses."""
        self.patch(openssl, "supportedGroups", lambda _names: ())
        self.assertEqual(self.judged(self.server), "")

    def test_storesAreShared(self) -> None:
        """Profiles that trust the same share a store, and nobody else does."""
        shareStore = openssl.shareStore
        used: list[crypto.X509Store] = []

        def share(context: SSL.Context, store: crypto.X509Store) -> None:
            used.append(store)
            shareStore(context, store)

        self.patch(openssl, "shareStore", share)
        trust = self.client.trust
        for count, trusts in (
            (1, [trust, replace(trust, rsaBits=3072, pins=frozenset([b"pin"]))]),
            (2, [trust, replace(trust, crls=(self.crl,))]),
            (2, [trust, replace(trust, rpcPurpose=Demand.OFF)]),
            (2, [trust, replace(trust, stores=())]),
            (1, [trust, replace(trust, rpcPurpose=Demand.REQUIRE)]),
        ):
            used.clear()
            self.load(*(replace(self.client, trust=one) for one in trusts))
            self.assertEqual(len(set(used)), count, str(trusts))


class HandshakeTests(_ProfilesTestCase):
    """What a profile says counts in a handshake."""

    def test_good(self) -> None:
        """A client and a server that trust each other's CA come to terms."""
        self.assertEqual(self.judged(self.server), "")

    def test_otherAuthority(self) -> None:
        """Nobody of another CA gets in."""
        other = self.write("other.pem", certificates.otherAuthority().certificatePEM)
        server = replace(self.server, trust=Trust(stores=(other,)))
        self.assertEqual(self.judged(server), "unknown-ca")
        self.assertEqual(self.judged(replace(server, trust=Trust(stores=(other, self.ca)))), "")

    def test_anchorBelow(self) -> None:
        """Anything in the trust store is trusted, an intermediate CA as well."""
        issuing = certificates.intermediateAuthority()
        anchor = self.write("issuing.pem", issuing.certificatePEM)
        client = replace(self.client, trust=Trust(stores=(anchor,)))
        own = Own((self.writePair("chained", certificates.chained().own()),))
        self.assertEqual(self.judged(replace(self.server, own=own), client), "")

    def test_revoked(self) -> None:
        """Who is revoked does not get in."""
        self.writeCRL(certificates.client())
        self.assertEqual(self.judged(self.server), "certificate-revoked")
        self.writeCRL(certificates.server())
        self.assertEqual(self.judged(self.server), "")

    def test_noCRL(self) -> None:
        """A missing CRL is a refusal, unless the profile says otherwise."""
        other = certificates.otherAuthority().revocationList().public_bytes(PEM)
        trust = replace(self.server.trust, crls=(self.write("other.crl", other),))
        self.assertEqual(self.judged(replace(self.server, trust=trust)), "crl-missing")
        trust = replace(trust, tolerated=frozenset({Tolerated.MISSING}))
        self.assertEqual(self.judged(replace(self.server, trust=trust)), "")

    def test_oldCRL(self) -> None:
        """An expired CRL is a refusal, unless that is tolerated; it revokes in any case."""
        for revoked, expected in (
            ((), ("crl-expired", "")),
            ((certificates.client(),), ("crl-expired", "certificate-revoked")),
        ):
            crl = self.authority.revocationList(*revoked, nextUpdate=NOW - DAY)
            trust = replace(self.server.trust, crls=(self.write("old", crl.public_bytes(PEM)),))
            tolerant = replace(trust, tolerated=frozenset({Tolerated.EXPIRED}))
            found = [self.judged(replace(self.server, trust=one)) for one in (trust, tolerant)]
            self.assertEqual(tuple(found), expected)

    def test_scope(self) -> None:
        """A CA that is revoked is a refusal if the whole chain is looked up."""
        issuing = certificates.intermediateAuthority()
        chained = certificates.chained()
        below = self.write("below.crl", issuing.revocationList().public_bytes(PEM))
        self.writeCRL(certificates.Credentials(issuing.certificate, chained.key))
        client = replace(self.client, own=Own((self.writePair("chained", chained.own()),)))
        trust = Trust(stores=(self.ca,), crls=(self.crl, below))
        self.assertEqual(self.judged(replace(self.server, trust=trust), client), "")
        trust = replace(trust, crlScope=CRLScope.CHAIN)
        self.assertEqual(
            self.judged(replace(self.server, trust=trust), client), "certificate-revoked"
        )

    def test_scopeWithAnchorBelow(self) -> None:
        """
        So it is if the CA that is revoked is in the trust store, together with
        its root.  Without the root it is trusted whatever the root says.
        """
        issuing = certificates.intermediateAuthority()
        chained = certificates.chained()
        both = self.write("both.pem", issuing.certificatePEM + self.authority.certificatePEM)
        below = self.write("below.crl", issuing.revocationList().public_bytes(PEM))
        client = replace(self.client, own=Own((self.writePair("chained", chained.own()),)))
        trust = Trust((both,), (self.crl, below), CRLScope.CHAIN)
        server = replace(self.server, trust=trust)
        self.assertEqual(self.judged(server, client), "")
        self.writeCRL(certificates.Credentials(issuing.certificate, chained.key))
        self.assertEqual(self.judged(server, client), "certificate-revoked")
        alone = self.write("issuing.pem", issuing.certificatePEM)
        trust = replace(trust, stores=(alone,))
        self.assertEqual(self.judged(replace(self.server, trust=trust), client), "")

    def test_withoutAuthorities(self) -> None:
        """Where pins decide alone no CA is asked for, but a certificate is."""
        trust = Trust(stores=(), pins=frozenset([b"pin"]))
        server = replace(self.server, trust=trust)
        own = Own((self.writePair("self", certificates.selfSigned().own()),))
        self.assertEqual(self.judged(server, replace(self.client, own=own)), "")
        ours, theirs = self.load(server, self.client).profiles
        self.assertEqual(self.verdict(ours.server, theirs.anonymousClient), "certificate-required")

    def test_rulesNeedACertificate(self) -> None:
        """Where rules say who may come in, nobody does without a certificate."""
        for access, expected in (
            (Access(), ""),
            (Access(deny=[parseRule("dns:bad.lab")]), ""),
            (Access(allow=[parseRule("dns:client.lab")]), "certificate-required"),
            (Access(addressInCertificate=True), "certificate-required"),
        ):
            server = replace(self.server, access=access)
            ours, theirs = self.load(server, self.client).profiles
            self.assertEqual(self.verdict(ours.server, theirs.anonymousClient), expected)

    def test_purposes(self) -> None:
        """Unless RFC 9289's purposes mean nothing, purposes are not OpenSSL's business."""
        own = Own((self.writePair("serverOnly", certificates.serverOnly().own()),))
        for demand, expected in (
            (Demand.OFF, "wrong-key-purpose"),
            (Demand.ACCEPT, ""),
            (Demand.REQUIRE, ""),
        ):
            trust = replace(self.server.trust, rpcPurpose=demand)
            server = replace(self.server, trust=trust)
            self.assertEqual(self.judged(server, replace(self.client, own=own)), expected)

    def test_resumption(self) -> None:
        """Contexts keep tickets if the profile says so, but no passing ones and none for keys."""
        on = Handshake(resumption=True)
        client = self.contexts(replace(self.client, handshake=on))
        server = self.contexts(replace(self.server, handshake=on))
        lasting = (client.client, client.anonymousClient, server.server)
        found = {context.tickets for context in lasting if context is not None} - {None}
        self.assertEqual(len(found), len(lasting), "each has its own")
        assert client.clientWith is not None
        passing = client.clientWith(certificates.client().own())
        for context in (passing, *client.preSharedKey.values(), *server.preSharedKey.values()):
            self.assertIsNone(context.tickets)
        off = self.contexts(self.client)
        assert off.client is not None
        self.assertIsNone(off.client.tickets)

    def test_ticketsEnd(self) -> None:
        """Tickets end when a CRL ends or begins, and when our own certificate ends."""
        soon = NOW + DAY / 24
        own = self.authority.issue("server.lab", hosts=("server.lab",), notAfter=soon).own()
        ending = self.authority.revocationList(nextUpdate=soon)
        beginning = self.authority.revocationList(thisUpdate=soon)
        end = certificates.server().certificate.not_valid_after_utc
        for changes, until in (
            ({}, end),
            ({"own": Own((self.writePair("soon", own),))}, soon),
            ({"trust": replace(self.server.trust, crls=(self.writeCRLs(ending),))}, soon),
            ({"trust": replace(self.server.trust, crls=(self.writeCRLs(beginning),))}, soon),
        ):
            on: dict[str, Any] = {"handshake": Handshake(resumption=True), **changes}
            context = self.contexts(replace(self.server, **on)).server
            assert context is not None
            assert context.tickets is not None
            proof = context.tickets.proof(())
            self.assertEqual(proof.until, until.timestamp())

    def writeCRLs(self, *lists: x509.CertificateRevocationList) -> str:
        """Write a file with some CRLs."""
        content = b"".join(one.public_bytes(PEM) for one in lists)
        return self.write("more.crl", content)

    def test_handshake(self) -> None:
        """Suites, signature algorithms and ALPN are the profile's."""
        strict = Handshake(
            ("TLS_AES_128_GCM_SHA256",),
            signatureAlgorithms=("ecdsa_secp256r1_sha256",),
            alpn=Demand.REQUIRE,
        )
        server = replace(self.server, handshake=strict)
        self.assertEqual(self.judged(server), "")
        for handshake in (
            Handshake(("TLS_AES_256_GCM_SHA384",)),
            Handshake(signatureAlgorithms=("rsa_pss_rsae_sha256",)),
            Handshake(alpn=Demand.OFF),
        ):
            client = replace(self.client, handshake=handshake)
            self.assertNotEqual(self.judged(server, client), "", str(handshake))

    def test_groups(self) -> None:
        """So are the groups, where OpenSSL lets us choose."""
        server = replace(self.server, handshake=Handshake(groups=("P-384",)))
        client = replace(self.client, handshake=Handshake(groups=("P-256",)))
        if openssl.supportedGroups(("P-384",)):
            self.assertEqual(self.judged(server), "")
            self.assertNotEqual(self.judged(server, client), "")
        else:
            self.assertRaises(ConfigError, self.load, server)

    def test_keyShares(self) -> None:
        """A client sends two key shares, or those that are chosen; a server's choice is its own."""
        if not openssl.supportedGroups(("X25519MLKEM768",)):
            return
        # key_share (RFC 8446, section 4.2.8): X25519MLKEM768, X25519, secp256r1.
        for groups, shares in (
            (DEFAULT_GROUPS, [0x11EC, 0x1D]),
            (("X25519MLKEM768", "*P-256"), [0x17]),
        ):
            client = replace(self.client, handshake=Handshake(groups=groups))
            context = self.contexts(client).anonymousClient
            assert context is not None
            hello = TLSEngine(
                TLSParameters(Role.CLIENT, context, None, lambda _chain: None)
            ).start()
            self.assertEqual(keyShares(hello), shares)
            self.load(replace(self.server, handshake=Handshake(groups=groups)))


class TokenTests(_ProfilesTestCase):
    """Keys in tokens are loaded later."""

    def setUp(self) -> None:
        super().setUp()
        self.uri = "pkcs11:object=own"
        self.key = TokenKey.fromURI(self.uri)

    def inToken(self, profile: Profile) -> Profile:
        """
        Put a profile's key into a token.

        @param profile: the profile.
        @return: the same with its key in the token.
        """
        (files,) = profile.own.certificates
        return replace(profile, own=Own((replace(files, privateKey=self.uri),)))

    def test_later(self) -> None:
        """What needs a key in a token is there once the key is; the rest is from the start."""
        ours = self.contexts(self.inToken(self.server))
        theirs = self.contexts(self.inToken(self.client))
        assert ours.late is not None
        assert theirs.late is not None
        self.assertEqual((ours.late.keys, theirs.late.keys), ([self.key], [self.key]))
        self.assertEqual((theirs.client, theirs.clientCertificate), (None, None))
        assert ours.server is not None
        self.assertFalse(ours.server.hasCertificate)
        self.assertEqual(set(ours.preSharedKey), {SHA256, SHA384})
        self.assertIsNotNone(theirs.anonymousClient)
        self.assertIsNotNone(theirs.clientWith)
        ours = ours.late.make({self.key: certificates.server().own().key})
        theirs = theirs.late.make({self.key: certificates.client().own().key})
        assert ours.server is not None
        self.assertTrue(ours.server.slow)
        self.assertIsNotNone(theirs.anonymousClient)
        self.assertEqual(self.verdict(ours.server, theirs.client), "")
        waiting = self.load(self.inToken(self.client), self.server).late()
        self.assertEqual([late.keys for late in waiting], [[self.key]])

    def test_otherKey(self) -> None:
        """A key that does not belong to its certificate is not used."""
        contexts = self.contexts(self.inToken(self.server))
        assert contexts.late is not None
        keys = {self.key: certificates.client().own().key}
        self.assertRaises(SSL.Error, contexts.late.make, keys)


class MistakesTests(_ProfilesTestCase):
    """Every mistake says what was expected and what was found."""

    def test_allAtOnce(self) -> None:
        """All mistakes of all files are told at once, each one once."""
        missing = Trust(stores=("/nonexistent/ca",), crls=("/nonexistent/crl",))
        own = Own((CertificateFiles("/nonexistent/pem", "/nonexistent/key"),))
        found = self.mistakes(
            replace(self.client, trust=missing),
            replace(self.server, trust=missing, own=own),
        )
        both = "authenticate.client, authenticate.server"
        self.assertEqual(
            [(mistake.section, mistake.key) for mistake in found],
            [
                *((both, f"x509.{key}") for key in ("truststore", "crl")),
                *(("authenticate.server", f"x509.{key}") for key in ("certificate", "private_key")),
            ],
        )

    def test_noSystemStore(self) -> None:
        """A system without trust anchors is one mistake for all that want them."""
        trust = Trust()
        (mistake,) = self.mistakes(
            replace(self.client, trust=trust), replace(self.server, trust=trust)
        )
        self.assertEqual(mistake.key, "x509.truststore")
        self.assertEqual(mistake.found, "none of these files")

    def test_noSuite(self) -> None:
        """Suites none of which the kernel takes are one mistake, with those that it takes."""
        handshake = Handshake(suites=("TLS_CHACHA20_POLY1305_SHA256",))
        kernel = frozenset({"TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"})
        error = self.assertRaises(
            ConfigError, self.load, replace(self.client, handshake=handshake), suites=kernel
        )
        self.assertEqual(
            str(error),
            "[authenticate.client] suites: expected at least one of TLS_AES_128_GCM_SHA256, "
            "TLS_AES_256_GCM_SHA384, which this kernel takes, found TLS_CHACHA20_POLY1305_SHA256",
        )

    def test_unsupported(self) -> None:
        """What this OpenSSL does not have is named, with its version."""
        handshake = Handshake(
            groups=("no-such-group",),
            signatureAlgorithms=("ed25519", "no-such-algorithm"),
        )
        groups, algorithms = self.mistakes(replace(self.client, handshake=handshake))
        self.assertEqual(
            (groups.key, groups.found, groups.advice), ("groups", "no-such-group", "remove them")
        )
        self.assertIn("groups that OpenSSL ", groups.expected)
        self.assertEqual(
            (algorithms.key, algorithms.found, algorithms.advice),
            ("signature_algorithms", "no-such-algorithm", "remove them"),
        )
        self.assertIn("signature algorithms that OpenSSL ", algorithms.expected)

    def test_weakChain(self) -> None:
        """A certificate that OpenSSL does not use is a mistake, wherever in the chain it is."""
        leaf = certificates.CertificateAuthority("Weak").issue("leaf.lab").own()
        weak = self.authority.issueFor(certificates.rsaKey(1024), "Weak")
        files = self.writePair("weak", OwnCertificate((leaf.chain[0], weak.chain[0]), leaf.key))
        (mistake,) = self.mistakes(replace(self.client, own=Own((files,))))
        self.assertEqual(mistake.key, "x509.certificate")
        self.assertEqual(mistake.expected, "certificates that OpenSSL takes")
        self.assertEqual(
            mistake.found, f"one that it does not in {files.certificate} (ca key too small)"
        )

    def test_tags(self) -> None:
        """Tags that are named have to be defined."""
        self.write("tags.d/a.yml", TAGS.encode())
        access = Access(allow=[parseRule("tag:known"), parseRule("tag:a")])
        deny = Access(deny=[parseRule("tag:b"), parseRule("dns:*.lab")])
        found = self.mistakes(
            replace(self.client, tags=("known", "c"), access=access),
            replace(self.server, access=deny),
        )
        self.assertEqual(
            [(mistake.section, mistake.key, mistake.found) for mistake in found],
            [
                ("authenticate.client", "tags", "'c'"),
                ("authenticate.client", "allow", "'a'"),
                ("authenticate.server", "deny", "'b'"),
            ],
        )
        self.assertEqual({mistake.advice for mistake in found}, {"defined are known"})
        os.remove(os.path.join(self.directory, "tags.d", "a.yml"))
        (mistake,) = self.mistakes(replace(self.server, tags=("x",)))
        self.assertEqual(mistake.advice, "defined are none")

    def test_badTags(self) -> None:
        """Mistakes in the definitions of tags are told with those in other files."""
        self.write("tags.d/a.yml", b"tags: 1\n")
        missing = Trust(stores=("/nonexistent/ca",))
        found = self.mistakes(replace(self.client, trust=missing, tags=("x",)))
        self.assertEqual(found[0].key, "x509.truststore")
        self.assertGreater(len(found), 1)

    def test_noSecrets(self) -> None:
        """No mistake quotes a key's file."""
        content = b"-----BEGIN PRIVATE KEY-----\nSECRETSECRET\n-----END PRIVATE KEY-----\n"
        files = CertificateFiles(self.ca, self.write("broken.key", content))
        (mistake,) = self.mistakes(replace(self.client, own=Own((files,))))
        self.assertNotIn("SECRET", str(mistake))


class KnowledgeTests(_ProfilesTestCase):
    """What is known about the files afterwards."""

    def test_paths(self) -> None:
        """All files and directories that were read are to be watched."""
        directory = os.path.join(self.directory, "cas")
        os.mkdir(directory)
        member = self.write("cas/a.crt", self.authority.certificatePEM)
        client = replace(self.client, trust=Trust(stores=(directory,)))
        names = ("ca.pem", "ca.crl", "server.pem", "server.key", "client.pem", "client.key")
        self.assertEqual(
            self.load(client, self.server).paths,
            {
                *(os.path.join(self.directory, name) for name in names),
                directory,
                member,
                os.path.join(self.directory, "tags.d"),
            },
        )

    def test_delta(self) -> None:
        """What a reload changes can be told: anchors, CRLs and our certificates."""
        old = self.load()
        self.assertEqual(delta(old.inventory, self.load().inventory), [])
        self.writeCRL(certificates.client(), number=2)
        self.write("ca.pem", certificates.otherAuthority().certificatePEM)
        self.writePair("server", certificates.chained().own())
        found = delta(old.inventory, self.load().inventory)
        beginnings = (
            "added the trust anchor CN=Other CA ",
            "removed the trust anchor CN=Lab CA ",
            "replaced the CRL of CN=Lab CA, key ",
            "replaced the certificate in ",
        )
        self.assertEqual(len(found), len(beginnings))
        for sentence, beginning in zip(found, beginnings, strict=True):
            self.assertTrue(sentence.startswith(beginning), sentence)
        serial = certificates.client().certificate.serial_number
        self.assertIn(f"1 newly revoked ({serial:040x})", found[2])

    def test_severalCRLs(self) -> None:
        """Of the CRLs of an issuer the newest is told of, also if profiles name different ones."""
        newer = self.authority.revocationList(number=7, thisUpdate=NOW)
        trust = replace(self.server.trust, crls=(self.write("7.crl", newer.public_bytes(PEM)),))
        loaded = self.load(self.server, replace(self.server, trust=trust))
        self.assertEqual([crl.number for crl in loaded.inventory.crls.values()], [7])
        later = self.authority.revocationList(number=8, thisUpdate=NOW + DAY)
        self.write("7.crl", newer.public_bytes(PEM) + later.public_bytes(PEM))
        loaded = self.load(replace(self.server, trust=trust))
        self.assertEqual([crl.number for crl in loaded.inventory.crls.values()], [7])
        self.assertEqual(len(warnings(loaded.expiries, NOW)), 1)

    def test_expiries(self) -> None:
        """It is known until when certificates, CRLs and anchors are good."""
        trust = replace(self.server.trust, tolerated=frozenset({Tolerated.EXPIRED}))
        found = self.load(replace(self.server, trust=trust)).expiries
        self.assertEqual(
            [expiry.what.partition(", key")[0] for expiry in found],
            ["the certificate CN=server.lab", "the CRL of CN=Lab CA", "the trust anchor CN=Lab CA"],
        )
        self.assertEqual(len(warnings(found, NOW + 29 * DAY)), 3)

    def test_notices(self) -> None:
        """A CRL of a CA that is in no trust store is no mistake, but odd."""
        self.assertEqual(self.load().notices, [])
        self.assertEqual(self.load(self.client).notices, [])
        crl = self.write("b.crl", certificates.otherAuthority().revocationList().public_bytes(PEM))
        trust = replace(self.server.trust, crls=(self.crl, crl))
        (notice,) = self.load(replace(self.server, trust=trust)).notices
        self.assertEqual(
            notice,
            f"the CRL of CN=Other CA in {crl} is of no CA of a trust store: it counts only where "
            "a peer sends that CA's certificate",
        )

    def test_chainMissing(self) -> None:
        """Our certificate alone, of a CA that nobody here knows, is no mistake, but odd."""
        chained = certificates.chained()
        alone = self.write("alone.pem", chained.certificate.public_bytes(PEM))
        pair = CertificateFiles(alone, self.write("alone.key", chained.keyPEM))
        profile = replace(self.server, own=Own((pair,)))
        (notice,) = self.load(profile).notices
        self.assertIn(f"the certificate CN=server.lab in {alone} is sent alone", notice)
        self.assertIn("CN=Lab Issuing CA, is in no trust store here", notice)
        self.write("alone.pem", chained.certificatePEM)
        self.assertEqual(self.load(profile).notices, [])
        own = certificates.selfSigned()
        pair = CertificateFiles(
            self.write("self.pem", own.certificatePEM), self.write("self.key", own.keyPEM)
        )
        self.assertEqual(self.load(replace(self.server, own=Own((pair,)))).notices, [])

    def test_tags(self) -> None:
        """The tags are there."""
        self.write("tags.d/a.yml", TAGS.encode())
        self.assertEqual(self.load().tags.names, {"known"})
