"""What an agent keeps of peers that it has refused: nothing, however large they make themselves."""

from __future__ import annotations

import errno
import gc
import os
import socket
import tracemalloc
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier
from twisted.logger import globalLogPublisher

from ktlsagent.peers import peerrules
from ktlsagent.peers.authorisation import Access, parseRule
from ktlsagent.peers.signedcontent import keyDigest
from ktlsagent.profiles import Profile, Trust
from ktlsagent.protocols.boundedcache import BoundedCache
from ktlsagent.protocols.session import Role
from tests.support import certificates
from tests.support.agent import AgentTestCase, connectedPair
from tests.support.certificates import CertificateAuthority, Credentials
from tests.support.fakekernel import X509, FakeUpcall

_PEERS = 20
_MANY_PEERS = 200

_LARGE = 90_000
"""How many octets no rule asks for are in a certificate: OpenSSL takes 100 KiB of them all."""

_SIDE_EFFECTS = _LARGE // 2
"""How much all refusals together may leave in the interpreter's own memory."""


class RefusedPeersTests(AgentTestCase):
    """Many peers with large certificates, each with one of its own."""

    def setUp(self) -> None:
        super().setUp()
        # trial keeps what is logged until it has told another process.
        for observer in list(globalLogPublisher._observers):
            if observer != self.events.append:
                globalLogPublisher.removeObserver(observer)
                self.addCleanup(globalLogPublisher.addObserver, observer)
        self.addCleanup(tracemalloc.stop)
        self.sockets: list[socket.socket] = []
        self.addCleanup(self.forget)

    def large(self, authority: CertificateAuthority | None = None) -> Credentials:
        """Make a large certificate; by default of a CA that is not trusted."""
        ballast = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), os.urandom(_LARGE))
        issuer = authority or certificates.otherAuthority()
        return issuer.issue("server.lab", hosts=("server.lab",), extensions=[ballast])

    def startWith(self, *profiles: Profile) -> None:
        """Start an agent."""
        self.start(self.configuration(certificates.server(), None, *profiles))

    def comes(self, shown: Credentials, status: int = errno.EACCES) -> str:
        """A client shows a certificate; say by which code it is refused."""
        upcall, peer = self.serve(shown)
        self.run_(peer)
        peer.error = None
        self.assertEqual(upcall.status, status)
        return str(self.handshakes()[-1]["code"])

    def isMounted(self, shown: Credentials, status: int = errno.EACCES) -> str:
        """A server that is mounted shows a certificate; say by which code it is refused."""
        upcall, peer = self.connect(shown, b"other.lab")
        self.run_(peer)
        peer.error = None
        self.assertEqual(upcall.status, status)
        return str(self.handshakes()[-1]["code"])

    def ask(
        self, messageType: int, authMode: int = X509, *, address: str = "127.0.0.1", **details: Any
    ) -> tuple[FakeUpcall, socket.socket]:
        """Have the kernel ask; the sockets are closed by L{forget}."""
        near, far = connectedPair(address)
        self.sockets += near, far
        return self.kernel.queue(near, messageType, authMode, **details), far

    def forget(self) -> None:
        """Forget what the fakes remember."""
        for connection in self.sockets:
            connection.close()
        for remembered in (self.sockets, self.events, self.kernel.upcalls):
            remembered.clear()

    def assertNothingLeft(
        self,
        code: str,
        meet: Callable[[Credentials], str],
        make: Callable[[], Credentials],
        peers: int = _PEERS,
    ) -> None:
        """Have many peers refused, and see what is left of them."""
        for _time in range(3):
            self.assertEqual(meet(make()), code)
            self.forget()
        gc.collect()
        tracemalloc.start()
        before, _peak = tracemalloc.get_traced_memory()
        for _time in range(peers):
            meet(make())
            self.forget()
        gc.collect()
        after, _peak = tracemalloc.get_traced_memory()
        self.assertLess(after - before, _SIDE_EFFECTS)

    def test_pinsAlone(self) -> None:
        """Where pins alone count, a stranger gets no further than its pin."""
        known = frozenset({keyDigest(certificates.client().certificate)})
        alone = Trust(stores=(), pins=known)
        self.startWith(self.profile("a", Role.SERVER, certificates.server(), trust=alone))
        self.assertNothingLeft("pin-mismatch", self.comes, self.large, _MANY_PEERS)

    def test_strangers(self) -> None:
        """Nobody trusts their CA."""
        self.startWith()
        self.assertNothingLeft("unknown-ca", self.comes, self.large)

    def test_denied(self) -> None:
        """Their certificates are good, but a rule denies them."""
        access = Access(deny=[parseRule("dns:server.lab")])
        self.startWith(self.profile("a", Role.SERVER, certificates.server(), access=access))
        self.assertNothingLeft("denied", self.comes, lambda: self.large(certificates.authority()))

    def test_servers(self) -> None:
        """They are servers, and good ones, but not those that were mounted."""
        self.startWith()
        self.assertNothingLeft(
            "name-mismatch", self.isMounted, lambda: self.large(certificates.authority())
        )

    def test_admitted(self) -> None:
        """What is kept of those who are let in is far less than their certificates."""
        known: BoundedCache[bytes, object] = BoundedCache(10_000)
        self.patch(peerrules, "_known", known)
        self.startWith()
        self.comes(self.large())
        self.assertEqual(known.octets, 0)
        for number in range(1, 5):
            self.comes(self.large(certificates.authority()), 0)
            # The CA's is the same.
            self.assertEqual(len(known._entries), number + 1)
        self.assertLess(known.octets, 5000)
