"""What an agent holds after many requests: no more than before them."""

from __future__ import annotations

import errno
import gc
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

from OpenSSL import SSL
from twisted.logger import globalLogPublisher

from ktlsagent.errors import SessionUnusable
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.request import Upcall
from ktlsagent.sockets import UpcallTransport
from tests.support import certificates
from tests.support.agent import AgentTestCase, Peer, TlsliteConnection, connectedPair, peerContext
from tests.support.certificates import Credentials
from tests.support.fakekernel import CLIENTHELLO, PSK, SERVERHELLO, UNAUTH, X509, FakeUpcall
from tests.support.tlslitepeers import TlslitePeer

_TIMES = 20
"""How many requests to look at at a time."""

_ROUNDS = 5
"""How often they are looked at, if something was left behind."""

_BLOCKS = "blocks of memory"

_HOST = b"NVMe1R01 nqn.2014-08.org.nvmexpress:uuid:host nqn.target dig=="
_KEY = b"\x00\xff not for you" * 2


class EnduranceTests(AgentTestCase):
    """Requests of all kinds, again and again."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(gc.enable)
        # What others have made is not looked through again and again.
        gc.collect()
        gc.freeze()
        self.addCleanup(gc.unfreeze)
        # trial keeps what is logged until it has told another process.
        for observer in list(globalLogPublisher._observers):
            if observer != self.events.append:
                globalLogPublisher.removeObserver(observer)
                self.addCleanup(globalLogPublisher.addObserver, observer)
        self.sockets: list[socket.socket] = []
        self.context = cache(self.makeContext)
        ring = self.keyrings.addKeyring(".nvme")
        self.serial = self.keyrings.addKey(ring, _HOST, _KEY, type="psk")
        self.start()

    def makeContext(self, credentials: Credentials | None, *, server: bool) -> ssl.SSLContext:
        """Make a context for peers, once."""
        context = peerContext(server=server, credentials=credentials, folder=self.folder)
        if server:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=certificates.authority().certificatePEM.decode())
        return context

    def asked(
        self, messageType: int, authMode: int = X509, **details: Any
    ) -> tuple[FakeUpcall, socket.socket]:
        """Have the kernel ask; the sockets are closed by L{forget}."""
        near, far = connectedPair()
        self.sockets += near, far
        return self.kernel.queue(near, messageType, authMode, **details), far

    def forget(self) -> None:
        """Forget what the fakes remember."""
        for connection in self.sockets:
            connection.close()
        for remembered in (
            *(self.sockets, self.events, self.kernel.upcalls),
            self.kernelTLS.installed,
        ):
            remembered.clear()

    def visited(self, shown: Credentials | None, status: int) -> None:
        """A client connects."""
        upcall, far = self.asked(SERVERHELLO)
        client = Peer(far, self.context(shown, server=False), server=False, name=None)
        self.run_(client)
        self.assertEqual(upcall.status, status)
        # What ssl raises holds the peer.
        client.error = None

    def mounted(self, authMode: int, name: bytes | None, status: int) -> None:
        """A server is connected to."""
        upcall, far = self.asked(CLIENTHELLO, authMode, peerName=name)
        server = Peer(far, self.context(certificates.server(), server=True), server=True, name=None)
        self.run_(server)
        self.assertEqual(upcall.status, status)
        server.error = None

    def anonymous(self) -> None:
        """A client without a certificate connects."""
        self.visited(None, 0)

    def mutual(self) -> None:
        """A client with a certificate connects."""
        self.visited(certificates.client(), 0)

    def stranger(self) -> None:
        """A client is refused."""
        self.visited(certificates.ofOtherAuthority(), errno.EACCES)

    def plainText(self) -> None:
        """A client does not speak TLS."""
        upcall, far = self.asked(SERVERHELLO)
        far.send(b"\x80\x00\x00\x28RPC in the clear")
        self.run_()
        self.assertEqual(upcall.status, errno.EACCES)

    def gone(self) -> None:
        """A client goes away at once."""
        upcall, far = self.asked(SERVERHELLO)
        far.close()
        self.run_()
        self.assertEqual(upcall.status, errno.ETIMEDOUT)

    def silent(self) -> None:
        """A client says something, and then nothing up to the deadline."""
        upcall, far = self.asked(SERVERHELLO)
        Peer(far, self.context(None, server=False), server=False, name=None).turn()
        self.run_()
        self.reactor.turn(5)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)

    def cancelled(self) -> None:
        """The kernel does not want the answer any more."""
        _upcall, far = self.asked(SERVERHELLO)
        client = Peer(far, self.context(None, server=False), server=False, name=None)
        client.turn()
        self.reactor.turn()
        self.kernel.upcalls.clear()
        self.run_(client)
        self.assertIn("EBUSY", self.handshakes()[-1]["note"])

    def refusedByKernel(self) -> None:
        """The kernel does not take the keys."""
        self.kernelTLS.refusal = SessionUnusable("ktls-refused", "expected TLS_RX, found EINVAL")
        self.visited(None, errno.EIO)
        self.kernelTLS.refusal = None

    def mount(self) -> None:
        """A server is connected to without a certificate of ours."""
        self.mounted(UNAUTH, b"server.lab", 0)

    def mutualMount(self) -> None:
        """A server is connected to with a certificate of ours."""
        self.mounted(X509, b"server.lab", 0)

    def wrongName(self) -> None:
        """A server is refused."""
        self.mounted(UNAUTH, b"other.lab", errno.EACCES)

    def withoutName(self) -> None:
        """A request is refused before the handshake begins."""
        self.mounted(UNAUTH, None, errno.EACCES)

    def refusedByServer(self) -> None:
        """A server refuses us."""
        upcall, far = self.asked(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
        self.run_()
        far.recv(2**16)
        far.send(bytes.fromhex("15 03 03 00 02 02 28"))
        self.run_()
        self.assertEqual(upcall.status, errno.EACCES)

    def target(self) -> None:
        """A host with a pre-shared key connects."""
        self.keyed("client", SERVERHELLO)

    def host(self) -> None:
        """A target with a pre-shared key is connected to."""
        self.keyed("server", CLIENTHELLO, peerIdentities=(self.serial,))

    def keyed(self, role: str, messageType: int, **details: Any) -> None:
        """A peer has a pre-shared key."""
        upcall, far = self.asked(messageType, PSK, **details)
        self.run_(TlsliteConnection(far, TlslitePeer(role, ((_HOST, _KEY, "sha256"),))))
        self.assertEqual(upcall.status, 0)

    def kinds(self) -> dict[str, Callable[[], None]]:
        """List all kinds of requests."""
        kinds = (
            *(self.anonymous, self.mutual, self.stranger, self.plainText, self.gone, self.silent),
            *(self.cancelled, self.refusedByKernel, self.mount, self.mutualMount),
            *(self.wrongName, self.withoutName, self.refusedByServer, self.target, self.host),
        )
        return {kind.__name__: kind for kind in kinds}

    def reading(self) -> Counter[object]:
        """Count the interpreter's blocks of memory, and the collector's objects by their types."""
        gc.collect()
        counts: Counter[object] = Counter(map(type, gc.get_objects()))
        counts[_BLOCKS] = sys.getallocatedblocks()
        return counts

    def growth(self, request: Callable[[], None], times: int = _TIMES) -> Counter[object]:
        """Read before and after some requests, and say what there is more of."""
        before = self.reading()
        for _time in range(times):
            request()
            self.forget()
        return self.reading() - before

    def leaks(self, request: Callable[[], None]) -> dict[object, int]:
        """
        Say what every request leaves behind.  Caches grow as well, the interpreter's too, but
        not by one for each request, again and again; and each reading is itself held by
        the next, which costs some blocks that differ between versions of Python.
        """
        held = self.growth(request, 0)

        def grown() -> Counter[object]:
            counts = self.growth(request) - held
            return Counter({kind: n for kind, n in counts.items() if n > _TIMES // 2})

        left = grown()
        for _round in range(_ROUNDS - 1):
            if left:
                left &= grown()
        return dict(left)

    def held(self) -> list[object]:
        """List what only requests have."""
        kinds = (SSL.Connection, TLSEngine, Upcall, UpcallTransport)
        return [one for one in gc.get_objects() if type(one) in kinds]

    def test_nothingStays(self) -> None:
        """Many requests leave no object behind, of whatever kind they are."""
        for name, request in self.kinds().items():
            self.growth(request, 3)
            leaks = self.leaks(request)
            if name in ("target", "host"):
                # tlslite-ng has caches of its own.
                leaks.pop(_BLOCKS, None)
            self.assertEqual(leaks, {}, name)

    def test_whatStaysIsSeen(self) -> None:
        """A block of memory that each request leaves behind is noticed, and so is an object."""
        kept: list[object] = []

        def leaking(make: Callable[[], object]) -> dict[object, int]:
            def request() -> None:
                self.plainText()
                kept.append(make())

            self.growth(request, 3)
            return self.leaks(request)

        self.assertEqual(list(leaking(lambda: bytes(100 + len(kept)))), [_BLOCKS])
        self.assertLessEqual({_BLOCKS, Counter}, set(leaking(Counter)))

    def test_nothingWaitsForTheGarbageCollector(self) -> None:
        """
        The buffers of OpenSSL, which are large, and the keys go with the request, be it
        refused or given up, and not only when garbage is looked for.
        """
        for name, request in self.kinds().items():
            request()
            self.forget()
            gc.collect()
            # Other tests' logs may still be held, and with them what they are about.
            others = self.held()
            gc.disable()
            request()
            self.forget()
            kept = [type(one).__name__ for one in self.held() if one not in others]
            gc.enable()
            self.assertEqual(kept, [], name)
