"""
Callbacks that pyOpenSSL does not offer, or not in a way that lets us refuse a
peer and choose the alert: for chains, for ALPN, for pre-shared keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from OpenSSL import SSL, crypto

_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]

VerifyCallback = Callable[[SSL.Connection, Sequence[crypto.X509], int, int], int]
"""
Judges a chain: connection, certificates (the peer's own first, the root last),
the C{X509_V_ERR_*} that was found and at which depth (0: the peer's own).  It is
asked at each error, and at the end with 0 for none.  Returns the
C{X509_V_ERR_*} that stands, 0 to go on.
"""


class AlertCallback(Protocol):
    """Notes an alert."""

    def __call__(self, connection: SSL.Connection, *, received: bool, description: int) -> None:
        """
        Note it.

        @param connection: whose.
        @param received: whether the peer has sent it.
        @param description: its number.
        """


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
    """List the certificates of a chain, as OpenSSL has them: nothing is copied."""
    stack = _lib.X509_STORE_CTX_get1_chain(storeContext)
    chain = [
        crypto.X509._from_raw_x509_ptr(_lib.sk_X509_value(stack, index))
        for index in range(_lib.sk_X509_num(stack))
    ]
    _lib.sk_X509_free(stack)
    return chain


def setAlerts(context: SSL.Context, callback: AlertCallback) -> None:
    """
    Have somebody told of alerts.

    pyOpenSSL's own callback tells of each step of the handshake as well, which are
    more than twenty.

    @param context: a context that has made no connection yet.
    @param callback: is told; it must not raise.
    """
    alert, read = SSL.SSL_CB_ALERT, SSL.SSL_CB_READ

    def inform(ssl: object, where: int, value: int) -> None:
        if where & alert:
            connection = SSL.Connection._reverse_mapping[ssl]
            callback(connection, received=bool(where & read), description=value & 0xFF)

    handle: Any = _ffi.callback("void (*)(const SSL *, int, int)", inform)
    _lib.SSL_CTX_set_info_callback(context._context, handle)
    # Kept as the verification callback is.
    context._info_callback = handle


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
