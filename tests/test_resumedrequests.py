"""Requests whose sessions are resumed, on a whole agent whose kernel is a fake."""

from __future__ import annotations

import errno
import ipaddress
import ssl
from typing import Any

from cryptography.hazmat.primitives import serialization
from twisted.internet.defer import Deferred
from twisted.logger import eventAsText

from ktlsagent.config import AgentConfig
from ktlsagent.peers.authorisation import Access
from ktlsagent.policy import PEER_AUTHENTICATED
from ktlsagent.profiles import Endpoint, Handshake, Match, Profile, Trust
from ktlsagent.protocols.handshake import TICKET_SECONDS
from ktlsagent.protocols.session import Role
from ktlsagent.service import AgentService
from ktlsagent.sockets import UpcallTransport
from tests.support import certificates
from tests.support.agent import AgentTestCase, Peer, peerContext
from tests.support.certificates import Credentials
from tests.support.fakekernel import CLIENTHELLO, SERVERHELLO, UNAUTH, X509, FakeUpcall
from tests.support.modelktls import ModelKTLS

ELSEWHERE = ipaddress.ip_address("192.0.2.1")


class ResumptionTests(AgentTestCase):
    """Sessions are resumed by profiles that say so, and by no others."""

    def begin(self, *profiles: Profile, **settings: Any) -> AgentService:
        """
        Start an agent that resumes in both roles.

        @param profiles: profiles that come before those of the roles.
        @param settings: what its profiles say besides.
        @return: the agent.
        """
        return self.start(self.resuming(*profiles, **settings), reread=lambda: self.config)

    def resuming(self, *profiles: Profile, **settings: Any) -> AgentConfig:
        """
        Make the configuration of such an agent.

        @param profiles: profiles that come before those of the roles.
        @param settings: what its profiles say besides.
        @return: the configuration.
        """
        on = {"handshake": Handshake(resumption=True), **settings}
        client = self.profile("authenticate.client", Role.CLIENT, certificates.client(), **on)
        server = self.profile("authenticate.server", Role.SERVER, certificates.server(), **on)
        self.config = AgentConfig(
            profiles=(*profiles, client, server), tagDirectory=str(self.folder / "tags.d")
        )
        return self.config

    def visit(
        self, shown: Credentials | None = None, session: ssl.SSLSession | None = None
    ) -> tuple[FakeUpcall, Peer]:
        """
        Have a client connect, which may offer a ticket.

        @param shown: its certificate; the context is made for the first visit.
        @param session: what it offers.
        @return: the request and the client.
        """
        upcall, far = self.ask(SERVERHELLO)
        if session is None:
            self.visitors = peerContext(server=False, credentials=shown, folder=self.folder)
        client = Peer(far, self.visitors, server=False, name=None, session=session)
        self.run_(client)
        return upcall, client

    def mount(self, servers: ssl.SSLContext, authMode: int = UNAUTH) -> tuple[FakeUpcall, Peer]:
        """
        Have a client's handshake with a server.

        @param servers: the server's context.
        @param authMode: whether it is C{xprtsec=mtls}.
        @return: the request and the server.
        """
        upcall, far = self.ask(CLIENTHELLO, authMode, peerName=b"server.lab")
        server = Peer(far, servers, server=True, name=None)
        self.run_(server)
        # If no ticket comes, the wait has to end.
        self.reactor.turn(TICKET_SECONDS)
        self.run_(server)
        return upcall, server

    def servers(self) -> ssl.SSLContext:
        """Make the context of a server, which asks for certificates and may go without."""
        context = peerContext(server=True, credentials=certificates.server(), folder=self.folder)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=certificates.authority().certificatePEM.decode())
        return context

    def revocations(self, *revoked: Credentials) -> bytes:
        """Make a CRL in PEM."""
        crl = certificates.authority().revocationList(*revoked)
        return crl.public_bytes(serialization.Encoding.PEM)

    def resumed(self) -> list[str]:
        """Say of each handshake whether the log has it as a resumed one."""
        return [event["resumed"] for event in self.handshakes()]

    def test_server(self) -> None:
        """A client that resumes is authenticated as it was, and logged as such."""
        self.begin()
        _upcall, client = self.visit(certificates.client())
        upcall, again = self.visit(session=client.tls.session)
        self.assertTrue(again.tls.session_reused)
        self.assertEqual((upcall.status, upcall.remoteAuth), (0, (PEER_AUTHENTICATED,)))
        self.assertEqual(self.resumed(), ["-", "yes"])
        first, second = self.handshakes()
        self.assertIn("resumed=yes", eventAsText(second) or "")
        self.assertNotIn("resumed", eventAsText(first) or "")
        self.assertEqual(second["fingerprint"], first["fingerprint"])
        self.assertEqual([one.transmit.sequence for one in self.kernelTLS.sessions], [1, 1])

    def test_clientWithoutCertificate(self) -> None:
        """A client that was not authenticated is not by resuming."""
        self.begin()
        _upcall, client = self.visit()
        upcall, _again = self.visit(session=client.tls.session)
        self.assertEqual((upcall.status, upcall.remoteAuth), (0, ()))
        self.assertEqual(self.resumed(), ["-", "yes"])

    def test_reload(self) -> None:
        """A reload ends all tickets."""
        agent = self.begin()
        _upcall, client = self.visit(certificates.client())
        servers = self.servers()
        self.mount(servers)
        reloaded = Deferred.fromCoroutine(agent.reload())
        self.reactor.settle()
        self.assertTrue(self.successResultOf(reloaded))
        upcall, again = self.visit(session=client.tls.session)
        self.assertEqual((upcall.status, again.tls.session_reused), (0, False))
        self.mount(servers)
        self.mount(servers)
        self.assertEqual(self.resumed(), ["-", "-", "-", "-", "yes"])

    def test_revoked(self) -> None:
        """A client that is revoked meanwhile is refused with the alert for that."""
        crl = self.folder / "crl.pem"
        crl.write_bytes(self.revocations())
        trust = Trust((str(self.folder / "ca.pem"),), (str(crl),))
        agent = self.begin(trust=trust)
        _upcall, client = self.visit(certificates.client())
        _upcall, client = self.visit(session=client.tls.session)
        crl.write_bytes(self.revocations(certificates.client()))
        reloaded = Deferred.fromCoroutine(agent.reload())
        self.reactor.settle()
        self.assertTrue(self.successResultOf(reloaded))
        upcall, _client = self.visit(session=client.tls.session)
        self.assertEqual(upcall.status, errno.EACCES)
        event = self.handshakes()[-1]
        self.assertEqual(
            (event["code"], event["alert_sent"]), ("certificate-revoked", "certificate_revoked")
        )
        self.assertEqual(self.resumed(), ["-", "yes", "-"])

    def test_address(self) -> None:
        """Rules hold for a resumed session, too: here its client has moved away."""
        access = Access(addressInCertificate=True)
        own = certificates.authority().issue("127.0.0.1", addresses=("127.0.0.1",))
        self.begin(access=access)
        upcall, client = self.visit(own)
        self.assertEqual(upcall.status, 0)
        self.patch(UpcallTransport, "peer", lambda _transport: Endpoint(ELSEWHERE, 700))
        upcall, _client = self.visit(session=client.tls.session)
        self.assertEqual(upcall.status, errno.EACCES)
        event = self.handshakes()[-1]
        self.assertEqual(
            (event["code"], event["alert_sent"]), ("address-mismatch", "access_denied")
        )

    def test_otherProfile(self) -> None:
        """What one profile has issued another one does not take."""
        near = Match((Role.SERVER,), peer=(ipaddress.ip_network("127.0.0.0/8"),))
        profile = self.profile(
            "profile.near",
            Role.SERVER,
            certificates.server(),
            match=near,
            handshake=Handshake(resumption=True),
        )
        self.begin(profile)
        _upcall, client = self.visit(certificates.client())
        self.patch(UpcallTransport, "peer", lambda _transport: Endpoint(ELSEWHERE, 700))
        upcall, again = self.visit(session=client.tls.session)
        self.assertEqual((upcall.status, again.tls.session_reused), (0, False))
        names = [event["profile"] for event in self.handshakes()]
        self.assertEqual(names, ["profile.near", "authenticate.server"])

    def test_client(self) -> None:
        """A client takes a ticket behind each handshake, and resumes with it once."""
        self.begin()
        servers = self.servers()
        for _number in range(3):
            upcall, _server = self.mount(servers)
            self.assertEqual((upcall.status, upcall.remoteAuth), (0, (PEER_AUTHENTICATED,)))
        self.assertEqual(self.resumed(), ["-", "yes", "yes"])
        received = [one.receive.sequence for one in self.kernelTLS.sessions]
        self.assertEqual(received, [1, 1, 1])

    def test_modesAreApart(self) -> None:
        """C{xprtsec=mtls} never resumes what C{xprtsec=tls} has begun, nor the reverse."""
        self.begin()
        servers = self.servers()
        for mode in (UNAUTH, X509, UNAUTH, X509):
            _upcall, server = self.mount(servers, mode)
            self.assertEqual(bool(server.tls.getpeercert()), mode == X509)
        self.assertEqual(self.resumed(), ["-", "-", "yes", "yes"])

    def test_clientJudgesAgain(self) -> None:
        """A ticket is used only for the name and the address that it was got for."""
        self.begin()
        servers = self.servers()
        self.mount(servers)
        upcall, far = self.ask(CLIENTHELLO, UNAUTH, peerName=b"other.lab")
        self.run_(Peer(far, servers, server=True, name=None))
        self.assertEqual(upcall.status, errno.EACCES)
        self.assertEqual(self.handshakes()[-1]["code"], "name-mismatch")
        self.mount(servers)
        self.patch(UpcallTransport, "peer", lambda _transport: Endpoint(ELSEWHERE, 2049))
        self.mount(servers)
        self.assertEqual(self.resumed(), ["-", "-", "yes", "-"])

    def test_silentServer(self) -> None:
        """A server that issues no tickets is waited for, but not for long."""
        self.begin()
        servers = self.servers()
        servers.num_tickets = 0
        upcall, far = self.ask(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
        self.run_(Peer(far, servers, server=True, name=None))
        self.assertEqual(upcall.answers, [])
        self.reactor.turn(TICKET_SECONDS)
        self.run_()
        self.assertEqual(upcall.status, 0)
        (session,) = self.kernelTLS.sessions
        self.assertEqual(session.receive.sequence, 0)

    def test_dataOfTheServer(self) -> None:
        """What a server says instead of a ticket is the kernel's, to the last octet."""
        self.begin()
        servers = self.servers()
        servers.num_tickets = 0
        upcall, far = self.ask(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
        server = Peer(far, servers, server=True, name=None)
        self.run_(server)
        server.tls.write(b"data")
        server.flush()
        self.run_(server)
        self.assertEqual(upcall.status, 0)
        (session,) = self.kernelTLS.sessions
        left = upcall.socket.recv(2**16)
        self.assertEqual(ModelKTLS(session).receive.open(left), (23, b"data"))

    def test_off(self) -> None:
        """Without the key nobody resumes, and nobody waits."""
        self.start()
        servers = self.servers()
        for _number in range(2):
            upcall, far = self.ask(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
            self.run_(Peer(far, servers, server=True, name=None))
            self.assertEqual(upcall.status, 0)
        _upcall, client = self.visit(certificates.client())
        _upcall, client = self.visit(session=client.tls.session)
        self.assertEqual(self.resumed(), ["-"] * 4)
        for session in self.kernelTLS.sessions:
            self.assertEqual((session.transmit.sequence, session.receive.sequence), (0, 0))
