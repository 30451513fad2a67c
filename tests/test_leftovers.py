"""
What outlives the answer of a request: nothing.  Each test of an agent checks that; here
are the ways on which objects have held each other until garbage was looked for.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from twisted.internet.defer import fail

from ktlsagent import stepqueue
from ktlsagent.credentials.latecontexts import Tokens
from ktlsagent.errors import KeyUnusable
from ktlsagent.policy import SETTLE_SECONDS
from ktlsagent.protocols.engine import TLSEngine
from tests.support import certificates
from tests.support.agent import AgentTestCase, Peer
from tests.support.fakekernel import SERVERHELLO, FakeUpcall


class LeftoversTests(AgentTestCase):
    """Ways to end that are not the usual ones."""

    def fill(self, upcall: FakeUpcall) -> None:
        """Leave no room in the socket of a request for anything to be sent."""
        upcall.socket.setblocking(False)
        try:
            while True:
                upcall.socket.send(bytes(2**16))
        except BlockingIOError:
            pass

    def answered(self) -> tuple[FakeUpcall, Peer]:
        """Have a server answer the ClientHello, after which a client of ours sends nothing."""
        upcall, server = self.connect(certificates.server())
        self.reactor.settle()
        self.reactor.turn(SETTLE_SECONDS)
        self.reactor.settle()
        server.turn()
        self.fill(upcall)
        self.reactor.settle()
        return upcall, server

    def expire(self, upcall: FakeUpcall, *peers: Peer) -> None:
        """Wait until the time of a request is over."""
        for _time in range(12):
            self.reactor.turn(1.0)
            self.run_(*peers)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)
        self.assertEqual(self.leftovers.found(), [])

    def test_lastFlightBlocked(self) -> None:
        """A client's last flight does not leave before the deadline."""
        self.start()
        upcall, _server = self.answered()
        self.expire(upcall)

    def test_firstFlightBlocked(self) -> None:
        """A server's flight does not, or a client's first one."""
        self.start()
        upcall, client = self.serve()
        client.turn()
        self.fill(upcall)
        self.expire(upcall)
        upcall, _server = self.connect(certificates.server())
        self.fill(upcall)
        self.expire(upcall)

    def test_connectionBreaksWhileBlocked(self) -> None:
        """The peer goes away while it has not taken what is the last flight."""
        self.start()
        upcall, server = self.answered()
        server.close()
        self.expire(upcall)

    def test_alertBlocked(self) -> None:
        """What is refused by an alert that cannot be sent."""
        self.start()
        upcall, far = self.ask(SERVERHELLO)
        self.fill(upcall)
        far.send(b"\x80\x00\x00\x28RPC in the clear")
        self.run_()
        self.assertEqual(upcall.status, errno.EACCES)

    def test_refusalThatIsNotTold(self) -> None:
        """A server cannot use its key, but its client leaves before it is told."""
        agent = self.start()
        refusal = KeyUnusable("token-locked", "expected a PIN, found none")
        cause = ZeroDivisionError("a cause")

        def refuse() -> None:
            try:
                raise cause
            except ZeroDivisionError:
                raise refusal from cause

        self.patch(Tokens, "ready", lambda *_arguments: fail(_caught(refuse)))
        for profile in agent._configured.profiles.profiles:
            object.__setattr__(profile, "late", object())
        upcall, far = self.ask(SERVERHELLO)
        self.expire(upcall)
        far.close()

    def test_acceptRefused(self) -> None:
        """The kernel refuses an ACCEPT in the middle of the work on another request."""

        def refuse(_serial: int) -> None:
            raise OSError(errno.EACCES, "no link permission")

        self.kernel._linkKeyring = refuse
        self.patch(stepqueue, "LOOK_SECONDS", -1.0)
        self.start()
        upcall, client = self.serve()
        receive = TLSEngine.receiveRecord

        def receiveAndAsk(engine: TLSEngine, record: bytes) -> bytes:
            self.ask(SERVERHELLO, keyring=99)
            return receive(engine, record)

        self.patch(TLSEngine, "receiveRecord", receiveAndAsk)
        self.run_(client)
        self.assertEqual(upcall.status, 0)
        self.assertGreater(len(self.logged("could not hand a request over")), 1)

    def test_noTurn(self) -> None:
        """A request whose turn does not come before its deadline."""
        self.start(self.configuration(certificates.server(), mostHandshakes=1))
        upcalls = [self.ask(SERVERHELLO)[0] for _time in range(3)]
        self.expire(upcalls[-1])

    def test_bugInTheEngine(self) -> None:
        """A bug, of which the log has the traceback."""

        def broken(_engine: TLSEngine, _record: bytes) -> bytes:
            raise ZeroDivisionError("a bug") from KeyError("a cause")

        self.start()
        self.patch(TLSEngine, "receiveRecord", broken)
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(upcall.status, errno.EIO)
        self.assertEqual(self.leftovers.found(), [])
        (failure,) = self.flushLoggedErrors(ZeroDivisionError)
        self.assertIn("a bug", failure.getTraceback())
        self.assertIn("in broken", failure.getTraceback())


def _caught(call: Callable[[], None]) -> Exception:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - what the test wants
        return error
    raise AssertionError("expected an exception, found none")
