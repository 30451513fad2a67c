"""
Pre-shared keys against TLS libraries that share no code with the agent: its engines
run the handshake over TCP, the kernel takes the keys, and data goes both ways.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from OpenSSL import SSL

from ktlsagent.ktls import KernelTLS
from ktlsagent.protocols import callbacks
from ktlsagent.protocols.context import TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.interfaces import Engine, EngineState, TLSParameters
from ktlsagent.protocols.psk import PreSharedKey
from ktlsagent.protocols.pskserver import PreSharedKeyParameters, engineFor
from ktlsagent.protocols.record import ContentType, RecordReader
from ktlsagent.protocols.session import Role
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import LOGS, Lab
from tests.kernel.guest.waiting import Unexpected, expect, until

_PORT = 4433
_PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:+DHE-PSK"
_LENGTHS = {"sha256": 32, "sha384": 48}
_SECONDS = 20.0
_HELLO = b"hello over kTLS\n"


def _key(hashName: str) -> PreSharedKey:
    """Make a key."""
    return PreSharedKey(b"lab", os.urandom(_LENGTHS[hashName]), hashName, 1)


def _suites(hashName: str) -> list[str]:
    return [suite.name for suite in CIPHER_SUITES.values() if suite.hash == hashName]


def _sessionFile(key: PreSharedKey) -> str:
    """
    Write a key as C{openssl -psk_session} wants it.

    @param key: the key.
    @return: the file's path.
    """
    lib: Any = SSL._lib  # type: ignore[attr-defined]
    ffi: Any = SSL._ffi  # type: ignore[attr-defined]
    connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD))
    suite = next(suite for suite in CIPHER_SUITES.values() if suite.hash == key.hash)
    session = callbacks._pskSession(connection._ssl, key.key, suite.value)
    data = ffi.new("unsigned char[]", lib.i2d_SSL_SESSION(session, ffi.NULL))
    lib.i2d_SSL_SESSION(session, ffi.new("unsigned char **", data))
    lib.SSL_SESSION_free(session)
    text = base64.encodebytes(bytes(ffi.buffer(data))).decode()
    name = "SSL SESSION PARAMETERS"
    path = LOGS.parent / "psk.pem"
    path.write_text(f"-----BEGIN {name}-----\n{text}-----END {name}-----\n")
    return str(path)


def _serverCommand(tool: str, key: PreSharedKey) -> list[str]:
    """Say how a server that sends back what it gets is started."""
    if tool == "openssl":
        return [
            *("openssl", "s_server", "-accept", str(_PORT), "-nocert", "-tls1_3", "-rev"),
            *("-psk_session", _sessionFile(key), "-psk_identity", key.identity.decode()),
            *("-ciphersuites", ":".join(_suites(key.hash)), "-quiet"),
        ]
    passwords = LOGS.parent / "psk.passwords"
    passwords.write_text(f"{key.identity.decode()}:{key.key.hex()}\n")
    return [
        *("gnutls-serv", "--echo", "--port", str(_PORT), "--quiet"),
        *("--pskpasswd", str(passwords), "--priority", _PRIORITY),
    ]


def _clientCommand(tool: str, key: PreSharedKey) -> list[str]:
    """Say how a client that shows what it gets is started."""
    if tool == "openssl":
        return [
            *("openssl", "s_client", "-connect", f"10.0.0.1:{_PORT}", "-tls1_3", "-quiet"),
            *("-psk_session", _sessionFile(key), "-psk_identity", key.identity.decode()),
            *("-ciphersuites", ":".join(_suites(key.hash))),
        ]
    return [
        *("gnutls-cli", "--port", str(_PORT), "--pskusername", key.identity.decode()),
        *("--pskkey", key.key.hex(), "--priority", _PRIORITY, "10.0.0.1"),
    ]


def _handshake(connection: socket.socket, engine: Engine) -> None:
    """
    Run a handshake and give its keys to the kernel.

    @param connection: a TCP connection.
    @param engine: the engine.
    @raise Unexpected: if it fails.
    """
    connection.settimeout(_SECONDS)
    connection.sendall(engine.start())
    reader = RecordReader()
    while engine.state is EngineState.NEED_RECORD:
        data = connection.recv(reader.wanted())
        if not data:
            raise Unexpected("the peer closed the connection in mid-handshake")
        record = reader.feed(data)
        if record is not None:
            connection.sendall(engine.receiveRecord(record))
    if engine.session is None:
        raise Unexpected(f"the handshake failed: {engine.error}")
    KernelTLS().install(connection, engine.session)


@contextlib.contextmanager
def _running(host: Host, command: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a peer; its output goes into a log."""
    log = LOGS / f"{command[0]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            host.command(*command), stdin=subprocess.PIPE, stdout=output, stderr=output
        )
        try:
            yield process, log
        finally:
            process.kill()
            process.wait()


def server(lab: Lab, tool: str, hashName: str) -> None:
    """
    The engine is the client of another library's server.

    @param lab: the stage.
    @param tool: C{openssl} or C{gnutls}.
    @param hashName: the key's hash.
    """
    host = lab.oneHost()
    key = _key(hashName)
    context = TLSContext(role=Role.CLIENT, suites=_suites(hashName), groups=())
    parameters = TLSParameters(Role.CLIENT, context, None, lambda _chain: None, preSharedKey=key)
    with _running(host, _serverCommand(tool, key)), host.network():
        until(lambda: _listens(host), f"{tool} listens")
        with socket.create_connection(("10.0.0.1", _PORT), _SECONDS) as connection:
            engine = engineFor(parameters)
            _handshake(connection, engine)
            connection.sendall(_HELLO)
            answers = (_HELLO, _HELLO[:-1][::-1] + b"\n")
            expect("answer", _received(connection), *answers)
            lab.facts["suite"] = engine.session and engine.session.suite.name


def client(lab: Lab, tool: str, hashName: str) -> None:
    """
    The engine is the server of another library's client.

    @param lab: the stage.
    @param tool: C{openssl} or C{gnutls}.
    @param hashName: the key's hash.
    """
    host = lab.oneHost()
    key = _key(hashName)
    context = TLSContext(suites=_suites(hashName), groups=())
    with host.network():
        listener = lab.closing(socket.create_server(("10.0.0.1", _PORT)))
    listener.settimeout(_SECONDS)
    with _running(host, _clientCommand(tool, key)) as (process, log):
        connection = lab.closing(listener.accept()[0])
        engine = engineFor(PreSharedKeyParameters({hashName: context}, lambda _offered: key))
        _handshake(connection, engine)
        connection.sendall(_HELLO)
        until(lambda: _HELLO in log.read_bytes(), f"{tool} shows what it was sent")
        assert process.stdin is not None
        process.stdin.write(_HELLO)
        process.stdin.flush()
        expect("what the client sent", _received(connection), _HELLO)
        lab.facts["suite"] = engine.session and engine.session.suite.name


def _listens(host: Host) -> bool:
    return bool(host.call("ss", "-Hltn", f"sport = :{_PORT}"))


def _received(connection: socket.socket) -> bytes:
    """
    Read until the end of a line, as the kernel's consumers do: past the tickets that a
    server sends behind its Finished.
    """
    data = b""
    while not data.endswith(b"\n"):
        more, control, _flags, _address = connection.recvmsg(4096, socket.CMSG_SPACE(1))
        if not more:
            raise Unexpected(f"the connection ended behind {data!r}")
        if not control or control[0][2] == bytes((ContentType.APPLICATION_DATA,)):
            data += more
    return data
