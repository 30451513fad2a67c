"""Tests for L{ktlsagent.report}."""

from __future__ import annotations

import errno
import ipaddress
import shlex
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ktlsagent.errors import DeadlineExpired, PeerAlert, PeerRejected, SessionUnusable
from ktlsagent.profiles import Endpoint
from ktlsagent.protocols.context import TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.handshakefamily import AuthMode, HandshakeRequest, MessageType
from ktlsagent.protocols.interfaces import TLSParameters
from ktlsagent.protocols.record import AlertDescription
from ktlsagent.protocols.session import Role
from ktlsagent.report import Report
from ktlsagent.texts import written
from tests.support import certificates
from tests.support.ktlstests import makeSessions

CLIENT = HandshakeRequest(5, MessageType.CLIENTHELLO, AuthMode.UNAUTH, peerName=b"server.lab")
SERVER = HandshakeRequest(5, MessageType.SERVERHELLO, AuthMode.X509)


@implementer(ILogObserver)
class _Events(list[LogEvent]):
    """Keeps all events."""

    def __call__(self, event: LogEvent) -> None:
        self.append(event)


class _ReportTestCase(SynchronousTestCase):
    """Has a log that is kept."""

    def setUp(self) -> None:
        self.events = _Events()
        self.log = Logger(namespace="tests", observer=self.events)

    def engine(self) -> TLSEngine:
        """
        Make an engine in whose name alerts can be sent.

        @return: the engine.
        """
        context = TLSContext(
            store=certificates.authority().store(),
            suites=tuple(CIPHER_SUITES),
            groups=(),
        )
        return TLSEngine(TLSParameters(Role.CLIENT, context, None, lambda _chain: None))

    def write(self, report: Report, status: int) -> dict[str, str]:
        """
        Write a report after 12.345 milliseconds.

        @param report: the report, begun at 100 seconds.
        @param status: what the kernel was told.
        @return: the fields of its line.
        """
        report.write(self.log, status, 100.012345)
        line = formatEvent(self.events[0])
        self.assertTrue(line.isprintable(), line)
        first, outcome, *fields = shlex.split(line)
        self.assertEqual((first, outcome), ("handshake", self.events[0]["outcome"]))
        self.assertEqual(outcome, "ok" if status == 0 else "failed")
        return dict(field.split("=", 1) for field in fields)


class ReportTests(_ReportTestCase):
    """Tests for L{Report}."""

    def peer(self, address: str | None) -> str:
        """
        Report on a request whose peer is known or not.

        @param address: the peer's address.
        @return: the field of the peer.
        """
        self.events.clear()
        report = Report(CLIENT, 100)
        if address is not None:
            report.peer = Endpoint(ipaddress.ip_address(address), 2049)
        report.failed(DeadlineExpired("deadline", "a test"))
        return self.write(report, errno.ETIMEDOUT)["peer"]

    def session(self, certificate: x509.Certificate | None, group: str | None) -> dict[str, str]:
        """
        Report on a handshake that gave a session.

        @param certificate: the peer's certificate.
        @param group: the key exchange's group.
        @return: the fields.
        """
        session, _other = makeSessions(CIPHER_SUITES["TLS_AES_256_GCM_SHA384"])
        report = Report(CLIENT, 100)
        report.engine = self.engine()
        chain = () if certificate is None else (certificate,)
        report.session = replace(session, peerChain=chain, group=group)
        return self.write(report, 0)

    def test_session(self) -> None:
        """A session is told with all that was negotiated, at the level of information."""
        server = certificates.server()
        self.assertEqual(
            self.session(server.certificate, "X25519MLKEM768"),
            {
                "role": "client",
                "profile": "-",
                "peer": "-",
                "name": "server.lab",
                "mode": "unauth",
                "version": "TLSv1.3",
                "suite": "TLS_AES_256_GCM_SHA384",
                "group": "X25519MLKEM768",
                "subject": "CN=server.lab",
                "fingerprint": server.fingerprint,
                "took": "12.3ms",
                "status": "0",
            },
        )
        (event,) = self.events
        self.assertIs(event["log_level"], LogLevel.info)

    def test_fieldsOfTheEvent(self) -> None:
        """The event has the line's fields for machines, under names that can be written."""
        fields = self.session(certificates.server().certificate, "X25519")
        (event,) = self.events
        for name, value in fields.items():
            self.assertEqual(event[name.replace("-", "_")], value)

    def test_identity(self) -> None:
        """With pre-shared keys the identities in play are shown behind the mode, good or bad."""
        for outcome in (None, PeerRejected("wrong-key", "a test")):
            self.events.clear()
            report = Report(replace(CLIENT, authMode=AuthMode.PSK), 100)
            report.engine = self.engine()
            report.engine.identities = (b"NVMe1R01 nqn.a nqn.b x==", b"evil\xff\n status=0")
            if outcome is not None:
                report.failed(outcome)
            fields = self.write(report, 0 if outcome is None else errno.EACCES)
            expected = "NVMe1R01 nqn.a nqn.b x==, evil\\xff\\n status=0"
            self.assertEqual(fields["identity"], expected)
            self.assertEqual(list(fields).index("identity"), list(fields).index("mode") + 1)
            self.assertEqual(
                self.events[0]["identity"], "NVMe1R01 nqn.a nqn.b x==, evil\\xff\n status=0"
            )

    def test_noIdentity(self) -> None:
        """Without them there is no such field in the line, and none in it for machines."""
        report = Report(CLIENT, 100)
        report.engine = self.engine()
        self.assertNotIn("identity", self.write(report, 0))
        self.assertEqual(self.events[0]["identity"], "-")

    def test_anonymousPeer(self) -> None:
        """A session without a certificate, over a group that is not known, has no such fields."""
        fields = self.session(None, None)
        for name in ("subject", "fingerprint", "group"):
            self.assertEqual(fields[name], "-")

    def test_noKeys(self) -> None:
        """Nothing in the event holds key material."""
        session, _other = makeSessions(CIPHER_SUITES["TLS_AES_256_GCM_SHA384"])
        report = Report(CLIENT, 100)
        report.session = session
        self.write(report, 0)
        for secret in (session.transmit.keys.key, session.receive.keys.iv):
            for form in (secret.hex(), repr(secret)[2:-1]):
                self.assertNotIn(form, repr(self.events))

    def test_failure(self) -> None:
        """A failure comes first by its code, and last by its reason, at the level of errors."""
        report = Report(SERVER, 100)
        report.failed(PeerRejected("certificate-expired", "it expired"))
        fields = self.write(report, errno.EACCES)
        self.assertEqual(
            fields,
            {
                "code": "certificate-expired",
                "role": "server",
                "profile": "-",
                "peer": "-",
                "name": "-",
                "mode": "x509",
                "subject": "-",
                "fingerprint": "-",
                "took": "12.3ms",
                "status": "EACCES",
                "alert-sent": "-",
                "alert-received": "-",
                "reason": "it expired",
            },
        )
        self.assertEqual((next(iter(fields)), list(fields)[-1]), ("code", "reason"))
        (event,) = self.events
        self.assertIs(event["log_level"], LogLevel.error)

    def test_alerts(self) -> None:
        """Alerts have the names of RFC 8446, or their numbers."""
        report = Report(CLIENT, 100)
        report.engine = self.engine()
        report.engine.alerted(received=False, description=AlertDescription.CERTIFICATE_EXPIRED)
        report.engine.alerted(received=True, description=200)
        report.failed(PeerAlert("alert-200", "refused", 200))
        fields = self.write(report, errno.EACCES)
        self.assertEqual(fields["alert-sent"], "certificate_expired")
        self.assertEqual(fields["alert-received"], "alert_200")

    def test_refusedCertificate(self) -> None:
        """The certificate that was refused is named."""
        stranger = certificates.ofOtherAuthority()
        report = Report(CLIENT, 100)
        report.engine = self.engine()
        report.engine.peer.presented = stranger.certificate
        report.failed(PeerRejected("unknown-ca", "a stranger"))
        fields = self.write(report, errno.EACCES)
        self.assertEqual(fields["subject"], "CN=stranger.lab")
        self.assertEqual(fields["fingerprint"], stranger.fingerprint)

    def test_unknownRequest(self) -> None:
        """A request that nobody understands is reported by its numbers."""
        report = Report(HandshakeRequest(5, 7, 9), 100)
        report.failed(SessionUnusable("unsupported-mode", "a test"))
        fields = self.write(report, 4095)
        self.assertEqual((fields["role"], fields["mode"]), ("-", "9"))
        self.assertEqual(fields["status"], "4095")

    def test_peer(self) -> None:
        """The peer is its address and port, as they are written in URLs, if it is known."""
        self.assertEqual(self.peer("127.0.0.1"), "127.0.0.1:2049")
        self.assertEqual(self.peer("fd00::2"), "[fd00::2]:2049")
        self.assertEqual(self.peer(None), "-")

    def test_profile(self) -> None:
        """The profile is named, and so are session tags and ALPN if there are any."""
        session, _other = makeSessions(CIPHER_SUITES["TLS_AES_256_GCM_SHA384"])
        report = Report(SERVER, 100)
        report.session = session
        report.profile = "profile.blue"
        fields = self.write(report, 0)
        self.assertEqual(fields["profile"], "profile.blue")
        self.assertNotIn("tags", fields)
        self.assertNotIn("alpn", fields)
        self.assertNotIn("resumed", fields)
        self.events.clear()
        report.tags = ["engineering", "lab"]
        report.session = replace(session, alpn="sunrpc")
        fields = self.write(report, 0)
        self.assertEqual((fields["tags"], fields["alpn"]), ("engineering,lab", "sunrpc"))
        self.events.clear()
        report.session = replace(session, resumed=True)
        self.assertEqual(self.write(report, 0)["resumed"], "yes")

    def test_notes(self) -> None:
        """What went wrong beside the handshake stands at the end, also of a success."""
        report = Report(CLIENT, 100)
        report.note("one thing")
        report.note("another")
        self.assertEqual(self.write(report, 0)["note"], "one thing; another")

    def test_bug(self) -> None:
        """A bug is reported as a failure of the handshake, and with its traceback."""
        report = Report(CLIENT, 100)
        report.failed(self.assertRaises(ZeroDivisionError, lambda: 1 // 0))
        fields = self.write(report, errno.EIO)
        self.assertEqual(fields["code"], "internal-error")
        self.assertIn("by zero", fields["reason"])
        _line, failure = self.events
        self.assertIs(failure["log_level"], LogLevel.critical)
        self.assertIn("test_report", failure["log_failure"].getTraceback())

    def test_silentBug(self) -> None:
        """A bug without words is named by its type."""
        report = Report(CLIENT, 100)
        report.failed(ZeroDivisionError())
        self.assertEqual(self.write(report, errno.EIO)["reason"], "ZeroDivisionError")


class HostileFieldsTests(_ReportTestCase):
    """What peers and operators can put into a line."""

    def subject(self, text: str) -> str:
        """
        Report on a peer with a hostile certificate.

        @param text: its common name.
        @return: the field of its subject, as it stands in the line.
        """
        good = certificates.ofOtherAuthority()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(good.certificate.public_key())
            .serial_number(1)
            .not_valid_before(good.certificate.not_valid_before_utc)
            .not_valid_after(good.certificate.not_valid_after_utc)
            .sign(good.key, good.certificate.signature_hash_algorithm)  # type: ignore[arg-type]
        )
        self.events.clear()
        report = Report(CLIENT, 100)
        report.engine = self.engine()
        report.engine.peer.presented = certificate
        report.failed(PeerRejected("unknown-ca", f"issued by {text}"))
        fields = self.write(report, errno.EACCES)
        self.assertEqual(fields["status"], "EACCES")
        self.assertEqual(fields["code"], "unknown-ca")
        self.assertEqual(len(fields), 13)
        return fields["subject"]

    def test_subjects(self) -> None:
        """No subject can add a field, a line or a format, or hide one."""
        for text in (
            'evil" status=0 x="',
            "evil' status=0 x='",
            "evil\nhandshake ok role=client",
            "evil\r\x1b[2J\x00",
            "{line}{0}{log_failure!r}",
            "back\\slash\\",
            "$(reboot) `reboot` ; reboot # rest",
            "m\u00fcller \u202e\u2028",
        ):
            self.assertTrue(self.subject(text).startswith("CN="))

    def test_names(self) -> None:
        """A name from the kernel that is no text is shown by its octets."""
        report = Report(replace(CLIENT, peerName=b"evil\xff name=\n"), 100)
        report.failed(PeerRejected("bad-name", "no name"))
        fields = self.write(report, errno.EACCES)
        self.assertEqual(fields["name"], "evil\\xff name=\\n")

    def test_empty(self) -> None:
        """A name that is empty is not nothing."""
        report = Report(replace(CLIENT, peerName=b""), 100)
        self.assertEqual(self.write(report, 0)["name"], "")

    def test_lengths(self) -> None:
        """
        However long what others choose is, no field has more than 1 kB and no line
        more than 4; who, what, where, when and how it ended are whole.
        """
        for hostile in ("x", "\x01", "\u2028", "\U0001f600", "\ud800", "\\", '"', " "):
            report = self.longReport(hostile * 100_000, b"\x01" * 60_000)
            self.events.clear()
            fields = self.write(report, errno.EACCES)
            (event,) = self.events
            line = formatEvent(event)
            self.assertLess(len(line), 3841)
            self.assertGreater(len(line), 3000)
            expected = {
                "code": "certificate-required",
                "role": "server",
                "profile": "profile." + "p" * 200,
                "peer": "[fd00:1111:2222:3333:4444:5555:6666:7777]:65535",
                "mode": "psk",
                "fingerprint": self.presented().fingerprint,
                "took": "12.3ms",
                "status": "EACCES",
                "alert-sent": "no_application_protocol",
                "alert-received": "unsupported_certificate",
            }
            self.assertEqual({name: fields[name] for name in expected}, expected)
            for name in ("name", "identity", "subject", "reason", "note"):
                self.assertTrue(fields[name].endswith("..."), name)
                value = event[name]
                self.assertTrue(value.endswith("..."), name)
                self.assertLessEqual(len(written(value)), 1024)
                self.assertGreater(len(written(value)), 300)
                value.encode()

    def test_oneLongField(self) -> None:
        """One long field has its kilobyte, whatever is in it."""
        for hostile in ("x y", "\x01", "\xfc", "\u2028"):
            report = Report(SERVER, 100)
            report.failed(PeerRejected("denied", hostile * 1000))
            self.events.clear()
            self.write(report, errno.EACCES)
            text = written(self.events[0]["reason"])
            self.assertIn(len(text), range(1018, 1025))
            self.assertIn(f"reason={text}", formatEvent(self.events[0]))

    def test_manyTags(self) -> None:
        """Of very many tags the first are shown."""
        session, _other = makeSessions(CIPHER_SUITES["TLS_AES_256_GCM_SHA384"])
        report = Report(SERVER, 100)
        report.session = session
        report.tags = [f"tag{number}" for number in range(10_000)]
        tags = self.write(report, 0)["tags"]
        self.assertTrue(tags.startswith("tag0,tag1,"))
        self.assertTrue(tags.endswith("..."))
        self.assertLessEqual(len(tags), 1024)

    def test_pieces(self) -> None:
        """Wherever somebody cuts a line, what follows does not look like a line of ours."""
        forged = "2026-12-31T00:00:00+0000 [ktlsagent.request.Upcall#info] handshake ok role=server"
        for text in (forged, forged.replace(" ", "_"), f"{forged} handshake failed code=x"):
            report = self.longReport(text, text.encode())
            self.events.clear()
            self.write(report, errno.EACCES)
            line = formatEvent(self.events[0])
            for mark in ("handshake ok", "handshake failed", "[ktlsagent"):
                self.assertNotIn(mark, line[1:])
            self.assertIn(text, self.events[0]["subject"])

    def presented(self) -> certificates.Credentials:
        """
        Give a peer's certificate.

        @return: one that is refused.
        """
        return certificates.ofOtherAuthority()

    def longReport(self, text: str, identity: bytes) -> Report:
        """
        Report on a peer that puts something long wherever it can.

        @param text: what.
        @param identity: the same as a pre-shared key's identity.
        @return: the report, of a failure.
        """
        request = replace(
            SERVER, authMode=AuthMode.PSK, peerName=text.encode(errors="backslashreplace")
        )
        report = Report(request, 100)
        report.profile = "profile." + "p" * 200
        report.peer = Endpoint(
            ipaddress.ip_address("fd00:1111:2222:3333:4444:5555:6666:7777"), 65535
        )
        report.engine = self.engine()
        report.engine.identities = (identity,) * 50
        report.engine.alerted(received=False, description=AlertDescription.NO_APPLICATION_PROTOCOL)
        report.engine.alerted(received=True, description=43)
        report.engine.peer.presented = self.withSubject(text)
        report.failed(PeerRejected("certificate-required", f"found {text} issued by {text}"))
        report.note(text)
        return report

    def withSubject(self, text: str) -> x509.Certificate:
        """
        Give a certificate with the fingerprint of another and a subject of its own.

        @param text: the subject's text.
        @return: what a report takes for a certificate.
        """
        good = self.presented().certificate
        name = SimpleNamespace(
            rdns=[[SimpleNamespace(rfc4514_string=lambda: f"CN={text}")]] * 3,
        )
        return cast(x509.Certificate, SimpleNamespace(subject=name, fingerprint=good.fingerprint))
