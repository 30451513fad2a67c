"""The story of a request, on a whole agent whose kernel is a fake."""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID
from OpenSSL import crypto
from twisted.logger import LogEvent, eventAsText
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.config import AgentConfig
from ktlsagent.credentials.latecontexts import Tokens
from ktlsagent.credentials.tokens import TokenKey
from ktlsagent.errors import SessionUnusable, TokenFailed
from ktlsagent.peers.authorisation import Access, parseRule
from ktlsagent.policy import PEER_AUTHENTICATED
from ktlsagent.profiles import Match, Trust
from ktlsagent.protocols.cryptoinfo import packCryptoInfo
from ktlsagent.protocols.session import Role
from tests.support import certificates
from tests.support.agent import (
    AgentTestCase,
    Peer,
    TlsliteConnection,
    openDescriptors,
    peerContext,
)
from tests.support.certificates import Credentials
from tests.support.fakekernel import CLIENTHELLO, PSK, SERVERHELLO, UNAUTH, X509, FakeUpcall
from tests.support.tlslitepeers import TlslitePeer

ROOT = Path(__file__).parents[1]


class ServerTests(AgentTestCase):
    """The kernel asks for a server: nfsd."""

    def test_clientWithoutCertificate(self) -> None:
        """A client without a certificate gets a session that is not authenticated."""
        self.start()
        upcall, client = self.serve()
        self.run_(client)
        self.assertTrue(client.done)
        self.assertEqual((upcall.status, upcall.remoteAuth), (0, ()))
        (session,) = self.kernelTLS.sessions
        self.assertEqual((session.transmit.sequence, session.receive.sequence), (0, 0))
        self.assertIsNone(session.peerCertificate)

    def test_clientWithCertificate(self) -> None:
        """A client whose certificate was verified is reported as authenticated."""
        self.start()
        upcall, client = self.serve(certificates.client())
        self.run_(client)
        self.assertEqual((upcall.status, upcall.remoteAuth), (0, (PEER_AUTHENTICATED,)))
        (event,) = self.handshakes()
        self.assertEqual(event["outcome"], "ok")
        self.assertEqual(event["fingerprint"], certificates.client().fingerprint)
        self.assertEqual(event["subject"], "CN=client.lab")

    def test_clientOfUnknownAuthority(self) -> None:
        """A client of a CA that is not trusted gets unknown_ca, and the log says whose it is."""
        self.start()
        upcall, client = self.serve(certificates.ofOtherAuthority())
        self.run_(client)
        self.assertEqual(upcall.status, errno.EACCES)
        self.assertIsNotNone(client.error)
        self.assertIn("UNKNOWN_CA", str(client.error))
        (event,) = self.handshakes()
        self.assertEqual(event["code"], "unknown-ca")
        self.assertEqual(event["alert_sent"], "unknown_ca")
        self.assertIn("Other CA", event["reason"])

    def test_clientWithHugeCertificate(self) -> None:
        """Whatever a client without a trusted certificate fills it with, its line is bounded."""
        unit = NameOID.ORGANIZATIONAL_UNIT_NAME
        self.start()
        for name in (
            [x509.NameAttribute(unit, "\x01" * 45_000)],
            [x509.NameAttribute(unit, "\u2028" * 15_000)],
            [x509.NameAttribute(unit, f"[ktlsagent.x#info] handshake ok {n}") for n in range(900)],
            [x509.NameAttribute(unit, f"\x1b[2J{number}") for number in range(2200)],
        ):
            self.events.clear()
            credentials = certificates.huge(x509.Name(name))
            self.assertGreater(len(credentials.certificatePEM), 90_000)
            upcall, client = self.serve(credentials)
            self.run_(client)
            self.assertEqual(upcall.status, errno.EACCES)
            (event,) = self.handshakes()
            line = eventAsText(event)
            self.assertLess(len(line.encode()), 4096)
            self.assertTrue(line.isascii() and line.isprintable())
            self.assertEqual(line.count("handshake "), 1)
            self.assertEqual(event["code"], "self-signed")
            self.assertTrue(event["subject"].endswith("..."))
            self.assertIn("status=EACCES", line)
            written = sum(len(value) for value in event.values() if isinstance(value, str))
            self.assertLess(written, 10_000)

    def test_noCertificateConfigured(self) -> None:
        """A server without a certificate says so, and the client is told at once."""
        self.start(self.configuration())
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(upcall.status, errno.EACCES)
        self.assertIsNotNone(client.error)
        (event,) = self.handshakes()
        self.assertEqual(event["code"], "no-certificate")
        self.assertEqual(event["alert_sent"], "internal_error")
        self.assertIn("[authenticate.server]", event["reason"])

    def test_olderClient(self) -> None:
        """A client that offers TLS 1.2 at the most is told protocol_version."""
        self.start()
        upcall, client = self.serve()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        client.tls = context.wrap_bio(client._incoming, client._outgoing)
        self.run_(client)
        self.assertEqual(upcall.status, errno.EACCES)
        (event,) = self.handshakes()
        self.assertEqual(event["code"], "protocol-version")
        self.assertEqual(event["alert_sent"], "protocol_version")

    def test_plainText(self) -> None:
        """A peer that does not speak TLS is refused, and the log shows what it sent."""
        self.start()
        upcall, far = self.ask(SERVERHELLO)
        far.send(b"\x80\x00\x00\x28RPC in the clear")
        self.run_()
        self.assertEqual(upcall.status, errno.EACCES)
        (event,) = self.handshakes()
        self.assertEqual(event["code"], "not-tls")
        self.assertEqual(event["alert_sent"], "unexpected_message")
        self.assertEqual(far.recv(100)[0], 21)

    def test_closedConnectionIsAnsweredAtOnce(self) -> None:
        """A client that goes away is reported at once: an nfsd thread waits."""
        self.start()
        upcall, far = self.ask(SERVERHELLO)
        far.close()
        self.run_()
        self.assertEqual(upcall.status, errno.ETIMEDOUT)
        self.assertEqual(self.handshakes()[0]["code"], "connection-closed")

    def test_deadline(self) -> None:
        """A silent client is given up half a second before nfsd gives up."""
        self.start()
        upcall, _far = self.ask(SERVERHELLO)
        self.run_()
        self.reactor.turn(4.49)
        self.assertIsNone(upcall.status)
        self.reactor.turn(0.02)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)
        (event,) = self.handshakes()
        self.assertEqual(event["code"], "deadline")
        self.assertIn("no record from it", event["reason"])

    def test_deadlineInMidHandshake(self) -> None:
        """The reason of a deadline says how far the peer has come."""
        self.start()
        upcall, client = self.serve()
        client.turn()
        self.run_()
        self.reactor.turn(5)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)
        self.assertIn("1 records from it", self.handshakes()[0]["reason"])

    def test_kernelRefusesTheKeys(self) -> None:
        """A session whose keys the kernel does not take is EIO, never success."""
        self.start()
        self.kernelTLS.refusal = SessionUnusable("ktls-refused", "expected TLS_RX, found EINVAL")
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual((upcall.status, upcall.remoteAuth), (errno.EIO, ()))
        self.assertEqual(self.handshakes()[0]["code"], "ktls-refused")

    def test_closedBehindTheHandshake(self) -> None:
        """A client that has gone when the handshake is over is no trouble of ours."""
        self.start()
        upcall, client = self.serve()
        self.kernelTLS.meanwhile = client.close
        self.run_(client)
        self.assertEqual((upcall.status, upcall.remoteAuth), (errno.ETIMEDOUT, ()))
        (event,) = self.handshakes()
        self.assertEqual((event["code"], event["alert_received"]), ("closed-after-handshake", "-"))

    def test_bugInTheHandover(self) -> None:
        """A bug is EIO for the kernel and a traceback for us."""
        self.start()
        self.kernelTLS.refusal = ZeroDivisionError("a bug")
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(upcall.status, errno.EIO)
        self.assertEqual(self.handshakes()[0]["code"], "internal-error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_kernelHasLostInterest(self) -> None:
        """An answer that the kernel does not want any more is noted and no error."""
        self.start()
        upcall, client = self.serve()
        client.turn()
        self.reactor.turn()
        self.kernel.upcalls.clear()
        self.run_(client)
        self.assertEqual(upcall.answers, [])
        (event,) = self.handshakes()
        self.assertIn("EBUSY", event["note"])
        self.assertEqual(event["outcome"], "ok")


class ClientTests(AgentTestCase):
    """The kernel asks for a client: an NFS mount."""

    def test_withoutCertificate(self) -> None:
        """xprtsec=tls: the server is verified, and we show nothing."""
        self.start()
        upcall, server = self.connect(certificates.server())
        self.run_(server)
        self.assertEqual((upcall.status, upcall.remoteAuth), (0, (PEER_AUTHENTICATED,)))
        (event,) = self.handshakes()
        self.assertEqual(
            (event["role"], event["mode"], event["name"]), ("client", "unauth", "server.lab")
        )

    def test_pauseBeforeTheBeginning(self) -> None:
        """The ClientHello waits until the kernel's own reader has surely ended."""
        agent = self.start()
        upcall, far = self.ask(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
        self.reactor.turn()
        self.reactor.turn(0.019)
        self.assertRaises(BlockingIOError, far.recv, 1)
        self.assertEqual(agent.ledger.timers, 1)
        self.reactor.turn(0.002)
        self.reactor.settle()
        self.assertEqual(far.recv(1), b"\x16")
        far.close()
        self.run_()
        self.reactor.turn(1)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)

    def test_withCertificate(self) -> None:
        """xprtsec=mtls: the server gets our certificate."""
        self.start()
        upcall, server = self.connect(certificates.server(), authMode=X509)
        self.run_(server)
        self.assertEqual(upcall.status, 0)
        shown = server.tls.getpeercert()
        assert shown is not None
        self.assertEqual(shown["subject"], ((("commonName", "client.lab"),),))

    def test_serverTicketsStayInTheSocket(self) -> None:
        """What a server sends behind its Finished is not read: it is the kernel's."""
        self.start()
        upcall, server = self.connect(certificates.server())
        self.run_(server)
        self.assertEqual(upcall.status, 0)
        left = upcall.socket.recv(2**16)
        self.assertEqual(left[0], 23, "the tickets, whole, in application data records")
        self.assertEqual(len(left), 2 * (5 + int.from_bytes(left[3:5], "big")))

    def test_noCertificateConfigured(self) -> None:
        """xprtsec=mtls without a certificate of our own is refused before anything is sent."""
        self.start(self.configuration(certificates.server()))
        upcall, far = self.ask(CLIENTHELLO, X509, peerName=b"server.lab")
        self.run_()
        self.assertEqual(upcall.status, errno.EACCES)
        self.assertRaises(BlockingIOError, far.recv, 1)
        (event,) = self.handshakes()
        self.assertEqual(event["code"], "no-certificate")

    def test_noName(self) -> None:
        """A client request without a name is refused."""
        self.start()
        upcall, _server = self.connect(certificates.server(), name=None)
        self.run_()
        self.assertEqual(upcall.status, errno.EACCES)
        self.assertEqual(self.handshakes()[0]["code"], "no-name")

    def test_wrongName(self) -> None:
        """A certificate for another name is refused with an alert, and both names are logged."""
        self.start()
        upcall, server = self.connect(certificates.server(), name=b"other.lab")
        self.run_(server)
        self.assertEqual(upcall.status, errno.EACCES)
        self.assertIn("BAD_CERTIFICATE", str(server.error))
        (event,) = self.handshakes()
        self.assertEqual(event["code"], "name-mismatch")
        self.assertEqual(event["alert_sent"], "bad_certificate")
        self.assertIn("DNS:other.lab", event["reason"])
        self.assertIn("DNS:server.lab", event["reason"])

    def test_expired(self) -> None:
        """An expired certificate is refused with certificate_expired and its date."""
        self.start()
        upcall, server = self.connect(certificates.expired(), name=b"expired.lab")
        self.run_(server)
        self.assertEqual(upcall.status, errno.EACCES)
        self.assertIn("CERTIFICATE_EXPIRED", str(server.error))
        (event,) = self.handshakes()
        self.assertEqual(event["code"], "certificate-expired")
        self.assertIn(
            f"{certificates.expired().certificate.not_valid_after_utc:%Y-%m-%d}", event["reason"]
        )

    def test_alertFromTheServer(self) -> None:
        """A server that refuses us is quoted."""
        self.start()
        upcall, far = self.ask(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
        self.run_()
        far.recv(2**16)
        far.send(bytes.fromhex("15 03 03 00 02 02 28"))
        self.run_()
        self.assertEqual(upcall.status, errno.EACCES)
        (event,) = self.handshakes()
        self.assertEqual(event["code"], "alert-handshake-failure")
        self.assertEqual(event["alert_received"], "handshake_failure")

    def test_refusedBehindTheHandshake(self) -> None:
        """A server that refuses our certificate and closes at once is quoted as well."""
        self.start(self.configuration(certificates.server(), certificates.ofOtherAuthority()))
        upcall, server = self.connect(certificates.server(), authMode=X509)

        def refuse() -> None:
            server.turn()
            server.close()

        self.kernelTLS.meanwhile = refuse
        self.run_(server)
        self.assertIsNotNone(server.error)
        self.assertEqual((upcall.status, upcall.remoteAuth), (errno.EACCES, ()))
        (event,) = self.handshakes()
        self.assertEqual((event["outcome"], event["code"]), ("failed", "alert-unknown-ca"))
        self.assertEqual((event["status"], event["alert_received"]), ("EACCES", "unknown_ca"))
        self.assertIn("the server refused the handshake", event["reason"])

    def test_unknownIdentityFromTheServer(self) -> None:
        """The alert unknown_psk_identity ends an NVMe host's retries."""
        self.start()
        upcall, far = self.ask(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
        self.run_()
        far.send(bytes.fromhex("15 03 03 00 02 02 73"))
        self.run_()
        self.assertEqual(upcall.status, errno.EKEYREJECTED)

    def test_retryableAnswerIsHeldBack(self) -> None:
        """ETIMEDOUT reaches the NFS client only after a second: it tries again without pause."""
        agent = self.start()
        upcall, far = self.ask(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
        self.run_()
        far.close()
        self.run_()
        self.assertIsNone(upcall.status)
        self.assertEqual(agent.ledger.timers, 1)
        self.reactor.turn(0.9)
        self.assertIsNone(upcall.status)
        self.reactor.turn(0.1)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)

    def test_holdingBackEndsBeforeTheDeadline(self) -> None:
        """ETIMEDOUT is held back no longer than the kernel waits."""
        self.start()
        upcall, far = self.ask(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
        self.run_()
        self.reactor.turn(9.2)
        far.close()
        self.run_()
        self.reactor.turn(0.31)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)

    def test_theKernelsOwnTimeout(self) -> None:
        """A TIMEOUT in the request is the deadline."""
        self.start()
        upcall, _far = self.ask(
            CLIENTHELLO, UNAUTH, peerName=b"server.lab", timeoutMilliseconds=3000
        )
        self.run_()
        self.reactor.turn(2.51)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)

    def test_peerThatResetsInMidHandshake(self) -> None:
        """A reset is the peer's going away, not a bug."""
        self.start()
        upcall, far = self.ask(CLIENTHELLO, UNAUTH, peerName=b"server.lab")
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        self.run_()
        self.reactor.turn(2)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)
        self.assertEqual(self.handshakes()[0]["code"], "connection-lost")


class OtherRequestTests(AgentTestCase):
    """What the kernel may ask for besides."""

    def test_serverWithoutAnything(self) -> None:
        """A mode that is not supported is refused by name."""
        self.start()
        upcall, _far = self.ask(SERVERHELLO, UNAUTH)
        self.run_()
        self.assertEqual(upcall.status, errno.EOPNOTSUPP)
        (event,) = self.handshakes()
        self.assertEqual((event["code"], event["mode"]), ("unsupported-mode", "unauth"))

    def test_keyringCertificateOfServer(self) -> None:
        """A server's certificate from a keyring is refused with where it has to be."""
        self.start()
        upcall, _far = self.ask(SERVERHELLO, X509, certificate=7)
        self.run_()
        self.assertEqual(upcall.status, errno.EOPNOTSUPP)
        self.assertIn("from the configuration", self.handshakes()[0]["reason"])

    def test_messageTypeOfALaterKernel(self) -> None:
        """A message type that nobody knows is refused, and answered."""
        self.start()
        upcall, _far = self.ask(17, 23)
        self.run_()
        self.assertEqual(upcall.status, errno.EOPNOTSUPP)
        self.assertEqual(self.handshakes()[0]["role"], "-")

    def test_notTCP(self) -> None:
        """A socket that is no TCP connection is refused with its protocol."""
        self.start()
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        upcall = self.kernel.queue(near, SERVERHELLO, X509)
        self.run_()
        self.assertEqual(upcall.status, errno.EOPNOTSUPP)
        self.assertEqual(self.handshakes()[0]["code"], "not-tcp")

    def test_malformedReplyIsAnswered(self) -> None:
        """A reply that cannot be read is refused and its descriptor given back."""
        self.start()
        before = openDescriptors()
        upcall, far = self.ask(SERVERHELLO, X509, more=b"\4\0\4\0")
        self.run_()
        self.assertEqual(upcall.status, errno.EOPNOTSUPP)
        self.assertTrue(any("cannot be read" in (eventAsText(e) or "") for e in self.events))
        far.close()
        upcall.socket.close()
        self.assertEqual(openDescriptors() - before, set())

    def test_keyringIsUnlinkedWithItsLastRequest(self) -> None:
        """Two requests share a keyring; the link goes with the second one."""
        agent = self.start()
        first, farFirst = self.ask(SERVERHELLO, X509, keyring=99)
        second, farSecond = self.ask(SERVERHELLO, X509, keyring=99)
        self.run_()
        self.assertEqual(agent.ledger.keyLinks, 1)
        farFirst.close()
        self.run_()
        self.assertIsNotNone(first.status)
        self.assertEqual(self.keyrings.linked(), [99])
        farSecond.close()
        self.run_()
        self.assertIsNotNone(second.status)
        self.assertEqual(self.keyrings.linked(), [])

    def test_keyringThatCannotBeUnlinked(self) -> None:
        """Trouble with a keyring is noted in the handshake's line."""
        self.start()
        self.keyrings.unlinkError = errno.EACCES
        _upcall, far = self.ask(SERVERHELLO, X509, keyring=99)
        far.close()
        self.run_()
        self.assertIn("keyring 99", self.handshakes()[0]["note"])
        self.keyrings.unlinkError = None
        self.keyrings.unlink(99)


class KeyringCertificateTests(AgentTestCase):
    """The kernel asks for a client whose certificate is in a keyring: cert_serial=."""

    def add(self, own: Credentials) -> tuple[int, int]:
        """
        Put a certificate and its key into C{.nfs}.

        @param own: the pair.
        @return: the serials.
        """
        found = self.keyrings.find([".nfs"])
        ring = found[".nfs"] if found else self.keyrings.addKeyring(".nfs")
        content = own.certificate.public_bytes(serialization.Encoding.DER)
        return (
            self.keyrings.addKey(ring, b"certificate", content),
            self.keyrings.addKey(ring, b"key", own.keyPEM),
        )

    def mount(self, certificate: int, privateKey: int) -> tuple[FakeUpcall, Peer]:
        """
        Have the kernel mount from a server.

        @param certificate: C{cert_serial=}.
        @param privateKey: C{privkey_serial=}.
        @return: the request and the server.
        """
        upcall, far = self.ask(
            CLIENTHELLO,
            X509,
            peerName=b"server.lab",
            certificate=certificate,
            privateKey=privateKey,
        )
        context = peerContext(server=True, credentials=certificates.server(), folder=self.folder)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=certificates.authority().certificatePEM.decode())
        return upcall, Peer(far, context, server=True, name=None)

    def test_pair(self) -> None:
        """The request's pair wins, whether one is configured or not."""
        for configured in (certificates.client(), None):
            agent = self.start(self.configuration(certificates.server(), configured))
            upcall, server = self.mount(*self.add(certificates.clientOnly()))
            self.run_(server)
            self.assertEqual(upcall.status, 0)
            shown = server.tls.getpeercert()
            assert shown is not None
            self.assertEqual(shown["subject"], ((("commonName", "clientonly.lab"),),))
            self.assertEqual(self.keyrings.linked(), [])
            self.successResultOf(self.stop(agent))

    def test_eitherAlone(self) -> None:
        """One of the two goes with the configured other."""
        self.start()
        certificate, key = self.add(certificates.client())
        for serials in ((certificate, 0), (0, key)):
            upcall, server = self.mount(*serials)
            self.run_(server)
            self.assertEqual(upcall.status, 0)

    def test_refused(self) -> None:
        """What cannot be used is refused before anything is sent, by its serial."""
        self.start()
        certificate, key = self.add(certificates.clientOnly())
        for serials, code in (
            ((certificate, 0), "key-mismatch"),
            ((0, key), "key-mismatch"),
            ((key, certificate), "key-unusable"),
            ((certificate, 4711), "key-unusable"),
        ):
            upcall, server = self.mount(*serials)
            self.run_(server)
            self.assertEqual(upcall.status, errno.ENOKEY)
            event = self.handshakes()[-1]
            self.assertEqual((event["code"], event["alert_sent"]), (code, "-"))
            self.assertTrue(any(str(serial) in event["reason"] for serial in serials if serial))


class PreSharedKeyTests(AgentTestCase):
    """The kernel asks for what NVMe/TCP wants, host or target."""

    HOST = b"NVMe1R01 nqn.2014-08.org.nvmexpress:uuid:host nqn.target dig=="
    KEY = b"\x00\xff not for you" * 2

    def setUp(self) -> None:
        super().setUp()
        self.ring = self.keyrings.addKeyring(".nvme")
        self.serial = self.keyrings.addKey(self.ring, self.HOST, self.KEY, type="psk")

    def target(
        self, *offered: tuple[bytes, bytes, str], **details: Any
    ) -> tuple[FakeUpcall, TlsliteConnection]:
        """
        Have the kernel ask for a target, with a host that connects to it.

        @param offered: the host's identities, keys and hashes.
        @param details: more of the request.
        @return: the request and the host.
        """
        upcall, far = self.ask(SERVERHELLO, PSK, **details)
        keys = offered or ((self.HOST, self.KEY, "sha256"),)
        return upcall, TlsliteConnection(far, TlslitePeer("client", keys))

    def host(
        self,
        *known: tuple[bytes, bytes, str],
        serials: tuple[int, ...] | None = None,
        **details: Any,
    ) -> tuple[FakeUpcall, TlsliteConnection]:
        """
        Have the kernel ask for a host, with a target that it connects to.

        @param known: the target's identities, keys and hashes.
        @param serials: the keys that the request names.
        @param details: more of the request.
        @return: the request and the target.
        """
        identities = (self.serial,) if serials is None else serials
        upcall, far = self.ask(CLIENTHELLO, PSK, peerIdentities=identities, **details)
        keys = known or ((self.HOST, self.KEY, "sha256"),)
        return upcall, TlsliteConnection(far, TlslitePeer("server", keys))

    def refused(self, upcall: FakeUpcall, status: int, code: str) -> LogEvent:
        """
        Check that a request was refused.

        @param upcall: the request.
        @param status: what the kernel is told.
        @param code: what the log has.
        @return: the event.
        """
        self.assertEqual((upcall.status, upcall.remoteAuth), (status, ()))
        event = self.handshakes()[-1]
        self.assertEqual((event["code"], event["mode"]), (code, "psk"))
        return event

    def test_both(self) -> None:
        """DONE has the key's serial once, for target and host, with a keyring or without."""
        self.start()
        for make, role in ((self.target, "server"), (self.host, "client")):
            for keyring in (self.ring, 0):
                upcall, peer = make(keyring=keyring)
                self.run_(peer)
                self.assertEqual((upcall.status, upcall.remoteAuth), (0, (self.serial,)))
                self.assertTrue(peer.peer.complete)
                event = self.handshakes()[-1]
                self.assertEqual((event["outcome"], event["role"]), ("ok", role))
                self.assertEqual(event["identity"], self.HOST.decode())
                self.assertEqual(self.keyrings.linked(), [])
        self.assertEqual(
            [session.keySerial for session in self.kernelTLS.sessions], [self.serial] * 4
        )

    def test_sha384(self) -> None:
        """The key's hash chooses the suite."""
        self.start()
        identity, key = b"NVMe0R02 nqn.host nqn.target", b"k" * 48
        serial = self.keyrings.addKey(self.ring, identity, key, type="psk")
        for upcall, peer in (
            self.target((identity, key, "sha384")),
            self.host((identity, key, "sha384"), serials=(serial,)),
        ):
            self.run_(peer)
            self.assertEqual((upcall.status, upcall.remoteAuth), (0, (serial,)))
            self.assertEqual(self.handshakes()[-1]["suite"], "TLS_AES_256_GCM_SHA384")

    def test_configuredKeyrings(self) -> None:
        """Keys may be in keyrings of the configuration, by name or serial, however late."""
        self.start(self.configuration(keyrings=("late", "4711")))
        identity, key = b"generic", b"k" * 32
        upcall, peer = self.target((identity, key, "sha256"))
        self.run_(peer)
        self.refused(upcall, errno.ENOKEY, "unknown-identity")
        serial = self.keyrings.addKey(self.keyrings.addKeyring("late"), identity, key)
        self.reactor.advance(1.0)
        upcall, peer = self.target((identity, key, "sha256"))
        self.run_(peer)
        self.assertEqual((upcall.status, upcall.remoteAuth), (0, (serial,)))

    def test_foreignKeyring(self) -> None:
        """A keyring of somebody else is not looked into, whatever its name; the line says so."""
        theirs = self.keyrings.addKeyring("backup", 4711)
        self.keyrings.own(theirs, 1000, 0x3F3F3F3F)
        self.start(self.configuration(keyrings=("backup", "4711")))
        identity, key = b"generic", b"k" * 32
        self.keyrings.addKey(theirs, identity, key)
        upcall, peer = self.target((identity, key, "sha256"))
        self.run_(peer)
        self.refused(upcall, errno.ENOKEY, "unknown-identity")
        self.assertIn("keyring 4711 is left out", str(self.handshakes()[-1]["note"]))
        self.assertIn("belongs to the user 1000", str(self.handshakes()[-1]["note"]))

    def test_blockingSocket(self) -> None:
        """NVMe's sockets block: the reactor does not, and the flags are as before."""
        self.start()
        upcall, peer = self.target()
        upcall.socket.setblocking(True)
        self.run_()
        self.assertIsNone(upcall.status)
        self.run_(peer)
        self.assertEqual(upcall.status, 0)
        self.assertTrue(upcall.socket.getblocking())

    def test_timeout(self) -> None:
        """The request's TIMEOUT is the deadline, and its answer is not held back."""
        self.start()
        upcall, _peer = self.host(timeoutMilliseconds=10000)
        self.run_()
        self.reactor.turn(9.49)
        self.assertIsNone(upcall.status)
        self.reactor.turn(0.02)
        self.refused(upcall, errno.ETIMEDOUT, "deadline")
        upcall, _peer = self.target(timeoutMilliseconds=2000)
        self.run_()
        self.reactor.turn(1.51)
        self.refused(upcall, errno.ETIMEDOUT, "deadline")

    def test_unknownIdentity(self) -> None:
        """A target's log and the kernel know; the host is told no more than of a wrong key."""
        self.start()
        upcall, peer = self.target((b"stranger", b"s" * 32, "sha256"))
        self.run_(peer)
        event = self.refused(upcall, errno.ENOKEY, "unknown-identity")
        self.assertEqual(event["alert_sent"], "decrypt_error")
        self.assertEqual(event["identity"], "stranger")
        self.assertIn("'stranger'", event["reason"])
        self.assertIn(f"'{self.HOST.decode()}'", event["reason"])
        self.assertIn("decrypt_error", str(peer.peer.error))

    def test_unknownToTheTarget(self) -> None:
        """A host that is told so has EKEYREJECTED, which ends its retries."""
        self.start()
        upcall, far = self.ask(CLIENTHELLO, PSK, peerIdentities=(self.serial,))
        self.run_()
        far.send(bytes.fromhex("15 0303 0002 02 73"))
        self.run_()
        event = self.refused(upcall, errno.EKEYREJECTED, "alert-unknown-psk-identity")
        self.assertEqual(event["identity"], self.HOST.decode())

    def test_wrongKey(self) -> None:
        """A target tells a host with another key decrypt_error."""
        self.start()
        upcall, peer = self.target((self.HOST, b"x" * 32, "sha256"))
        self.run_(peer)
        event = self.refused(upcall, errno.EACCES, "wrong-key")
        self.assertEqual(event["alert_sent"], "decrypt_error")
        self.assertIn("decrypt_error", str(peer.peer.error))

    def test_noFallback(self) -> None:
        """Neither side takes a certificate instead, though there is one."""
        self.start()
        upcall, client = self.serve(certificates.client(), authMode=PSK)
        self.run_(client)
        self.refused(upcall, errno.EACCES, "no-psk")
        upcall, far = self.ask(CLIENTHELLO, PSK, peerIdentities=(self.serial,))
        context = peerContext(server=True, credentials=certificates.server(), folder=self.folder)
        server = Peer(far, context, server=True, name=None)
        self.run_(server)
        event = self.refused(upcall, errno.EACCES, "psk-ignored")
        self.assertEqual(event["alert_sent"], "handshake_failure")

    def test_plainText(self) -> None:
        """A host that does not speak TLS is told unexpected_message."""
        self.start()
        upcall, far = self.ask(SERVERHELLO, PSK)
        far.send(bytes.fromhex("00 00 80 00 80 00 00 00"))
        self.run_()
        event = self.refused(upcall, errno.EACCES, "not-tls")
        self.assertEqual(event["alert_sent"], "unexpected_message")

    def test_spoiledKeys(self) -> None:
        """A host whose key cannot be used says which one, and nothing is sent."""
        self.start()
        missing, forbidden = 4711, self.keyrings.addKey(self.ring, b"x", readable=False)
        revoked = self.keyrings.addKey(self.ring, b"y")
        self.keyrings.spoil(revoked, errno.EKEYREVOKED)
        for serials, status, code in (
            ((missing,), errno.ENOKEY, "key-unusable"),
            ((revoked,), errno.ENOKEY, "key-unusable"),
            ((forbidden,), errno.EACCES, "key-forbidden"),
            ((), errno.EACCES, "no-psk"),
        ):
            upcall, peer = self.host(serials=serials)
            self.run_(peer)
            event = self.refused(upcall, status, code)
            self.assertEqual(event["alert_sent"], "-")
            for serial in serials:
                self.assertIn(f"key {serial}", event["reason"])
                self.assertIn("linked is .nvme", event["reason"])

    def test_noKeyring(self) -> None:
        """Without the right to link .nvme its keys cannot be read, and that is said."""
        self.start()
        self.keyrings.linkError = errno.EACCES
        upcall, peer = self.host()
        self.run_(peer)
        event = self.refused(upcall, errno.EACCES, "key-forbidden")
        self.assertIn("linked is no keyring", event["reason"])
        upcall, peer = self.target()
        self.run_(peer)
        event = self.refused(upcall, errno.ENOKEY, "unknown-identity")
        self.assertIn("in 0 keyrings", event["reason"])

    def test_interleaved(self) -> None:
        """Requests that share a keyring do not take it from each other."""
        agent = self.start(self.configuration(keyrings=("more",)))
        more = self.keyrings.addKeyring("more")
        asked = [
            self.target(keyring=self.ring),
            self.host(),
            self.target(),
            self.host(keyring=self.ring),
        ]
        self.run_()
        self.assertEqual(set(self.keyrings.linked()), {self.ring, more})
        self.assertEqual(agent.ledger.keyLinks, 2)
        for number in (1, 0, 3):
            upcall, peer = asked[number]
            self.run_(peer)
            self.assertEqual((upcall.status, upcall.remoteAuth), (0, (self.serial,)))
            self.assertEqual(set(self.keyrings.linked()), {self.ring, more})
        # The last one fails, and takes the links with it.
        asked[2][1].connection.close()
        self.run_()
        self.assertEqual(asked[2][0].status, errno.ETIMEDOUT)
        self.assertEqual((self.keyrings.linked(), agent.ledger.keyLinks), ([], 0))
        self.assertTrue(agent.ledger.balanced())

    def test_descriptors(self) -> None:
        """Nothing is left open, whatever the end."""
        self.start()
        before = openDescriptors()
        asked = [
            self.target(),
            self.host(),
            self.target((b"stranger", b"s" * 32, "sha256")),
            self.host(serials=(4711,)),
        ]
        for upcall, peer in asked:
            self.run_(peer)
            self.assertEqual(len(upcall.answers), 1)
            upcall.socket.close()
            peer.connection.close()
        self.assertEqual(openDescriptors() - before, set())

    def test_secrecy(self) -> None:
        """No event, whatever the end, has a key in it."""
        agent = self.start()
        asked = [
            self.target(),
            self.host(),
            self.target((self.HOST, b"x" * 32, "sha256")),
            self.target((b"stranger", b"s" * 32, "sha256")),
            self.host((self.HOST, b"x" * 32, "sha256")),
        ]
        for _upcall, peer in asked:
            self.run_(peer)
        self.kernelTLS.refusal = ZeroDivisionError("a bug")
        self.run_(self.target()[1])
        shown = [str(error) for error in self.flushLoggedErrors(ZeroDivisionError)]
        shown += [repr(agent.__dict__), repr(self.kernelTLS.sessions)]
        shown += [SecrecyTests._render(event) for event in self.events]
        text = "\n".join(shown)
        self.assertIn("nqn.target", text)
        for form in (self.KEY.hex(), repr(self.KEY)[2:-1], self.KEY.hex(" "), "not for you"):
            self.assertNotIn(form, text)


class GivingBackTests(AgentTestCase):
    """What was lent is given back as it was."""

    def test_socketOptionsAndFlags(self) -> None:
        """TCP_NODELAY and the file status flags are as before, whatever they were."""
        self.start()
        for noDelay, blocking in ((0, True), (1, False)):
            upcall, client = self.serve()
            upcall.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, noDelay)
            upcall.socket.setblocking(blocking)
            self.run_(client)
            self.assertEqual(upcall.status, 0)
            found = upcall.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            self.assertEqual(bool(found), bool(noDelay))
            self.assertEqual(upcall.socket.getblocking(), blocking)

    def test_descriptors(self) -> None:
        """Handshakes that go well, that fail and that expire leave no descriptor behind."""
        self.start()
        before = openDescriptors()
        asked = [self.serve(), self.serve(certificates.ofOtherAuthority())]
        self.run_(*(client for _upcall, client in asked))
        silent, far = self.ask(SERVERHELLO)
        self.run_()
        self.reactor.turn(5)
        for upcall, client in asked:
            upcall.socket.close()
            client._connection.close()
        silent.socket.close()
        far.close()
        self.assertEqual(openDescriptors() - before, set())


class ReadinessTests(SynchronousTestCase):
    """What an agent needs is in memory when it says that it is ready."""

    SCRIPT = """
import sys
import ktlsagent.tap
from tests.support import agent, certificates, tlslitepeers

class Handshakes(agent.AgentTestCase):
    def runTest(self):
        self.start()
        before = set(sys.modules)
        self.run_(self.serve(certificates.client())[1])
        for name in (b"server.lab", b"other.lab", "b\\u00fccher.lab".encode(), b"10.0.0.2"):
            self.run_(self.connect(certificates.server(), name=name)[1])
        self.run_(self.serve(certificates.ofOtherAuthority())[1])
        serial = self.keyrings.addKey(self.keyrings.addKeyring(".nvme"), b"a", b"k" * 32)
        for known in (b"a", b"b"):
            for role, asked in (("client", (2, 2)), ("server", (1, 2))):
                far = self.ask(*asked, peerIdentities=(serial,))[1]
                peer = tlslitepeers.TlslitePeer(role, [(known, b"k" * 32, "sha256")])
                self.run_(agent.TlsliteConnection(far, peer))
        print("outcomes:", [event["outcome"] for event in self.handshakes()[-4:]])
        # A decoder of names in the standard library's ssl, which is the peer.
        print("imported:", sorted(set(sys.modules) - before - {"encodings.idna", "stringprep"}))

import unittest
unittest.TextTestRunner().run(Handshakes())
"""

    def test_handshakesImportNothing(self) -> None:
        """Handshakes, good and bad, import no module."""
        folder = Path(self.mktemp())
        folder.mkdir()
        ended = subprocess.run(
            [sys.executable, "-c", self.SCRIPT],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertIn("outcomes: ['ok', 'ok', 'failed', 'failed']", ended.stdout, ended.stderr)
        self.assertIn("imported: []", ended.stdout, ended.stderr)
        self.assertIn("OK", ended.stderr)


class SecrecyTests(AgentTestCase):
    """No key material anywhere."""

    def test_nothingSecretIsLoggedOrShown(self) -> None:
        """Every event and every repr of good and bad handshakes is free of secrets."""
        agent = self.start()
        shown: list[str] = []
        for peer in (None, certificates.client(), certificates.ofOtherAuthority()):
            upcall, client = self.serve(peer)
            self.run_(client)
            shown.append(repr(upcall))
        for name in (b"server.lab", b"other.lab"):
            _upcall, server = self.connect(certificates.server(), name=name)
            self.run_(server)
        self.kernelTLS.refusal = ZeroDivisionError("a bug")
        _upcall, client = self.serve()
        self.run_(client)
        shown += [str(error) for error in self.flushLoggedErrors(ZeroDivisionError)]
        shown += [repr(agent.__dict__), repr(self.kernelTLS.sessions)]
        shown += [self._render(event) for event in self.events]
        text = "\n".join(shown)
        for session in self.kernelTLS.sessions:
            for direction in (session.transmit, session.receive):
                info = packCryptoInfo(session.suite, direction.keys, 0)
                for secret in (direction.keys.key, direction.keys.iv, info):
                    for form in (secret.hex(), repr(secret)[2:-1], secret.hex(" ")):
                        self.assertNotIn(form, text)
        for credentials in (certificates.server(), certificates.client()):
            number = credentials.key.private_numbers().private_value
            for form in (str(number), f"{number:x}", credentials.keyPEM.decode().splitlines()[1]):
                self.assertNotIn(form, text)
        self.assertGreater(len(self.kernelTLS.sessions), 2)

    @staticmethod
    def _render(event: LogEvent) -> str:
        return (eventAsText(event) or "") + repr(sorted(event.items(), key=lambda item: item[0]))


class ProfileTests(AgentTestCase):
    """Requests are served by the first profile that matches them."""

    def serveBy(self, shown: Credentials | None, **settings: Any) -> tuple[FakeUpcall, LogEvent]:
        """
        Serve a client by a profile of its own.

        @param shown: the client's certificate, if it shows one.
        @param settings: what the profile says.
        @return: the request and the event of its handshake.
        """
        loopback = Match((Role.SERVER,), peer=(ipaddress.ip_network("127.0.0.0/8"),))
        profile = self.profile(
            "profile.near", Role.SERVER, certificates.server(), match=loopback, **settings
        )
        self.start(self.configuration(None, None, profile))
        upcall, client = self.serve(shown)
        self.run_(client)
        (event,) = self.handshakes()
        self.assertEqual(event["profile"], "profile.near")
        return upcall, event

    def trusting(self, authority: certificates.CertificateAuthority) -> Trust:
        """
        Trust a CA.

        @param authority: the CA.
        @return: what a profile says.
        """
        path = self.folder / "trusted.pem"
        path.write_bytes(authority.certificatePEM)
        return Trust((str(path),))

    def test_trust(self) -> None:
        """A profile's trust is its own."""
        trust = self.trusting(certificates.otherAuthority())
        upcall, _event = self.serveBy(certificates.ofOtherAuthority(), trust=trust)
        self.assertEqual((upcall.status, upcall.remoteAuth), (0, (PEER_AUTHENTICATED,)))

    def test_noTrust(self) -> None:
        """What other profiles trust does not count."""
        trust = self.trusting(certificates.otherAuthority())
        upcall, event = self.serveBy(certificates.client(), trust=trust)
        self.assertEqual((upcall.status, event["code"]), (errno.EACCES, "unknown-ca"))

    def test_default(self) -> None:
        """Requests that no profile matches are served by the one of their role."""
        elsewhere = Match((Role.SERVER,), peer=(ipaddress.ip_network("192.0.2.0/24"),))
        self.start(
            self.configuration(
                certificates.server(),
                certificates.client(),
                self.profile("profile.far", Role.SERVER, None, match=elsewhere),
            )
        )
        self.run_(self.serve()[1])
        self.run_(self.connect(certificates.server())[1])
        names = [event["profile"] for event in self.handshakes()]
        self.assertEqual(names, ["authenticate.server", "authenticate.client"])

    def test_denied(self) -> None:
        """A client that a rule denies is refused, whatever its chain."""
        access = Access(deny=(parseRule("dns:client.lab"),))
        upcall, event = self.serveBy(certificates.client(), access=access)
        self.assertEqual((upcall.status, event["code"]), (errno.EACCES, "denied"))
        self.assertIn("dns:client.lab", event["reason"])

    def test_allowed(self) -> None:
        """A client that a rule allows is served."""
        access = Access(allow=(parseRule("dns:client.lab"),))
        upcall, _event = self.serveBy(certificates.client(), access=access)
        self.assertEqual(upcall.status, 0)

    def test_anonymous(self) -> None:
        """Where there are rules on who may come in, nobody comes without a certificate."""
        access = Access(allow=(parseRule("dns:client.lab"),))
        upcall, event = self.serveBy(None, access=access)
        self.assertEqual((upcall.status, event["code"]), (errno.EACCES, "certificate-required"))
        self.assertEqual(event["alert_sent"], "certificate_required")

    def test_pin(self) -> None:
        """A pin alone may decide: of a certificate that nobody has signed."""
        shown = certificates.selfSigned()
        spki = shown.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        trust = Trust((), pins=frozenset({hashlib.sha256(spki).digest()}))
        upcall, _event = self.serveBy(shown, trust=trust)
        self.assertEqual((upcall.status, upcall.remoteAuth), (0, (PEER_AUTHENTICATED,)))

    def test_otherPin(self) -> None:
        """Another key than the pinned one is refused."""
        trust = Trust((), pins=frozenset({bytes(32)}))
        upcall, event = self.serveBy(certificates.client(), trust=trust)
        self.assertEqual((upcall.status, event["code"]), (errno.EACCES, "pin-mismatch"))

    def test_tags(self) -> None:
        """Session tags are logged, and told to a kernel that takes them."""
        folder = self.folder / "tags.d"
        folder.mkdir()
        (folder / "lab.yml").write_text(
            "filters: {lab: {type: x509.tbs.subject, pattern: 'CN=*.lab'}}\n"
            "tags: {lab: {filter: [lab]}, everybody-else: {filter: [not lab]}}\n"
        )
        self.kernel.takeTags()
        upcall, event = self.serveBy(certificates.client())
        self.assertEqual(event["tags"], "lab")
        self.assertEqual(upcall.tags, ("lab",))

    def test_tooManyTags(self) -> None:
        """Tags that the kernel cannot be given are noted."""
        folder = self.folder / "tags.d"
        folder.mkdir()
        tags = "".join(f"  tag{number:02}: {{filter: [lab]}}\n" for number in range(66))
        (folder / "lab.yml").write_text(
            f"filters: {{lab: {{type: x509.tbs.subject, pattern: 'CN=*.lab'}}}}\ntags:\n{tags}"
        )
        self.kernel.takeTags()
        upcall, event = self.serveBy(certificates.client())
        self.assertEqual(len(upcall.tags), 64)
        self.assertIn("tag64, tag65", event["note"])

    def test_keyInToken(self) -> None:
        """A key in a token is waited for, and signs in a thread."""
        self.start(self.keyInToken(), tokens=Tokens(self.reactor, self.load, self.pool))
        upcall, client = self.serve()
        self.run_(client)
        self.assertTrue(client.done)
        self.assertEqual(upcall.status, 0)
        self.assertEqual(self.loads, 1)

    def test_tokenIsGone(self) -> None:
        """A token that is not there is the reason, and the next handshake looks again."""
        self.missing = True
        self.start(self.keyInToken(), tokens=Tokens(self.reactor, self.load, self.pool))
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)
        self.assertEqual(self.handshakes()[-1]["code"], "token-unavailable")
        self.missing = False
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(upcall.status, 0)

    def keyInToken(self) -> AgentConfig:
        """
        Write a configuration whose server's key is in a token.

        @return: the configuration.
        """
        self.loads = 0
        config = self.configuration(certificates.server())
        key = self.folder / "authenticate.server.key"
        lines = ("-----BEGIN TSS2 PRIVATE KEY-----", "AAAA", "-----END TSS2 PRIVATE KEY-----", "")
        key.write_text("\n".join(lines))
        return config

    missing = False

    def load(self, _key: TokenKey) -> crypto.PKey:
        """
        Load the key that is in the token.

        @param _key: the key's name.
        @return: the key.
        """
        self.loads += 1
        if self.missing:
            raise TokenFailed("token-unavailable", "expected a token, found none")
        return certificates.server().own().key

    def pool(self, _name: str) -> ThreadPool:
        """
        Make threads.

        @param _name: whom they wait for.
        @return: the reactor's.
        """
        return self.reactor.threadPool
