"""
User-space RPC peers that speak TLS themselves, well or badly: a server for the
kernel's client to mount from, and a client of the kernel's server.

RPC with TLS begins with a NULL call of the credential flavor AUTH_TLS, which is
answered with the verifier C{STARTTLS} (RFC 9289, section 4.1).
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.kernel.guest.certificates import certificate, privateKey
from tests.kernel.guest.hosts import Host

PORT: Final = 20490

CLOSE_NOTIFY: Final = "close_notify"

_AUTH_TLS: Final = 7
_NFS: Final = 100003
_STARTTLS: Final = b"STARTTLS"
_LAST_FRAGMENT: Final = 0x80000000
_PROGRAM_UNAVAILABLE: Final = 1
_SECONDS: Final = 20.0


class PeerGone(Exception):
    """The other side ended the connection; the message says how."""


def tlsContext(
    name: str | None,
    *,
    server: bool,
    tls12: bool = False,
    alpn: Sequence[str] = ("sunrpc",),
    asking: bool = False,
) -> ssl.SSLContext:
    """
    Make a context that trusts the lab's CA but demands nothing.

    @param name: its certificate, or L{None}.
    @param server: whether it is for a server.
    @param tls12: whether it knows nothing newer than TLS 1.2.
    @param alpn: the protocols of ALPN; none leaves the extension out.
    @param asking: whether a server asks for a certificate; one that it gets
        has to be of the lab's CA.
    @return: the context.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_OPTIONAL if asking else ssl.CERT_NONE
    context.load_verify_locations(certificate("ca"))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if name is not None:
        context.load_cert_chain(certificate(name), privateKey(name))
    return context


def rpcCall(xid: int, flavor: int = 0) -> bytes:
    """
    Make a NULL call of NFS version 4.

    @param xid: its number.
    @param flavor: of the credential.
    @return: the record.
    """
    body = struct.pack(">10I", xid, 0, 2, _NFS, 4, 0, flavor, 0, 0, 0)
    return struct.pack(">I", _LAST_FRAGMENT | len(body)) + body


def _rpcReply(xid: int, status: int, verifier: bytes = b"") -> bytes:
    """
    Make a reply.

    @param xid: the call's number.
    @param status: the accept status.
    @param verifier: the verifier's body.
    @return: the record.
    """
    body = struct.pack(">5I", xid, 1, 0, 0, len(verifier)) + verifier + struct.pack(">I", status)
    return struct.pack(">I", _LAST_FRAGMENT | len(body)) + body


class Stream:
    """
    A connection, clear at first, TLS later.

    TLS goes through memory BIOs, so that what is sent, and when, is ours to say.

    @ivar connection: the socket.
    @ivar received: how many octets of TLS have arrived.
    @ivar sent: how many octets of TLS were sent.
    """

    def __init__(self, connection: socket.socket) -> None:
        """
        @param connection: the socket.
        """
        self.connection = connection
        connection.settimeout(_SECONDS)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._buffer = b""
        self.received = 0
        self.sent = 0
        # One thread may receive while another sends: records must stay in order.
        self._sending = threading.Lock()

    def startTls(self, context: ssl.SSLContext, *, server: bool, corked: bool = False) -> None:
        """
        Run the handshake.

        @param context: with what.
        @param server: which side this is.
        @param corked: whether to hold the last flight back until something is sent.
        @raise PeerGone: if the other side ended it.
        @raise ssl.SSLError: if this side did.
        """
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self._step(self._tls.do_handshake)
        if not corked:
            self._flush()

    @property
    def alpn(self) -> str | None:
        """The protocol that ALPN has selected."""
        return None if self._tls is None else self._tls.selected_alpn_protocol()

    def _step(self, action: Callable[[], object]) -> object:
        """
        Do something that may need more from the other side.

        @param action: done again and again until it succeeds.
        @return: its result.
        @raise PeerGone: if the other side ended the connection.
        """
        while True:
            try:
                return action()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLEOFError:
                raise PeerGone("eof") from None
            except ssl.SSLError as error:
                with contextlib.suppress(OSError):
                    self._flush()
                alert = re.search(r"ALERT[_ ](\w+)", error.reason or "", re.IGNORECASE)
                if alert is None:
                    raise
                raise PeerGone(alert[1].lower()) from None

    def _flush(self) -> None:
        """Send what TLS has written, in one piece."""
        with self._sending:
            data = self._outgoing.read()
            if data:
                self.connection.sendall(data)
                self.sent += len(data)

    def _fill(self) -> None:
        """
        Receive something for TLS.

        @raise PeerGone: if the connection was reset or nothing comes.
        """
        try:
            data = self.connection.recv(1 << 16)
        except TimeoutError:
            raise PeerGone("silence") from None
        except OSError as error:
            raise PeerGone(f"reset ({error})") from None
        self.received += len(data)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def send(self, data: bytes) -> None:
        """
        Send, with whatever was held back, in one piece.

        @param data: what.
        """
        if self._tls is None:
            self.connection.sendall(data)
        else:
            self._tls.write(data)
            self._flush()

    def receive(self) -> bytes:
        """
        Receive some.

        @return: at least one octet.
        @raise PeerGone: if there is no more.
        """
        tls = self._tls
        if tls is None:
            data = self.connection.recv(1 << 16)
        else:
            data = self._step(lambda: tls.read(1 << 16))  # type: ignore[assignment]
        if not data:
            # A stream that TLS ended in good order reads as empty; one that was
            # only cut raises SSLEOFError.
            raise PeerGone("eof" if tls is None else CLOSE_NOTIFY)
        return data

    def receiveRecord(self) -> bytes:
        """
        Receive an RPC record of one fragment.

        @return: its body.
        @raise PeerGone: if there is no more.
        """
        while len(self._buffer) < 4 or len(self._buffer) < 4 + self._length():
            self._buffer += self.receive()
        end = 4 + self._length()
        body, self._buffer = self._buffer[4:end], self._buffer[end:]
        return body

    def _length(self) -> int:
        """Read the record mark at the beginning of the buffer."""
        return int.from_bytes(self._buffer[:4], "big") & ~_LAST_FRAGMENT


@dataclass(slots=True)
class Visit:
    """
    What a server saw of one connection.

    @ivar calls: how many RPC calls arrived over TLS.
    @ivar received: how many octets of TLS arrived.
    @ivar sent: how many octets of TLS were sent.
    @ivar alpn: the protocol that ALPN has selected.
    @ivar ending: how the other side ended it.
    """

    calls: int = 0
    received: int = 0
    sent: int = 0
    alpn: str | None = None
    ending: str = ""


Behaviour = Callable[[Stream, Visit], None]
"""What a server does with a connection, from the AUTH_TLS probe on."""


def answerProbe(stream: Stream, verifier: bytes = _STARTTLS) -> None:
    """
    Answer the AUTH_TLS probe.

    @param stream: a new connection.
    @param verifier: with what.
    """
    xid = int.from_bytes(stream.receiveRecord()[:4], "big")
    stream.send(_rpcReply(xid, 0, verifier))


def serveCalls(context: ssl.SSLContext) -> Behaviour:
    """
    Speak TLS as asked; answer the NULL call, and nothing else.

    @param context: with what.
    @return: the behaviour.
    """

    def behave(stream: Stream, visit: Visit) -> None:
        answerProbe(stream)
        stream.startTls(context, server=True)
        while True:
            call = stream.receiveRecord()
            visit.calls += 1
            isNull = call[20:24] == bytes(4)
            stream.send(
                _rpcReply(int.from_bytes(call[:4], "big"), 0 if isNull else _PROGRAM_UNAVAILABLE)
            )

    return behave


def relay(context: ssl.SSLContext, host: Host) -> Behaviour:
    """
    Speak TLS as asked, and pass everything on to the host's NFS server in clear.

    @param context: with what.
    @param host: where the NFS server is.
    @return: the behaviour.
    """

    def behave(stream: Stream, visit: Visit) -> None:
        answerProbe(stream)
        stream.startTls(context, server=True)
        with host.network():
            # By the address that clients can reach: nfsd gives it to them as that
            # of its data server.
            server = socket.create_connection(("10.0.0.1", 2049))
        back = threading.Thread(target=_pump, args=(server, stream), daemon=True)
        back.start()
        try:
            while True:
                server.sendall(stream.receive())
                visit.calls += 1
        finally:
            server.shutdown(socket.SHUT_RDWR)
            back.join()
            server.close()

    return behave


def _pump(source: socket.socket, stream: Stream) -> None:
    """
    Pass on what an NFS server sends, to its end.

    @param source: the connection to the server.
    @param stream: where it goes.
    """
    with contextlib.suppress(OSError, PeerGone):
        while data := source.recv(1 << 16):
            stream.send(data)


def closeInHandshake(stream: Stream, _visit: Visit) -> None:
    """
    Take the ClientHello and close.

    @param stream: the connection.
    @param _visit: not used.
    """
    answerProbe(stream)
    stream.receive()


def stallInHandshake(stream: Stream, _visit: Visit) -> None:
    """
    Take the ClientHello and do nothing until the other side gives up.

    @param stream: the connection.
    @param _visit: not used.
    """
    answerProbe(stream)
    while True:
        stream.receive()


def answerInClear(stream: Stream, _visit: Visit) -> None:
    """
    Promise TLS, then answer the ClientHello with an RPC reply.

    @param stream: the connection.
    @param _visit: not used.
    """
    answerProbe(stream)
    stream.receive()
    stream.send(_rpcReply(0, 0))
    while True:
        stream.receive()


def knowNoTls(stream: Stream, _visit: Visit) -> None:
    """
    Answer the probe as a server without TLS does.

    @param stream: the connection.
    @param _visit: not used.
    """
    answerProbe(stream, b"")
    while True:
        stream.receive()


class RpcServer:
    """
    A server on a host; every connection has a thread of its own.

    @ivar visits: what it saw, a connection each, in order of their beginning.
    """

    def __init__(self, host: Host, behaviour: Behaviour) -> None:
        """
        Listen on L{PORT}.

        @param host: where.
        @param behaviour: what to do with a connection.
        """
        self.visits: list[Visit] = []
        self._behaviour = behaviour
        self._connections: list[socket.socket] = []
        with host.network():
            self._listener = socket.create_server(("10.0.0.1", PORT), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        """Take connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                visit = Visit()
                self.visits.append(visit)
                self._connections.append(connection)
                threading.Thread(target=self._serve, args=(connection, visit), daemon=True).start()

    def _serve(self, connection: socket.socket, visit: Visit) -> None:
        """
        Behave, and note how it ends.

        @param connection: a new connection.
        @param visit: where to note it.
        """
        stream = Stream(connection)
        try:
            self._behaviour(stream, visit)
            visit.ending = "closed by the server"
        except PeerGone as gone:
            visit.ending = str(gone)
        except OSError as error:
            visit.ending = f"{type(error).__name__}: {error}"
        finally:
            visit.received, visit.sent, visit.alpn = stream.received, stream.sent, stream.alpn
            connection.close()
            self._connections.remove(connection)

    def close(self) -> None:
        """Close everything."""
        for connected in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@dataclass(slots=True)
class RpcClient:
    """
    A connection to a host's NFS server.

    @ivar host: from where.
    @ivar address: the server's.
    @ivar stream: the connection, after the answer to its AUTH_TLS probe.
    """

    host: Host
    address: str = "10.0.0.1"
    stream: Stream = field(init=False)

    def __post_init__(self) -> None:
        """Connect, probe, and expect C{STARTTLS}."""
        with self.host.network():
            self.stream = Stream(socket.create_connection((self.address, 2049), _SECONDS))
        self.stream.send(rpcCall(1, _AUTH_TLS))
        if _STARTTLS not in self.stream.receiveRecord():
            raise PeerGone("no STARTTLS")

    def startTls(
        self,
        name: str | None = "client",
        *,
        tls12: bool = False,
        corked: bool = False,
        alpn: Sequence[str] = ("sunrpc",),
    ) -> None:
        """
        Run the handshake.

        @param name: the client's certificate, if any.
        @param tls12: whether it knows nothing newer than TLS 1.2.
        @param corked: whether the last flight waits for the first call.
        @param alpn: the protocols that it offers; none leaves the extension out.
        """
        context = tlsContext(name, server=False, tls12=tls12, alpn=alpn)
        self.stream.startTls(context, server=False, corked=corked)

    def call(self, xid: int) -> None:
        """
        Make a NULL call and expect its reply.

        @param xid: its number.
        @raise PeerGone: if there is no such reply.
        """
        self.stream.send(rpcCall(xid))
        reply = self.stream.receiveRecord()
        if reply[:4] != xid.to_bytes(4, "big"):
            raise PeerGone(f"a reply to call {reply[:4].hex()} instead of {xid:08x}")

    def ending(self) -> str:
        """
        Wait until the other side ends the connection.

        @return: how.
        """
        try:
            while True:
                self.stream.receive()
        except PeerGone as gone:
            return str(gone)
        except OSError as error:
            return f"reset ({error})"

    def close(self) -> None:
        """Close the connection."""
        self.stream.connection.close()


def outcome(
    host: Host,
    name: str | None = "client",
    *,
    address: str = "10.0.0.1",
    alpn: Sequence[str] = ("sunrpc",),
) -> str:
    """
    Connect to a host's NFS server, shake hands, and make a call.

    @param host: from where.
    @param name: the client's certificate, if any.
    @param address: the server's.
    @param alpn: the protocols that the client offers.
    @return: C{ok}; otherwise what the server said, usually the name of an alert.
    """
    try:
        client = RpcClient(host, address)
    except (PeerGone, OSError) as gone:
        # A server that has no key at hand may be as quick as that.
        return str(gone)
    try:
        client.startTls(name, alpn=alpn)
        # A server that does not like the certificate says so after our Finished, and
        # may have closed by now; its alert can be read all the same.
        with contextlib.suppress(OSError):
            client.stream.send(rpcCall(3))
        client.stream.receiveRecord()
    except PeerGone as gone:
        return str(gone)
    except ssl.SSLError as error:
        return f"refused by the client: {error.reason}"
    except OSError as error:
        return f"reset ({error})"
    finally:
        client.close()
    return "ok"
