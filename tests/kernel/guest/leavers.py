"""
Servers that go away as soon as they have sent their flight, before the client can be
through with it: what takes place by chance where a server is quick to refuse a client.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
from typing import Final

from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES, IV_LENGTH
from ktlsagent.protocols.keyschedule import (
    SERVER_TRAFFIC_SECRET,
    parseKeyLogLine,
    trafficKeys,
)
from ktlsagent.protocols.record import AlertDescription, sealedAlert
from tests.kernel.guest.peers import Behaviour, Stream, Visit, answerProbe, tlsContext

_SUITE_OFFSET: Final = 5 + 4 + 2 + 32 + 1 + 32
"""
Where a ServerHello has the cipher suite: behind the headers of record and message,
version, random, and the client's session id (RFC 8446, section 4.1.3).
"""


def leaveEarly(alert: AlertDescription | None = None) -> Behaviour:
    """
    Send the server's flight, and close.

    @param alert: what is sent behind it, under the session's keys.
    @return: the behaviour.
    """

    def behave(stream: Stream, _visit: Visit) -> None:
        answerProbe(stream)
        context = tlsContext("server", server=True)
        with tempfile.NamedTemporaryFile() as keyLog:
            context.keylog_filename = keyLog.name
            flight = _flight(stream, context)
            secrets = dict(
                parseKeyLogLine(line) for line in keyLog if line.startswith(SERVER_TRAFFIC_SECRET)
            )
        if alert is not None:
            value = flight[_SUITE_OFFSET : _SUITE_OFFSET + 2]
            suite = next(suite for suite in CIPHER_SUITES.values() if suite.value == value)
            secret = secrets[SERVER_TRAFFIC_SECRET]
            keys = trafficKeys(suite.hash, secret, suite.keyLength, IV_LENGTH)
            flight += sealedAlert(alert, suite, keys, 0)
        # The end of the flight and the end of the connection are in one segment.
        stream.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        stream.connection.sendall(flight)

    return behave


def _flight(stream: Stream, context: ssl.SSLContext) -> bytes:
    """
    Take the ClientHello.

    @param stream: the connection.
    @param context: what to answer with.
    @return: everything up to Finished.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    while not outgoing.pending:
        incoming.write(stream.receive())
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return outgoing.read()
