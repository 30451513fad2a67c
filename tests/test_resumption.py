"""Tests of resumption: engines with tickets, against each other and against others."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from cryptography import x509
from OpenSSL import SSL

from ktlsagent.errors import PeerRejected, SessionUnusable
from ktlsagent.protocols import resumption as resumptionModule
from ktlsagent.protocols.context import TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.interfaces import Judge, TLSParameters
from ktlsagent.protocols.record import openedRecord
from ktlsagent.protocols.session import EstablishedSession, Role
from ktlsagent.protocols.tickets import LIFETIME_SECONDS, MOST_HELD, Tickets
from tests.support import certificates
from tests.support.certificates import Credentials
from tests.support.clock import Clocks
from tests.support.engines import GROUPS, EngineTestCase, accept
from tests.support.modelktls import ModelKTLS
from tests.support.tlspeers import StdlibPeer, converse, pair, records, stdlibContext

SERVER = "the server"


def refuse(chain: Sequence[x509.Certificate]) -> PeerRejected | None:
    """Refuse every peer."""
    return PeerRejected("not-allowed", f"expected another than {chain[0].subject}")


class ResumptionTestCase(EngineTestCase):
    """
    What the tests share: a client and a server that can resume.

    @ivar clock: the clocks by which tickets end.
    """

    def setUp(self) -> None:
        self.clock = Clocks(certificates.NOW.timestamp())
        self.clientTickets = Tickets((), self.clock.wall, self.clock.monotonic)
        self.serverTickets = Tickets((), self.clock.wall, self.clock.monotonic)
        self.clients = self.context(certificates.client(), self.clientTickets)
        self.servers = self.context(certificates.server(), self.serverTickets)

    def context(
        self,
        own: Credentials | None = None,
        tickets: Tickets | None = None,
        *,
        suites: Sequence[str] = tuple(CIPHER_SUITES),
        groups: Sequence[str] = (),
    ) -> TLSContext:
        """Make a context that trusts the lab's CA."""
        return TLSContext(
            store=certificates.authority().store(),
            own=() if own is None else (own.own(),),
            suites=suites,
            groups=groups,
            tickets=tickets,
        )

    def client(self, judge: Judge = accept, context: TLSContext | None = None) -> TLSEngine:
        """Make a client."""
        context = context or self.clients
        name = certificates.SERVER_HOST
        return TLSEngine(TLSParameters(Role.CLIENT, context, name, judge, server=SERVER))

    def server(self, judge: Judge = accept, context: TLSContext | None = None) -> TLSEngine:
        """Make a server."""
        return TLSEngine(TLSParameters(Role.SERVER, context or self.servers, None, judge))

    def handshake(self, client: TLSEngine, server: TLSEngine) -> list[bytes]:
        """Do a handshake, and have the client take the ticket that comes behind it."""
        sent = pair(client, server)
        self.session(server)
        if client.awaitsTicket and self.session(server).transmit.sequence:
            self.assertTrue(client.takeTicket(sent[1][-1]))
        return sent[1]

    def assertResumed(self, client: TLSEngine, server: TLSEngine, *, resumed: bool) -> None:
        """Check that both ends have one session, resumed or not, and that data gets through."""
        ours, theirs = self.session(client), self.session(server)
        self.assertEqual((ours.resumed, theirs.resumed), (resumed, resumed))
        self.assertTrue(ours.transmit == theirs.receive, "client to server")
        self.assertTrue(ours.receive == theirs.transmit, "server to client")
        near, far = ModelKTLS(ours), ModelKTLS(theirs)
        self.assertEqual(
            far.receive.open(near.transmit.seal(b"to the server")), (23, b"to the server")
        )
        self.assertEqual(
            near.receive.open(far.transmit.seal(b"to the client")), (23, b"to the client")
        )

    def again(
        self,
        resumed: bool,  # noqa: FBT001 - all that these tests are about
        client: TLSEngine | None = None,
        server: TLSEngine | None = None,
    ) -> tuple[EstablishedSession, EstablishedSession]:
        """Do a handshake and check whether it was a resumed one."""
        client, server = client or self.client(), server or self.server()
        self.handshake(client, server)
        self.assertResumed(client, server, resumed=resumed)
        return self.session(client), self.session(server)


class BothTests(ResumptionTestCase):
    """Two engines resume."""

    def test_resumed(self) -> None:
        """The second handshake is a resumed one, and so on; each has the peers of the first."""
        ours, theirs = self.again(False)
        for _number in range(3):
            again = self.again(True)
            self.assertEqual(again[0].peerChain, ours.peerChain)
            self.assertEqual(again[1].peerChain, theirs.peerChain)
            self.assertEqual(again[0].peerCertificate, certificates.server().certificate)
            self.assertEqual(again[1].peerCertificate, certificates.client().certificate)
            self.assertFalse(again[0].transmit.keys == ours.transmit.keys, "the same keys")

    def test_presented(self) -> None:
        """Who the peer is can be told of a resumed session as well."""
        self.again(False)
        client, server = self.client(), self.server()
        self.again(True, client, server)
        self.assertEqual(client.presentedCertificate, certificates.server().certificate)
        self.assertEqual(server.presentedCertificate, certificates.client().certificate)

    def test_suites(self) -> None:
        """Every suite can be resumed."""
        for suite in CIPHER_SUITES:
            context = self.context(None, Tickets(), suites=(suite,))
            for resumed in (False, True):
                session, _other = self.again(resumed, self.client(context=context))
                self.assertEqual(session.suite.name, suite)

    def test_oneTicket(self) -> None:
        """A server sends one ticket, which has number 0; OpenSSL's second one is dropped."""
        for resumed in (False, True):
            client, server = self.client(), self.server()
            sent = self.handshake(client, server)
            self.assertResumed(client, server, resumed=resumed)
            session = self.session(server)
            self.assertEqual(session.transmit.sequence, 1)
            contentType, content = openedRecord(sent[-1], session.suite, session.transmit.keys, 0)
            self.assertEqual((contentType, content[0]), (22, 4))
            for other in sent[:-1]:
                self.assertRaises(
                    ValueError, openedRecord, other, session.suite, session.transmit.keys, 0
                )

    def test_clientWithoutCertificate(self) -> None:
        """A client that has shown no certificate has none in a resumed session."""
        context = self.context(None, Tickets())
        for resumed in (False, True, True):
            _ours, theirs = self.again(resumed, self.client(context=context))
            self.assertEqual(theirs.peerChain, ())

    def test_everyContextHasItsOwn(self) -> None:
        """No context takes the tickets of others: that is what a profile and a reload make."""
        self.again(False)
        self.again(False, self.client(context=self.context(None, Tickets())))
        self.again(False, self.client(context=self.context(certificates.client(), Tickets())))
        other = self.context(certificates.server(), Tickets())
        self.again(False, server=self.server(context=other))
        self.again(True, server=self.server(context=other))

    def test_ticketsOfAnotherContext(self) -> None:
        """Even if they were known by name, those of another context could not be read."""
        self.again(False)
        other = self.context(certificates.server(), self.serverTickets)
        self.again(False, server=self.server(context=other))

    def test_helloRetryRequest(self) -> None:
        """A session is also resumed if another key share is asked for."""
        if not GROUPS:
            return
        clients = self.context(None, Tickets(), groups=("X25519", "P-256"))
        servers = self.context(certificates.server(), Tickets(), groups=("P-256",))
        for resumed in (False, True):
            self.again(resumed, self.client(context=clients), self.server(context=servers))

    def test_clientHelloInTwoRecords(self) -> None:
        """A ClientHello that takes two records gets a full handshake."""
        self.again(False)
        client, server = self.client(), self.server()
        (hello,) = records(client.start())
        for part in (hello[5:100], hello[100:]):
            answer = server.receiveRecord(hello[:3] + len(part).to_bytes(2, "big") + part)
        for record in records(answer):
            answer = client.receiveRecord(record)
        for record in records(answer):
            answer = server.receiveRecord(record)
        self.assertTrue(client.takeTicket(answer))
        self.assertResumed(client, server, resumed=False)

    def test_brokenClientHello(self) -> None:
        """What is no ClientHello is OpenSSL's to refuse."""
        server = self.server()
        self.assertTrue(server.receiveRecord(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"))
        self.assertEqual(self.failure(server).code, "unexpected-message")

    def test_off(self) -> None:
        """Without tickets of its own neither side resumes, and a server sends none."""
        off = self.context(certificates.server())
        for _number in range(2):
            _ours, theirs = self.again(False, server=self.server(context=off))
            self.assertEqual(theirs.transmit.sequence, 0)
        self.again(False)
        client = self.client(context=self.context(certificates.client()))
        self.assertFalse(client.awaitsTicket)
        server = self.server()
        sent = pair(client, server)[1]
        self.assertFalse(client.awaitsTicket)
        self.assertFalse(client.takeTicket(sent[-1]))
        self.assertEqual(self.session(client).receive.sequence, 0)
        self.assertEqual(self.session(server).transmit.sequence, 1)

    def test_serverUnknown(self) -> None:
        """A client that cannot say which server it is waits for no ticket."""
        client = TLSEngine(TLSParameters(Role.CLIENT, self.clients, None, accept))
        pair(client, self.server())
        self.session(client)
        self.assertFalse(client.awaitsTicket)


class JudgedAgainTests(ResumptionTestCase):
    """A ticket is worth what the peer's certificates are worth now."""

    def test_serverJudges(self) -> None:
        """A client that is refused now gets a full handshake, and its alert in that."""
        self.again(False)
        client, server = self.client(), self.server(refuse)
        pair(client, server)
        self.assertEqual(self.failure(server).code, "not-allowed")
        self.assertEqual(server.alertSent, 49)

    def test_clientJudges(self) -> None:
        """So does a server."""
        self.again(False)
        client, server = self.client(refuse), self.server()
        pair(client, server)
        self.assertEqual(self.failure(client).code, "not-allowed")
        self.assertEqual(client.alertSent, 49)

    def test_judgesWhatWasVerified(self) -> None:
        """It is the verified chain of the first handshake that is judged, each time."""
        seen: list[tuple[x509.Certificate, ...]] = []

        def judge(chain: Sequence[x509.Certificate]) -> PeerRejected | None:
            seen.append(tuple(chain))
            return None

        for resumed in (False, True, True):
            self.again(resumed, self.client(judge), self.server(judge))
        client = (certificates.client().certificate, certificates.authority().certificate)
        server = (certificates.server().certificate, certificates.authority().certificate)
        self.assertEqual(sorted(seen, key=client.__eq__), [server] * 3 + [client] * 3)

    def test_expiredAtTheServer(self) -> None:
        """A server does not take a ticket when its time is over."""
        self.serverTickets = Tickets(
            [certificates.NOW + certificates.DAY / 48], self.clock.wall, self.clock.monotonic
        )
        self.servers = self.context(certificates.server(), self.serverTickets)
        self.again(False)
        self.clock.advance(1799)
        self.again(True)
        self.clock.advance(1)
        self.again(False)

    def test_expiredAtTheClient(self) -> None:
        """Nor does a client offer it."""
        self.clientTickets = Tickets(
            [certificates.NOW + certificates.DAY / 48], self.clock.wall, self.clock.monotonic
        )
        self.clients = self.context(certificates.client(), self.clientTickets)
        self.again(False)
        self.clock.advance(1799)
        self.again(True)
        self.clock.advance(1)
        client = self.client()
        self.assertEqual(len(client.start()), len(self.client().start()))
        self.again(False)

    def test_keyIsProvenAgain(self) -> None:
        """Resuming again and again does not replace the proof of a key for ever."""
        self.again(False)
        for _number in range(3):
            self.clock.advance(LIFETIME_SECONDS / 4)
            self.again(True)
        self.clock.advance(LIFETIME_SECONDS / 4)
        self.again(False)

    def test_usedTwice(self) -> None:
        """A ticket that comes a second time gets a full handshake, as does one not issued."""
        self.again(False)
        hello = self.client().start()
        for used in (False, True):
            server = self.server()
            answer = records(server.receiveRecord(hello))
            # In a full handshake there are the certificate and its signature as well.
            self.assertEqual(len(answer) > 4, used)

    def test_forgottenByTheServer(self) -> None:
        """A ticket that OpenSSL could read, but we do not know, gets a full handshake."""
        self.again(False)
        self.serverTickets._issued._entries.clear()
        self.again(False)

    def test_anotherCertificate(self) -> None:
        """A session of another peer than the one judged is none."""
        self.again(False)
        client, server = self.client(), self.server()
        resumption = client._resumption
        if resumption is None or resumption.proof is None:
            self.fail("no ticket")
        resumption.proof = self.clientTickets.proof((certificates.client().certificate,))
        pair(client, server)
        error = self.failure(client)
        self.assertIsInstance(error, SessionUnusable)
        self.assertEqual(error.code, "not-judged")

    def test_nobodyJudged(self) -> None:
        """A session that is resumed although no ticket was taken is none."""
        self.again(False)
        client, server = self.client(), self.server()
        if client._resumption is None:
            self.fail("no tickets")
        client._resumption.proof = None
        pair(client, server)
        self.assertEqual(self.failure(client).code, "not-judged")


class TakeTicketTests(ResumptionTestCase):
    """What comes behind the handshake is taken only if it is a ticket."""

    def test_otherRecords(self) -> None:
        """Data, alerts, other messages and what is under no key of ours are left to the kernel."""
        client, server = self.client(), self.server(context=self.context(certificates.server()))
        pair(client, server)
        for contentType, content in (
            (23, b"data"),
            (21, b"\x01\x00"),
            (22, b"\x18\x00\x00\x01\x00"),
        ):
            record = ModelKTLS(self.session(server)).transmit.seal(content, contentType)
            self.assertFalse(client.takeTicket(record))
        self.assertFalse(client.takeTicket(b"\x17\x03\x03\x00\x20" + bytes(32)))
        self.assertFalse(client.takeTicket(ModelKTLS(self.session(server)).transmit.seal(b"", 0)))
        self.assertEqual(self.session(client).receive.sequence, 0)
        self.assertIsNone(self.clientTickets.take(SERVER))
        self.assertIsNone(client.alertSent)

    def test_brokenTicket(self) -> None:
        """A ticket that OpenSSL does not take is left there, too, and breaks nothing."""
        client, server = self.client(), self.server(context=self.context(certificates.server()))
        pair(client, server)
        content = bytes(4) + b"age!" + b"\x01\x00" + b"\x00\x01x" + b"\x00\x09"
        message = b"\x04" + len(content).to_bytes(3, "big") + content
        record = ModelKTLS(self.session(server)).transmit.seal(message, 22)
        self.assertFalse(client.takeTicket(record))
        self.assertEqual(self.session(client).receive.sequence, 0)
        self.assertIsNone(client.alertSent)
        self.assertIsNone(self.clientTickets.take(SERVER))

    def test_beforeTheEnd(self) -> None:
        """Before the handshake is complete there is none."""
        client = self.client()
        client.start()
        self.assertFalse(client.awaitsTicket)
        self.assertFalse(client.takeTicket(b""))

    def test_serversTakeNone(self) -> None:
        """A server waits for none."""
        server = self.server()
        pair(self.client(), server)
        self.assertFalse(server.awaitsTicket)

    def test_enough(self) -> None:
        """A client that has enough of them waits for no more."""
        ends = [(self.client(), self.server()) for _number in range(MOST_HELD + 1)]
        for client, server in ends[:-1]:
            self.handshake(client, server)
        client, server = ends[-1]
        self.handshake(client, server)
        self.session(client)
        self.assertFalse(client.awaitsTicket)

    def test_ticketOfSeveralRecords(self) -> None:
        """A ticket that does not fit into one record is not sent."""
        self.patch(resumptionModule, "readTicket", self.refuse)
        client, server = self.client(), self.server()
        pair(client, server)
        self.assertResumed(client, server, resumed=False)
        self.assertEqual(self.session(server).transmit.sequence, 0)

    @staticmethod
    def refuse(_contentType: int, _content: bytes) -> None:
        """Find no ticket."""
        raise ValueError("no ticket")


class OthersTests(ResumptionTestCase):
    """Resumption with Python's C{ssl} on the other side."""

    def test_server(self) -> None:
        """A client of C{ssl} resumes our sessions, once for each ticket."""
        context = stdlibContext("client", own=certificates.client())
        session: ssl.SSLSession | None = None
        for resumed in (False, True):
            server = self.server()
            peer = StdlibPeer(context, session=session)
            converse(server, peer)
            kernel = ModelKTLS(self.session(server))
            self.assertEqual(kernel.receive.open(peer.send(b"ping")), (23, b"ping"))
            self.assertEqual(peer.receive(kernel.transmit.seal(b"pong")), b"pong")
            self.assertIs(self.session(server).resumed, resumed)
            self.assertIs(peer.tls.session_reused, resumed)
            self.assertEqual(
                self.session(server).peerCertificate, certificates.client().certificate
            )
            used, session = session, peer.tls.session
        server = self.server()
        converse(server, StdlibPeer(context, session=used))
        self.assertFalse(self.session(server).resumed)

    def test_client(self) -> None:
        """A server of C{ssl} has its sessions resumed, and its second ticket left to the kernel."""
        context = stdlibContext("server", own=certificates.server())
        for resumed in (False, True):
            client = self.client()
            peer = StdlibPeer(context)
            unread = converse(client, peer)
            self.assertTrue(client.awaitsTicket)
            self.assertTrue(client.takeTicket(unread.pop(0)))
            kernel = ModelKTLS(self.session(client))
            for record in unread:
                self.assertEqual(kernel.receive.open(record)[0], 22)
            self.assertEqual(peer.receive(kernel.transmit.seal(b"ping")), b"ping")
            self.assertEqual(kernel.receive.open(peer.send(b"pong")), (23, b"pong"))
            self.assertIs(self.session(client).resumed, resumed)
            self.assertIs(bool(peer.tls.session_reused), resumed)

    def test_lifetime(self) -> None:
        """A ticket is used no longer than its server says."""
        context = stdlibContext("server", own=certificates.server())
        client = self.client()
        unread = converse(client, StdlibPeer(context))
        self.assertTrue(client.takeTicket(unread[0]))
        self.clock.advance(LIFETIME_SECONDS)
        self.assertIsNone(self.clientTickets.take(SERVER))

    def test_session(self) -> None:
        """What is kept can be resumed although its connection is gone."""
        self.again(False)
        taken = self.clientTickets.take(SERVER)
        self.assertIsInstance(taken and taken.session, SSL.Session)
