"""Tests of L{ktlsagent.protocols.handshake} over a transport in memory."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ktlsagent.errors import (
    DeadlineExpired,
    PeerAlert,
    PeerClosed,
    PeerMisbehaved,
    PeerRejected,
)
from ktlsagent.protocols.context import TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.handshake import (
    TICKET_SECONDS,
    Aside,
    HandshakeProtocol,
    IRecordTransport,
)
from ktlsagent.protocols.interfaces import EngineState, TLSParameters
from ktlsagent.protocols.session import Role
from ktlsagent.protocols.tickets import Tickets
from tests.support import certificates
from tests.support.engines import accept
from tests.support.memorytransport import MemoryTransport, Step, Upper
from tests.support.tlspeers import StdlibPeer, records, stdlibContext


def now(step: Step) -> None:
    """Run a step at once."""
    step()


class Threads:
    """
    Threads that run steps when the test says so.

    @ivar steps: the steps that were begun and hang.
    @ivar ran: how many have come back.
    """

    def __init__(self) -> None:
        """Nothing hangs."""
        self.steps: list[tuple[Callable[[], bytes], Deferred[bytes]]] = []
        self.ran = 0

    def run(self, step: Callable[[], bytes]) -> Deferred[bytes]:
        """Begin a step."""
        result: Deferred[bytes] = Deferred()
        self.steps.append((step, result))
        return result

    def release(self) -> None:
        """Let the step come back that hangs."""
        ((step, result),) = self.steps
        self.steps.clear()
        self.ran += 1
        try:
            output = step()
        except Exception:  # noqa: BLE001 - as a thread does
            result.errback(Failure())
        else:
            result.callback(output)


class BrokenEngine(TLSEngine):
    """An engine with a bug."""

    def start(self) -> bytes:
        raise ZeroDivisionError("a bug")


class TicketlessEngine(TLSEngine):
    """An engine with a bug in what comes last."""

    def takeTicket(self, record: bytes) -> bool:
        raise ZeroDivisionError("a bug")


class HandshakeTestCase(SynchronousTestCase):
    """What the tests share: a protocol, what is above it and what is below."""

    def prepare(
        self,
        role: Role = Role.CLIENT,
        *,
        peer: StdlibPeer | None = None,
        schedule: Callable[[Step], None] = now,
        engine: type[TLSEngine] = TLSEngine,
        slow: bool = False,
        aside: Aside | None = None,
        tickets: Tickets | None = None,
    ) -> None:
        """Make a protocol that is not yet connected."""
        own = certificates.server() if role is Role.SERVER else certificates.client()
        context = TLSContext(
            store=certificates.authority().store(),
            own=[replace(own.own(), slow=slow)] if slow or role is Role.SERVER else [],
            suites=tuple(CIPHER_SUITES),
            groups=(),
            tickets=tickets,
        )
        self.engine = engine(TLSParameters(role, context, None, accept, server="server"))
        self.upper = Upper()
        more = {} if aside is None else {"aside": aside}
        self.protocol = HandshakeProtocol(self.engine, self.upper, schedule, **more)
        self.transport = MemoryTransport(peer)

    def connect(self) -> None:
        """Connect the protocol."""
        self.transport.connect(self.protocol)

    def goodServer(self) -> StdlibPeer:
        """Make a server with a good certificate that sends two tickets."""
        return StdlibPeer(stdlibContext("server", own=certificates.server()))

    def assertFailed(self, error: BaseException | None) -> None:
        """Check that the protocol on top was told why there is no session, once."""
        self.assertEqual(self.upper.connections, 0)
        self.assertEqual(self.upper.reasons, [error])

    def assertConnected(self) -> None:
        """Check that the protocol on top was connected, once."""
        self.assertEqual(self.upper.reasons, [])
        self.assertEqual(self.upper.connections, 1)
        self.assertIs(self.upper.transport, self.protocol)
        self.assertIs(self.protocol.session, self.engine.session)


class SuccessTests(HandshakeTestCase):
    """A handshake that succeeds."""

    def test_transport(self) -> None:
        """The transport of these tests is one."""
        self.assertTrue(verifyObject(IRecordTransport, MemoryTransport()))

    def test_client(self) -> None:
        """The protocol on top of a client is connected; what comes behind is left alone."""
        self.prepare(peer=self.goodServer())
        self.connect()
        self.assertConnected()
        self.assertTrue(self.transport.unread)
        self.assertGreaterEqual(self.protocol.records, 2)

    def test_server(self) -> None:
        """The protocol on top of a server is connected."""
        self.prepare(Role.SERVER, peer=StdlibPeer(stdlibContext("client")))
        self.connect()
        self.assertConnected()
        self.assertEqual(self.transport.unread, [])

    def test_recordsAreCounted(self) -> None:
        """Each record of the peer is counted."""
        peer = StdlibPeer(stdlibContext("client"))
        self.prepare(Role.SERVER)
        self.connect()
        self.assertEqual(self.protocol.records, 0)
        self.transport.deliver(peer.feed(b""))
        self.assertEqual(self.protocol.records, 1)
        flight = records(peer.feed(self.transport.written))
        for number, record in enumerate(flight, 2):
            self.transport.deliver(record)
            self.assertEqual(self.protocol.records, number)
        self.assertConnected()

    def test_flushedFirst(self) -> None:
        """The keys are not handed over before everything is sent."""
        self.prepare(peer=self.goodServer())
        self.transport.blocked = True
        self.connect()
        self.assertIs(self.engine.state, EngineState.COMPLETE)
        self.assertEqual((self.upper.connections, self.upper.reasons), (0, []))
        self.transport.flush()
        self.assertConnected()

    def test_scheduled(self) -> None:
        """Every step but the first waits for its turn."""
        turns: list[Step] = []
        self.prepare(peer=self.goodServer(), schedule=turns.append)
        self.connect()
        self.assertNotEqual(self.transport.written, b"")
        steps = 0
        while turns:
            self.assertEqual(len(turns), 1)
            turns.pop(0)()
            steps += 1
        self.assertConnected()
        self.assertEqual(steps, self.protocol.records)

    def test_noSessionYet(self) -> None:
        """There is no session before it is up."""
        self.prepare()
        self.connect()
        self.assertRaises(ValueError, lambda: self.protocol.session)


class TicketTests(HandshakeTestCase):
    """A client that wants tickets looks at one record more."""

    def setUp(self) -> None:
        self.tickets = Tickets()

    def test_taken(self) -> None:
        """The first ticket is taken, and counted; the second one is left alone."""
        self.prepare(peer=self.goodServer(), tickets=self.tickets)
        self.connect()
        self.assertConnected()
        self.assertEqual(self.transport.waited, [TICKET_SECONDS])
        self.assertEqual(len(self.transport.unread), 1)
        self.assertEqual(self.protocol.session.receive.sequence, 1)
        self.assertIsNotNone(self.tickets.take("server"))

    def test_scheduled(self) -> None:
        """To look at it is a step as others are."""
        turns: list[Step] = []
        self.prepare(peer=self.goodServer(), schedule=turns.append, tickets=self.tickets)
        self.connect()
        while not self.transport.waited:
            turns.pop(0)()
        self.assertEqual((self.upper.connections, len(turns)), (0, 1))
        turns.pop(0)()
        self.assertConnected()

    def test_none(self) -> None:
        """If none comes, the keys are handed over."""
        context = stdlibContext("server", own=certificates.server())
        context.num_tickets = 0
        self.prepare(peer=StdlibPeer(context), tickets=self.tickets)
        self.connect()
        self.assertConnected()
        self.assertEqual(self.transport.waited, [TICKET_SECONDS])
        self.assertEqual(self.protocol.session.receive.sequence, 0)

    def test_somethingElse(self) -> None:
        """What else comes stays where it is."""
        self.prepare(tickets=self.tickets, peer=self.goodServer())
        self.transport.blocked = True
        self.connect()
        self.transport.unread.insert(0, b"\x17\x03\x03\x00\x20" + bytes(32))
        left = list(self.transport.unread)
        self.transport.flush()
        self.assertConnected()
        self.assertEqual(self.transport.unread, left)
        self.assertEqual(self.protocol.session.receive.sequence, 0)

    def test_refusal(self) -> None:
        """A server that refuses us instead is believed; its alert stays where it is."""
        self.refusedBehind(self.tickets)
        (reason,) = self.upper.reasons
        assert isinstance(reason, PeerAlert)
        self.assertFailed(reason)
        self.assertEqual(reason.code, "alert-certificate-required")
        self.assertEqual(self.engine.alertReceived, 116)
        self.assertEqual(len(self.transport.unread), 1)

    def test_lastWords(self) -> None:
        """The same alert is found when nobody else is to read it; what is no alert is not."""
        self.refusedBehind(None)
        self.assertConnected()
        refusal = self.protocol.lastWords()
        self.assertEqual(refusal and refusal.code, "alert-certificate-required")
        self.assertEqual(self.transport.waited, [0.0])
        self.assertEqual(len(self.transport.unread), 1)
        for unread in ([], [b"\x17\x03\x03\x00\x20" + bytes(32)]):
            self.transport.unread = unread
            self.assertIsNone(self.protocol.lastWords())

    def refusedBehind(self, tickets: Tickets | None) -> None:
        """Connect to a server that wants a certificate, and has none of us."""
        context = stdlibContext(
            "server", own=certificates.server(), trusted=certificates.otherAuthority()
        )
        self.prepare(peer=StdlibPeer(context), tickets=tickets)
        self.connect()

    def test_deadline(self) -> None:
        """The deadline holds here as well, also if the record has just come."""
        error = DeadlineExpired("deadline", "10 s are over")
        for silent in (True, False):
            turns: list[Step] = []
            self.prepare(peer=self.goodServer(), schedule=turns.append, tickets=self.tickets)
            self.transport.silent = silent
            self.connect()
            while not self.transport.waited:
                turns.pop(0)()
            self.protocol.abort(error)
            for turn in turns:
                turn()
            self.assertFailed(error)
            self.assertTrue(self.transport.stopped)
            self.assertEqual(len(self.transport.unread), 2)

    def test_bug(self) -> None:
        """A bug there is told to the protocol on top."""
        self.prepare(peer=self.goodServer(), engine=TicketlessEngine, tickets=self.tickets)
        self.connect()
        (reason,) = self.upper.reasons
        self.assertIsInstance(reason, ZeroDivisionError)

    def test_notWanted(self) -> None:
        """A server, and a client without tickets, wait for nothing."""
        self.prepare(Role.SERVER, peer=StdlibPeer(stdlibContext("client")), tickets=self.tickets)
        self.connect()
        self.assertConnected()
        self.assertEqual(self.transport.waited, [])
        self.prepare(peer=self.goodServer())
        self.connect()
        self.assertConnected()
        self.assertEqual(self.transport.waited, [])


class FailureTests(HandshakeTestCase):
    """A handshake that fails."""

    def test_alertIsSent(self) -> None:
        """The peer's certificate is refused: the alert goes out, then the reason goes up."""
        peer = StdlibPeer(stdlibContext("server", own=certificates.expired()))
        self.prepare(peer=peer)
        self.connect()
        self.assertFailed(self.engine.error)
        self.assertIn("EXPIRED", str(peer.error).upper())
        self.assertRaises(ValueError, lambda: self.protocol.session)

    def test_alertCannotBeSent(self) -> None:
        """Why the alert was to be sent matters more than that it could not be."""
        peer = StdlibPeer(stdlibContext("server", own=certificates.expired()))
        turns: list[Step] = []
        self.prepare(peer=peer, schedule=turns.append)
        self.connect()
        turns.pop(0)()
        self.transport.broken = PeerClosed("connection-lost", "broken")
        while turns:
            turns.pop(0)()
        self.assertFailed(self.engine.error)
        self.assertIsInstance(self.engine.error, PeerRejected)

    def test_lastFlightCannotBeSent(self) -> None:
        """A session whose Finished was not sent is none."""
        turns: list[Step] = []
        self.prepare(peer=self.goodServer(), schedule=turns.append)
        self.connect()
        turns.pop(0)()
        self.transport.broken = PeerClosed("connection-lost", "broken")
        while turns:
            turns.pop(0)()
        self.assertIs(self.engine.state, EngineState.COMPLETE)
        self.assertIsNone(self.engine.error)
        self.assertFailed(self.transport.broken)

    def test_connectionLost(self) -> None:
        """A connection that ends in mid-handshake is the reason."""
        self.prepare()
        self.connect()
        error = PeerClosed("connection-closed", "the peer closed the connection")
        self.transport.lose(error)
        self.assertFailed(error)

    def test_noTLSAtAll(self) -> None:
        """A peer whose first octets are no TLS is told so in clear."""
        self.prepare(Role.SERVER)
        self.connect()
        error = PeerMisbehaved("not-tls", "expected a TLS record")
        self.transport.lose(error)
        self.assertFailed(error)
        # Fatal, unexpected_message (RFC 8446, section 6).
        self.assertEqual(self.transport.written, bytes.fromhex("1503030002020a"))
        self.assertEqual(self.engine.alertSent, 10)

    def test_badRecordLater(self) -> None:
        """A client whose keys are in use is told under them, by the alert of the code."""
        for code, alert, words in (
            ("not-tls", 10, "unexpected message"),
            ("bad-record", 10, "unexpected message"),
            ("record-overflow", 22, "record overflow"),
            ("too-many-records", 10, "unexpected message"),
            ("handshake-too-long", 47, "illegal parameter"),
        ):
            peer = StdlibPeer(stdlibContext("client"))
            self.prepare(Role.SERVER)
            self.connect()
            self.transport.deliver(peer.feed(b""))
            flight = self.transport.written
            peer.feed(flight)
            error = PeerMisbehaved(code, "expected a record")
            self.transport.lose(error)
            self.assertFailed(error)
            self.assertEqual(self.engine.alertSent, alert)
            (sealed,) = records(self.transport.written[len(flight) :])
            self.assertEqual(sealed[0], 23)
            self.assertTrue(peer.complete)
            refusal = self.assertRaises(ssl.SSLError, peer.receive, sealed)
            self.assertIn(words, str(refusal).lower().replace("_", " "))

    def test_badRecordOfAServer(self) -> None:
        """A server is told, too, at its first record and behind its ServerHello."""
        for number in (0, 1):
            peer = StdlibPeer(stdlibContext("server", own=certificates.server()))
            self.prepare(Role.CLIENT)
            self.connect()
            flight = records(peer.feed(self.transport.written))
            hello = self.transport.written
            self.transport.deliver(b"".join(flight[:number]))
            self.transport.lose(PeerMisbehaved("record-overflow", "expected a record"))
            self.assertEqual(self.engine.alertSent, 22)
            self.assertEqual(self.transport.written[len(hello) :], bytes.fromhex("15030300020216"))
            peer.feed(self.transport.written[len(hello) :])
            self.assertIn("record overflow", str(peer.error).lower().replace("_", " "))

    def test_bug(self) -> None:
        """A bug is told to the protocol on top, which has to answer all the same."""
        self.prepare(engine=BrokenEngine)
        self.connect()
        (error,) = self.upper.reasons
        self.assertIsInstance(error, ZeroDivisionError)
        self.assertEqual(self.upper.connections, 0)


class AbortTests(HandshakeTestCase):
    """A handshake that is given up."""

    def test_abort(self) -> None:
        """Reading stops and the reason goes up, once."""
        self.prepare()
        self.connect()
        error = DeadlineExpired("deadline", "10 s are over")
        self.protocol.abort(error)
        self.protocol.abort(DeadlineExpired("deadline", "again"))
        self.transport.lose(PeerClosed("connection-closed", "closed"))
        self.assertTrue(self.transport.stopped)
        self.assertFailed(error)

    def test_abortBeforeTheTurn(self) -> None:
        """A step whose turn comes too late does nothing."""
        turns: list[Step] = []
        self.prepare(peer=self.goodServer(), schedule=turns.append)
        self.connect()
        hello = self.transport.written
        error = DeadlineExpired("deadline", "10 s are over")
        self.protocol.abort(error)
        turns.pop(0)()
        self.assertEqual(turns, [])
        self.assertEqual(self.transport.written, hello)
        self.assertFailed(error)

    def test_abortBeforeTheFlush(self) -> None:
        """A session that could not be flushed in time is not handed over."""
        self.prepare(peer=self.goodServer())
        self.transport.blocked = True
        self.connect()
        error = DeadlineExpired("deadline", "10 s are over")
        self.protocol.abort(error)
        self.transport.flush()
        self.assertFailed(error)

    def test_abortAfterTheHandOver(self) -> None:
        """What was handed over is not taken back."""
        self.prepare(peer=self.goodServer())
        self.connect()
        self.protocol.abort(DeadlineExpired("deadline", "10 s are over"))
        self.assertConnected()


class SlowEngineTests(HandshakeTestCase):
    """A handshake whose steps run in threads."""

    def setUp(self) -> None:
        self.threads = Threads()

    def begin(self, peer: StdlibPeer | None = None, role: Role = Role.SERVER) -> None:
        """Connect a protocol whose engine is slow."""
        self.prepare(role, peer=peer, slow=True, aside=self.threads.run)
        self.connect()

    def test_server(self) -> None:
        """Every step of a server runs aside, one after the other."""
        self.begin(StdlibPeer(stdlibContext("client")))
        while self.threads.steps:
            self.threads.release()
        self.assertConnected()
        self.assertEqual(self.threads.ran, self.protocol.records + 1)

    def test_client(self) -> None:
        """So does every step of a client, which is as good as another one."""
        self.begin(self.goodServer(), Role.CLIENT)
        while self.threads.steps:
            self.threads.release()
        self.assertConnected()
        self.assertEqual(self.threads.ran, self.protocol.records + 1)
        self.assertTrue(self.transport.unread, "the tickets are left alone")

    def test_nothingMeanwhile(self) -> None:
        """As long as a step is under way nothing is read or written."""
        peer = StdlibPeer(stdlibContext("client"))
        self.begin()
        self.threads.release()
        self.transport.deliver(peer.feed(b""))
        self.assertEqual((len(self.threads.steps), self.transport.written), (1, b""))
        self.assertFalse(self.transport._wanted)
        self.threads.release()
        self.assertTrue(self.transport.written)
        self.assertTrue(self.transport._wanted)

    def test_fastEngine(self) -> None:
        """The steps of an engine that is not slow never run aside."""
        self.prepare(Role.SERVER, peer=StdlibPeer(stdlibContext("client")), aside=self.threads.run)
        self.connect()
        self.assertConnected()
        self.assertEqual((self.threads.ran, self.threads.steps), (0, []))

    def test_returnsTooLate(self) -> None:
        """What comes of a step after the deadline is dropped."""
        peer = StdlibPeer(stdlibContext("client"))
        self.begin()
        self.threads.release()
        self.transport.deliver(peer.feed(b""))
        error = DeadlineExpired("deadline", "10 s are over")
        self.protocol.abort(error)
        self.assertFailed(error)
        self.threads.release()
        self.assertFailed(error)
        self.assertEqual(self.transport.written, b"")
        self.assertFalse(self.transport._wanted)

    def test_lostMeanwhile(self) -> None:
        """What comes of a step after the connection is dropped as well."""
        self.begin(role=Role.CLIENT)
        error = PeerClosed("connection-lost", "broken")
        self.transport.lose(error)
        self.threads.release()
        self.assertFailed(error)
        self.assertEqual(self.transport.written, b"")

    def test_tooSlow(self) -> None:
        """Who runs the steps may give one up."""
        self.begin()
        ((_step, result),) = self.threads.steps
        error = DeadlineExpired("token-slow", "the token does not answer")
        result.errback(Failure(error))
        self.assertFailed(error)

    def test_bug(self) -> None:
        """A bug in a thread is told to the protocol on top as well."""
        self.prepare(Role.SERVER, engine=BrokenEngine, slow=True, aside=self.threads.run)
        self.connect()
        self.threads.release()
        (error,) = self.upper.reasons
        self.assertIsInstance(error, ZeroDivisionError)

    def test_noThreads(self) -> None:
        """Without threads a slow engine does not run at all: it would hold up all others."""
        self.prepare(Role.SERVER, slow=True)
        self.connect()
        (error,) = self.upper.reasons
        self.assertIsInstance(error, ValueError)
