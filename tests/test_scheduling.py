"""Whose turn it is when many ask at once, on a whole agent whose kernel is a fake."""

from __future__ import annotations

import errno
import socket
import ssl
import struct
from typing import Any

from twisted.internet.defer import Deferred

from ktlsagent.config import AgentConfig
from ktlsagent.protocols.session import EstablishedSession
from ktlsagent.stepqueue import LOOK_SECONDS, STEPS_PER_LAP
from tests.support import certificates
from tests.support.agent import AgentTestCase, Peer
from tests.support.fakekernel import CLIENTHELLO, PSK, SERVERHELLO, UNAUTH, X509, FakeUpcall

MODEST = "127.0.0.2"
"""The address of another peer than the usual one."""


class SchedulingTestCase(AgentTestCase):
    """Has an agent that is a server only, with the bounds that a test wants."""

    def bounded(self, most: int | None = None, mostPerPeer: int | None = None) -> AgentConfig:
        """
        Configure a server.

        @param most: how many handshakes may be in progress.
        @param mostPerPeer: how many with one peer.
        @return: its configuration.
        """
        return self.configuration(
            certificates.server(), mostHandshakes=most, mostPerPeer=mostPerPeer
        )

    def storm(self, count: int, address: str = "127.0.0.1") -> tuple[list[FakeUpcall], list[Peer]]:
        """
        Have the kernel ask for many servers, whose clients have begun.

        @param count: how many.
        @param address: the clients' address.
        @return: the requests and the clients.
        """
        upcalls, clients = zip(*(self.serve(address=address) for _ in range(count)), strict=True)
        for client in clients:
            client.turn()
        return list(upcalls), list(clients)

    def ended(self) -> list[str]:
        """
        List who is done with, in order.

        @return: the peers' addresses.
        """
        return [event["peer"].rpartition(":")[0] for event in self.handshakes()]


class FairShareTests(SchedulingTestCase):
    """A peer that asks for much."""

    def test_hundredsAndFive(self) -> None:
        """Five requests behind two hundred of another peer are served among the first."""
        agent = self.start(self.bounded())
        greedy, clients = self.storm(200)
        self.reactor.turn()
        self.assertEqual(agent.ledger.accepted, 200)
        modest, others = self.storm(5, address=MODEST)
        self.run_(*clients, *others)
        self.assertEqual({upcall.status for upcall in greedy + modest}, {0})
        ended = self.ended()
        self.assertEqual(len(ended), 205)
        places = [place for place, peer in enumerate(ended) if peer == MODEST]
        self.assertLess(places[-1], 20)

    def test_silentHundreds(self) -> None:
        """A peer that fills its share with silence does not keep others from being served."""
        self.start(self.bounded(40, 10))
        silent = [self.ask(SERVERHELLO)[0] for _ in range(100)]
        modest, clients = self.storm(5, address=MODEST)
        self.run_(*clients)
        self.assertEqual([upcall.status for upcall in modest], [0] * 5)
        (line,) = self.logged("requests wait for their turn")
        self.assertIn("10 handshakes are in progress, of at most 40", line)
        self.reactor.turn(4.6)
        self.run_()
        self.assertEqual({upcall.status for upcall in silent}, {errno.ETIMEDOUT})
        codes = [event["code"] for event in self.handshakes()][5:]
        self.assertEqual((codes.count("deadline"), codes.count("overload")), (10, 90))

    def test_refusedBeforeOthers(self) -> None:
        """A client that is told why it is refused does not wait for handshakes to end."""
        self.start(self.configuration(mostHandshakes=1, mostPerPeer=1))
        for _request in range(2):
            self.ask(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
        self.run_()
        upcall, client = self.serve()
        client.turn()
        self.reactor.settle()
        self.assertEqual(upcall.status, errno.EACCES)
        self.assertEqual(self.handshakes()[0]["code"], "no-certificate")
        self.reactor.turn(4.6)
        self.run_()
        self.reactor.turn(10)

    def test_refusedWithoutATurn(self) -> None:
        """Who is refused in any case is so at once, while others wait for their turn."""
        config = self.configuration(certificates.server(), None, mostHandshakes=1, mostPerPeer=1)
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        ring = self.keyrings.addKeyring(".nvme")
        self.start(config)
        begun, _far = self.ask(SERVERHELLO)
        waits, _far = self.ask(SERVERHELLO)
        self.run_()
        for ask in (
            lambda: self.kernel.queue(near, SERVERHELLO, X509),
            lambda: self.ask(SERVERHELLO, 99)[0],
            lambda: self.ask(17)[0],
            lambda: self.ask(SERVERHELLO, UNAUTH)[0],
            lambda: self.ask(CLIENTHELLO, UNAUTH)[0],
            lambda: self.ask(CLIENTHELLO, X509, peerName=b"server.lab")[0],
            lambda: self.ask(CLIENTHELLO, PSK, keyring=ring)[0],
            lambda: self.ask(CLIENTHELLO, PSK, keyring=ring, peerIdentities=(4711,))[0],
            lambda: self.ask(SERVERHELLO, certificate=1, privateKey=2)[0],
        ):
            refused = ask()
            self.run_()
            self.assertNotIn(refused.status, (None, 0, errno.EIO), refused)
        self.assertEqual([begun.status, waits.status], [None, None])
        codes = {event["code"] for event in self.handshakes()}
        self.assertEqual(
            codes,
            {
                *("not-tcp", "unsupported-mode", "no-name", "no-certificate", "no-psk"),
                *("key-unusable", "keyring-certificate"),
            },
        )
        self.reactor.turn(5)
        self.run_()

    def test_manySmallRecords(self) -> None:
        """A peer that cuts its ClientHello into small records is served, but after others."""
        self.start(self.bounded())
        slow, far = self.ask(SERVERHELLO)
        _upcall, whole = self.serve()
        hello = self.hello(whole)
        # More than a lap or two, and not too many: how long it is depends on OpenSSL's version.
        size = -(-len(hello) // (STEPS_PER_LAP * 3))
        pieces = [hello[at : at + size] for at in range(5, len(hello), size)]
        self.assertGreater(len(pieces), STEPS_PER_LAP * 2)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        far.send(b"".join(b"\x16\x03\x01" + struct.pack("!H", len(one)) + one for one in pieces))
        modest, clients = self.storm(3, address=MODEST)
        self.run_(*clients)
        self.assertEqual([upcall.status for upcall in modest], [0] * 3)
        self.assertNotEqual(far.recv(2**16), b"", "it has its ServerHello")
        self.reactor.turn(5)
        self.assertEqual(slow.status, errno.ETIMEDOUT)

    def hello(self, client: Peer) -> bytes:
        """
        Make a client's first record without sending it.

        @param client: the client.
        @return: the record.
        """
        self.assertRaises(ssl.SSLWantReadError, client.tls.do_handshake)
        return client._outgoing.read()


class BoundTests(SchedulingTestCase):
    """More requests than may be in progress."""

    def test_bound(self) -> None:
        """No more are begun than allowed; the others are accepted, and follow."""
        agent = self.start(self.bounded(2, 2))
        upcalls, clients = self.storm(20)
        self.reactor.turn()
        self.assertEqual(agent.ledger.accepted, 20)
        self.run_(*clients)
        self.assertEqual({upcall.status for upcall in upcalls}, {0})
        self.assertEqual(len(self.logged("requests wait for their turn")), 1)

    def test_heldBackIsNotInProgress(self) -> None:
        """An answer that is held back takes nobody's place."""
        self.start(self.configuration(certificates.server(), mostHandshakes=1))
        held, far = self.ask(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
        far.close()
        self.run_()
        self.assertIsNone(held.status)
        (upcall,), clients = self.storm(1)
        self.run_(*clients)
        self.assertEqual(upcall.status, 0)
        self.reactor.turn(1)
        self.assertEqual(held.status, errno.ETIMEDOUT)

    def test_reload(self) -> None:
        """Another bound counts from the reload on, for what waits already, too."""
        configurations = [self.bounded(9, 9)]
        agent = self.start(self.bounded(1, 1), reread=configurations.pop)
        self.ask(SERVERHELLO)
        self.run_()
        (upcall,), clients = self.storm(1)
        self.run_(*clients)
        self.assertIsNone(upcall.status)
        reloaded = Deferred.fromCoroutine(agent.reload())
        self.reactor.settle()
        self.assertTrue(self.successResultOf(reloaded))
        (other,), others = self.storm(1, address=MODEST)
        self.run_(*others)
        self.assertEqual(other.status, 0)
        self.run_(*clients)
        self.assertEqual(upcall.status, 0)
        self.reactor.turn(5)

    def test_stop(self) -> None:
        """Who waits in the line is served before the agent stops."""
        agent = self.start(self.bounded(1, 1))
        upcalls, clients = self.storm(3)
        self.reactor.turn()
        stopped = self.stop(agent)
        self.run_(*clients)
        self.successResultOf(stopped)
        self.assertEqual({upcall.status for upcall in upcalls}, {0})


class DropTests(SchedulingTestCase):
    """Work that is of no use any more."""

    def test_deadlineInTheLine(self) -> None:
        """A request whose turn does not come in time is answered at its deadline."""
        self.start(self.bounded(1, 1))
        self.ask(SERVERHELLO)
        self.run_()
        upcall, _far = self.ask(SERVERHELLO, address=MODEST, timeoutMilliseconds=2000)
        self.run_()
        self.reactor.turn(1.49)
        self.assertIsNone(upcall.status)
        self.reactor.turn(0.02)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)
        (event,) = self.handshakes()
        self.assertEqual((event["code"], event["role"]), ("overload", "server"))
        self.assertIn(MODEST, event["peer"])
        self.assertIn("max_handshakes", event["reason"])
        self.reactor.turn(5)

    def test_deadlinesBeforeSteps(self) -> None:
        """No step runs for requests whose deadlines pass while the agent is held up."""
        self.start(self.bounded())
        upcalls, clients = self.storm(10)
        self.reactor.turn()
        self.reactor.turn(5)
        self.run_(*clients)
        self.assertEqual({upcall.status for upcall in upcalls}, {errno.ETIMEDOUT})
        self.assertFalse(any(client.done or client.error for client in clients))

    def test_peersAreGone(self) -> None:
        """Peers that have sent their ClientHello and gone cost no cryptography."""
        self.start(self.bounded())
        upcalls, clients = self.storm(10)
        for client in clients[:5]:
            client._connection.close()
        reset = struct.pack("ii", 1, 0)
        clients[5]._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        clients[5]._connection.close()
        self.run_(*clients[6:])
        self.assertEqual([upcall.status for upcall in upcalls], [errno.ETIMEDOUT] * 6 + [0] * 4)
        codes = [event["code"] for event in self.handshakes() if event["outcome"] == "failed"]
        self.assertEqual(sorted(codes), ["connection-closed"] * 5 + ["connection-lost"])

    def test_kernelHasGivenUp(self) -> None:
        """A request that the kernel has given up is not begun."""
        self.start(self.bounded())
        (upcall,), _clients = self.storm(1)
        upcall.socket.shutdown(socket.SHUT_RDWR)
        self.run_()
        (event,) = self.handshakes()
        self.assertIn("the kernel has closed it", event["reason"])

    def test_goneServer(self) -> None:
        """An NFS client is told late that its server has gone: it comes back at once."""
        self.start()
        upcall, far = self.ask(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
        far.close()
        self.run_()
        self.reactor.turn(0.9)
        self.assertIsNone(upcall.status)
        self.reactor.turn(0.1)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)


class AcceptTests(SchedulingTestCase):
    """ACCEPT comes before everything."""

    def test_allBeforeAnything(self) -> None:
        """Nothing is done about the first request before the last one is taken."""
        pending: list[int] = []
        self.start(self.bounded())
        line = self.agents[0]._agent.steps
        enter = line.turn

        def turn(*arguments: Any, **details: Any) -> object:
            pending.append(len(self.kernel.pending))
            return enter(*arguments, **details)

        line.turn = turn  # type: ignore[method-assign,assignment]
        _upcalls, clients = self.storm(20)
        self.run_(*clients)
        self.assertEqual(pending, [0] * 20)

    def test_betweenSteps(self) -> None:
        """However many steps are queued, a request is taken before the next one runs."""
        agent = self.start(self.bounded())
        _upcalls, clients = self.storm(100)
        waiting = []
        while self.reactor.turn():
            # Nothing is pending after a turn, whatever was done in it.
            waiting.append(len(self.kernel.pending))
            if agent.ledger.accepted < 200:
                clients.append(self.serve()[1])
            for client in clients:
                client.turn()
        self.run_(*clients)
        self.assertEqual(agent.ledger.accepted, 200)
        self.assertEqual(set(waiting), {0})

    def test_betweenStepsOfATurn(self) -> None:
        """A request that comes in a step is taken before the next one, in the same turn."""
        self.start(self.bounded())
        pending: list[int] = []
        more: list[Peer] = []
        install = self.kernelTLS.install

        def installing(connection: socket.socket, session: EstablishedSession) -> None:
            pending.append(len(self.kernel.pending))
            install(connection, session)
            self.reactor.rightNow += LOOK_SECONDS
            if len(pending) <= 10:
                more.append(self.serve()[1])

        self.patch(self.kernelTLS, "install", installing)
        _upcalls, clients = self.storm(10)
        self.run_(*clients)
        self.run_(*more)
        self.assertEqual(pending, [0] * 20)
