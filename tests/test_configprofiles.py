"""Tests for L{ktlsagent.config.profiles}."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.config import DEFAULT_PROFILES, parseConfig
from ktlsagent.config.keys import MATCH_KEYS
from ktlsagent.config.profiles import defaultSection
from ktlsagent.errors import ConfigError, Mistake
from ktlsagent.peers.authorisation import Access, parseRule
from ktlsagent.profiles import (
    CertificateFiles,
    CRLScope,
    Handshake,
    Match,
    Own,
    Profile,
    Tolerated,
    Trust,
)
from ktlsagent.protocols.handshakefamily import AuthMode
from ktlsagent.protocols.session import Demand, Role

DIGEST = bytes(32)
PIN = f"sha256:{DIGEST.hex()}"
DEFAULT_MATCHES = [profile.match for profile in DEFAULT_PROFILES]

# A section with every key, but for the preset and what it would contradict.
EVERYTHING = f"""\
[profile.all]
role=server
mode=x509;unauth
local=192.0.2.0/24
peer=2001:db8::/32
local_port=2049
peer_port=600-1023
keyring=.nfs
namespace=blue
x509.truststore=/ca.pem;/cas;system
x509.crl=/ca.crl;/crls
crl_scope=chain
crl_tolerate=missing
spki_pins={PIN}
rsa_bits=3072
rpc_purpose=require
x509.certificate=/ec.pem;/rsa.pem
x509.private_key=/ec.key;pkcs11:token=t;object=o
x509.pq.certificate=/pq.pem
x509.pq.private_key=/pq.key
token_pin=credential:pin
own_expired=accept
suites=TLS_AES_256_GCM_SHA384
groups=X25519
signature_algorithms=mldsa65;ecdsa_secp256r1_sha256
alpn=require
allow=dns:*.example.org
deny=dns:bad.example.org
client_address=require
tags=lab
"""


class ProfilesTestCase(SynchronousTestCase):
    """What the test cases below have in common."""

    def profiles(self, text: str) -> Sequence[Profile]:
        """
        Parse a configuration without mistakes.

        @param text: the configuration.
        @return: its profiles but the defaults, which come last and match everything.
        """
        *profiles, client, server = parseConfig(text, None).profiles
        self.assertEqual([client.match, server.match], DEFAULT_MATCHES)
        self.assertEqual(client.name, "authenticate.client")
        self.assertEqual(server.name, "authenticate.server")
        return profiles

    def one(self, text: str) -> Profile:
        """
        Parse a configuration with one profile for one role.

        @param text: the configuration.
        @return: the profile.
        """
        profiles = self.profiles(text)
        self.assertEqual(len(profiles), 1, profiles)
        return profiles[0]

    def mistakes(self, text: str) -> Sequence[Mistake]:
        """
        Parse a configuration with mistakes.

        @param text: the configuration.
        @return: the mistakes, each of which says everything.
        """
        error: ConfigError = self.assertRaises(ConfigError, parseConfig, text, None)
        for mistake in error.mistakes:
            self.assertTrue(mistake.expected and mistake.found and mistake.advice, mistake)
        return error.mistakes

    def mistake(self, text: str, line: int, found: str) -> Mistake:
        """
        Parse a configuration with one mistake.

        @param text: the configuration.
        @param line: its line.
        @param found: what is found there.
        @return: the mistake.
        """
        mistakes = self.mistakes(text)
        self.assertEqual([(one.line, one.found) for one in mistakes], [(line, found)])
        return mistakes[0]


class ProfileTests(ProfilesTestCase):
    """Tests for what a section becomes."""

    def test_everything(self) -> None:
        """Every key has its place."""
        self.assertEqual(
            self.one(EVERYTHING),
            Profile(
                "profile.all",
                Match(
                    roles=(Role.SERVER,),
                    modes=(AuthMode.X509, AuthMode.UNAUTH),
                    local=(ipaddress.ip_network("192.0.2.0/24"),),
                    peer=(ipaddress.ip_network("2001:db8::/32"),),
                    localPorts=(range(2049, 2050),),
                    peerPorts=(range(600, 1024),),
                    keyrings=(".nfs",),
                    namespaces=("blue",),
                ),
                Trust(
                    stores=("/ca.pem", "/cas", "system"),
                    crls=("/ca.crl", "/crls"),
                    crlScope=CRLScope.CHAIN,
                    tolerated=frozenset({Tolerated.MISSING}),
                    pins=frozenset({DIGEST}),
                    rsaBits=3072,
                    rpcPurpose=Demand.REQUIRE,
                ),
                Own(
                    certificates=(
                        CertificateFiles("/pq.pem", "/pq.key"),
                        CertificateFiles("/ec.pem", "/ec.key"),
                        CertificateFiles("/rsa.pem", "pkcs11:token=t;object=o"),
                    ),
                    pin="credential:pin",
                    acceptExpired=True,
                ),
                Handshake(
                    suites=("TLS_AES_256_GCM_SHA384",),
                    groups=("X25519",),
                    signatureAlgorithms=("mldsa65", "ecdsa_secp256r1_sha256"),
                    alpn=Demand.REQUIRE,
                ),
                Access(
                    allow=(parseRule("dns:*.example.org"),),
                    deny=(parseRule("dns:bad.example.org"),),
                    addressInCertificate=True,
                ),
                ("lab",),
            ),
        )

    def test_order(self) -> None:
        """
        Profiles have the order of the file, wherever the sections of the roles
        are, and the parts of a section are together where it begins.
        """
        text = (
            "[profile.b]\nrole=client\n[authenticate.server]\nrsa_bits=3072\n"
            "[profile.a]\nrole=server\nlocal=::1\n[profile.b]\nname=a\n"
        )
        self.assertEqual(
            [profile.name for profile in self.profiles(text)], ["profile.b", "profile.a"]
        )
        self.assertEqual(self.profiles(text)[0].match.names, ("a",))

    def test_bothRoles(self) -> None:
        """A section without a role is two profiles, each of which inherits from its own role."""
        client, server = self.profiles(
            "[profile.a]\nlocal=::1\n[authenticate.client]\nx509.crl=/a\n"
            "[authenticate.server]\nx509.crl=/b\n"
        )
        self.assertEqual((client.match.roles, client.trust.crls), ((Role.CLIENT,), ("/a",)))
        self.assertEqual((server.match.roles, server.trust.crls), ((Role.SERVER,), ("/b",)))
        self.assertEqual(client.name, server.name)

    def test_onlyClients(self) -> None:
        """What only a client can match is a profile for clients alone."""
        for condition in ("name=*.example.org", "mode=unauth", "role=client;server\nname=a"):
            profile = self.one(f"[profile.a]\n{condition}\n")
            self.assertEqual(profile.match.roles, (Role.CLIENT,))

    def test_defaultSections(self) -> None:
        """The sections of the roles have the same keys, and one that has none its own defaults."""
        _, *everything = EVERYTHING.splitlines()
        lines = [line for line in everything if line.partition("=")[0] not in MATCH_KEYS]
        text = "\n".join(["[authenticate.server]", *lines])
        client, server = parseConfig(text, None).profiles
        same = self.one(EVERYTHING)
        self.assertEqual(
            (server.trust, server.own, server.handshake, server.access, server.tags),
            (same.trust, same.own, same.handshake, same.access, same.tags),
        )
        self.assertEqual(client, DEFAULT_PROFILES[0])

    def test_nameOfDefault(self) -> None:
        """The section of a role is named as tlshd names it."""
        self.assertEqual(
            [defaultSection(role) for role in Role], [p.name for p in DEFAULT_PROFILES]
        )


class InheritanceTests(ProfilesTestCase):
    """Tests for where a missing value comes from."""

    def test_steps(self) -> None:
        """
        A value comes from the section, else from its preset, else from the
        role's section, else from what is for all, else it is the default.
        """
        steps = (
            ("", Handshake().suites),
            ("[ktlsagent]\nsuites=TLS_AES_128_CCM_SHA256\n", ("TLS_AES_128_CCM_SHA256",)),
            (
                "[authenticate.client]\nsuites=TLS_CHACHA20_POLY1305_SHA256\n",
                ("TLS_CHACHA20_POLY1305_SHA256",),
            ),
            (
                "[profile.a]\nrole=client\npreset=nvme\n",
                ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"),
            ),
            ("[profile.a]\nsuites=TLS_AES_128_GCM_SHA256\n", ("TLS_AES_128_GCM_SHA256",)),
        )
        text = "[profile.a]\nrole=client\n"
        for more, suites in steps:
            text += more.replace("role=client\n", "")
            self.assertEqual(self.one(text).handshake.suites, suites)

    def test_presetBeforeRole(self) -> None:
        """What a preset sets comes before what the role's section says, but for its own keys."""
        role = "[authenticate.server]\nalpn=require\nrpc_purpose=off\n"
        server = self.one(f"{role}[profile.a]\npreset=nfs-server\n")
        self.assertEqual(server.handshake.alpn, Demand.ACCEPT)
        self.assertEqual(server.trust.rpcPurpose, Demand.ACCEPT)
        self.assertEqual(
            (server.match.roles, server.match.modes), ((Role.SERVER,), (AuthMode.X509,))
        )
        server = self.one(f"{role}[profile.a]\npreset=nfs-server\nalpn=require\n")
        self.assertEqual(server.handshake.alpn, Demand.REQUIRE)

    def test_identity(self) -> None:
        """
        Certificates, keys and the PIN come together: a section with a
        certificate of its own has nothing of the role's, one without has all of it.
        """
        role = (
            "[authenticate.server]\nx509.certificate=/a\nx509.private_key=/ak\n"
            "x509.pq.certificate=/q\nx509.pq.private_key=/qk\ntoken_pin=/pin\nown_expired=accept\n"
        )
        inherited = self.one(f"{role}[profile.a]\nrole=server\n").own
        self.assertEqual(
            inherited,
            Own((CertificateFiles("/q", "/qk"), CertificateFiles("/a", "/ak")), "/pin", True),
        )
        for kind in ("x509", "x509.pq"):
            text = (
                f"{role}[profile.a]\nrole=server\n{kind}.certificate=/b\n{kind}.private_key=/bk\n"
            )
            self.assertEqual(self.one(text).own, Own((CertificateFiles("/b", "/bk"),), None, True))

    def test_nothingIsInherited(self) -> None:
        """A section can say that it has nothing of what its role has."""
        role = (
            f"[authenticate.server]\nx509.crl=/a\ncrl_tolerate=missing\nspki_pins={PIN}\n"
            "allow=dns:a\ndeny=dns:b\nclient_address=require\ntags=none\n"
        )
        text = (
            f"{role}[profile.a]\nrole=server\nx509.crl=none\ncrl_tolerate=none\nspki_pins=none\n"
            "allow=any\ndeny=none\nclient_address=off\ntags=all\n"
        )
        profile = self.one(text)
        self.assertEqual((profile.trust, profile.access, profile.tags), (Trust(), Access(), None))

    def test_pinsAlone(self) -> None:
        """Where pins decide alone, CRLs of the role's section are left out."""
        profile = self.one(
            "[authenticate.server]\nx509.crl=/a\n"
            f"[profile.a]\nrole=server\nx509.truststore=none\nspki_pins={PIN}\n"
        )
        self.assertEqual(profile.trust, Trust(stores=(), pins=frozenset({DIGEST})))


class ContradictionTests(ProfilesTestCase):
    """Tests for keys that do not go together."""

    def test_presets(self) -> None:
        """The conditions of a preset can be narrowed, not contradicted."""
        for lines, modes in (
            ("preset=nfs-client\nmode=unauth", (AuthMode.UNAUTH,)),
            ("preset=nfs-client\nrole=client", (AuthMode.X509, AuthMode.UNAUTH)),
            ("preset=nvme\nrole=client\nmode=psk", (AuthMode.PSK,)),
        ):
            profile = self.one(f"[profile.a]\n{lines}\n")
            self.assertEqual((profile.match.roles, profile.match.modes), ((Role.CLIENT,), modes))
        for lines, expected, found in (
            ("preset=nfs-client\nrole=server", "only client with preset=nfs-client", "server"),
            (
                "preset=nfs-client\nrole=server;client",
                "only client with preset=nfs-client",
                "client;server",
            ),
            ("preset=nfs-server\nmode=unauth", "only x509 with preset=nfs-server", "unauth"),
            ("preset=nvme\nmode=x509;psk", "only psk with preset=nvme", "x509;psk"),
            (
                "preset=nfs-client\nmode=psk\nrsa_bits=2048",
                "only x509;unauth with preset=nfs-client",
                "psk",
            ),
        ):
            mistake = self.mistake(f"[profile.a]\n{lines}\n", 3, found)
            self.assertEqual(mistake.expected, expected)
            self.assertIn("on line 2", mistake.advice)

    def test_impossible(self) -> None:
        """Conditions that never hold are refused."""
        for lines, key, advice in (
            ("role=server\nname=a", "name", "only a client knows"),
            ("preset=nfs-server\nname=a", "name", "only a client knows"),
            ("role=server\nmode=unauth", "mode", "nfsd asks for x509"),
        ):
            mistake = self.mistake(f"[profile.a]\n{lines}\n", 3, "role=server")
            self.assertEqual(mistake.key, key)
            self.assertIn(advice, mistake.advice)

    def test_modeWithoutEffect(self) -> None:
        """
        Keys about certificates are refused where there are none, and keys about
        our own where we show none.
        """
        for mode, line, expected in (
            ("psk", "x509.truststore=/a", "mode=x509;unauth for this key"),
            ("psk", "allow=dns:a", "mode=x509;unauth for this key"),
            ("psk", "alpn=require", "mode=x509;unauth for this key"),
            ("psk", "resumption=on", "mode=x509;unauth for this key"),
            ("x509", "psk_alert=decrypt_error", "mode=psk for this key"),
            ("psk", "own_expired=accept", "mode=x509 for this key"),
            ("unauth", "own_expired=accept", "mode=x509 for this key"),
        ):
            mistake = self.mistake(f"[profile.a]\nmode={mode}\n{line}\n", 3, f"mode={mode}")
            self.assertEqual(mistake.expected, expected)
        certificate = "x509.certificate=/a\nx509.private_key=/b\n"
        mistakes = self.mistakes(f"[profile.a]\npreset=nvme\n{certificate}")
        self.assertEqual([mistake.line for mistake in mistakes], [3, 4])
        for lines in ("mode=psk\nalpn=off\ngroups=X25519", f"mode=psk;x509\n{certificate}"):
            self.profiles(f"[profile.a]\n{lines}\n")

    def test_roleWithoutEffect(self) -> None:
        """Keys about clients are refused where we are the client."""
        for section, line in (("profile.a", 3), ("authenticate.client", 2)):
            for key in ("client_address=require", "tags=lab"):
                role = "role=client\n" if section == "profile.a" else ""
                mistake = self.mistake(f"[{section}]\n{role}{key}\n", line, "role=client")
                self.assertEqual(mistake.expected, "role=server for this key")
        self.profiles("[profile.a]\nlocal=::1\ntags=lab\nclient_address=require\n")
        self.profiles("[profile.a]\nrole=client\nclient_address=off\n")

    def test_pairs(self) -> None:
        """There is a key for each certificate."""
        for kind in ("x509", "x509.pq"):
            text = f"[profile.a]\n{kind}.certificate=/a;/b\n{kind}.private_key=/a\n"
            mistake = self.mistake(text, 2, "2")
            self.assertEqual(
                mistake.expected, f"as many files as there are in {kind}.private_key, which are 1"
            )
            self.assertIn("on line 3", mistake.advice)

    def test_pinWithoutKey(self) -> None:
        """The PIN is beside the keys that it is for."""
        text = "[profile.a]\ntoken_pin=/pin\n[authenticate.server]\n"
        text += "x509.certificate=/a\nx509.private_key=/b\n"
        self.mistake(text, 2, "no key")
        self.profiles(
            "[profile.a]\nx509.pq.certificate=/a\nx509.pq.private_key=pkcs11:a\ntoken_pin=/pin\n"
        )

    def test_nobodyTrusted(self) -> None:
        """
        Without trust store and pins nobody would be trusted, whichever of them
        is in the section.
        """
        pinned = f"[authenticate.server]\nx509.truststore=none\nspki_pins={PIN}\n"
        for lines, line in (
            ("[profile.a]\nx509.truststore=none\n", 2),
            ("[authenticate.server]\nx509.truststore=none\n", 2),
            (f"{pinned}[profile.a]\nrole=server\nspki_pins=none\n", 6),
            # The fault of the role's section is not one of the profile's.
            ("[profile.a]\nrole=server\n[authenticate.server]\nx509.truststore=none\n", 4),
        ):
            self.mistake(lines, line, "no pins, so nobody would be trusted")

    def test_CRLsWithoutChain(self) -> None:
        """CRLs are refused where no chain is looked at."""
        pins = f"x509.truststore=none\nspki_pins={PIN}\n"
        self.mistake(f"[profile.a]\n{pins}x509.crl=/a\n", 4, "CRLs")
        self.mistake(
            f"[profile.a]\nrole=server\nx509.crl=/a\n[authenticate.server]\n{pins}", 3, "CRLs"
        )
        self.profiles(f"[profile.a]\n{pins}x509.crl=none\n")


class OrderTests(ProfilesTestCase):
    """Tests for profiles that no request gets to."""

    def test_covered(self) -> None:
        """
        A profile below one that takes all that it is for is refused, whether that
        has no conditions, the same or wider ones.
        """
        for wide, narrow in (
            ("", "role=server"),
            ("", ""),
            ("role=server", "role=server\nlocal=::1"),
            ("preset=nfs-server", "preset=nfs-server\nlocal=::1"),
            ("mode=x509;unauth", "preset=nfs-server"),
            ("local=::1;192.0.2.0/24", "role=client\nlocal=192.0.2.0/24\nname=a"),
        ):
            text = f"[profile.a]\n{wide}\n[profile.b]\n{narrow}\n"
            line = text[: text.index("[profile.b]")].count("\n") + 1
            mistake = self.mistake(
                text, line, "[profile.a] above it, which takes all that it is for"
            )
            self.assertEqual((mistake.section, mistake.key), ("profile.b", ""))

    def test_notCovered(self) -> None:
        """A profile that some request may get to is not."""
        for wide, narrow in (
            ("role=server", ""),
            ("role=server\nlocal=::1", "role=server"),
            ("preset=nfs-client", "role=client"),
            ("preset=nfs-client", "preset=nvme"),
            ("local=::1", "local=::1;::2"),
            ("local=::/0", "local=::1"),
            ("local=::1\nlocal_port=1", "local=::1"),
        ):
            profiles = self.profiles(f"[profile.a]\n{wide}\n[profile.b]\n{narrow}\n")
            self.assertEqual({profile.name for profile in profiles}, {"profile.a", "profile.b"})

    def test_byTwo(self) -> None:
        """One profile may be covered by two, one for each role."""
        text = "[profile.a]\nrole=client\n[profile.b]\nrole=server\n[profile.c]\nlocal=::1\n"
        self.mistake(text, 5, "[profile.a] above it, which takes all that it is for")
