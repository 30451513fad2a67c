"""
What pyOpenSSL does not offer, through the bindings that it sits on: cipher
suites, groups, signature algorithms, several certificates with a chain each,
shared trust stores, and what became of a handshake.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import x25519
from OpenSSL import SSL, crypto

_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]

_CTRL_SET_GROUPS_LIST = 92
"""C{SSL_CTRL_SET_GROUPS_LIST} of C{openssl/ssl.h}."""

_SESSION_CONTEXT_LENGTH = 32
"""C{SSL_MAX_SID_CTX_LENGTH} of C{openssl/ssl.h}."""

_SIGNING_FAILED = ("provider signature failure", "EVP lib")
"""
OpenSSL's words (C{EVP_R_PROVIDER_SIGNATURE_FAILURE} and C{ERR_R_EVP_LIB}); the
names of its own libraries all end with C{routines}, those of providers need not.
"""


def setCipherSuites(context: SSL.Context, names: Sequence[str]) -> None:
    """
    Restrict a context to some TLS 1.3 cipher suites.

    @param context: a context that has made no connection yet.
    @param names: the suites, most wanted first.
    @raise ValueError: if OpenSSL knows none of them.
    """
    if _lib.SSL_CTX_set_ciphersuites(context._context, ":".join(names).encode()) != 1:
        _clearErrors()
        raise ValueError("OpenSSL takes none of the cipher suites " + ", ".join(names))


def setGroups(context: SSL.Context, names: Sequence[str]) -> bool:
    """
    Restrict a context to some key exchange groups.

    @param context: a context that has made no connection yet.
    @param names: the groups, most wanted first; with C{*} before those for which clients
        send key shares, which older OpenSSLs decide themselves.
    @return: whether OpenSSL knows them all and took them.
    """
    groups = ":".join(names).encode()
    return _setGroupsList(context, groups) or _setGroupsList(context, groups.replace(b"*", b""))


def _setGroupsList(context: SSL.Context, groups: bytes) -> bool:
    if hasattr(_lib, "SSL_CTX_set1_curves_list"):
        taken = bool(_lib.SSL_CTX_set1_curves_list(context._context, groups) == 1)
        _clearErrors()
        return taken
    library = _systemLibrary()
    if library is None:
        return False
    taken = bool(library.SSL_CTX_ctrl(_pointer(context), _CTRL_SET_GROUPS_LIST, 0, groups) == 1)
    _clearErrors()
    return taken


@functools.cache
def supportedGroups(names: tuple[str, ...]) -> tuple[str, ...]:
    """
    Find out which groups this OpenSSL has and lets us choose.

    @param names: the groups to ask for.
    @return: those of them that can be used, in the same order.
    """
    return tuple(name for name in names if setGroups(SSL.Context(SSL.TLS_METHOD), (name,)))


def setSignatureAlgorithms(context: SSL.Context, names: Sequence[str]) -> bool:
    """
    Restrict a context to some signature algorithms, for both sides' signatures.

    @param context: a context that has made no connection yet.
    @param names: the algorithms, most wanted first.
    @return: whether OpenSSL knows them all and took them.
    """
    algorithms = ":".join(names).encode()
    taken = bool(_lib.SSL_CTX_set1_sigalgs_list(context._context, algorithms) == 1)
    _clearErrors()
    return taken


@functools.cache
def supportedSignatureAlgorithms(names: tuple[str, ...]) -> tuple[str, ...]:
    """
    Find out which signature algorithms this OpenSSL has.

    @param names: the algorithms to ask for.
    @return: those of them that can be used, in the same order.
    """
    return tuple(
        name for name in names if setSignatureAlgorithms(SSL.Context(SSL.TLS_METHOD), (name,))
    )


def setTickets(context: SSL.Context, number: int) -> bool:
    """
    Say how many tickets are made behind each of a server's handshakes.

    @param context: a context that has made no connection yet.
    @param number: how many.
    @return: whether that can be said; if not, it is two, or one behind a handshake
        with a pre-shared key.
    """
    library = _systemLibrary()
    return library is not None and library.SSL_CTX_set_num_tickets(_pointer(context), number) == 1


def _pointer(context: SSL.Context) -> ctypes.c_void_p:
    return ctypes.c_void_p(int(_ffi.cast("uintptr_t", context._context)))


@functools.cache
def _systemLibrary() -> ctypes.CDLL | None:
    """
    No bindings can set the number of tickets, and older ones cannot set groups.  If
    they use the system's OpenSSL, that library can be asked directly; a copy of
    their own inside them cannot.
    """
    try:
        library = ctypes.CDLL("libssl.so.3", os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return None
    library.OpenSSL_version.restype = ctypes.c_char_p
    library.SSL_CTX_ctrl.argtypes = (
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_long,
        ctypes.c_char_p,
    )
    library.SSL_CTX_ctrl.restype = ctypes.c_long
    library.SSL_CTX_set_num_tickets.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    same = library.OpenSSL_version(0) == SSL.OpenSSL_version(SSL.OPENSSL_VERSION)
    return library if same else None


def addCertificate(context: SSL.Context, chain: Sequence[crypto.X509], key: crypto.PKey) -> None:
    """
    Give a context one more certificate, with a chain of its own.

    @param context: a context that has made no connection yet, and no
        certificate with a key of this type.
    @param chain: the certificate, then the CA certificates to send with it.
    @param key: its private key.
    @raise SSL.Error: if certificate and key do not belong together.
    """
    content = b"".join(
        crypto.dump_certificate(crypto.FILETYPE_PEM, certificate) for certificate in chain
    )
    # The key comes first: then what is checked at the end is this certificate's
    # key, whatever the types of both are.
    context.use_privatekey(key)
    # add_extra_chain_cert has one chain for all certificates.  Only a file has
    # one for each; this one is nowhere but in memory.
    with open(os.memfd_create("chain"), "wb") as file:
        file.write(content)
        file.flush()
        context.use_certificate_chain_file(f"/proc/self/fd/{file.fileno()}")
    context.check_privatekey()


def shareStore(context: SSL.Context, store: crypto.X509Store) -> None:
    """
    Let a context use a trust store that others use too.

    @param context: a context that has made no connection yet.
    @param store: the store; the context takes a reference of its own.
    """
    _lib.X509_STORE_up_ref(store._store)
    _lib.SSL_CTX_set_cert_store(context._context, store._store)


def setAnyPurpose(store: crypto.X509Store) -> None:
    """
    Have a trust store not ask for the key purposes of TLS, so that others may
    do; all else about chains is checked as ever.

    @param store: the store.
    """
    _lib.X509_STORE_set_purpose(store._store, _lib.X509_PURPOSE_ANY)


def takeOutput(connection: SSL.Connection) -> bytes:
    """
    Take all that a connection over memory wants to send.

    @param connection: the connection.
    @return: whole records, possibly none.
    """
    # bio_read() raises an exception if there is nothing, and wants to know how much there is.
    length = _lib.BIO_get_mem_data(connection._from_ssl, _ffi.NULL)
    return connection.bio_read(length) if length else b""


def usedPreSharedKey(connection: SSL.Connection) -> bool:
    """
    Say whether a handshake was authenticated by a PSK, an external one or that
    of a ticket.

    @param connection: a connection whose handshake is complete.
    @return: whether it was.
    """
    return bool(_lib.SSL_session_reused(connection._ssl) == 1)


def setSessionContext(context: SSL.Context, value: bytes) -> None:
    """
    Say which sessions the next connections resume and make, as servers.

    @param context: a context, also one that has made connections.
    @param value: OpenSSL's session id context, at most 32 octets.
    """
    _lib.SSL_CTX_set_session_id_context(context._context, value, len(value))


def newSessionContext() -> bytes:
    """
    Make a session id context that no session has yet.

    @return: the context.
    """
    return os.urandom(_SESSION_CONTEXT_LENGTH)


def groupName(connection: SSL.Connection) -> str | None:
    """
    Name the group of the key exchange.

    @param connection: a connection whose handshake is complete.
    @return: its name, or C{None} if the bindings cannot tell.
    """
    if not hasattr(_lib, "SSL_get0_group_name"):
        return None
    name = _lib.SSL_get0_group_name(connection._ssl)
    return None if name == _ffi.NULL else _ffi.string(name).decode()


def verifyErrorText(number: int) -> str:
    """
    Put an C{X509_V_ERR_*} into OpenSSL's words.

    @param number: the error's number.
    @return: its text.
    """
    text: bytes = _ffi.string(_lib.X509_verify_cert_error_string(number))
    return text.decode()


def meetProviders() -> None:
    """
    Have OpenSSL take notice of all signature algorithms of all its providers.

    It remembers where it has got an algorithm from.  When a provider that has
    come to life late signs for the first time, with a key of its own, OpenSSL
    remembers that provider, and asks it for all signatures of the kind, whose
    key ever they are by, and to verify them: every handshake would wait for a
    token, which would get copies of keys that are in files.  If it knows the
    provider before, it prefers its own algorithms, which come first.

    It looks through the providers when it is asked for an algorithm that it has
    never heard of: a signature by X25519 will do.
    """
    nobody = x25519.X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key = crypto.load_privatekey(crypto.FILETYPE_PEM, nobody)
    _lib.X509_sign(crypto.X509()._x509, key._pkey, _lib.EVP_get_digestbyname(b"sha256"))
    _clearErrors()


def isProvidersFailure(error: SSL.Error) -> bool:
    """
    Say whether a handshake failed because a provider did not sign, or had
    forgotten what its key is good for.

    @param error: what OpenSSL says.
    @return: whether one of its parts is not OpenSSL's own, or is about signing.
    """
    queue = error.args[0] if error.args else []
    return any(
        not library.endswith(" routines") or reason in _SIGNING_FAILED
        for library, _function, reason in queue
    )


def errorWords(error: Exception) -> str:
    """
    Put OpenSSL's error queue, or what took its place, into words.

    @param error: an exception of pyOpenSSL.
    @return: the reasons that OpenSSL gives.
    """
    queue = error.args[0] if error.args else ""
    if isinstance(queue, list):
        return "; ".join(entry[2] for entry in queue if entry[2]) or "no reason given"
    return str(error)


def _clearErrors() -> None:
    """Empty OpenSSL's error queue: what stays in it is blamed on the next call."""
    while _lib.ERR_get_error():
        pass
