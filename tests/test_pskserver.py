"""
Tests of L{ktlsagent.protocols.pskserver}, and of both sides of handshakes with
pre-shared keys: against each other, tlslite-ng and bare OpenSSL.
"""

from __future__ import annotations

import errno
import hashlib
import traceback
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from tlslite.errors import TLSError
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import (
    HandshakeError,
    KeyForbidden,
    KeyUnusable,
    PeerAlert,
    PeerMisbehaved,
    PeerRejected,
    SessionUnusable,
    statusOf,
)
from ktlsagent.protocols import callbacks, openssl
from ktlsagent.protocols.context import TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.interfaces import Engine, EngineState, TLSParameters
from ktlsagent.protocols.psk import (
    MOST_IDENTITIES,
    SHA256,
    SHA384,
    HelloReader,
    PreSharedKey,
)
from ktlsagent.protocols.pskserver import PreSharedKeyParameters, PreSharedKeyServer, engineFor
from ktlsagent.protocols.record import AlertDescription
from ktlsagent.protocols.session import EstablishedSession, Role
from tests.support import certificates
from tests.support.modelktls import ModelKTLS
from tests.support.properties import patient
from tests.support.tlslitepeers import TlslitePeer
from tests.support.tlspeers import (
    OpenSSLPeer,
    Peer,
    StdlibPeer,
    clientHello,
    converse,
    handshakeRecords,
    offeredKeys,
    pair,
    records,
    stdlibContext,
)

ALERT = 21
APPLICATION_DATA = 23
HANDSHAKE = 22
HELLO_RETRY_REQUEST = hashlib.sha256(b"HelloRetryRequest").digest()
NEW_SESSION_TICKET = 4
DECRYPT_ERROR = 51
UNKNOWN_PSK_IDENTITY = 115
UNKNOWN = AlertDescription.UNKNOWN_PSK_IDENTITY

TLSLITE_SUITES = {
    "TLS_AES_256_GCM_SHA384": "aes256gcm",
    "TLS_AES_128_GCM_SHA256": "aes128gcm",
    "TLS_CHACHA20_POLY1305_SHA256": "chacha20-poly1305",
    "TLS_AES_128_CCM_SHA256": "aes128ccm",
}

KEYS = (
    PreSharedKey(b"NVMe0R01 nqn.host nqn.target", b"\x00secret-1" * 4, SHA256, 101),
    PreSharedKey(b"NVMe1R01 nqn.host nqn.target dig==", b"\xffsecret-2" * 4, SHA256, 102),
    PreSharedKey(b"NVMe0R02 nqn.host nqn.target", b"secret-3" * 6, SHA384, 103),
    PreSharedKey(b"NVMe1R02 nqn.host nqn.target dig==", b"secret-4" * 6, SHA384, 104),
    PreSharedKey(b"generic client", b"secret-5" * 4, SHA256, 105),
    PreSharedKey(b"\xff\x00 generic", b"secret-6" * 6, SHA384, 106),
)
"""One of each kind."""

GROUPS = openssl.supportedGroups(("X25519", "P-256"))


def suitesOf(name: str) -> list[str]:
    """List the suites with a hash."""
    return [suite.name for suite in CIPHER_SUITES.values() if suite.hash == name]


def keyContext(
    role: Role, hash_: str, *, suites: Sequence[str] = (), groups: Sequence[str] = ()
) -> TLSContext:
    """Make a context for pre-shared keys."""
    return TLSContext(role=role, suites=suites or suitesOf(hash_), groups=groups)


def keyClient(key: PreSharedKey, context: TLSContext | None = None) -> TLSEngine:
    """Make a client's engine that offers a key."""
    context = context or keyContext(Role.CLIENT, key.hash)
    return TLSEngine(TLSParameters(Role.CLIENT, context, None, refuseAll, preSharedKey=key))


def refuseAll(_certificate: object) -> PeerRejected | None:
    """Nobody asks for a verdict."""
    raise AssertionError("there are no certificates")


class KeyBook:
    """
    Finds keys, as L{ktlsagent.keys.RequestKeys} does.

    @ivar asked: all that was looked up.
    """

    def __init__(self, *keys: PreSharedKey) -> None:
        """
        @param keys: the keys that are there.
        """
        self.asked: list[list[bytes]] = []
        self._keys = {key.identity: key for key in keys}

    def lookUp(self, offered: Sequence[bytes]) -> PreSharedKey:
        """Find the first."""
        self.asked.append(list(offered))
        for identity in offered:
            if identity in self._keys:
                return self._keys[identity]
        raise KeyUnusable("unknown-identity", "expected another one")


def keyServer(
    *keys: PreSharedKey,
    groups: Sequence[str] = (),
    alert: AlertDescription = AlertDescription.DECRYPT_ERROR,
) -> PreSharedKeyServer:
    """Make a server's engine that knows some keys."""
    contexts = {name: keyContext(Role.SERVER, name, groups=groups) for name in (SHA256, SHA384)}
    return PreSharedKeyServer(PreSharedKeyParameters(contexts, KeyBook(*keys).lookUp, alert))


class KeyTestCase(SynchronousTestCase):
    """What tests of handshakes with keys share."""

    def session(self, engine: Engine, key: PreSharedKey) -> EstablishedSession:
        """Check that an engine has a session by a key, and get it."""
        self.assertIs(engine.state, EngineState.COMPLETE, engine.error)
        self.assertIsNone(engine.error)
        session = engine.session
        assert session is not None
        self.assertEqual(session.keySerial, key.serial)
        self.assertEqual(session.suite.hash, key.hash)
        self.assertIsNone(session.peerCertificate)
        self.assertIsNone(engine.presentedCertificate)
        self.assertEqual((session.transmit.sequence, session.receive.sequence), (0, 0))
        return session

    def failure(self, engine: Engine, code: str, status: int) -> HandshakeError:
        """Check that an engine has failed, and get its error."""
        self.assertIs(engine.state, EngineState.FAILED)
        self.assertIsNone(engine.session)
        error = engine.error
        assert error is not None
        self.assertEqual(error.code, code)
        self.assertEqual(errno.errorcode[statusOf(error)], errno.errorcode[status])
        return error

    def talk(self, session: EstablishedSession, peer: Peer, unread: Sequence[bytes]) -> list[int]:
        """
        Let the model of kTLS read what is unread, then talk in both directions.

        @return: the first handshake message in each of the unread records.
        """
        kernel = ModelKTLS(session)
        messages = []
        for record in unread:
            kind, content = kernel.receive.open(record)
            self.assertEqual(kind, HANDSHAKE)
            messages.append(content[0])
        for number in range(3):
            question, answer = b"question %d" % number, b"answer %d" % number * 100
            self.assertEqual(peer.receive(kernel.transmit.seal(question)), question)
            self.assertEqual(kernel.receive.open(peer.send(answer)), (APPLICATION_DATA, answer))
        return messages


class BothSidesTests(KeyTestCase):
    """A client and a server of our own."""

    def test_everyKind(self) -> None:
        """Every kind of key makes a session with its hash and its serial, on both sides."""
        for key in KEYS:
            client, server = keyClient(key), keyServer(*KEYS)
            sent, received = pair(client, server)
            ours, theirs = self.session(client, key), self.session(server, key)
            self.assertTrue(ours.transmit == theirs.receive)
            self.assertTrue(ours.receive == theirs.transmit)
            self.assertEqual(list(client.identities), [key.identity])
            self.assertEqual(list(server.identities), [key.identity])
            self.assertIn(key.identity, b"".join(sent))
            self.assertEqual((server.alertSent, server.alertReceived), (None, None))
            # CERTIFICATE_REQUEST and CERTIFICATE would be encrypted: a flight has
            # ServerHello, ChangeCipherSpec, EncryptedExtensions and Finished.
            self.assertLess(sum(map(len, received)), 1600)

    def test_everySuite(self) -> None:
        """Every suite of the key's hash works."""
        for suite in CIPHER_SUITES.values():
            key = next(key for key in KEYS if key.hash == suite.hash)
            context = keyContext(Role.CLIENT, key.hash, suites=[suite.name])
            client, server = keyClient(key, context), keyServer(*KEYS)
            pair(client, server)
            self.assertEqual(self.session(server, key).suite, suite)
            self.assertEqual(self.session(client, key).suite, suite)

    def test_forwardSecrecy(self) -> None:
        """One key makes different sessions."""
        found = set()
        for _round in range(3):
            client, server = keyClient(KEYS[0]), keyServer(*KEYS)
            pair(client, server)
            found.add(self.session(server, KEYS[0]).transmit.keys.key)
        self.assertEqual(len(found), 3)

    def test_lengths(self) -> None:
        """The shortest and the longest keys work."""
        for length in (16, 512):
            key = PreSharedKey(b"client", b"k" * length, SHA256, 7)
            client, server = keyClient(key), keyServer(key)
            pair(client, server)
            self.session(client, key)
            self.session(server, key)

    def test_unknownIdentity(self) -> None:
        """
        An unknown identity is ENOKEY here, and EACCES for who gets the alert; or EKEYREJECTED,
        if the server is to say so.
        """
        client, server = keyClient(KEYS[1]), keyServer(KEYS[0])
        _sent, received = pair(client, server)
        self.assertEqual(received, [bytes((ALERT, 3, 3, 0, 2, 2, DECRYPT_ERROR))])
        self.failure(server, "unknown-identity", errno.ENOKEY)
        self.assertEqual(server.alertSent, DECRYPT_ERROR)
        self.failure(client, "alert-decrypt-error", errno.EACCES)
        client, server = keyClient(KEYS[1]), keyServer(KEYS[0], alert=UNKNOWN)
        _sent, received = pair(client, server)
        self.assertEqual(received, [bytes((ALERT, 3, 3, 0, 2, 2, UNKNOWN_PSK_IDENTITY))])
        self.failure(server, "unknown-identity", errno.ENOKEY)
        self.assertEqual(server.alertSent, UNKNOWN_PSK_IDENTITY)
        self.assertIsNone(server.alertReceived)
        self.assertEqual(server.identities, (KEYS[1].identity,))
        error = self.failure(client, "alert-unknown-psk-identity", errno.EKEYREJECTED)
        self.assertIsInstance(error, PeerAlert)
        self.assertEqual(client.alertReceived, UNKNOWN_PSK_IDENTITY)

    def test_prefix(self) -> None:
        """A key whose name only begins like the identity does not answer it, nor one shorter."""
        for offered, known in ((b"NVMe1R01 a b", b"NVMe1R01 a b c"), (b"a b", b"a")):
            client = keyClient(PreSharedKey(offered, b"k" * 32, SHA256, 1))
            server = keyServer(PreSharedKey(known, b"k" * 32, SHA256, 1))
            pair(client, server)
            self.failure(server, "unknown-identity", errno.ENOKEY)

    def test_wrongKey(self) -> None:
        """Another key for the same identity is answered with decrypt_error."""
        for key in KEYS:
            other = PreSharedKey(key.identity, b"x" * len(key.key), key.hash, 7)
            client, server = keyClient(other), keyServer(key)
            pair(client, server)
            error = self.failure(server, "wrong-key", errno.EACCES)
            self.assertIsInstance(error, PeerRejected)
            self.assertIn("the client has another one", error.reason)
            self.assertEqual(server.alertSent, 51)
            self.failure(client, "alert-decrypt-error", errno.EACCES)
            self.assertEqual(client.alertReceived, 51)

    def test_wrongHash(self) -> None:
        """A client that takes the key for one of another hash gets no session."""
        key = KEYS[0]
        other = PreSharedKey(key.identity, key.key, SHA384, 7)
        client, server = keyClient(other), keyServer(key)
        pair(client, server)
        error = self.failure(server, "wrong-hash", errno.EACCES)
        self.assertIn("to be for sha256, found one that takes it to be for sha384", error.reason)
        self.failure(client, "alert-decrypt-error", errno.EACCES)

    def test_helloRetryRequest(self) -> None:
        """A client whose key share is of no use is asked again, and the key is still good."""
        if not GROUPS:
            self.assertRaises(ValueError, keyContext, Role.CLIENT, SHA256, groups=("P-256",))
            return
        for key in KEYS:
            client = keyClient(key, keyContext(Role.CLIENT, key.hash, groups=("X25519", "P-256")))
            server = keyServer(key, groups=("P-256",))
            _sent, received = pair(client, server)
            self.assertEqual(received[0][11:43], HELLO_RETRY_REQUEST)
            self.session(client, key)
            self.session(server, key)

    def test_keyIsForgotten(self) -> None:
        """Once a session is made or refused the engine has no key any more."""
        for known in (KEYS[0], PreSharedKey(KEYS[0].identity, b"x" * 32, SHA256, 7)):
            client, server = keyClient(KEYS[0]), keyServer(known)
            self.assertIs(client.preSharedKey, KEYS[0])
            pair(client, server)
            self.assertIsNone(client.preSharedKey)
            assert server._engine is not None
            self.assertIsNone(server._engine.preSharedKey)
            self.assertEqual(list(client.identities), [KEYS[0].identity])

    def test_secrecy(self) -> None:
        """Neither side, nor its session or error, shows a key."""
        for known in (KEYS[0], PreSharedKey(KEYS[0].identity, b"x" * 36, SHA256, 7)):
            client, server = keyClient(KEYS[0]), keyServer(known)
            shown = [repr(vars(client)), repr(vars(server)), repr(server._parameters)]
            pair(client, server)
            assert server._engine is not None
            for engine in (client, server, server._engine):
                shown += [repr(engine), repr(vars(engine)), repr(engine.session)]
                if engine.error is not None:
                    shown += traceback.format_exception(engine.error)
            text = "\n".join(shown)
            for secret in (KEYS[0].key, known.key):
                for form in (secret.hex(), repr(secret)[2:-1]):
                    # assertNotIn would show it.
                    self.assertFalse(form in text, "a secret is shown")


class OneAlertTests(KeyTestCase):
    """Whoever has no key of ours learns nothing but that."""

    def setUp(self) -> None:
        self.steps = 0
        receive = TLSEngine.receiveRecord

        def counting(engine: TLSEngine, record: bytes) -> bytes:
            self.steps += 1
            return receive(engine, record)

        self.patch(TLSEngine, "receiveRecord", counting)

    def answers(
        self, hello: Sequence[bytes], identity: bytes, alert: AlertDescription
    ) -> dict[str, tuple[bytes, int | None, int]]:
        """
        Answer one ClientHello as servers do that know different keys, or none.

        @param hello: its records.
        @param identity: the identity that it offers.
        @param alert: what is told to who has no key.
        @return: what is sent, the alert, and how many steps OpenSSL had, by the true code.
        """

        def forbidden(_offered: Sequence[bytes]) -> PreSharedKey:
            raise KeyForbidden("key-forbidden", "expected, found")

        others = [
            KeyBook(PreSharedKey(identity, b"other" * 8, hash_, 7)).lookUp
            for hash_ in (SHA256, SHA384)
        ]
        found = {}
        for lookUp in (KeyBook().lookUp, forbidden, *others):
            self.steps = 0
            server = PreSharedKeyServer(PreSharedKeyParameters(_CONTEXTS, lookUp, alert))
            sent = b"".join(server.receiveRecord(record) for record in hello)
            self.assertIs(server.state, EngineState.FAILED)
            self.assertIsNone(server.session)
            assert server.error is not None
            found[server.error.code] = sent, server.alertSent, self.steps
        self.assertEqual(len(found), len(others) + 2)
        return found

    def same(self, hello: Sequence[bytes], identity: bytes, expected: int) -> None:
        """Check that all servers answer alike."""
        for alert in (AlertDescription.DECRYPT_ERROR, UNKNOWN):
            told = {DECRYPT_ERROR: alert}.get(expected, expected)
            plain = bytes((ALERT, 3, 3, 0, 2, 2, told))
            for answer in self.answers(hello, identity, alert).values():
                self.assertEqual(answer, (plain, told, 1))

    def test_keys(self) -> None:
        """For every kind of key."""
        for key in KEYS:
            self.same(records(keyClient(key).start()), key.identity, DECRYPT_ERROR)

    def test_unexpected(self) -> None:
        """Should nothing be wrong with a key that nobody has, the client is refused anyway."""
        hello = records(keyClient(KEYS[0]).start())
        self.patch(TLSEngine, "receiveRecord", lambda _engine, _record: b"something")
        server = keyServer()
        self.assertEqual(
            server.receiveRecord(hello[0]), bytes((ALERT, 3, 3, 0, 2, 2, DECRYPT_ERROR))
        )
        self.failure(server, "unknown-identity", errno.ENOKEY)
        self.assertEqual(server.alertSent, DECRYPT_ERROR)

    def test_generated(self) -> None:
        """A generated key does not come back, which its client is told whatever is configured."""
        key = PreSharedKey(b"NVMe1G01 nqn.host nqn.target dig==", b"k" * 32, SHA256, 7)
        hello = records(keyClient(key).start())
        for alert in (AlertDescription.DECRYPT_ERROR, UNKNOWN):
            for _sent, told, _steps in self.answers(hello, key.identity, alert).values():
                self.assertEqual(told, UNKNOWN_PSK_IDENTITY)

    def test_split(self) -> None:
        """However the ClientHello is cut."""
        (hello,) = records(keyClient(KEYS[0]).start())
        self.same(handshakeRecords(hello[5:], 7), KEYS[0].identity, DECRYPT_ERROR)

    def test_noKeyShare(self) -> None:
        """Also if the client would have been asked again."""
        key = KEYS[4]
        peer = TlslitePeer("client", [(key.identity, key.key, key.hash)], shares=[])
        self.same(records(peer.feed(b"")), key.identity, DECRYPT_ERROR)

    def test_otherSuites(self) -> None:
        """And for a client whose suites are not those of its key."""
        key = KEYS[4]
        for suite in ("aes128gcm", "aes256gcm"):
            peer = TlslitePeer("client", [(key.identity, key.key, key.hash)], suites=[suite])
            hello = records(peer.feed(b""))
            answers = set(self.answers(hello, key.identity, UNKNOWN).values())
            self.assertEqual(len(answers), 1, answers)

    def test_severalIdentities(self) -> None:
        """And for one with identities of two hashes and suites for one of them."""
        for suite in ("aes128gcm", "aes256gcm"):
            for hashes in ((SHA256, SHA384), (SHA384, SHA256)):
                offered = [(b"key %d" % n, b"k" * 32, hash_) for n, hash_ in enumerate(hashes)]
                hello = records(TlslitePeer("client", offered, suites=[suite]).feed(b""))
                answers = set()
                for identity, _key, _hash in offered:
                    answers |= set(self.answers(hello, identity, UNKNOWN).values())
                self.assertEqual(len(answers), 1, answers)

    def test_withoutDiffieHellman(self) -> None:
        """And for one that wants no key exchange."""
        key = KEYS[4]
        peer = TlslitePeer("client", [(key.identity, key.key, key.hash)], modes=["psk_ke"])
        answers = set(self.answers(records(peer.feed(b"")), key.identity, UNKNOWN).values())
        self.assertEqual(len(answers), 1, answers)

    def test_mangled(self) -> None:
        """And for whatever else is wrong with the ClientHello behind its identity."""
        (hello,) = records(keyClient(KEYS[4]).start())
        refused = 0
        for at in range(6 + 40, len(hello)):
            mangled = hello[:at] + bytes((hello[at] ^ 0x40,)) + hello[at + 1 :]
            reader = HelloReader()
            try:
                known = reader.feed(mangled) == [KEYS[4].identity] and reader.hashes[0]
            except PeerMisbehaved:
                continue
            if known:
                answers = set(self.answers([mangled], KEYS[4].identity, UNKNOWN).values())
                self.assertEqual(len(answers), 1, (at, answers))
                refused += 1
        self.assertGreater(refused, 100)


class ServerTests(KeyTestCase):
    """Tests of L{PreSharedKeyServer} alone."""

    def refused(self, server: PreSharedKeyServer, code: str, status: int, alert: int) -> str:
        """Check that a server has refused with an alert, and get the words."""
        error = self.failure(server, code, status)
        self.assertEqual((server.alertSent, server.alertReceived), (alert, None))
        return error.reason

    def test_engineFor(self) -> None:
        """Parameters find their engine."""
        context = keyContext(Role.CLIENT, SHA256)
        parameters = TLSParameters(Role.CLIENT, context, None, refuseAll, preSharedKey=KEYS[0])
        self.assertIsInstance(engineFor(parameters), TLSEngine)
        book = KeyBook()
        server = engineFor(PreSharedKeyParameters({}, book.lookUp))
        self.assertIsInstance(server, PreSharedKeyServer)
        self.assertEqual((server.start(), server.state), (b"", EngineState.NEED_RECORD))
        self.assertEqual((server.session, server.error, server.identities), (None, None, ()))
        self.assertFalse(server.awaitsTicket)
        self.assertFalse(server.takeTicket(b""))
        self.assertIsNone(server.refusalIn(b""))

    def test_refusedBehind(self) -> None:
        """An alert that the client sends behind the handshake is read."""
        client, server = keyClient(KEYS[0]), keyServer(*KEYS)
        pair(client, server)
        record = ModelKTLS(self.session(client, KEYS[0])).transmit.seal(b"\x02\x50", ALERT)
        refusal = server.refusalIn(record)
        self.assertEqual(refusal and refusal.code, "alert-internal-error")
        self.assertEqual(server.alertReceived, 80)

    def test_split(self) -> None:
        """A ClientHello may come in many records."""
        key = KEYS[3]
        for size in (1, 7, 100):
            client, server = keyClient(key), keyServer(*KEYS)
            (hello,) = records(client.start())
            flight = b""
            for record in handshakeRecords(hello[5:], size):
                self.assertEqual(flight, b"")
                flight = server.receiveRecord(record)
            answer = b"".join(client.receiveRecord(record) for record in records(flight))
            for record in records(answer):
                self.assertEqual(server.receiveRecord(record), b"", "tickets stay here")
            self.session(client, key)
            self.session(server, key)

    def test_splitAndBroken(self) -> None:
        """Records behind the one on which OpenSSL gives up are of no use to it."""
        hello = clientHello(offeredKeys(*(bytes((number,)) * 999 for number in range(20)), b"a"))
        server = keyServer(PreSharedKey(b"a", b"k" * 32, SHA256, 7))
        # RecordReader lets pass what is only too long for a record in the clear.
        first, second = handshakeRecords(hello, 2**14 + 100)
        self.assertEqual(server.receiveRecord(first), b"")
        self.assertEqual(server.receiveRecord(second), bytes((ALERT, 3, 3, 0, 2, 2, 22)))
        self.refused(server, "record-overflow", errno.EACCES, 22)

    def test_noKey(self) -> None:
        """A client that offers no key is refused: there is no certificate to fall back to."""
        server, peer = keyServer(*KEYS), StdlibPeer(stdlibContext("client"))
        converse(server, peer)
        words = self.refused(server, "no-psk", errno.EACCES, 40)
        self.assertIn("offers a pre-shared key", words)
        self.assertIn("HANDSHAKE_FAILURE", str(peer.error).upper().replace(" ", "_"))

    def test_noSuite(self) -> None:
        """A key for whose hash there is no suite is refused by its hash and name."""
        book = KeyBook(*KEYS)
        contexts = {SHA256: keyContext(Role.SERVER, SHA256)}
        server = PreSharedKeyServer(PreSharedKeyParameters(contexts, book.lookUp))
        pair(keyClient(KEYS[2]), server)
        words = self.refused(server, "no-suite", errno.ENOKEY, DECRYPT_ERROR)
        self.assertIn("sha384", words)
        self.assertIn(KEYS[2].identity.decode(), words)

    def test_forbidden(self) -> None:
        """A key that may not be read is as good as none for the client."""

        def lookUp(_offered: Sequence[bytes]) -> PreSharedKey:
            raise KeyForbidden("key-forbidden", "expected, found")

        contexts = {SHA256: keyContext(Role.SERVER, SHA256)}
        server = PreSharedKeyServer(PreSharedKeyParameters(contexts, lookUp))
        pair(keyClient(KEYS[0]), server)
        self.refused(server, "key-forbidden", errno.EACCES, DECRYPT_ERROR)

    def test_noClientHello(self) -> None:
        """What is no ClientHello is answered with the alert that the code names."""
        for record, code, alert in (
            ("170303 0001 ff", "unexpected-message", 10),
            ("160301 0004 02000000", "unexpected-message", 10),
            ("160301 0006 01000002 0303", "decode-error", 50),
        ):
            server = keyServer(*KEYS)
            sent = server.receiveRecord(bytes.fromhex(record))
            self.assertEqual(sent, bytes((ALERT, 3, 3, 0, 2, 2, alert)))
            self.refused(server, code, errno.EACCES, alert)
            self.assertIsInstance(server.error, PeerMisbehaved)

    def test_over(self) -> None:
        """A record after the end is none for us, whatever the end was."""
        refused = keyServer(*KEYS)
        refused.receiveRecord(bytes.fromhex("1703030001ff"))
        client, done = keyClient(KEYS[0]), keyServer(*KEYS)
        pair(client, done)
        self.session(done, KEYS[0])
        for server in (refused, done):
            self.assertRaises(ValueError, server.receiveRecord, bytes.fromhex("1703030001ff"))

    def test_givenUp(self) -> None:
        """What is wrong with records is answered before there is an engine, and by it later."""
        error = PeerMisbehaved("record-overflow", "expected a shorter one")
        server = keyServer(*KEYS)
        self.assertEqual(server.giveUp(error), bytes((ALERT, 3, 3, 0, 2, 2, 22)))
        self.refused(server, "record-overflow", errno.EACCES, 22)
        self.assertEqual(server.giveUp(PeerMisbehaved("not-tls", "once")), b"")
        self.refused(server, "record-overflow", errno.EACCES, 22)
        client, server = keyClient(KEYS[0]), keyServer(*KEYS)
        for record in records(server.receiveRecord(records(client.start())[0])):
            client.receiveRecord(record)
        server.giveUp(error)
        self.refused(server, "record-overflow", errno.EACCES, 22)

    def test_oneStep(self) -> None:
        """However many records a ClientHello comes in, OpenSSL reads them in one step."""
        steps: list[bytes] = []
        receive = TLSEngine.receiveRecord

        def counting(engine: TLSEngine, record: bytes) -> bytes:
            steps.append(record)
            return receive(engine, record)

        self.patch(TLSEngine, "receiveRecord", counting)
        server = keyServer(*KEYS)
        (hello,) = records(keyClient(KEYS[0]).start())
        for record in handshakeRecords(hello[5:], 5):
            server.receiveRecord(record)
        self.assertEqual(len(steps), 1)
        self.assertIsNone(server.error)

    @patient
    @given(
        st.lists(st.tuples(st.integers(0, 2**14), st.integers(0, 255)), min_size=1, max_size=4),
        st.integers(40, 1000),
    )
    def test_mangled(self, changes: list[tuple[int, int]], size: int) -> None:
        """However a ClientHello is mangled, the server waits, goes on or has refused it."""
        hello = bytearray(_HELLO)
        for at, value in changes:
            hello[at % len(hello)] = value
        server = PreSharedKeyServer(PreSharedKeyParameters(_CONTEXTS, KeyBook(*KEYS).lookUp))
        for record in handshakeRecords(bytes(hello), size):
            if server.state is EngineState.NEED_RECORD:
                server.receiveRecord(record)
        self.assertIsNot(server.state, EngineState.COMPLETE)
        if server.state is EngineState.FAILED:
            self.assertIsNotNone(server.error)
            self.assertIsNotNone(server.alertSent)

    @patient
    @given(st.sampled_from((20, 21, 22, 23)), st.binary(min_size=1, max_size=80))
    def test_anyRecord(self, kind: int, fragment: bytes) -> None:
        """Whatever record comes first, the server waits for more or has failed."""
        server = PreSharedKeyServer(PreSharedKeyParameters(_CONTEXTS, KeyBook(*KEYS).lookUp))
        server.receiveRecord(bytes((kind, 3, 3)) + len(fragment).to_bytes(2, "big") + fragment)
        self.assertEqual(server.error is None, server.state is EngineState.NEED_RECORD)

    def test_manyIdentities(self) -> None:
        """All that are offered are looked up at once, in their order."""
        book = KeyBook(KEYS[0])
        server = PreSharedKeyServer(PreSharedKeyParameters(_CONTEXTS, book.lookUp))
        offered = [b"%d" % number for number in range(MOST_IDENTITIES)]
        for record in handshakeRecords(clientHello(offeredKeys(*offered))):
            server.receiveRecord(record)
        self.assertEqual(book.asked, [offered])
        # It offers no version of TLS that is known, either, which is said first.
        self.refused(server, "unknown-identity", errno.ENOKEY, 70)

    def test_tooManyIdentities(self) -> None:
        """More than that are not looked up at all."""
        book = KeyBook(KEYS[0])
        server = PreSharedKeyServer(PreSharedKeyParameters(_CONTEXTS, book.lookUp))
        offered = [KEYS[0].identity] * (MOST_IDENTITIES + 1)
        for record in handshakeRecords(clientHello(offeredKeys(*offered))):
            server.receiveRecord(record)
        self.assertEqual(book.asked, [])
        self.refused(server, "too-many-identities", errno.EACCES, 47)


_CONTEXTS = {name: keyContext(Role.SERVER, name) for name in (SHA256, SHA384)}
_HELLO = records(keyClient(KEYS[1]).start())[0][5:]


class ClientTests(KeyTestCase):
    """A client with a key, and servers that do not want it."""

    def test_certificateInstead(self) -> None:
        """A server that shows a certificate instead is refused, however good that is."""
        peers: list[Peer] = [
            StdlibPeer(stdlibContext("server", own=certificates.server())),
            OpenSSLPeer("server", certificates.server()),
            StdlibPeer(stdlibContext("server", own=certificates.ofOtherAuthority())),
        ]
        for peer in peers:
            client = keyClient(KEYS[0])
            toPeer, unread = client.start(), b""
            while client.state is EngineState.NEED_RECORD:
                unread += peer.feed(toPeer)
                record, *others = records(unread)
                unread, toPeer = b"".join(others), client.receiveRecord(record)
            error = self.failure(client, "psk-ignored", errno.EACCES)
            self.assertIn("expected the server to use the pre-shared key", error.reason)
            self.assertIsNotNone(client.presentedCertificate)
            self.assertEqual(client.alertSent, 40)

    def test_notUsed(self) -> None:
        """A session that OpenSSL says is not by the key is none, on both sides."""
        self.patch(openssl, "usedPreSharedKey", lambda _connection: False)
        key = KEYS[0]
        engines: tuple[tuple[Engine, str], ...] = (
            (keyClient(key), "server"),
            (keyServer(key), "client"),
        )
        for engine, peer in engines:
            converse(engine, TlslitePeer(peer, [(key.identity, key.key, key.hash)]))
            error = self.failure(engine, "psk-not-used", errno.EIO)
            self.assertIsInstance(error, SessionUnusable)
            self.assertIn(f"the {peer} was asked for", error.reason)

    def test_usedUnasked(self) -> None:
        """Nor is one that is by a key of which we know nothing."""
        self.patch(openssl, "usedPreSharedKey", lambda _connection: True)
        context = TLSContext(
            store=certificates.authority().store(), suites=tuple(CIPHER_SUITES), groups=()
        )
        client = TLSEngine(TLSParameters(Role.CLIENT, context, None, lambda _chain: None))
        converse(client, StdlibPeer(stdlibContext("server", own=certificates.server())))
        self.failure(client, "psk-not-used", errno.EIO)

    def test_noKey(self) -> None:
        """A context for keys offers none to a handshake without one, and trusts nobody."""
        context = keyContext(Role.CLIENT, SHA256)
        client = TLSEngine(TLSParameters(Role.CLIENT, context, None, refuseAll))
        server = keyServer(*KEYS)
        pair(client, server)
        self.failure(server, "no-psk", errno.EACCES)
        client = TLSEngine(TLSParameters(Role.CLIENT, context, None, refuseAll))
        converse(client, StdlibPeer(stdlibContext("server", own=certificates.server())))
        self.failure(client, "unknown-ca", errno.EACCES)

    def test_serverWithoutKey(self) -> None:
        """An engine for keys, of a server that has none, knows no identity."""
        parameters = TLSParameters(Role.SERVER, keyContext(Role.SERVER, SHA256), None, refuseAll)
        server = TLSEngine(parameters)
        pair(keyClient(KEYS[0]), server)
        self.failure(server, "handshake-failure", errno.EACCES)


class TlsliteTests(KeyTestCase):
    """tlslite-ng on the other side, which shares no code with OpenSSL."""

    def test_client(self) -> None:
        """A client goes on with its server, for every kind of key and every suite."""
        for key in KEYS:
            for suite in suitesOf(key.hash):
                client = keyClient(key, keyContext(Role.CLIENT, key.hash, suites=[suite]))
                peer = TlslitePeer("server", [(key.identity, key.key, key.hash)])
                unread = converse(client, peer)
                self.assertTrue(peer.complete)
                self.assertEqual(peer.suite, TLSLITE_SUITES[suite])
                session = self.session(client, key)
                self.assertEqual(session.suite.name, suite)
                self.assertEqual(self.talk(session, peer, unread), [])

    def test_clientWithTickets(self) -> None:
        """Tickets of a server are left to the kernel, which counts them."""
        for key in KEYS:
            client = keyClient(key)
            peer = TlslitePeer(
                "server", [(key.identity, key.key, key.hash)], tickets=b"ticket--" * 4
            )
            unread = converse(client, peer)
            self.assertEqual(
                set(self.talk(self.session(client, key), peer, unread)), {NEW_SESSION_TICKET}
            )

    def test_server(self) -> None:
        """A server goes on with its client, which gets no ticket, for every key and suite."""
        for key in KEYS:
            for suite in suitesOf(key.hash):
                server = keyServer(*KEYS)
                peer = TlslitePeer(
                    "client",
                    [(key.identity, key.key, key.hash)],
                    suites=[TLSLITE_SUITES[suite]],
                )
                unread = converse(server, peer)
                self.assertTrue(peer.complete, peer.error)
                self.assertEqual(unread, [])
                session = self.session(server, key)
                self.assertEqual(session.suite.name, suite)
                self.assertEqual(self.talk(session, peer, unread), [])

    def test_severalIdentities(self) -> None:
        """Of several identities the first that is known wins, and chooses the suite."""
        strangers = [(b"stranger %d" % number, b"s" * 32, SHA256) for number in range(3)]
        for key in KEYS:
            server = keyServer(KEYS[0], key)
            offered = [*strangers[:2], (key.identity, key.key, key.hash), strangers[2]]
            if key is not KEYS[0]:
                offered.append((KEYS[0].identity, KEYS[0].key, KEYS[0].hash))
            peer = TlslitePeer("client", offered)
            unread = converse(server, peer)
            self.assertEqual(server.identities, tuple(identity for identity, _, _ in offered))
            self.talk(self.session(server, key), peer, unread)

    def test_firstKnownHasTheWrongKey(self) -> None:
        """If the first that is known has another key there is no second try."""
        offered = [
            (KEYS[0].identity, b"x" * 32, SHA256),
            (KEYS[1].identity, KEYS[1].key, SHA256),
        ]
        server, peer = keyServer(*KEYS), TlslitePeer("client", offered)
        converse(server, peer)
        error = self.failure(server, "wrong-key", errno.EACCES)
        self.assertIn(KEYS[0].identity.decode(), error.reason)
        self.assertIn("decrypt_error", str(peer.error))

    def test_unknownIdentity(self) -> None:
        """Its client is told decrypt_error."""
        server = keyServer(KEYS[1])
        peer = TlslitePeer("client", [(KEYS[0].identity, KEYS[0].key, SHA256)])
        converse(server, peer)
        self.failure(server, "unknown-identity", errno.ENOKEY)
        self.assertIn("decrypt_error", str(peer.error))

    def test_unknownToItsServer(self) -> None:
        """Its server without our key and without a certificate refuses us."""
        client = keyClient(KEYS[0])
        peer = TlslitePeer("server", [(KEYS[1].identity, KEYS[1].key, SHA256)])
        converse(client, peer)
        self.failure(client, "alert-handshake-failure", errno.EACCES)

    def test_wrongKeyAtItsServer(self) -> None:
        """Its server with another key refuses us."""
        client = keyClient(KEYS[0])
        peer = TlslitePeer("server", [(KEYS[0].identity, b"x" * 32, SHA256)])
        converse(client, peer)
        self.failure(client, "alert-illegal-parameter", errno.EACCES)

    def test_withoutDiffieHellman(self) -> None:
        """A client that wants C{psk_ke}, which has no forward secrecy, gets no session."""
        key = KEYS[0]
        server = keyServer(key)
        peer = TlslitePeer("client", [(key.identity, key.key, key.hash)], modes=["psk_ke"])
        converse(server, peer)
        self.assertIs(server.state, EngineState.FAILED)
        self.assertIsNotNone(peer.error)

    def test_withoutDiffieHellmanAtItsServer(self) -> None:
        """Nor does a server that wants it get one from us: it is not offered."""
        key = KEYS[0]
        client = keyClient(key)
        peer = TlslitePeer("server", [(key.identity, key.key, key.hash)], modes=["psk_ke"])
        converse(client, peer)
        self.failure(client, "alert-handshake-failure", errno.EACCES)

    def test_retryByItsServer(self) -> None:
        """A client follows a HelloRetryRequest with new binders."""
        for key in KEYS:
            client = keyClient(key)
            peer = TlslitePeer(
                "server", [(key.identity, key.key, key.hash)], groups=["secp384r1"], shares=[]
            )
            retry = peer.feed(client.start())
            self.assertEqual(retry[11:43], HELLO_RETRY_REQUEST)
            toPeer = b"".join(client.receiveRecord(record) for record in records(retry))
            flight = peer.feed(toPeer)
            toPeer = b"".join(client.receiveRecord(record) for record in records(flight))
            unread = records(peer.feed(toPeer))
            self.talk(self.session(client, key), peer, unread)

    def test_retryByUs(self) -> None:
        """A server asks a client without a key share again, and takes its new binders."""
        for key in KEYS:
            server = keyServer(*KEYS)
            peer = TlslitePeer(
                "client", [(b"stranger", b"s" * 32, key.hash), (key.identity, key.key, key.hash)],
                shares=[],
            )  # fmt: skip
            retry = b"".join(server.receiveRecord(record) for record in records(peer.feed(b"")))
            self.assertEqual(retry[11:43], HELLO_RETRY_REQUEST)
            toServer = records(peer.feed(retry))
            flight = b"".join(server.receiveRecord(record) for record in toServer)
            for record in records(peer.feed(flight)):
                self.assertEqual(server.receiveRecord(record), b"")
            self.talk(self.session(server, key), peer, [])

    def test_wrongSequence(self) -> None:
        """It does not take a record with another number."""
        key = KEYS[0]
        server = keyServer(key)
        peer = TlslitePeer("client", [(key.identity, key.key, key.hash)])
        converse(server, peer)
        kernel = ModelKTLS(self.session(server, key))
        kernel.transmit.sequence = 2
        self.assertRaises(TLSError, peer.receive, kernel.transmit.seal(b"late"))


class OpenSSLTests(KeyTestCase):
    """Bare OpenSSL on the other side."""

    def peer(self, role: str, key: PreSharedKey) -> OpenSSLPeer:
        """Make a peer with a key."""
        peer = OpenSSLPeer(role)
        context = peer.connection.get_context()
        suite = CIPHER_SUITES[suitesOf(key.hash)[0]].value
        callbacks.setPreSharedKeys(
            context,
            lambda _connection: (key.identity, key.key, suite),
            lambda _connection, identity: (key.key, suite) if identity == key.identity else None,
        )
        peer.connection = SSL.Connection(context)
        if role == "client":
            peer.connection.set_connect_state()
        else:
            peer.connection.set_accept_state()
        return peer

    def test_client(self) -> None:
        """A client goes on with its server, past its tickets."""
        for key in KEYS:
            client, peer = keyClient(key), self.peer("server", key)
            unread = converse(client, peer)
            messages = self.talk(self.session(client, key), peer, unread)
            self.assertEqual(messages, [NEW_SESSION_TICKET] * len(unread))

    def test_server(self) -> None:
        """A server goes on with its client."""
        for key in KEYS:
            server, peer = keyServer(*KEYS), self.peer("client", key)
            unread = converse(server, peer)
            self.assertEqual(self.talk(self.session(server, key), peer, unread), [])
