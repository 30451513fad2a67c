"""
TLS peers that share no code with the agent, over memory: Python's C{ssl}, and
a bare OpenSSL connection for what C{ssl} cannot be told.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Sequence
from typing import Any, Protocol

from OpenSSL import SSL

from ktlsagent.protocols.interfaces import Engine, EngineState
from tests.support.certificates import CertificateAuthority, Credentials

_lib: Any = SSL._lib  # type: ignore[attr-defined]


def records(stream: bytes) -> list[bytes]:
    """
    Cut a stream into its records.

    @param stream: whole records, one after another.
    @return: the records.
    """
    cut = []
    while stream:
        end = 5 + int.from_bytes(stream[3:5], "big")
        cut.append(stream[:end])
        stream = stream[end:]
    return cut


def stdlibContext(
    role: str,
    *,
    own: Credentials | None = None,
    trusted: CertificateAuthority | None = None,
) -> ssl.SSLContext:
    """
    Make a context of Python's C{ssl}.

    @param role: C{client} or C{server}.
    @param own: its certificate.
    @param trusted: whom it trusts; if nobody, it does not look at certificates.
    @return: a new context.
    """
    protocol = ssl.PROTOCOL_TLS_CLIENT if role == "client" else ssl.PROTOCOL_TLS_SERVER
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if trusted is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=trusted.certificatePEM.decode("ascii"))
    if own is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(own.certificatePEM + own.keyPEM)
            file.flush()
            context.load_cert_chain(file.name)
    return context


class StdlibPeer:
    """
    A peer made of Python's C{ssl}.

    @ivar tls: the connection.
    @ivar complete: whether its handshake is.
    @ivar error: why its handshake failed, if it did.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        serverName: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """
        @param context: its context, which says the role.
        @param serverName: the server's name, for a client.
        @param session: what it offers to resume, for a client.
        """
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=context.protocol is ssl.PROTOCOL_TLS_SERVER,
            server_hostname=serverName,
            session=session,
        )
        self.complete = False
        self.error: ssl.SSLError | None = None

    def feed(self, data: bytes) -> bytes:
        """
        Take octets of the other side.

        @param data: the octets, possibly none.
        @return: what to send.
        """
        self._incoming.write(data)
        if not self.complete and self.error is None:
            try:
                self.tls.do_handshake()
                self.complete = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self.error = error
        return self._outgoing.read()

    def send(self, data: bytes) -> bytes:
        """
        Send application data.

        @param data: the data.
        @return: the records.
        """
        self.tls.write(data)
        return self._outgoing.read()

    def receive(self, stream: bytes) -> bytes:
        """
        Read application data.

        @param stream: records.
        @return: the data.
        @raise ssl.SSLError: if it is none.
        """
        self._incoming.write(stream)
        return self.tls.read()


class OpenSSLPeer:
    """
    A peer made of a bare OpenSSL connection, which verifies nothing.

    @ivar complete: whether its handshake is.
    @ivar error: why its handshake failed, if it did.
    """

    def __init__(
        self,
        role: str,
        own: Credentials | None = None,
        *,
        suites: Sequence[str] = (),
        signatureAlgorithms: Sequence[str] = (),
        selects: bytes | None = None,
    ) -> None:
        """
        @param role: C{client} or C{server}.
        @param own: its certificate.
        @param suites: its cipher suites; if empty, OpenSSL's own choice.
        @param signatureAlgorithms: its signature algorithms; if empty, likewise.
        @param selects: what it selects by ALPN, as a server, whatever is offered.
        """
        context = SSL.Context(SSL.TLS_METHOD)
        if suites:
            _lib.SSL_CTX_set_ciphersuites(context._context, ":".join(suites).encode())
        if signatureAlgorithms:
            names = ":".join(signatureAlgorithms).encode()
            if _lib.SSL_CTX_set1_sigalgs_list(context._context, names) != 1:
                raise ValueError(f"OpenSSL does not take {names!r}")
        if selects is not None:
            context.set_alpn_select_callback(lambda _connection, _offered: selects)
        if own is not None:
            pair = own.own()
            context.use_certificate(pair.chain[0])
            context.use_privatekey(pair.key)
        self.complete = False
        self.error: SSL.Error | None = None
        self.connection = SSL.Connection(context)
        if role == "client":
            self.connection.set_connect_state()
        else:
            self.connection.set_accept_state()

    def feed(self, data: bytes) -> bytes:
        """
        Take octets of the other side.

        @param data: the octets, possibly none.
        @return: what to send.
        """
        if data:
            self.connection.bio_write(data)
        if not self.complete and self.error is None:
            try:
                self.connection.do_handshake()
                self.complete = True
            except SSL.WantReadError:
                pass
            except SSL.Error as error:
                self.error = error
        return self._output()

    def send(self, data: bytes) -> bytes:
        """
        Send application data.

        @param data: the data.
        @return: the records.
        """
        self.connection.send(data)
        return self._output()

    def receive(self, stream: bytes) -> bytes:
        """
        Read application data.

        @param stream: records.
        @return: the data.
        """
        self.connection.bio_write(stream)
        return self.connection.recv(65536)

    def _output(self) -> bytes:
        try:
            return self.connection.bio_read(65536)
        except SSL.WantReadError:
            return b""


class Peer(Protocol):
    """The other side of an engine."""

    def feed(self, data: bytes) -> bytes:
        """Take octets of the other side, and say what to send."""

    def send(self, data: bytes) -> bytes:
        """Send application data; the result are the records."""

    def receive(self, stream: bytes) -> bytes:
        """Read application data."""


def converse(engine: Engine, peer: Peer) -> list[bytes]:
    """
    Let an engine and a peer do their handshake, until neither says more.

    @param engine: the engine, not yet started.
    @param peer: the peer.
    @return: the peer's records that came when the engine wanted no more: what
        the kernel would read.
    """
    unread: list[bytes] = []
    toPeer = engine.start()
    while True:
        fromPeer = records(peer.feed(toPeer))
        if not fromPeer:
            return unread
        toPeer = b""
        for record in fromPeer:
            if engine.state is EngineState.NEED_RECORD:
                toPeer += engine.receiveRecord(record)
            else:
                unread.append(record)


def pair(client: Engine, server: Engine) -> tuple[list[bytes], list[bytes]]:
    """
    Let two engines do their handshake, one record after another.

    @param client: the client's engine.
    @param server: the server's engine.
    @return: the records that client and server have sent.
    """
    sent: tuple[list[bytes], list[bytes]] = ([], [])
    toServer, toClient = records(client.start()), records(server.start())
    sent[0].extend(toServer)
    while toServer or toClient:
        if toServer:
            source, target, answers, log = toServer, server, toClient, sent[1]
        else:
            source, target, answers, log = toClient, client, toServer, sent[0]
        record = source.pop(0)
        if target.state is EngineState.NEED_RECORD:
            answer = records(target.receiveRecord(record))
            answers.extend(answer)
            log.extend(answer)
    return sent


def clientHello(*extensions: tuple[int, bytes], suites: bytes = b"\x13\x01\x13\x02") -> bytes:
    """
    Build a ClientHello (RFC 8446, section 4.1.2).

    @param extensions: type and content of each extension.
    @param suites: the numbers of its cipher suites.
    @return: the handshake message.
    """
    content = b"".join(
        kind.to_bytes(2, "big") + _vector(content, 2) for kind, content in extensions
    )
    hello = b"\x03\x03" + bytes(32) + _vector(b"", 1) + _vector(suites, 2) + _vector(b"\x00", 1)
    return b"\x01" + _vector(hello + _vector(content, 2), 3)


def offeredKeys(*identities: bytes) -> tuple[int, bytes]:
    """
    Build the extension C{pre_shared_key} with binders that are none.

    @param identities: the identities that it offers.
    @return: its type and content.
    """
    listed = b"".join(_vector(identity, 2) + bytes(4) for identity in identities)
    binders = b"".join(_vector(bytes(32), 1) for _identity in identities)
    return 41, _vector(listed, 2) + _vector(binders, 2)


def handshakeRecords(message: bytes, size: int = 2**14) -> list[bytes]:
    """
    Put a handshake message into records.

    @param message: the message.
    @param size: the most octets that a record takes.
    @return: the records.
    """
    return [
        b"\x16\x03\x01" + _vector(message[at : at + size], 2) for at in range(0, len(message), size)
    ]


def _vector(content: bytes, lengthOctets: int) -> bytes:
    return len(content).to_bytes(lengthOctets, "big") + content
