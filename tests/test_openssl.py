"""Tests of L{ktlsagent.protocols.openssl}."""

from __future__ import annotations

import ctypes
import gc
import os
from typing import Any

from OpenSSL import SSL, crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.protocols import openssl
from ktlsagent.protocols.rehearsal import rehearse
from tests.support import certificates


class WithoutBindings:
    """Bindings that lack some functions, as older ones do."""

    def __init__(self, bindings: Any, *missing: str) -> None:
        """
        @param bindings: the real ones.
        @param missing: what they lack.
        """
        self._bindings = bindings
        self._missing = missing

    def __getattr__(self, name: str) -> Any:
        if name in self._missing:
            raise AttributeError(name)
        return getattr(self._bindings, name)


class SystemFunction:
    """A function of a C library, which may be told its types."""

    def __init__(self, answer: object) -> None:
        """
        @param answer: what it returns.
        """
        self.argtypes: tuple[object, ...] = ()
        self.restype: object = None
        self.calls: list[tuple[Any, ...]] = []
        self._answer = answer

    def __call__(self, *arguments: Any) -> object:
        self.calls.append(arguments)
        return self._answer


class SystemLibrary:
    """A C{libssl} of some version that takes whatever is set, or nothing."""

    def __init__(self, version: bytes, answer: int = 1) -> None:
        """
        @param version: its version.
        @param answer: what its other functions return.
        """
        self.OpenSSL_version = SystemFunction(version)
        self.SSL_CTX_ctrl = SystemFunction(answer)
        self.SSL_CTX_set_num_tickets = SystemFunction(answer)


class SystemLibraryTestCase(SynchronousTestCase):
    """Has a certain C{libssl} in the place of the system's."""

    def useLibrary(self, library: object) -> list[str]:
        """Use bindings that cannot set groups, and that C{libssl}."""
        loaded = []

        def load(name: str, mode: int) -> object:
            # None that is not in use anyway.
            self.assertTrue(mode & os.RTLD_NOLOAD)
            loaded.append(name)
            if library is None:
                raise OSError("cannot open shared object file")
            return library

        self.patch(openssl, "_lib", WithoutBindings(openssl._lib, "SSL_CTX_set1_curves_list"))
        self.patch(ctypes, "CDLL", load)
        openssl._systemLibrary.cache_clear()
        self.addCleanup(openssl._systemLibrary.cache_clear)
        return loaded


class SuiteTests(SynchronousTestCase):
    """Tests of L{openssl.setCipherSuites}."""

    def test_known(self) -> None:
        """Suites that OpenSSL has are taken, also the one that it does not use by itself."""
        openssl.setCipherSuites(
            SSL.Context(SSL.TLS_METHOD), ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_GCM_SHA256"]
        )

    def test_unknown(self) -> None:
        """A suite that OpenSSL has not is refused, and leaves no error behind."""
        error = self.assertRaises(
            ValueError, openssl.setCipherSuites, SSL.Context(SSL.TLS_METHOD), ["TLS_ROT13"]
        )
        self.assertIn("TLS_ROT13", str(error))
        self.assertEqual(openssl._lib.ERR_peek_error(), 0)


class GroupTests(SystemLibraryTestCase):
    """Tests of L{openssl.setGroups} and L{openssl.supportedGroups}."""

    def test_chosen(self) -> None:
        """Groups that OpenSSL has are taken; one that it has not spoils the list."""
        groups = openssl.supportedGroups(("P-384", "P-1", "P-256"))
        if hasattr(openssl._lib, "SSL_CTX_set1_curves_list"):
            self.assertEqual(groups, ("P-384", "P-256"))
        for names, taken in ((groups, bool(groups)), (["P-256", "P-1"], False)):
            if names:
                self.assertIs(openssl.setGroups(SSL.Context(SSL.TLS_METHOD), names), taken)
        self.assertEqual(openssl._lib.ERR_peek_error(), 0)

    def test_oldBindings(self) -> None:
        """Bindings without that function use the library that they stand on."""
        library = SystemLibrary(SSL.OpenSSL_version(SSL.OPENSSL_VERSION))
        loaded = self.useLibrary(library)
        context = SSL.Context(SSL.TLS_METHOD)
        self.assertTrue(openssl.setGroups(context, ["P-256", "X25519"]))
        self.assertEqual(loaded, ["libssl.so.3"])
        ((pointer, command, zero, groups),) = library.SSL_CTX_ctrl.calls
        self.assertEqual(pointer.value, int(openssl._ffi.cast("uintptr_t", context._context)))
        # SSL_CTRL_SET_GROUPS_LIST of openssl/ssl.h.
        self.assertEqual((command, zero, groups), (92, 0, b"P-256:X25519"))

    def test_oldBindingsRefuse(self) -> None:
        """What that library does not take is not taken."""
        self.useLibrary(SystemLibrary(SSL.OpenSSL_version(SSL.OPENSSL_VERSION), 0))
        self.assertFalse(openssl.setGroups(SSL.Context(SSL.TLS_METHOD), ["P-256"]))

    def test_otherLibrary(self) -> None:
        """A library of another version is not handed a pointer that it does not know."""
        library = SystemLibrary(b"OpenSSL 1.2.3 1 Apr 2004")
        self.useLibrary(library)
        self.assertFalse(openssl.setGroups(SSL.Context(SSL.TLS_METHOD), ["P-256"]))
        self.assertEqual(library.SSL_CTX_ctrl.calls, [])

    def test_noLibrary(self) -> None:
        """Without a library groups cannot be set."""
        self.useLibrary(None)
        self.assertFalse(openssl.setGroups(SSL.Context(SSL.TLS_METHOD), ["P-256"]))


class TicketTests(SystemLibraryTestCase):
    """Tests of L{openssl.setTickets}."""

    def test_said(self) -> None:
        """The library that the bindings stand on is told."""
        library = SystemLibrary(SSL.OpenSSL_version(SSL.OPENSSL_VERSION))
        self.useLibrary(library)
        context = SSL.Context(SSL.TLS_METHOD)
        self.assertTrue(openssl.setTickets(context, 1))
        ((pointer, number),) = library.SSL_CTX_set_num_tickets.calls
        self.assertEqual(pointer.value, int(openssl._ffi.cast("uintptr_t", context._context)))
        self.assertEqual(number, 1)

    def test_cannotBeSaid(self) -> None:
        """Without it OpenSSL makes as many as it wants."""
        for library in (None, SystemLibrary(b"OpenSSL 1.2.3 1 Apr 2004")):
            self.useLibrary(library)
            self.assertFalse(openssl.setTickets(SSL.Context(SSL.TLS_METHOD), 0))


class SignatureAlgorithmTests(SynchronousTestCase):
    """Tests of L{openssl.setSignatureAlgorithms} and L{openssl.supportedSignatureAlgorithms}."""

    def test_chosen(self) -> None:
        """Algorithms that OpenSSL has are taken; one that it has not spoils the list."""
        names = ("ed25519", "rot13", "rsa_pss_rsae_sha256")
        found = openssl.supportedSignatureAlgorithms(names)
        self.assertEqual(found, ("ed25519", "rsa_pss_rsae_sha256"))
        for some, taken in ((found, True), (names, False)):
            context = SSL.Context(SSL.TLS_METHOD)
            self.assertIs(openssl.setSignatureAlgorithms(context, some), taken)
        self.assertEqual(openssl._lib.ERR_peek_error(), 0)

    def test_newest(self) -> None:
        """ML-DSA is there exactly if OpenSSL has such keys."""
        found = openssl.supportedSignatureAlgorithms(("mldsa65",))
        self.assertEqual(bool(found), certificates.mldsaKey() is not None)


class GroupNameTests(SynchronousTestCase):
    """Tests of L{openssl.groupName}; L{tests.test_engine} has the names themselves."""

    def test_oldBindings(self) -> None:
        """Bindings that cannot tell give no name."""
        self.patch(openssl, "_lib", WithoutBindings(openssl._lib, "SSL_get0_group_name"))
        self.assertIsNone(openssl.groupName(SSL.Connection(SSL.Context(SSL.TLS_METHOD))))

    def test_noName(self) -> None:
        """A group that OpenSSL has no name for has none."""
        bindings: Any = WithoutBindings(openssl._lib)
        bindings.SSL_get0_group_name = lambda _ssl: openssl._ffi.NULL
        self.patch(openssl, "_lib", bindings)
        self.assertIsNone(openssl.groupName(SSL.Connection(SSL.Context(SSL.TLS_METHOD))))

    def test_name(self) -> None:
        """A name is text."""
        name = openssl._ffi.new("char[]", b"x25519")
        bindings: Any = WithoutBindings(openssl._lib)
        bindings.SSL_get0_group_name = lambda _ssl: name
        self.patch(openssl, "_lib", bindings)
        connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD))
        self.assertEqual(openssl.groupName(connection), "x25519")


class CertificateTests(SynchronousTestCase):
    """Tests of L{openssl.addCertificate}; what is sent is in L{tests.test_engine}."""

    def test_nothingIsLeftOpen(self) -> None:
        """The file in memory is closed, also if the certificate is refused."""
        before = os.listdir("/proc/self/fd")
        own = certificates.chained().own()
        openssl.addCertificate(SSL.Context(SSL.TLS_METHOD), own.chain, own.key)
        context = SSL.Context(SSL.TLS_METHOD)
        self.assertRaises(
            SSL.Error, openssl.addCertificate, context, own.chain, certificates.rsaKey()
        )
        self.assertEqual(os.listdir("/proc/self/fd"), before)


class StoreTests(SynchronousTestCase):
    """Tests of L{openssl.shareStore}."""

    def test_storeOutlivesItsOwner(self) -> None:
        """A context keeps the store alive, and so does its owner."""
        store = certificates.authority().store()
        contexts = [SSL.Context(SSL.TLS_METHOD) for _number in range(3)]
        for context in contexts:
            openssl.shareStore(context, store)
        pointer = store._store
        for context in contexts:
            shared = openssl._lib.SSL_CTX_get_cert_store(context._context)
            self.assertEqual(shared, pointer)
        contexts.clear()
        gc.collect()
        store.add_cert(crypto.X509.from_cryptography(certificates.otherAuthority().certificate))


class WordsTests(SynchronousTestCase):
    """Tests of L{openssl.verifyErrorText} and L{openssl.errorWords}."""

    def test_text(self) -> None:
        """An error has OpenSSL's words (X509_V_ERR_CERT_HAS_EXPIRED is 10)."""
        self.assertEqual(openssl.verifyErrorText(10), "certificate has expired")

    def test_reasons(self) -> None:
        """An exception has the reasons of OpenSSL's queue, or words of its own."""
        error = self.assertRaises(crypto.Error, crypto.load_certificate, crypto.FILETYPE_ASN1, b"0")
        self.assertEqual(openssl.errorWords(error), error.args[0][0][2])
        queue = [("", "", "one"), ("", "", "two")]
        self.assertEqual(openssl.errorWords(SSL.Error(queue)), "one; two")
        self.assertEqual(openssl.errorWords(SSL.Error([])), "no reason given")
        self.assertEqual(openssl.errorWords(ValueError("none")), "none")
        self.assertEqual(openssl.errorWords(SSL.Error()), "")


class ProvidersTests(SynchronousTestCase):
    """Tests for L{openssl.meetProviders}; its purpose shows where there is a token only."""

    def test_asksForTheUnknown(self) -> None:
        """OpenSSL is asked for a signature that nobody has, and the answer is not kept."""
        answers: list[int] = []

        def sign(*arguments: Any) -> int:
            answers.append(bindings.X509_sign(*arguments))
            return answers[-1]

        bindings = openssl._lib
        replaced = WithoutBindings(bindings)
        replaced.X509_sign = sign  # type: ignore[attr-defined]
        self.patch(openssl, "_lib", replaced)
        openssl.meetProviders()
        self.assertEqual(answers, [0])
        self.assertEqual(bindings.ERR_peek_error(), 0)

    def test_nothingElseChanges(self) -> None:
        """Keys of all kinds sign as before."""
        openssl.meetProviders()
        rehearse(certificates.server().own().key)
