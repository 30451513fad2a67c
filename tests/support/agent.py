"""A whole agent on fakes, and peers that speak TLS with the standard library."""

from __future__ import annotations

import os
import socket
import ssl
import time
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent import configured
from ktlsagent.config import AgentConfig
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.policy import SETTLE_SECONDS
from ktlsagent.profiles import CertificateFiles, Match, Own, Profile, Trust
from ktlsagent.protocols.session import Role
from ktlsagent.service import AgentService
from tests.support import certificates
from tests.support.certificates import Credentials
from tests.support.clock import Clocks
from tests.support.fakekernel import (
    CLIENTHELLO,
    SERVERHELLO,
    UNAUTH,
    X509,
    FakeHandshakeKernel,
    FakeUpcall,
)
from tests.support.fakekeyrings import FakeKeyrings
from tests.support.fakektls import FakeKernelTLS
from tests.support.leftovers import Leftovers
from tests.support.reactor import TurnReactor
from tests.support.tlslitepeers import TlslitePeer

_READ_SIZE = 2**16


def connectedPair(address: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
    """
    Connect two TCP sockets over loopback.

    @param address: that of the second one.
    @return: the two ends, both of which do not block.
    """
    with socket.create_server((address, 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _address = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


class Peer:
    """
    The other side of a handshake: C{ssl} over memory, on a socket.

    @ivar error: what C{ssl} said when the handshake failed.
    @ivar done: whether its handshake is complete.
    """

    def __init__(
        self,
        connection: socket.socket,
        context: ssl.SSLContext,
        *,
        server: bool,
        name: str | None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """
        @param connection: its end of the connection.
        @param context: its TLS settings.
        @param server: whether it is the server.
        @param name: the server's name, for a client.
        @param session: what it offers to resume, for a client.
        """
        self.error: ssl.SSLError | None = None
        self.done = False
        self._connection = connection
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server,
            server_hostname=name,
            session=session,
        )

    def turn(self) -> bool:
        """
        Do what can be done now.

        @return: whether anything was read or written.
        """
        try:
            data = self._connection.recv(_READ_SIZE)
        except OSError:
            data = b""
        self._incoming.write(data)
        if not self.done and self.error is None:
            try:
                self.tls.do_handshake()
                self.done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self.error = error.with_traceback(None)
        elif self.done:
            try:
                self.tls.read(1)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                self.error = error.with_traceback(None)
        return bool(self.flush() or data)

    def flush(self) -> bytes:
        """
        Send what there is to be sent.

        @return: it.
        """
        written = self._outgoing.read()
        if written:
            self._connection.send(written)
        return written

    def close(self) -> None:
        """
        Close the connection.
        """
        self._connection.close()


class TlsliteConnection:
    """
    A peer made of tlslite-ng, on a socket.

    @ivar connection: its end of the connection.
    @ivar peer: the peer.
    """

    def __init__(self, connection: socket.socket, peer: TlslitePeer) -> None:
        """
        @param connection: its end of the connection.
        @param peer: the peer.
        """
        self.connection = connection
        self.peer = peer

    def turn(self) -> bool:
        """
        Do what can be done now.

        @return: whether anything was read or written.
        """
        try:
            data = self.connection.recv(_READ_SIZE)
        except OSError:
            data = b""
        written = self.peer.feed(data)
        if written:
            self.connection.send(written)
        return bool(data or written)


def peerContext(*, server: bool, credentials: Credentials | None, folder: Path) -> ssl.SSLContext:
    """
    Make a peer's TLS settings.

    @param server: whether the peer is the server.
    @param credentials: its certificate, if it has one.
    @param folder: where the files that C{ssl} wants may be written.
    @return: the settings; clients and servers are asked for nothing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if credentials is not None:
        (folder / "peer.pem").write_bytes(credentials.certificatePEM + credentials.keyPEM)
        context.load_cert_chain(folder / "peer.pem")
    return context


class AgentTestCase(SynchronousTestCase):
    """
    Tests of a whole agent.  Each ends with a look at the books: everything
    that was accepted has been answered once, and nothing is held, nor left in memory.

    @ivar reactor: the agent's reactor.
    @ivar kernel: the kernel's handshake family.
    @ivar kernelTLS: the kernel's TLS.
    @ivar keyrings: the process keyring.
    @ivar events: everything that was logged.
    @ivar folder: a folder of the test's own.
    @ivar clocks: the wall clock beside the reactor's.
    @ivar leftovers: what requests have left in memory.
    """

    def setUp(self) -> None:
        self.reactor = TurnReactor()
        self.keyrings = FakeKeyrings()
        self.kernel = FakeHandshakeKernel(self.keyrings.linkAtAccept)
        self.addCleanup(self.kernel.close)
        self.kernelTLS = FakeKernelTLS()
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.agents: list[AgentService] = []
        # Of the two clocks none runs ahead of the other.
        self.clocks = Clocks(time.time(), self.reactor)
        self.patch(configured, "dateNow", self.clocks.date)
        self.leftovers = Leftovers(self)
        self.addCleanup(self._closeTheBooks)

    def configuration(
        self,
        server: Credentials | None = None,
        client: Credentials | None = None,
        *profiles: Profile,
        **settings: Any,
    ) -> AgentConfig:
        """
        Write the files of a configuration.

        @param server: the certificate for the server's role.
        @param client: the certificate for the client's role.
        @param profiles: profiles that come before those of the two roles.
        @param settings: other attributes of the configuration.
        @return: the configuration, which trusts the usual CA.
        """
        return AgentConfig(
            profiles=(
                *profiles,
                self.profile("authenticate.client", Role.CLIENT, client),
                self.profile("authenticate.server", Role.SERVER, server),
            ),
            tagDirectory=str(self.folder / "tags.d"),
            **settings,
        )

    def profile(
        self, name: str, role: Role, credentials: Credentials | None, **settings: Any
    ) -> Profile:
        """
        Write the files of a profile.

        @param name: its name.
        @param role: the role that it is for.
        @param credentials: its certificate, if it has one.
        @param settings: attributes that are not the default ones.
        @return: the profile, which trusts the usual CA.
        """
        trust = self.folder / "ca.pem"
        if not trust.exists():
            trust.write_bytes(certificates.authority().certificatePEM)
        own = Own()
        if credentials is not None:
            certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
            certificate.write_bytes(credentials.certificatePEM)
            key.write_bytes(credentials.keyPEM)
            key.chmod(0o600)
            own = Own((CertificateFiles(str(certificate), str(key)),))
        given = {"match": Match(roles=(role,)), "trust": Trust((str(trust),)), "own": own}
        return Profile(name, **{**given, **settings})

    def start(self, config: AgentConfig | None = None, **arguments: Any) -> AgentService:
        """
        Start an agent.

        @param config: its configuration; by default with both certificates.
        @param arguments: for the agent's constructor.
        @return: the agent.
        """
        if config is None:
            config = self.configuration(certificates.server(), certificates.client())
        agent = self.agent(config, **arguments)
        agent.startService()
        self.reactor.settle()
        return agent

    def agent(self, config: AgentConfig, **arguments: Any) -> AgentService:
        """
        Make an agent without starting it.

        @param config: its configuration.
        @param arguments: for its constructor.
        @return: the agent.
        """
        agent = AgentService(
            self.reactor,
            config,
            kernel=HandshakeNetlink(self.kernel.socket, self.kernel.listenersFile),
            kernelTLS=self.kernelTLS,
            keyrings=self.keyrings,
            **arguments,
        )
        self.agents.append(agent)
        return agent

    def ask(
        self,
        messageType: int,
        authMode: int = X509,
        *,
        address: str = "127.0.0.1",
        **details: Any,
    ) -> tuple[FakeUpcall, socket.socket]:
        """
        Have the kernel ask for a handshake.

        @param messageType: which side.
        @param authMode: how.
        @param address: the peer's address.
        @param details: more of the request.
        @return: the request and the peer's end of the connection.
        """
        near, far = connectedPair(address)
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        return self.kernel.queue(near, messageType, authMode, **details), far

    def serve(self, peer: Credentials | None = None, **details: Any) -> tuple[FakeUpcall, Peer]:
        """
        Have the kernel ask for a server, with a client that connects to it.

        @param peer: the client's certificate, if it has one.
        @param details: more of the request.
        @return: the request and the client.
        """
        upcall, far = self.ask(SERVERHELLO, **details)
        context = peerContext(server=False, credentials=peer, folder=self.folder)
        return upcall, Peer(far, context, server=False, name=None)

    def connect(
        self, peer: Credentials, name: bytes | None = b"server.lab", authMode: int = UNAUTH
    ) -> tuple[FakeUpcall, Peer]:
        """
        Have the kernel ask for a client, with a server that it connects to.

        @param peer: the server's certificate.
        @param name: the server's name, as it was mounted.
        @param authMode: whether to show a certificate.
        @return: the request and the server.
        """
        upcall, far = self.ask(CLIENTHELLO, authMode, peerName=name)
        context = peerContext(server=True, credentials=peer, folder=self.folder)
        if authMode == X509:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=certificates.authority().certificatePEM.decode())
        return upcall, Peer(far, context, server=True, name=None)

    def run_(self, *peers: Peer | TlsliteConnection) -> None:
        """
        Let the agent and some peers talk until nobody has anything to say.

        @param peers: the peers.
        """
        busy = True
        while busy:
            now = self.reactor.seconds()
            times = [call.getTime() - now for call in self.reactor.getDelayedCalls()]
            # A client's pause before it begins is no reason to think that it is silent.
            soon = [seconds for seconds in times if seconds < SETTLE_SECONDS * 2]
            busy = self.reactor.turn(min(soon, default=0.0))
            for peer in peers:
                busy = peer.turn() or busy

    def handshakes(self) -> list[LogEvent]:
        """
        List the events of handshakes.

        @return: the events, in their order.
        """
        return [event for event in self.events if "outcome" in event]

    def logged(self, part: str) -> list[str]:
        """
        Find what was logged.

        @param part: a part of the text.
        @return: the texts with that part.
        """
        return [text for event in self.events if part in (text := eventAsText(event) or "")]

    def stop(self, agent: AgentService) -> Deferred[None]:
        """
        Stop an agent.

        @param agent: the agent.
        @return: fires when it has stopped.
        """
        self.agents.remove(agent)
        return agent.stopService()

    def _closeTheBooks(self) -> None:
        """Stop what still runs, and check that nothing is owed or held."""
        for agent in list(self.agents):
            if agent.running:
                self.successResultOf(self.stop(agent))
            self.assertTrue(agent.ledger.balanced(), str(agent.ledger))
        self.assertEqual(self.keyrings.linked(), [])
        for upcall in self.kernel.upcalls:
            if upcall.descriptor is not None:
                self.assertEqual(len(upcall.answers), 1, "one DONE for each ACCEPT")
        self.assertEqual(self.leftovers.found(), [], "nothing of a request outlives its answer")


def openDescriptors() -> set[str]:
    """
    List this process's descriptors.

    @return: their numbers and what they are.
    """
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:
            continue
    return found
