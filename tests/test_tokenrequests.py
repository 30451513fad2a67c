"""Requests whose key is in a token, on a whole agent whose kernel and token are fakes."""

from __future__ import annotations

import errno
from typing import Any

from cryptography.hazmat.primitives import serialization
from OpenSSL import crypto
from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool

from ktlsagent.credentials.latecontexts import Tokens
from ktlsagent.credentials.tokens import TokenKey
from ktlsagent.errors import KeyUnusable
from ktlsagent.service import AgentService
from tests.support import certificates
from tests.support.agent import AgentTestCase
from tests.support.fakekernel import SERVERHELLO, X509
from tests.support.folder import block
from tests.support.reactor import HeldThreadPool, TurnThreadPool

_PEM = "-----BEGIN TSS2 PRIVATE KEY-----\nAAAA\n-----END TSS2 PRIVATE KEY-----\n"


class TokenRequestsTests(AgentTestCase):
    """
    A server and a client whose keys are in tokens.

    @ivar loads: how often a key was loaded.
    @ivar signs: whether keys that are loaded now can sign.
    """

    def setUp(self) -> None:
        super().setUp()
        self.loads = 0
        self.signs = True
        self.refusal: Exception | None = None
        self.pools: dict[str, HeldThreadPool] = {}

    def load(self, key: TokenKey) -> crypto.PKey:
        """
        Load a key.

        @param key: its name.
        @return: the key.
        """
        self.loads += 1
        if self.refusal is not None:
            raise self.refusal
        own = certificates.server() if "server" in key.name else certificates.client()
        if self.signs:
            return own.own().key
        public = own.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return crypto.load_publickey(crypto.FILETYPE_PEM, public)

    def quick(self, _name: str) -> ThreadPool:
        """
        Make threads that come back.

        @param _name: whom they wait for.
        @return: the threads.
        """
        return TurnThreadPool(self.reactor)

    def hanging(self, name: str) -> ThreadPool:
        """
        Make threads that hang.

        @param name: whom they wait for.
        @return: the threads.
        """
        key = "server" if "server" in name else "client"
        self.pools[key] = HeldThreadPool(self.reactor)
        return self.pools[key]

    def begin(self, pool: Any = None) -> AgentService:
        """
        Start an agent with both keys in tokens.

        @param pool: makes its threads.
        @return: the agent.
        """
        config = self.configuration(certificates.server(), certificates.client())
        for path in self.folder.glob("*.key"):
            path.write_text(_PEM)
        return self.start(config, tokens=Tokens(self.reactor, self.load, pool or self.quick))

    def release(self, key: str) -> None:
        """Let the threads for a key go on until they have nothing left to do."""
        while self.pools[key].held:
            self.pools[key].release()
            self.reactor.settle()

    def codes(self) -> list[str]:
        """
        List how the handshakes went.

        @return: their codes, C{-} for none.
        """
        return [event["code"] for event in self.handshakes()]

    def test_both(self) -> None:
        """Server and client sign with their keys, each of which is loaded once."""
        self.begin()
        for _time in range(3):
            upcall, client = self.serve(certificates.client())
            self.run_(client)
            self.assertEqual(upcall.status, 0)
            upcall, server = self.connect(certificates.server(), authMode=X509)
            self.run_(server)
            self.assertEqual(upcall.status, 0)
        self.assertEqual(self.loads, 2)

    def test_anonymous(self) -> None:
        """A client that shows no certificate waits for no token."""
        self.begin(self.hanging)
        upcall, server = self.connect(certificates.server())
        self.run_(server)
        self.assertEqual(upcall.status, 0)

    def test_hangsWhileLoading(self) -> None:
        """A token that does not answer costs one handshake its time, and none of the others."""
        self.begin(self.hanging)
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(self.pools["server"].held, 1)
        other, server = self.connect(certificates.server())
        self.run_(server)
        self.assertEqual(other.status, 0)
        self.reactor.turn(4.4)
        self.assertIsNone(upcall.status)
        self.reactor.turn(0.2)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)
        self.assertEqual(self.codes(), ["-", "token-slow"])
        self.release("server")
        upcall, client = self.serve()
        while upcall.status is None:
            self.run_(client)
            self.release("server")
        self.assertEqual((upcall.status, self.loads), (0, 1))

    def test_hangsWhileSigning(self) -> None:
        """A signature that does not come costs one handshake its time, and none of the others."""
        self.begin(self.hanging)
        self.release("server")
        self.release("client")
        upcall, client = self.serve()
        client.turn()
        self.run_(client)
        self.pools["server"].release()
        self.run_(client)
        self.assertEqual(self.pools["server"].held, 1, "the ClientHello's step")
        other, server = self.connect(certificates.server())
        self.run_(server)
        self.assertEqual(other.status, 0)
        self.reactor.turn(4.5)
        self.run_(client)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)
        self.assertEqual(self.codes(), ["-", "token-slow"])
        self.assertFalse(client.done)
        self.release("server")
        self.assertEqual(len(upcall.answers), 1)

    def test_stopsWhileItHangs(self) -> None:
        """An agent that is told to stop waits for a token no longer than for anybody."""
        agent = self.begin(self.hanging)
        upcall, _far = self.ask(SERVERHELLO)
        self.reactor.settle()
        stopped = self.stop(agent)
        self.assertNoResult(stopped)
        self.reactor.turn(4.6)
        self.reactor.settle()
        self.successResultOf(stopped)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)
        self.assertTrue(agent.usedTokens)
        self.assertTrue(agent.ledger.balanced())

    def test_doesNotSign(self) -> None:
        """After a signature that failed, the next handshake has its key loaded anew."""
        self.signs = False
        self.begin()
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)
        (event,) = self.handshakes()
        self.assertEqual((event["code"], event["alert_sent"]), ("token-failed", "-"))
        self.assertEqual(self.loads, 2)
        self.signs = True
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(upcall.status, 0)
        self.assertEqual(self.loads, 3)

    def test_doesNotSignForClient(self) -> None:
        """A client tries again: the kernel is told in a second that it may."""
        self.signs = False
        self.begin()
        upcall, server = self.connect(certificates.server(), authMode=X509)
        self.run_(server)
        self.assertIsNone(upcall.status)
        self.reactor.turn(1)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)
        self.assertEqual(self.codes(), ["token-failed"])

    def test_locked(self) -> None:
        """What somebody has to mend first is no reason to try again."""
        self.refusal = KeyUnusable("token-locked", "expected a PIN, found none")
        self.begin()
        upcall, server = self.connect(certificates.server(), authMode=X509)
        self.run_(server)
        self.assertEqual(upcall.status, errno.ENOKEY)
        self.assertEqual(self.codes(), ["token-locked"])

    def test_lockedServer(self) -> None:
        """A client of a server whose key somebody has to mend first is told by an alert."""
        self.refusal = KeyUnusable("token-locked", "expected a PIN, found none")
        self.begin()
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(upcall.status, errno.ENOKEY)
        (event,) = self.handshakes()
        self.assertEqual((event["code"], event["alert_sent"]), ("token-locked", "internal_error"))
        self.refusal = None
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(upcall.status, 0)

    def test_reload(self) -> None:
        """A reload keeps the keys that are loaded, and wakes those that are new."""
        agent = self.begin()
        self.assertEqual(self.loads, 2)
        key = self.folder / "authenticate.server.key"
        key.write_text("# the same one\n" + _PEM)
        self.assertTrue(self.reload(agent))
        self.assertEqual(self.loads, 2)
        key.write_bytes(block("TSS2 PRIVATE KEY", b"another one"))
        self.assertTrue(self.reload(agent))
        self.assertEqual(self.loads, 3)
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual((upcall.status, self.loads), (0, 3))

    def reload(self, agent: AgentService) -> bool:
        """
        Have an agent read its files again.

        @param agent: the agent.
        @return: whether it took them.
        """
        result = Deferred.fromCoroutine(agent.reload())
        self.reactor.settle()
        return self.successResultOf(result)
