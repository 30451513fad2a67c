"""Tests for L{ktlsagent.config.keys}."""

from __future__ import annotations

from dataclasses import fields

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.config.keyfile import Entry
from ktlsagent.config.keys import (
    ACCESS_KEYS,
    GROUPS,
    HANDSHAKE_KEYS,
    KEY_MODES,
    KEY_ROLES,
    MATCH_KEYS,
    MODES,
    OWN_KEYS,
    PRESETS,
    PROFILE_KEYS,
    ROLE_KEYS,
    ROLES,
    SIGNATURE_ALGORITHMS,
    TRUST_KEYS,
    Key,
)
from ktlsagent.errors import ConfigError
from ktlsagent.peers.authorisation import Access
from ktlsagent.profiles import CRLScope, Handshake, Match, Own, Tolerated, Trust
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.handshakefamily import AuthMode
from ktlsagent.protocols.record import AlertDescription
from ktlsagent.protocols.session import Demand, Role


class TableTests(SynchronousTestCase):
    """Tests for the tables of keys."""

    def read(self, name: str, value: str) -> object:
        """
        Read a value.

        @param name: its key.
        @param value: the value.
        @return: what is read.
        """
        return PROFILE_KEYS[name].read(Entry("profile.a", name, value, 1))

    def test_everyFieldHasAKey(self) -> None:
        """All that a profile has can be configured, and each by one key."""
        parts: tuple[tuple[type, dict[str, Key]], ...] = (
            (Match, MATCH_KEYS),
            (Trust, TRUST_KEYS),
            (Own, OWN_KEYS),
            (Handshake, HANDSHAKE_KEYS),
            (Access, ACCESS_KEYS),
        )
        for part, keys in parts:
            named = [key.field for key in keys.values() if key.field]
            # Certificates are made of four keys.
            expected = {one.name for one in fields(part)} - {"certificates"}
            self.assertEqual((set(named), len(named)), (expected, len(expected)), part)

    def test_values(self) -> None:
        """Words and numbers are what they say."""
        for name, value, expected in (
            ("preset", "nvme", "nvme"),
            ("role", "server;client", (Role.SERVER, Role.CLIENT)),
            ("mode", "psk;unauth", (AuthMode.PSK, AuthMode.UNAUTH)),
            ("crl_scope", "chain", CRLScope.CHAIN),
            ("crl_scope", "leaf", CRLScope.LEAF),
            ("crl_tolerate", "missing;expired", frozenset(Tolerated)),
            ("crl_tolerate", "none", frozenset()),
            ("rsa_bits", "2048", 2048),
            ("rsa_bits", "16384", 16384),
            ("rpc_purpose", "off", Demand.OFF),
            ("rpc_purpose", "accept", Demand.ACCEPT),
            ("rpc_purpose", "require", Demand.REQUIRE),
            ("own_expired", "refuse", False),
            ("own_expired", "accept", True),
            ("signature_algorithms", "mldsa65;ed25519", ("mldsa65", "ed25519")),
            ("resumption", "off", False),
            ("resumption", "on", True),
            ("psk_alert", "decrypt_error", AlertDescription.DECRYPT_ERROR),
            ("psk_alert", "unknown_psk_identity", AlertDescription.UNKNOWN_PSK_IDENTITY),
            ("alpn", "off", Demand.OFF),
            ("alpn", "prefer", Demand.ACCEPT),
            ("alpn", "require", Demand.REQUIRE),
            ("allow", "any", ()),
            ("deny", "none", ()),
            ("client_address", "off", False),
            ("client_address", "require", True),
        ):
            self.assertEqual(self.read(name, value), expected)

    def test_wrongValues(self) -> None:
        """Words and numbers that are close to those are refused."""
        for name, value in (
            ("preset", "nfs"),
            ("role", "peer"),
            ("mode", "tls"),
            ("crl_scope", "none"),
            ("crl_tolerate", "revoked"),
            ("rsa_bits", "1024"),
            ("rsa_bits", "32768"),
            ("rpc_purpose", "prefer"),
            ("own_expired", "yes"),
            ("signature_algorithms", "rsa_pkcs1_sha1"),
            ("signature_algorithms", "ECDSA+SHA256"),
            ("signature_algorithms", "rsa_pkcs1_sha256;rsa_pkcs1_sha384"),
            ("alpn", "accept"),
            ("resumption", "yes"),
            ("psk_alert", "51"),
            ("psk_alert", "handshake_failure"),
            ("allow", "none"),
            ("deny", "any"),
            ("client_address", "true"),
        ):
            self.assertRaises(ConfigError, self.read, name, value)

    def test_groupsByOtherNames(self) -> None:
        """The names that others have for a group lead to ours."""
        for name, ours in (
            ("prime256v1", "P-256"),
            ("secp384r1", "P-384"),
            ("p-521", "P-521"),
            ("SECP256R1MLKEM768", "SecP256r1MLKEM768"),
        ):
            error: ConfigError = self.assertRaises(ConfigError, self.read, "groups", name)
            self.assertEqual(error.mistakes[0].advice, f"did you mean {ours}?")

    def test_keyShares(self) -> None:
        """Groups for which key shares are sent have a star, and no more than one."""
        self.assertEqual(self.read("groups", "*X25519;P-256"), ("*X25519", "P-256"))
        for wrong in ("**X25519", "*", "* X25519", "X25519*", "*X25520"):
            error: ConfigError = self.assertRaises(ConfigError, self.read, "groups", wrong)
            self.assertEqual(error.mistakes[0].found, repr(wrong))

    def test_shortRSAKeys(self) -> None:
        """Whoever wants shorter RSA keys is told why not."""
        error = self.assertRaises(ConfigError, self.read, "rsa_bits", "1024")
        self.assertIn("replace the certificates", error.mistakes[0].advice)

    def test_defaultsAreKnown(self) -> None:
        """Every default could also be written into the file."""
        self.assertLessEqual(set(Handshake().groups), set(GROUPS))
        self.assertLessEqual(set(Handshake().suites), set(CIPHER_SUITES))

    def test_signatureAlgorithms(self) -> None:
        """There are none with SHA-1, or of TLS 1.2 alone."""
        self.assertEqual(len(set(SIGNATURE_ALGORITHMS)), len(SIGNATURE_ALGORITHMS))
        for name in SIGNATURE_ALGORITHMS:
            self.assertRegex(name, "^(ecdsa|rsa_pss|rsa_pkcs1)_.*sha(256|384|512)$|^ed|^mldsa")

    def test_effects(self) -> None:
        """
        Keys about certificates have no effect with pre-shared keys, and those
        about our own none if we show none; only suites and groups always have, and one is
        about pre-shared keys alone.
        """
        self.assertEqual(list(KEY_MODES["psk_alert"]), [AuthMode.PSK])
        for name in set(ROLE_KEYS) - {"psk_alert"}:
            self.assertEqual(AuthMode.PSK in KEY_MODES[name], name in ("suites", "groups"))
            self.assertIn(AuthMode.X509, KEY_MODES[name])
            shown = name.startswith(("x509.certificate", "x509.private_key", "x509.pq"))
            shown = shown or name in ("token_pin", "own_expired")
            self.assertEqual(AuthMode.UNAUTH in KEY_MODES[name], not shown)
        self.assertLessEqual(set(KEY_ROLES), set(ROLE_KEYS))

    def test_words(self) -> None:
        """Roles and modes have the kernel's names."""
        self.assertEqual(list(ROLES), ["client", "server"])
        self.assertEqual(list(MODES), ["x509", "unauth", "psk"])


class PresetTests(SynchronousTestCase):
    """Tests for the presets."""

    def test_NFS(self) -> None:
        """
        NFS is x509, or unauth for clients without a certificate; C{sunrpc} and the
        key purposes of RPC are used where the peer has them.
        """
        for name, role, modes in (
            ("nfs-client", Role.CLIENT, {AuthMode.X509, AuthMode.UNAUTH}),
            ("nfs-server", Role.SERVER, {AuthMode.X509}),
        ):
            preset = PRESETS[name]
            self.assertEqual((preset["role"], set(preset["mode"])), ((role,), modes))
            self.assertEqual((preset["alpn"], preset["rpc_purpose"]), (Demand.ACCEPT,) * 2)

    def test_NVMe(self) -> None:
        """NVMe/TCP has pre-shared keys, a suite for either hash, and no ALPN."""
        preset = PRESETS["nvme"]
        self.assertEqual((preset["mode"], preset["alpn"]), ((AuthMode.PSK,), Demand.OFF))
        hashes = [CIPHER_SUITES[name].hash for name in preset["suites"]]
        self.assertEqual(hashes, ["sha384", "sha256"])

    def test_everyKeyIsKnown(self) -> None:
        """A preset sets nothing that could not be written."""
        for preset in PRESETS.values():
            self.assertLessEqual(set(preset), set(PROFILE_KEYS))
