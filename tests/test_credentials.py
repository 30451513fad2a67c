"""Tests for L{ktlsagent.credentials}."""

from __future__ import annotations

import os
from dataclasses import replace

from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent import credentials
from ktlsagent.config import AgentConfig, RoleConfig
from ktlsagent.credentials import loadContexts
from ktlsagent.errors import ConfigError, Mistake
from ktlsagent.policy import ContextSet
from ktlsagent.protocols import openssl
from ktlsagent.protocols.context import OwnCertificate
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.psk import SHA256, SHA384
from ktlsagent.protocols.session import Role
from tests.support import certificates

ALL = frozenset(CIPHER_SUITES)


class _FilesTestCase(SynchronousTestCase):
    """Has a directory with good files, and a configuration that names them."""

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        good = certificates.server()
        revoked = certificates.authority().revocationList(certificates.client())
        self.role = RoleConfig(
            truststore=self.write("ca.pem", certificates.authority().certificatePEM),
            crl=self.write("ca.crl", revoked.public_bytes(serialization.Encoding.PEM)),
            certificate=self.write("own.pem", good.certificatePEM),
            privateKey=self.write("own.key", good.keyPEM),
        )

    def write(self, name: str, content: bytes, mode: int = 0o600) -> str:
        """
        Write a file.

        @param name: its name.
        @param content: its content.
        @param mode: its mode.
        @return: its path.
        """
        path = os.path.abspath(os.path.join(self.directory, name))
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)
        return path

    def load(self, client: RoleConfig, server: RoleConfig | None = None) -> ContextSet:
        """
        Build the contexts.

        @param client: the files of the client.
        @param server: the files of the server; by default the good ones.
        @return: the contexts.
        """
        config = AgentConfig(client=client, server=server or self.role)
        return loadContexts(config, ALL, (self.role.truststore or "",))

    def mistakes(self, client: RoleConfig, server: RoleConfig | None = None) -> list[Mistake]:
        """
        Build contexts from files with mistakes.

        @param client: the files of the client.
        @param server: the files of the server; by default the good ones.
        @return: the mistakes.
        """
        error: ConfigError = self.assertRaises(ConfigError, self.load, client, server)
        return list(error.mistakes)

    def mistake(self, key: str, **changes: str) -> Mistake:
        """
        Build contexts from files with one mistake.

        @param key: the key that it is about.
        @param changes: what is different in the client's files.
        @return: the mistake.
        """
        (mistake,) = self.mistakes(replace(self.role, **changes))
        self.assertEqual((mistake.section, mistake.key), ("authenticate.client", key))
        return mistake


class GoodFilesTests(_FilesTestCase):
    """What comes of files that can be used."""

    def test_all(self) -> None:
        """Client and server get their certificates, the anonymous client none."""
        contexts = self.load(self.role)
        assert contexts.client is not None
        self.assertTrue(contexts.client.hasCertificate)
        self.assertTrue(contexts.server.hasCertificate)
        self.assertFalse(contexts.anonymousClient.hasCertificate)

    def test_nothingConfigured(self) -> None:
        """Without any configuration the system's trust anchors are used, without certificates."""
        contexts = self.load(RoleConfig(), RoleConfig())
        self.assertIsNone(contexts.client)
        self.assertFalse(contexts.server.hasCertificate)

    def test_chain(self) -> None:
        """The file of the certificate has its chain as well."""
        chained = certificates.chained()
        contexts = self.load(
            replace(
                self.role,
                certificate=self.write("chain.pem", chained.certificatePEM),
                privateKey=self.write("chain.key", chained.keyPEM),
            )
        )
        assert contexts.client is not None
        self.assertTrue(contexts.client.hasCertificate)

    def test_storesAreRead(self) -> None:
        """Each trust store is read once, however many contexts use it."""
        read: list[str] = []

        class Store(crypto.X509Store):
            def load_locations(self, cafile: str, capath: str | None = None) -> None:  # type: ignore[override]
                read.append(os.path.basename(cafile))
                super().load_locations(cafile, capath)

        self.patch(crypto, "X509Store", Store)
        self.load(self.role)
        self.assertEqual(read, ["ca.pem"])
        other = self.write("other.pem", certificates.otherAuthority().certificatePEM)
        self.load(self.role, replace(self.role, truststore=other))
        self.assertEqual(read, ["ca.pem", "ca.pem", "other.pem"])

    def test_firstSystemStore(self) -> None:
        """Of the system's trust stores the first that exists is used."""
        assert self.role.truststore is not None
        loadContexts(AgentConfig(), ALL, ("/nonexistent/a", self.role.truststore, self.directory))

    def test_oneSuite(self) -> None:
        """One suite that both the configuration and the kernel have is enough."""
        config = AgentConfig(client=self.role, server=self.role)
        loadContexts(config, frozenset({"TLS_AES_128_GCM_SHA256"}))

    def test_preSharedKeys(self) -> None:
        """There is a context for pre-shared keys for each role and hash, if a suite is left."""
        contexts = self.load(self.role)
        expected = {(role, name) for role in Role for name in (SHA256, SHA384)}
        self.assertEqual(set(contexts.preSharedKey), expected)
        for context in contexts.preSharedKey.values():
            self.assertFalse(context.hasCertificate)
        config = AgentConfig(client=self.role, server=self.role, keyrings=("more",))
        one = loadContexts(config, frozenset({"TLS_AES_128_GCM_SHA256"}))
        self.assertEqual(set(one.preSharedKey), {(role, SHA256) for role in Role})
        self.assertEqual(one.keyrings, ("more",))

    def test_clientWith(self) -> None:
        """A client's context can be had with another certificate, if its key belongs to it."""
        contexts = self.load(self.role)
        own = contexts.clientCertificate
        assert own is not None
        self.assertEqual(own.chain[0].to_cryptography(), certificates.server().certificate)
        other = certificates.client().own()
        self.assertTrue(contexts.clientWith(other).hasCertificate)
        self.assertRaises(SSL.Error, contexts.clientWith, OwnCertificate(own.chain, other.key))
        self.assertIsNone(self.load(RoleConfig()).clientCertificate)

    def test_noDefaultGroup(self) -> None:
        """If OpenSSL has none of the default groups, or does not let us choose, it chooses."""
        self.patch(openssl, "supportedGroups", lambda _names: ())
        self.load(self.role)

    def test_keyOfAGroup(self) -> None:
        """A key may be readable for a group if root owns it, as Debian's ssl-cert has it."""
        for owner, mode, shared in (
            (0, 0o600, False),
            (0, 0o640, False),
            (0, 0o400, False),
            (0, 0o660, True),
            (0, 0o644, True),
            (0, 0o610, True),
            (1000, 0o600, False),
            (1000, 0o640, True),
            (1000, 0o604, True),
        ):
            status = os.stat_result((0o100000 | mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))
            self.assertEqual(credentials._readableByOthers(status), shared, f"{owner} {mode:o}")


class BadFilesTests(_FilesTestCase):
    """Every mistake says what was expected and what was found."""

    def missing(self, key: str, attribute: str) -> None:
        """
        Name a file that is not there.

        @param key: the configuration's key.
        @param attribute: the configuration's attribute.
        """
        mistake = self.mistake(key, **{attribute: "/nonexistent/file"})
        self.assertEqual(mistake.found, "/nonexistent/file: No such file or directory")

    def test_missing(self) -> None:
        """A file that is not there is named."""
        self.missing("x509.crl", "crl")
        self.missing("x509.certificate", "certificate")
        self.missing("x509.private_key", "privateKey")

    def test_missingTrustStore(self) -> None:
        """A trust store that is not there is one mistake, though two contexts want it."""
        self.missing("x509.truststore", "truststore")

    def test_unreadable(self) -> None:
        """A file that cannot be read is named with the system's words."""
        mistake = self.mistake("x509.certificate", certificate=os.path.abspath(self.directory))
        self.assertIn("Is a directory", mistake.found)

    def test_empty(self) -> None:
        """An empty file is none of them."""
        empty = self.write("empty", b"")
        mistake = self.mistake("x509.truststore", truststore=empty)
        self.assertEqual(mistake.found, f"no certificate in {empty}")
        mistake = self.mistake("x509.crl", crl=empty)
        self.assertEqual(mistake.found, f"no CRL in {empty}")
        mistake = self.mistake("x509.certificate", certificate=empty)
        self.assertIn(f"{empty} without one (", mistake.found)
        mistake = self.mistake("x509.private_key", privateKey=empty)
        self.assertIn("none (", mistake.found)
        self.assertIn(f") in {empty}", mistake.found)

    def test_swapped(self) -> None:
        """A key is no certificate, a certificate no key and no CRL."""
        own, key = self.role.certificate or "", self.role.privateKey or ""
        self.assertIn("without one", self.mistake("x509.certificate", certificate=key).found)
        self.assertIn("no CRL", self.mistake("x509.crl", crl=own).found)
        self.assertIn("none (", self.mistake("x509.private_key", privateKey=own).found)
        mistake = self.mistake("x509.truststore", truststore=key)
        self.assertEqual(mistake.found, f"no certificate in {key}")

    def test_brokenCRL(self) -> None:
        """A CRL that cannot be decoded is named."""
        content = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
        broken = self.write("broken.crl", content)
        self.assertIn(f"a broken one in {broken} (", self.mistake("x509.crl", crl=broken).found)

    def test_encryptedKey(self) -> None:
        """An encrypted key is recognised, and nobody is asked for its passphrase."""
        key = certificates.server().key
        for form in (
            serialization.PrivateFormat.PKCS8,
            serialization.PrivateFormat.TraditionalOpenSSL,
        ):
            protection = serialization.BestAvailableEncryption(b"secret")
            content = key.private_bytes(serialization.Encoding.PEM, form, protection)
            path = self.write("locked.key", content)
            mistake = self.mistake("x509.private_key", privateKey=path)
            self.assertEqual(mistake.expected, "a PEM file with an unencrypted private key")
            self.assertEqual(mistake.found, f"an encrypted one in {path}")

    def test_openKey(self) -> None:
        """A key that everybody can read is refused, with the command that helps."""
        path = self.write("open.key", certificates.server().keyPEM, 0o644)
        mistake = self.mistake("x509.private_key", privateKey=path)
        self.assertEqual(mistake.found, f"{path} with mode 0644")
        self.assertEqual(mistake.advice, f"chmod 0600 {path}")

    def test_mismatch(self) -> None:
        """A key that does not belong to the certificate is named with it."""
        path = self.write("other.key", certificates.client().keyPEM)
        mistake = self.mistake("x509.private_key", privateKey=path)
        self.assertEqual(mistake.expected, f"the private key of {self.role.certificate}")
        self.assertIn(f"one that does not belong to it in {path} (", mistake.found)

    def test_noSystemStore(self) -> None:
        """A system without trust anchors is told where they were looked for."""
        config = AgentConfig(client=RoleConfig(), server=self.role)
        error = self.assertRaises(ConfigError, loadContexts, config, ALL, ("/nonexistent/a", "/b"))
        (mistake,) = error.mistakes
        self.assertEqual(mistake.key, "x509.truststore")
        self.assertEqual(mistake.expected, "the system's trust store at /nonexistent/a or /b")
        self.assertEqual(mistake.advice, "install ca-certificates or set x509.truststore")

    def test_noSuite(self) -> None:
        """Suites none of which the kernel takes are one mistake, with those that it takes."""
        config = AgentConfig(
            client=self.role, server=self.role, suites=("TLS_CHACHA20_POLY1305_SHA256",)
        )
        kernel = frozenset({"TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"})
        error = self.assertRaises(ConfigError, loadContexts, config, kernel)
        self.assertEqual(
            str(error),
            "[ktlsagent] suites: expected at least one of TLS_AES_128_GCM_SHA256, "
            "TLS_AES_256_GCM_SHA384, which this kernel takes, found TLS_CHACHA20_POLY1305_SHA256",
        )

    def test_noGroup(self) -> None:
        """A configured group that OpenSSL does not have is one mistake, with its name."""
        config = AgentConfig(client=self.role, server=self.role, groups=("no-such-group",))
        error = self.assertRaises(ConfigError, loadContexts, config, ALL)
        (mistake,) = error.mistakes
        self.assertEqual((mistake.section, mistake.key), ("ktlsagent", "groups"))
        self.assertEqual((mistake.found, mistake.advice), ("no-such-group", "remove them"))

    def test_allAtOnce(self) -> None:
        """All mistakes of both roles are told at once, in order, each one once."""
        empty = self.write("empty", b"")
        bad = RoleConfig(empty, empty, empty, "/nonexistent/key")
        found = [
            (mistake.section, mistake.key)
            for mistake in self.mistakes(bad, replace(bad, truststore="/nonexistent/ca"))
        ]
        self.assertEqual(
            found,
            [
                (f"authenticate.{role}", f"x509.{key}")
                for role in ("client", "server")
                for key in ("truststore", "crl", "certificate", "private_key")
            ],
        )

    def test_noSecrets(self) -> None:
        """No mistake quotes a key's file."""
        content = b"-----BEGIN PRIVATE KEY-----\nSECRETSECRET\n-----END PRIVATE KEY-----\n"
        path = self.write("broken.key", content)
        self.assertNotIn("SECRET", str(self.mistake("x509.private_key", privateKey=path)))

    def test_words(self) -> None:
        """OpenSSL's error queue is put into words, also if it is empty."""
        queue = crypto.Error([("a", "b", "bad base64"), ("c", "d", "no start line")])
        self.assertEqual(credentials._words(queue), "bad base64; no start line")
        self.assertEqual(credentials._words(crypto.Error([])), "no reason given")
        self.assertEqual(credentials._words(ValueError("groups")), "groups")
        self.assertEqual(credentials._words(crypto.Error()), "")
