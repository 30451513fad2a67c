"""
What pyOpenSSL does not offer, through the bindings that it sits on: cipher
suites, groups, signature algorithms, several certificates with a chain each,
shared trust stores, and callbacks that may refuse a peer and choose the alert.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from OpenSSL import SSL, crypto

_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]

_CTRL_SET_GROUPS_LIST = 92
"""C{SSL_CTRL_SET_GROUPS_LIST} of C{openssl/ssl.h}."""

_SIGNING_FAILED = ("provider signature failure", "EVP lib")
"""
OpenSSL's words (C{EVP_R_PROVIDER_SIGNATURE_FAILURE} and C{ERR_R_EVP_LIB}); the
names of its own libraries all end with C{routines}, those of providers need not.
"""

VerifyCallback = Callable[[SSL.Connection, Sequence[crypto.X509], int, int], int]
"""
Judges a chain: connection, certificates (the peer's own first, the root
last), the C{X509_V_ERR_*} that was found and at which depth (0: the peer's
own).  It is asked at each error, and at the end with 0 for none.  Returns the
C{X509_V_ERR_*} that stands, 0 to go on.
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
    @param names: the groups, most wanted first.
    @return: whether OpenSSL knows them all and took them.
    """
    groups = ":".join(names).encode()
    if hasattr(_lib, "SSL_CTX_set1_curves_list"):
        taken = bool(_lib.SSL_CTX_set1_curves_list(context._context, groups) == 1)
        _clearErrors()
        return taken
    library = _systemLibrary()
    if library is None:
        return False
    pointer = ctypes.c_void_p(int(_ffi.cast("uintptr_t", context._context)))
    taken = bool(library.SSL_CTX_ctrl(pointer, _CTRL_SET_GROUPS_LIST, 0, groups) == 1)
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


@functools.cache
def _systemLibrary() -> ctypes.CDLL | None:
    """
    Older bindings cannot set groups.  If they use the system's OpenSSL, that
    library can be asked directly; a copy of our own inside them cannot.
    """
    try:
        library = ctypes.CDLL("libssl.so.3")
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


def setVerification(
    context: SSL.Context, callback: VerifyCallback, *, required: bool = False
) -> None:
    """
    Ask for the peer's certificate and have its chain judged.

    pyOpenSSL's own callback can refuse, but not say why: the peer then gets
    C{internal_error}.  This one sets the error, from which OpenSSL takes the
    alert.

    @param context: a context that has made no connection yet.
    @param callback: the judge; it must not raise.
    @param required: whether a client without a certificate is refused.
    """
    index = _lib.SSL_get_ex_data_X509_STORE_CTX_idx()

    def verify(_ok: int, storeContext: object) -> int:
        ssl = _lib.X509_STORE_CTX_get_ex_data(storeContext, index)
        error: int = _lib.X509_STORE_CTX_get_error(storeContext)
        depth: int = _lib.X509_STORE_CTX_get_error_depth(storeContext)
        # Signatures are checked from the root down: the peer's own comes last.
        if error or depth == 0:
            connection = SSL.Connection._reverse_mapping[ssl]
            error = callback(connection, _chain(storeContext), error, depth)
            _lib.X509_STORE_CTX_set_error(storeContext, error)
        return int(error == 0)

    handle: Any = _ffi.callback("int (*)(int, X509_STORE_CTX *)", verify)
    mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if required else 0)
    _lib.SSL_CTX_set_verify(context._context, mode, handle)
    # OpenSSL does not keep it alive, and a connection that is under way when
    # the configuration is reloaded keeps nothing but its SSL.Context alive.
    context._verify_callback = handle


def _chain(storeContext: object) -> list[crypto.X509]:
    """List the certificates of a chain, each with a reference of its own."""
    stack = _lib.X509_STORE_CTX_get1_chain(storeContext)
    chain = [
        crypto.X509._from_raw_x509_ptr(_lib.sk_X509_value(stack, index))
        for index in range(_lib.sk_X509_num(stack))
    ]
    _lib.sk_X509_free(stack)
    return chain


def setProtocol(
    context: SSL.Context,
    protocol: bytes,
    refused: Callable[[SSL.Connection, Sequence[bytes]], None],
) -> None:
    """
    Have a context use ALPN (RFC 7301) for one protocol.  A client offers it.  A
    server selects it, and refuses clients that offer others alone; it takes
    those that do not use ALPN.

    @param context: a context that has made no connection yet.
    @param protocol: the protocol.
    @param refused: is told what a client has offered that will be refused; it
        must not raise.
    """
    context.set_alpn_protos([protocol])

    def select(ssl: object, *arguments: Any) -> int:  # noqa: ANN401
        selected, selectedLength, offered, length, _argument = arguments
        content = bytes(_ffi.buffer(offered, length))
        names: dict[bytes, int] = {}
        at = 0
        # OpenSSL has made sure that the list is well-formed.
        while at < length:
            start, at = at + 1, at + 1 + content[at]
            names[content[start:at]] = start
        if protocol not in names:
            refused(SSL.Connection._reverse_mapping[ssl], list(names))
            return int(_lib.SSL_TLSEXT_ERR_ALERT_FATAL)
        # What is pointed to has to live on: the list does.
        selected[0] = _ffi.cast("unsigned char *", offered + names[protocol])
        selectedLength[0] = len(protocol)
        return int(_lib.SSL_TLSEXT_ERR_OK)

    handle: Any = _ffi.callback(
        "int (*)(SSL *, unsigned char **, unsigned char *, const unsigned char *, unsigned int, "
        "void *)",
        select,
    )
    _lib.SSL_CTX_set_alpn_select_cb(context._context, handle, _ffi.NULL)
    # Kept as the verification callback is.
    holder: Any = context
    holder._select_callback = handle


PskClientCallback = Callable[[SSL.Connection], "tuple[bytes, bytes, bytes] | None"]
"""
Says which external PSK a client offers: identity, key, and the two octets of a
cipher suite with the key's hash; C{None} for none.
"""

PskServerCallback = Callable[[SSL.Connection, bytes], "tuple[bytes, bytes] | None"]
"""
Says which external PSK an offered identity stands for: key and the two octets
of a cipher suite with the key's hash; C{None} if it is not known.
"""


def setPreSharedKeys(
    context: SSL.Context, forClient: PskClientCallback, forServer: PskServerCallback
) -> None:
    """
    Have a context use external PSKs (C{SSL_CTX_set_psk_use_session_callback}
    and C{SSL_CTX_set_psk_find_session_callback}).

    @param context: a context that has made no connection yet.
    @param forClient: chooses the key to offer; it must not raise.
    @param forServer: finds the key of an identity; it must not raise.
    """
    # OpenSSL copies an identity only after the callback has returned.
    identities: WeakKeyDictionary[SSL.Connection, object] = WeakKeyDictionary()

    def use(ssl: object, _md: object, identity: Any, length: Any, session: Any) -> int:  # noqa: ANN401
        connection = SSL.Connection._reverse_mapping[ssl]
        offered = forClient(connection)
        session[0] = _ffi.NULL
        if offered is not None:
            buffer = _ffi.new("unsigned char[]", offered[0])
            identities[connection] = buffer
            identity[0], length[0] = buffer, len(offered[0])
            session[0] = _pskSession(ssl, *offered[1:])
        return 1

    def find(ssl: object, identity: Any, length: int, session: Any) -> int:  # noqa: ANN401
        name = bytes(_ffi.buffer(identity, length))
        found = forServer(SSL.Connection._reverse_mapping[ssl], name)
        session[0] = _ffi.NULL if found is None else _pskSession(ssl, *found)
        return 1

    useHandle: Any = _ffi.callback(
        "int(SSL *, const EVP_MD *, const unsigned char **, size_t *, SSL_SESSION **)", use
    )
    findHandle: Any = _ffi.callback(
        "int(SSL *, const unsigned char *, size_t, SSL_SESSION **)", find
    )
    _lib.SSL_CTX_set_psk_use_session_callback(context._context, useHandle)
    _lib.SSL_CTX_set_psk_find_session_callback(context._context, findHandle)
    # Kept as the verification callback is.
    holder: Any = context
    holder._psk_callbacks = (useHandle, findHandle)


def _pskSession(ssl: object, key: bytes, suite: bytes) -> object:
    """Make the session that stands for a PSK: a new one each time, as OpenSSL frees it."""
    session: object = _lib.Cryptography_SSL_SESSION_new()
    _lib.SSL_SESSION_set1_master_key(session, key, len(key))
    _lib.SSL_SESSION_set_cipher(session, _lib.SSL_CIPHER_find(ssl, suite))
    _lib.SSL_SESSION_set_protocol_version(session, SSL.TLS1_3_VERSION)
    return session


def usedPreSharedKey(connection: SSL.Connection) -> bool:
    """
    Say whether a handshake was authenticated by a PSK.

    @param connection: a connection whose handshake is complete.
    @return: whether it was.
    """
    return bool(_lib.SSL_session_reused(connection._ssl) == 1)


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
