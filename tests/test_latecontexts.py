"""Tests for L{ktlsagent.credentials.latecontexts}."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import cast

from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogPublisher
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.credentials.latecontexts import LateContexts, Tokens
from ktlsagent.credentials.tokenload import PIN_REFUSED
from ktlsagent.credentials.tokens import TokenKey
from ktlsagent.errors import DeadlineExpired, KeyUnusable, TokenFailed, TokenLost
from tests.support.reactor import HeldThreadPool, TurnReactor

RSA = TokenKey("/etc/rsa.pem", "tpm2", b"rsa")
EC = TokenKey("/etc/ec.pem", "tpm2", b"ec")


class Made:
    """
    What was made of some keys.

    @ivar keys: the keys.
    """

    def __init__(self, keys: Mapping[TokenKey, crypto.PKey]) -> None:
        """
        @param keys: the keys.
        """
        self.keys = dict(keys)


class LateContextsTestCase(SynchronousTestCase):
    """
    Has tokens whose answers come when the test says so.

    @ivar loads: the keys in the order in which they were loaded.
    @ivar refusals: why keys cannot be loaded.
    """

    def setUp(self) -> None:
        self.reactor = TurnReactor()
        self.pools: dict[str, HeldThreadPool] = {}
        self.loads: list[TokenKey] = []
        self.refusals: dict[TokenKey, Exception] = {}
        self.tokens = Tokens(self.reactor, self.load, self.pool)
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def load(self, key: TokenKey) -> crypto.PKey:
        """
        Load a key.

        @param key: the key.
        @return: it.
        """
        self.loads.append(key)
        if key in self.refusals:
            raise self.refusals[key]
        return crypto.PKey()

    def pool(self, name: str) -> ThreadPool:
        """
        Make threads.

        @param name: whom they wait for.
        @return: the threads.
        """
        self.assertNotIn(name, self.pools)
        self.pools[name] = HeldThreadPool(self.reactor)
        return self.pools[name]

    def ready(self, late: LateContexts[Made], seconds: float = 5) -> Deferred[Made]:
        """
        Wait for contexts.

        @param late: the contexts.
        @param seconds: how long.
        @return: what comes of it.
        """
        return self.tokens.ready(late, self.reactor.seconds() + seconds)

    def release(self) -> None:
        """Let all threads go on until they have nothing left to do."""
        busy = True
        while busy:
            self.reactor.settle()
            busy = False
            for pool in self.pools.values():
                while pool.held:
                    pool.release()
                    busy = True

    def texts(self) -> list[str]:
        """
        List what was logged.

        @return: the texts.
        """
        return [eventAsText(event, includeTimestamp=False) for event in self.events]


class ReadyTests(LateContextsTestCase):
    """Waiting for contexts."""

    def test_beginning(self) -> None:
        """The key is loaded at once, and a handshake that comes meanwhile waits for that."""
        late = LateContexts([EC], Made)
        self.assertFalse(self.tokens.used)
        self.tokens.begin([late])
        self.assertTrue(self.tokens.used)
        waiting = [self.ready(late), self.ready(late)]
        self.assertEqual(self.loads, [])
        self.release()
        made = self.successResultOf(waiting[0])
        self.assertIs(self.successResultOf(waiting[1]), made)
        self.assertEqual((self.loads, list(made.keys)), ([EC], [EC]))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        (text,) = self.texts()
        self.assertIn("the key /etc/ec.pem in a token can be used", text)

    def test_later(self) -> None:
        """A handshake that comes when all is there does not wait."""
        late = LateContexts([EC], Made)
        self.tokens.begin([late])
        self.release()
        made = self.successResultOf(self.ready(late))
        self.assertIs(self.successResultOf(self.ready(late, -1)), made)
        self.assertEqual(self.loads, [EC])

    def test_shared(self) -> None:
        """Those that need the same key share one load of it."""
        one, other, both = (LateContexts(keys, Made) for keys in ([EC], [EC], [EC, RSA]))
        self.tokens.begin([one, other, both])
        self.release()
        self.assertEqual(self.loads, [EC, RSA])
        keys = [self.successResultOf(self.ready(late)).keys for late in (one, other, both)]
        self.assertIs(keys[0][EC], keys[1][EC])
        self.assertIs(keys[0][EC], keys[2][EC])

    def test_deadline(self) -> None:
        """A token that is too slow for one handshake may be ready for the next."""
        late = LateContexts([EC], Made)
        hasty, patient = self.ready(late), self.ready(late, 20)
        self.reactor.turn(5)
        error = self.failureResultOf(hasty, DeadlineExpired).value
        assert isinstance(error, DeadlineExpired)
        self.assertEqual(error.code, "token-slow")
        self.assertIn("the key /etc/ec.pem", error.reason)
        self.assertNoResult(patient)
        self.release()
        self.successResultOf(patient)
        self.assertEqual(self.loads, [EC])

    def test_hangs(self) -> None:
        """A token that never answers is asked again after a minute, by another thread."""
        late = LateContexts([EC], Made)
        self.tokens.begin([late])
        self.reactor.turn(60)
        self.assertIn("has not answered for", self.texts()[0])
        self.assertIn("a key in a token cannot be used now", self.texts()[1])
        waiting = self.ready(late)
        (pool,) = self.pools.values()
        self.assertEqual(pool.held, 2)
        pool.release(1)
        self.release()
        self.successResultOf(waiting)


class FailureTests(LateContextsTestCase):
    """Tokens that refuse."""

    def test_tryAgain(self) -> None:
        """What failed at the beginning is said, and tried again at the next handshake."""
        late = LateContexts([EC], Made)
        self.refusals[EC] = TokenFailed("token-unavailable", "expected a token, found none")
        self.tokens.begin([late])
        self.release()
        self.assertIn("next handshake that needs it: expected a token, found none", self.texts()[0])
        waiting = [self.ready(late), self.ready(late)]
        self.release()
        for one in waiting:
            self.assertIs(self.failureResultOf(one).value, self.refusals[EC])
        self.assertEqual(self.loads, [EC, EC])
        del self.refusals[EC]
        again = self.ready(late)
        self.release()
        self.successResultOf(again)

    def test_lost(self) -> None:
        """Who cannot renew the process, because it is not ours alone, has somebody restart it."""
        late = LateContexts([EC], Made)
        self.refusals[EC] = TokenLost("token-unavailable", "another process can use it")
        waiting = self.ready(late)
        self.release()
        error = self.failureResultOf(waiting, TokenLost).value
        self.assertEqual(str(error), "another process can use it: restart the program")

    def test_renewed(self) -> None:
        """A process that can be renewed is when a handshake needs a lost token, not before."""
        renewals: list[None] = []
        self.tokens = Tokens(self.reactor, self.load, self.pool, lambda: renewals.append(None))
        late = LateContexts([EC], Made)
        self.refusals[EC] = TokenLost("token-unavailable", "another process can use it")
        self.tokens.begin([late])
        self.release()
        self.assertEqual(renewals, [])
        waiting = self.ready(late)
        self.release()
        error = self.failureResultOf(waiting, TokenLost).value
        assert isinstance(error, TokenLost)
        self.assertEqual(error.code, "token-unavailable")
        self.assertIn("the agent renews itself, try again", error.reason)
        self.assertEqual(len(renewals), 1)

    def test_oneOfTwo(self) -> None:
        """A key that was loaded is kept when another one is missing."""
        late = LateContexts([EC, RSA], Made)
        self.refusals[RSA] = TokenFailed("token-unavailable", "none")
        first = self.ready(late)
        self.release()
        self.failureResultOf(first, TokenFailed)
        del self.refusals[RSA]
        second = self.ready(late)
        self.release()
        self.successResultOf(second)
        self.assertEqual(self.loads, [EC, RSA, RSA])

    def test_otherCertificate(self) -> None:
        """A key that does not belong to its certificate is one that cannot be used."""

        def mismatch(_keys: object) -> Made:
            raise SSL.Error([("x509", "", "key values mismatch")])

        waiting = self.ready(LateContexts([EC], mismatch))
        self.release()
        error = self.failureResultOf(waiting, KeyUnusable).value
        assert isinstance(error, KeyUnusable)
        self.assertEqual(error.code, "key-mismatch")
        self.assertIn("/etc/ec.pem", error.reason)
        self.assertIn("key values mismatch", error.reason)

    def test_bug(self) -> None:
        """A bug is one, and the next handshake has its chance all the same."""
        late = LateContexts([EC], Made)
        self.refusals[EC] = ZeroDivisionError("a bug")
        self.tokens.begin([late])
        self.release()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        del self.refusals[EC]
        waiting = self.ready(late)
        self.release()
        self.successResultOf(waiting)

    def test_wrongPIN(self) -> None:
        """A PIN that was refused is never tried again: tokens lock themselves after a few."""
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write("1234\n")
        key = TokenKey("/etc/key.pem", "tpm2", b"key", path)
        late = LateContexts([key], Made)
        self.refusals[key] = KeyUnusable(PIN_REFUSED, "expected another PIN")
        self.tokens.begin([late])
        self.release()
        self.tokens.begin([late])
        for _handshake in range(3):
            waiting = self.ready(late)
            self.release()
            error = self.failureResultOf(waiting, KeyUnusable).value
            assert isinstance(error, KeyUnusable)
            self.assertEqual((error.code, error.reason), (PIN_REFUSED, "expected another PIN"))
        self.assertEqual(self.loads, [key])
        with open(path, "w") as file:
            file.write("4321\n")
        os.utime(path, ns=(1, 1))
        del self.refusals[key]
        waiting = self.ready(late)
        self.release()
        self.successResultOf(waiting)

    def test_wrongPINOfTwoKeys(self) -> None:
        """Keys in the same token count their wrong PINs together."""
        path = os.path.abspath(self.mktemp())
        with open(path, "w") as file:
            file.write("1234\n")
        keys = [TokenKey(f"key {token} {n}", "x", b"", path, token) for token in "ab" for n in "12"]
        for key in keys:
            self.refusals[key] = KeyUnusable(PIN_REFUSED, "expected another PIN")
        self.tokens.begin([LateContexts([key], Made) for key in keys])
        self.release()
        self.assertEqual(len(self.texts()), 4)
        self.assertEqual([key.token for key in self.loads], ["a", "b"])

    def test_missingPIN(self) -> None:
        """A PIN that is not there yet is looked for again: that costs nothing."""
        key = TokenKey("/etc/key.pem", "tpm2", b"key", "/nowhere/pin")
        late = LateContexts([key], Made)
        self.refusals[key] = KeyUnusable("token-locked", "expected a PIN")
        for _handshake in range(3):
            waiting = self.ready(late)
            self.release()
            self.failureResultOf(waiting, KeyUnusable)
        self.assertEqual(self.loads, [key] * 3)


class ForgetTests(LateContextsTestCase):
    """Keys that do not sign any more."""

    def test_anew(self) -> None:
        """After a failure the keys are loaded anew, once."""
        late = LateContexts([EC, RSA], Made)
        first = self.ready(late)
        self.release()
        made = self.successResultOf(first)
        self.tokens.forget(late, made)
        second = self.ready(late)
        self.release()
        anew = self.successResultOf(second)
        self.assertIsNot(anew, made)
        self.assertIsNot(anew.keys[EC], made.keys[EC])
        # Handshakes that began with the old ones fail later.
        self.tokens.forget(late, made)
        self.assertIs(self.successResultOf(self.ready(late)), anew)
        self.assertEqual(self.loads, [EC, RSA, EC, RSA])

    def test_reload(self) -> None:
        """A new configuration keeps the keys that it names again."""
        self.tokens.begin([LateContexts([EC, RSA], Made)])
        self.release()
        late = LateContexts([EC], Made)
        self.tokens.begin([late])
        self.release()
        self.successResultOf(self.ready(late))
        self.assertEqual(self.loads, [EC, RSA])
        self.tokens.begin([])
        self.assertTrue(self.tokens.used, "the past is not undone")


class RunTests(LateContextsTestCase):
    """Steps of handshakes."""

    def test_run(self) -> None:
        """Steps run in the threads of their key, so that another token's may hang."""
        one, other = LateContexts([EC], Made), LateContexts([RSA], Made)
        self.tokens.begin([one, other])
        self.release()
        hanging = [self.tokens.run(one, 60, lambda: b"ec") for _ in range(10)]
        result = self.tokens.run(other, 60, lambda: b"rsa")
        self.pools["the token of /etc/rsa.pem"].release()
        self.reactor.settle()
        self.assertEqual(self.successResultOf(result), b"rsa")
        for step in hanging:
            self.assertNoResult(step)
        self.release()
        for step in hanging:
            self.assertEqual(self.successResultOf(step), b"ec")
