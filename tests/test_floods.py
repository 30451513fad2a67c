"""
Peers that make much work of a handshake, against the whole agent: how many steps each
gets, whatever its records are, in every role.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable

from ktlsagent.policy import SETTLE_SECONDS
from ktlsagent.protocols import handshake
from ktlsagent.protocols.handshake import HandshakeProtocol
from ktlsagent.protocols.record import MOST_OCTETS, alertName
from tests.support import certificates
from tests.support.agent import AgentTestCase
from tests.support.fakekernel import CLIENTHELLO, PSK, SERVERHELLO, UNAUTH, X509, FakeUpcall
from tests.support.tlspeers import (
    StdlibPeer,
    clientHello,
    handshakeRecords,
    offeredKeys,
    records,
    stdlibContext,
)

_MOST_STEPS = 66
"""The beginning, the records that are taken, and one that is not."""

_ALERT = 21
_IDENTITY = b"NVMe1R01 nqn.host nqn.target"
_CHANGE_CIPHER_SPEC = bytes.fromhex("140303000101")
_USER_CANCELED = bytes.fromhex("1503030002015a")


class FloodTests(AgentTestCase):
    """Tests of what a peer can make the agent do."""

    def setUp(self) -> None:
        super().setUp()
        self.steps = 0
        step = HandshakeProtocol._step

        def counting(protocol: HandshakeProtocol, run: Callable[[], bytes]) -> None:
            self.steps += 1
            step(protocol, run)

        self.patch(handshake.HandshakeProtocol, "_step", counting)
        ring = self.keyrings.addKeyring(".nvme")
        self.serial = self.keyrings.addKey(ring, _IDENTITY, b"k" * 32, type="psk")
        self.start()

    def flood(self, far: socket.socket, stream: Iterable[bytes]) -> None:
        """
        Send what a peer sends, as fast as it is taken, until nobody takes it.

        @param far: the peer's end of the connection.
        @param stream: its records.
        """
        waiting = b"".join(stream)
        for _round in range(1000):
            try:
                waiting = waiting[far.send(waiting) :] if waiting else b""
            except OSError:
                # Nobody has taken anything for a while, or is there any more.
                waiting = b""
            self.reactor.settle()
            # A client's handshake begins a moment after it was asked for.
            self.reactor.advance(SETTLE_SECONDS)
            self.reactor.settle()
            if not waiting:
                return
        raise self.failureException("no end")

    def refused(self, upcall: FakeUpcall, code: str, alert: str) -> None:
        """
        Check that a flood was refused, and after how much.

        @param upcall: the request.
        @param code: what the log has.
        @param alert: what the peer was told.
        """
        self.assertEqual(upcall.status, errno.EACCES)
        event = self.handshakes()[-1]
        self.assertEqual((event["code"], event["alert_sent"]), (code, alert))
        self.assertLessEqual(self.steps, _MOST_STEPS)

    def test_firstRecords(self) -> None:
        """Records of one octet, and those that mean nothing, are taken 64 times, in every role."""
        hello = clientHello(offeredKeys(*[b"%0999d" % number for number in range(60)], _IDENTITY))
        for role, mode in ((SERVERHELLO, X509), (SERVERHELLO, PSK), (CLIENTHELLO, UNAUTH)):
            self.steps = 0
            upcall, far = self.ask(role, mode, peerName=b"server.lab")
            # For a client it is the beginning of a ServerHello without an end.
            message = hello if role == SERVERHELLO else b"\x02\x00\xf0\x00" + bytes(2**10)
            self.flood(far, handshakeRecords(message, 1))
            self.refused(upcall, "too-many-records", "unexpected_message")

    def test_changeCipherSpecs(self) -> None:
        """So are change_cipher_spec records behind the beginning of a handshake."""
        client = StdlibPeer(stdlibContext("client", own=certificates.client()))
        upcall, far = self.ask(SERVERHELLO, X509)
        self.flood(far, [client.feed(b"")])
        self.flood(far, [_CHANGE_CIPHER_SPEC] * 1000)
        self.assertEqual(upcall.status, errno.EACCES)
        self.assertLessEqual(self.steps, _MOST_STEPS)

    def test_warnings(self) -> None:
        """And alerts that are only warnings."""
        upcall, far = self.ask(SERVERHELLO, X509)
        self.flood(far, [_USER_CANCELED] * 1000)
        self.assertEqual(upcall.status, errno.EACCES)
        self.assertLessEqual(self.steps, _MOST_STEPS)

    def test_underKeys(self) -> None:
        """Records under the client's handshake keys count as well; the alert is sealed."""
        client = StdlibPeer(stdlibContext("client", own=certificates.client()))
        upcall, far = self.ask(SERVERHELLO, X509)
        self.flood(far, [client.feed(b"")])
        flight = far.recv(2**16)
        before = self.steps
        junk = bytes.fromhex("170303001b") + bytes(27)
        (first, *_rest) = records(client.feed(flight))
        # OpenSSL itself refuses the first that it cannot open: no flood, no more steps.
        self.flood(far, [first, *[junk] * 1000])
        self.assertEqual(upcall.status, errno.EACCES)
        self.assertLessEqual(self.steps - before, 2)

    def test_emptyRecords(self) -> None:
        """An empty record is refused, whatever it is."""
        for kind in (20, 21, 22, 23):
            upcall, far = self.ask(SERVERHELLO, X509)
            self.steps = 0
            self.flood(far, [bytes((kind, 3, 3, 0, 0))] * 10)
            self.refused(upcall, "bad-record", "unexpected_message")
            self.assertEqual(self.steps, 1)

    def test_badRecords(self) -> None:
        """What is no record is answered by its alert, first or later, in every role."""
        for role, mode in ((SERVERHELLO, X509), (SERVERHELLO, PSK), (CLIENTHELLO, UNAUTH)):
            begin = bytes.fromhex("160301000101" if role == SERVERHELLO else "160303000102")
            for before in (b"", begin):
                for header, code, alert in (
                    ("1603034101", "record-overflow", "record_overflow"),
                    ("170303ffff", "record-overflow", "record_overflow"),
                    ("6303030001", "not-tls", "unexpected_message"),
                    ("1602000001", "not-tls", "unexpected_message"),
                    ("1603030000", "bad-record", "unexpected_message"),
                ):
                    self.steps = 0
                    upcall, far = self.ask(role, mode, peerName=b"server.lab")
                    self.flood(far, [before, bytes.fromhex(header) + b"x"])
                    self.refused(upcall, code, alert)
                    (told,) = [one for one in records(far.recv(2**12)) if one[0] == _ALERT]
                    self.assertEqual(alertName(told[-1]), alert)

    def test_octets(self) -> None:
        """A handshake has an end however long its records are."""
        upcall, far = self.ask(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
        header = b"\x02\x00\xff\xff"
        self.flood(far, handshakeRecords(header + bytes(2 * MOST_OCTETS)))
        self.assertEqual(upcall.status, errno.EACCES)
        self.assertLessEqual(self.steps, 2 + MOST_OCTETS // 2**14)

    def test_manyTickets(self) -> None:
        """Nor is a ClientHello with more tickets than anybody has left to OpenSSL."""
        hello = clientHello(offeredKeys(*[b"t"] * 1600))
        for mode in (X509, PSK):
            self.steps = 0
            upcall, far = self.ask(SERVERHELLO, mode)
            self.flood(far, handshakeRecords(hello))
            self.refused(upcall, "too-many-identities", "illegal_parameter")
            self.assertLessEqual(self.steps, 1 + 4)
