"""
Tests for L{ktlsagent.credentials.tokenload} without a token: a key that is encrypted asks for a
PIN as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.bindings import _rust
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.credentials import tokenload
from ktlsagent.credentials.tokenload import PIN_REFUSED, load
from ktlsagent.credentials.tokens import PKCS11, TPM, TokenKey
from ktlsagent.errors import HandshakeError, KeyUnusable, TokenFailed, TokenLost
from tests.support import certificates
from tests.support.folder import FolderTestCase, ownFolder

PRESENT = Path(str(_rust.__file__)).stem
"""A module that is in this process, as a provider's would be: cryptography's own."""

PIN = b"0815"


def encrypted() -> bytes:
    """
    Make a file with a key.

    @return: the key, which asks for L{PIN}.
    """
    return certificates.server().key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PIN),
    )


class LoadTestCase(FolderTestCase):
    """
    Has keys and PINs.

    @ivar elsewhere: how often another process was asked, which has no token.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "environ", {**os.environ, "OPENSSL_CONF": "/nowhere/openssl.cnf"})
        self.elsewhere = 0

    def nowhere(self) -> None:
        """Have other processes find no token."""

        def ask(_key: TokenKey) -> None:
            self.elsewhere += 1
            raise TokenFailed("token-unavailable", "none there either")

        self.patch(tokenload, "_loadElsewhere", ask)

    def everywhere(self) -> None:
        """Have other processes find the token."""
        self.patch(tokenload, "_loadElsewhere", lambda _key: None)

    def key(self, provider: str, pin: bytes | None = PIN, data: bytes | None = None) -> TokenKey:
        """
        Name a key.

        @param provider: who leads to it.
        @param pin: what is in its PIN's file, if there is one.
        @param data: what it is loaded from.
        @return: the key.
        """
        place = None
        if pin is not None:
            file = ownFolder(self) / "pin"
            file.write_bytes(pin)
            file.chmod(0o600)
            place = str(file)
        return TokenKey("/etc/key.pem", provider, data or encrypted(), place)

    def assertRefused(self, kind: type[HandshakeError], code: str, key: TokenKey) -> str:
        """
        Check that a key cannot be loaded.

        @param kind: the kind of error.
        @param code: its code.
        @param key: the key.
        @return: the reason, which names the key and no PIN.
        """
        error = self.assertRaises(kind, load, key)
        assert isinstance(error, HandshakeError)
        self.assertEqual((type(error), error.code), (kind, code), error.reason)
        self.assertIn("/etc/key.pem", error.reason)
        self.assertNotIn(PIN.decode(), error.reason)
        # Nothing of it is in what a traceback would show.
        shown = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        self.assertIsNone(shown)
        return error.reason


class HereTests(LoadTestCase):
    """Keys that are loaded in this process at once."""

    def setUp(self) -> None:
        super().setUp()
        self.nowhere()

    def test_loaded(self) -> None:
        """The token asks for the PIN, and gets it."""
        key = load(self.key(PRESENT, PIN + b"\n"))
        self.assertEqual((key.type(), key.bits()), (crypto.TYPE_EC, 256))

    def test_notAsked(self) -> None:
        """A token may want no PIN."""
        load(self.key(PRESENT, None, certificates.server().keyPEM))

    def test_noPIN(self) -> None:
        """A token that wants one says so."""
        reason = self.assertRefused(KeyUnusable, "token-locked", self.key(PRESENT, None))
        self.assertIn("token_pin", reason)

    def test_noFile(self) -> None:
        """The file of the PIN has to be there before it is asked for."""
        key = TokenKey("/etc/key.pem", PRESENT, encrypted(), "/nowhere/pin")
        error = self.assertRaises(KeyUnusable, load, key)
        self.assertIn("/nowhere/pin: No such file", str(error))

    def test_wrongPIN(self) -> None:
        """A PIN that is refused is not shown."""
        key = self.key(PRESENT, b"4711")
        reason = self.assertRefused(KeyUnusable, PIN_REFUSED, key)
        self.assertIn(str(key.pin), reason)
        self.assertNotIn("4711", reason)
        self.assertEqual(self.elsewhere, 0, "a second wrong one")

    def test_absentKey(self) -> None:
        """A token that has taken the PIN does not ask for it again."""
        self.patch(tokenload, "_loads", lambda _key, _question: False)
        reason = self.assertRefused(TokenFailed, "token-unavailable", self.key(PRESENT, b"4711"))
        self.assertIn("found the token without it", reason)

    def test_absentToken(self) -> None:
        """Where no token is, nothing is asked."""
        reason = self.assertRefused(
            TokenFailed, "token-unavailable", self.key(PRESENT, None, b"nothing")
        )
        self.assertIn("found no such token (", reason)

    def test_absentTPM(self) -> None:
        """A TPM that nobody finds is not there."""
        self.patch(tokenload, "_isLoaded", lambda _provider: True)
        reason = self.assertRefused(
            TokenFailed, "token-unavailable", self.key(TPM, None, b"nothing")
        )
        self.assertIn("found that it does not (", reason)
        self.assertEqual(self.elsewhere, 1)

    def test_lost(self) -> None:
        """A TPM that a new process finds is lost to this one."""
        self.everywhere()
        self.patch(tokenload, "_isLoaded", lambda _provider: True)
        reason = self.assertRefused(TokenLost, "token-unavailable", self.key(TPM, None, b"nothing"))
        self.assertIn("a new process can use it", reason)


class ProvidersTests(SynchronousTestCase):
    """Tests for L{tokenload.providers}."""

    def test_loaded(self) -> None:
        """A provider that OpenSSL has loaded is a module of this process."""
        self.assertEqual(tokenload.providers(), [])
        self.patch(tokenload, "PKCS11", PRESENT)
        self.assertEqual(tokenload.providers(), [PRESENT])


class SignTests(LoadTestCase):
    """Keys that can be loaded and do not sign."""

    def setUp(self) -> None:
        super().setUp()
        self.nowhere()
        self.patch(tokenload, "rehearse", self.rehearse)

    @staticmethod
    def rehearse(_key: crypto.PKey) -> None:
        """Fail as a token's key does."""
        raise SSL.Error([("tpm2", "", "cannot sign"), ("SSL routines", "", "EVP lib")])

    def test_failed(self) -> None:
        """What its provider says is in the reason."""
        for key in (
            self.key(PRESENT),
            self.key(TPM, None, certificates.server().keyPEM),
        ):
            reason = self.assertRefused(TokenFailed, "token-failed", key)
            self.assertIn("cannot sign; EVP lib", reason)

    def test_wrongPIN(self) -> None:
        """A TPM's provider tries the PIN now, and not when it asks for it."""
        self.assertRefused(KeyUnusable, PIN_REFUSED, self.key(TPM))

    def test_lostTPM(self) -> None:
        """If the TPM has gone, nothing is said about the PIN."""
        self.patch(tokenload, "_loads", lambda _key, _question: False)
        self.assertRefused(TokenFailed, "token-failed", self.key(TPM))


class ProviderTests(LoadTestCase):
    """OpenSSL without the provider."""

    def setUp(self) -> None:
        super().setUp()
        self.nowhere()

    def reason(self, configuration: str | None) -> str:
        """
        Load a key without its provider.

        @param configuration: what is in OpenSSL's configuration.
        @return: what is said about it.
        """
        if configuration is not None:
            os.environ["OPENSSL_CONF"] = self.write("openssl.cnf", configuration.encode())
        return self.assertRefused(KeyUnusable, "token-provider", self.key(TPM, None))

    def test_noConfiguration(self) -> None:
        """OpenSSL may have no configuration at all where it looks for it."""
        reason = self.reason(None)
        self.assertIn("no configuration at /nowhere/openssl.cnf (No such file", reason)

    def test_itsOwnPlace(self) -> None:
        """Where it looks unless told otherwise depends on who has built it."""
        del os.environ["OPENSSL_CONF"]
        self.assertRegex(self.reason(None), "/openssl.cnf")

    def test_notNamed(self) -> None:
        """A configuration that only mentions the provider does not name it."""
        for text in ("", "# tpm2 = tpm2_sect\n", "tpm22 = x\n"):
            self.assertIn("openssl.cnf does not name it; activate it", self.reason(text))

    def test_named(self) -> None:
        """A provider that is named may still not start; and files may include others."""
        for text in ("[provider_sect]\ntpm2 = tpm2_sect\n", ".include /etc/other.cnf\n"):
            self.assertIn("its TPM is there", self.reason(text))

    def test_module(self) -> None:
        """The provider for PKCS#11 starts without a token, but not without its module."""
        os.environ["OPENSSL_CONF"] = self.write("openssl.cnf", b"pkcs11 = sect\n")
        error = self.assertRaises(
            KeyUnusable, tokenload.loadHere, self.key(PKCS11, None, b"nothing")
        )
        self.assertIn("its module is there", str(error))

    def test_tooEarly(self) -> None:
        """What has been mended since this process began is good for a new one."""
        self.everywhere()
        for provider in (TPM, PKCS11):
            reason = self.assertRefused(TokenLost, "token-unavailable", self.key(provider, None))
            self.assertIn("a new process can use it", reason)


class ElsewhereTests(LoadTestCase):
    """Keys that are loaded in another process first."""

    def test_loaded(self) -> None:
        """What can be loaded there is loaded here."""
        self.assertEqual(load(self.key(PKCS11)).bits(), 256)

    def test_noSecrets(self) -> None:
        """Nothing but a constant program is on the command line, and nothing in the environment."""
        seen: list[tuple[Any, Any]] = []

        def run(arguments: Any, **more: Any) -> subprocess.CompletedProcess[str]:
            seen.append((arguments, more.get("env")))
            return subprocess.CompletedProcess(arguments, 0, "{}")

        self.patch(subprocess, "run", run)
        load(self.key(PKCS11))
        self.assertEqual(seen, [([sys.executable, "-P", "-c", tokenload._ELSEWHERE], None)])

    def test_refused(self) -> None:
        """What is found there is said here."""
        reason = self.assertRefused(KeyUnusable, "token-provider", self.key(PKCS11, b"4711"))
        self.assertIn("its provider pkcs11", reason)

    def test_temporary(self) -> None:
        """What may be otherwise another time is said to be so."""
        self.patch(
            tokenload,
            "_ELSEWHERE",
            'print(\'{"code": "token-unavailable", "reason": "/etc/key.pem", "temporary": true}\')',
        )
        self.assertRefused(TokenFailed, "token-unavailable", self.key(PKCS11))

    def test_dies(self) -> None:
        """A module that crashes does so there."""
        self.patch(tokenload, "_ELSEWHERE", "import os; os.kill(os.getpid(), 9)")
        reason = self.assertRefused(TokenFailed, "token-unavailable", self.key(PKCS11))
        self.assertIn("the status -9", reason)

    def test_hangs(self) -> None:
        """A token that does not answer is not waited for in vain."""
        self.patch(tokenload, "_ELSEWHERE", "import time; time.sleep(60)")
        self.patch(tokenload, "_ELSEWHERE_SECONDS", 0.2)
        reason = self.assertRefused(TokenFailed, "token-unavailable", self.key(PKCS11))
        self.assertIn("not within", reason)

    def test_notHere(self) -> None:
        """A token that has come too late for this process needs another one."""
        self.patch(tokenload, "_ELSEWHERE", "print('{}')")
        self.patch(tokenload, "_isLoaded", lambda _provider: True)
        reason = self.assertRefused(
            TokenLost, "token-unavailable", self.key(PKCS11, None, b"nothing")
        )
        self.assertIn("no such token", reason)
        self.assertIn("a new process can use it", reason)
