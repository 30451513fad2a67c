"""
Contexts whose private keys are in tokens: made when the tokens answer, and anew
when they have failed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ktlsagent.bugs import logBug
from ktlsagent.credentials import tokenload
from ktlsagent.credentials.pins import pinState
from ktlsagent.credentials.threadsteps import ThreadSteps, threadPool
from ktlsagent.credentials.tokens import TokenKey
from ktlsagent.errors import DeadlineExpired, HandshakeError, KeyUnusable, TokenLost
from ktlsagent.interfaces import IAgentReactor
from ktlsagent.protocols.openssl import errorWords

_LOAD_SECONDS = 60.0
"""When it is given up to load a key; requests give up waiting for it much earlier."""

_Value = TypeVar("_Value")
_Contexts = TypeVar("_Contexts")


class _Shared(Generic[_Value]):
    """
    A value that is got once, however many wait for it.

    @ivar value: the value, once it is there.
    """

    def __init__(self) -> None:
        self.value: _Value | None = None
        self._waiting: list[Deferred[_Value]] = []

    def get(self, fetch: Callable[[], Deferred[_Value]]) -> Deferred[_Value]:
        """Wait for the value; fetch it, unless somebody waits for it already."""
        if self.value is not None:
            return succeed(self.value)
        waiting: Deferred[_Value] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            fetch().addBoth(self._got)
        return waiting

    def forget(self, value: _Value | None) -> None:
        """Fetch the value anew at the next occasion, if it still is this one."""
        if self.value is value:
            self.value = None

    def _got(self, result: _Value | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        if not isinstance(result, Failure):
            self.value = result
        for one in waiting:
            one.callback(result)


class LateContexts(Generic[_Contexts]):
    """
    What is made of keys in tokens.

    @ivar keys: the keys that it needs, at least one.
    @ivar make: makes it; called in a thread.  Raises C{SSL.Error} if a key
        does not belong to its certificate.
    """

    def __init__(
        self,
        keys: Sequence[TokenKey],
        make: Callable[[Mapping[TokenKey, crypto.PKey]], _Contexts],
    ) -> None:
        """
        @param keys: the keys that it needs, at least one.
        @param make: makes it of them.
        """
        self.keys = keys
        self.make = make
        self._made: _Shared[_Contexts] = _Shared()


class _Door:
    """What keys in the same token with the same PIN have in common."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: tuple[object, str] | None = None

    def load(self, key: TokenKey, load: Callable[[TokenKey], crypto.PKey]) -> crypto.PKey:
        """Load a key (in a thread), but never try the same wrong PIN a second time."""
        # One after the other, so that two keys do not try the same wrong PIN at once.
        with self._lock:
            pin = None if key.pin is None else pinState(key.pin)
            if self._refused is not None and pin == self._refused[0]:
                raise KeyUnusable(tokenload.PIN_REFUSED, self._refused[1])
            try:
                return load(key)
            except KeyUnusable as error:
                if error.code == tokenload.PIN_REFUSED:
                    # Not the error itself: the PIN is in its traceback.
                    self._refused = (pin, error.reason)
                raise


class _Token:
    """A key that is in use: loaded, being loaded, or to be loaded."""

    def __init__(self, steps: ThreadSteps) -> None:
        self.key: _Shared[crypto.PKey] = _Shared()
        self.steps = steps


class Tokens:
    """
    The tokens that are in use.  Whoever needs the same key shares it, and its
    threads.

    @ivar used: whether a token was ever asked for anything.  If so, the process
        must not end in an orderly way: a thread may wait for a token for ever,
        and some modules crash when OpenSSL takes its leave of them.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IAgentReactor,
        load: Callable[[TokenKey], crypto.PKey] = tokenload.load,
        pool: Callable[[str], ThreadPool] = threadPool,
        renew: Callable[[], None] | None = None,
    ) -> None:
        """
        @param reactor: gives time and takes the results of threads.
        @param load: loads a key; called in a thread.
        @param pool: makes the threads for one key.
        @param renew: has a new process take our place; called each time that
            a handshake needs a token which only a new one can use.
        """
        self.used = False
        self._renew = renew
        self._reactor = reactor
        self._load = load
        self._pool = pool
        self._tokens: dict[TokenKey, _Token] = {}
        self._doors: dict[tuple[str, str | None], _Door] = {}

    def begin(self, all: Iterable[LateContexts[_Contexts]]) -> None:  # noqa: A002 - what it is
        """
        Load what is needed from now on, and forget what is not.

        @param all: all contexts that are in use.
        """
        wanted = list(all)
        keys = {key for late in wanted for key in late.keys}
        self._tokens = {key: token for key, token in self._tokens.items() if key in keys}
        for late in wanted:
            self._made(late).addErrback(self._failed)

    def ready(self, late: LateContexts[_Contexts], deadline: float) -> Deferred[_Contexts]:
        """
        Wait for contexts; if there are none, ask the tokens again.

        @param late: the contexts.
        @param deadline: until when to wait, in the reactor's seconds.
        @return: fires with the contexts, or fails with a L{HandshakeError}.
        """
        made = self._made(late).addErrback(self._lost)
        if made.called:
            return made

        def expired(_cancelled: object, seconds: float) -> Failure:
            return Failure(
                DeadlineExpired(
                    "token-slow",
                    f"expected {_nameAll(late.keys)} from the token in time, found that it takes "
                    f"more than {seconds:.1f} s; the next handshake will see what came of it",
                )
            )

        return made.addTimeout(max(0.0, deadline - self._reactor.seconds()), self._reactor, expired)

    def run(
        self, late: LateContexts[_Contexts], deadline: float, step: Callable[[], _Value]
    ) -> Deferred[_Value]:
        """
        Run a step that a key in a token may be needed for.

        @param late: the contexts that it uses.
        @param deadline: in the reactor's seconds.
        @param step: runs in a thread.
        @return: see L{ThreadSteps.run}.
        """
        return self._token(late.keys[0]).steps.run(deadline, step)

    def forget(self, late: LateContexts[_Contexts], made: _Contexts) -> None:
        """
        Load the keys anew at the next handshake: one of them did not sign.

        @param late: the contexts.
        @param made: what was made of the keys; nothing is forgotten if it has
            been made anew since.
        """
        if late._made.value is made:
            late._made.forget(made)
            for key in late.keys:
                token = self._token(key)
                token.key.forget(token.key.value)

    def _made(self, late: LateContexts[_Contexts]) -> Deferred[_Contexts]:
        return late._made.get(lambda: Deferred.fromCoroutine(self._make(late)))

    async def _make(self, late: LateContexts[_Contexts]) -> _Contexts:
        keys = {key: await self._key(key) for key in late.keys}
        deadline = self._reactor.seconds() + _LOAD_SECONDS
        try:
            # This asks the tokens for their public keys.
            return await self.run(late, deadline, lambda: late.make(keys))
        except SSL.Error as error:
            raise KeyUnusable(
                "key-mismatch",
                f"expected {_nameAll(late.keys)} to belong to our certificate, found that it does "
                f"not: {errorWords(error)}",
            ) from None

    def _key(self, key: TokenKey) -> Deferred[crypto.PKey]:
        token = self._token(key)
        return token.key.get(lambda: Deferred.fromCoroutine(self._loaded(key, token)))

    async def _loaded(self, key: TokenKey, token: _Token) -> crypto.PKey:
        now = self._reactor.seconds()
        door = self._doors.setdefault((key.token, key.pin), _Door())
        deadline = now + _LOAD_SECONDS
        loaded = await token.steps.run(deadline, lambda: door.load(key, self._load))
        self.log.info(
            "the key {name} in a token can be used, it took {seconds} s to load",
            name=key.name,
            seconds=round(self._reactor.seconds() - now, 2),
        )
        return loaded

    def _token(self, key: TokenKey) -> _Token:
        if key not in self._tokens:
            self.used = True
            answerer = f"the token of {key.name}"
            steps = ThreadSteps(self._reactor, answerer, self._pool(answerer))
            self._tokens[key] = _Token(steps)
        return self._tokens[key]

    def _lost(self, failure: Failure) -> Failure:
        """A handshake has waited in vain: if that is for good, a new process is needed."""
        error = failure.value
        if not isinstance(error, TokenLost):
            return failure
        if self._renew is None:
            advice = "restart the program"
        else:
            self._renew()
            advice = "the agent renews itself, try again"
        return Failure(TokenLost(error.code, f"{error.reason}: {advice}"))

    def _failed(self, failure: Failure) -> None:
        """Nobody waits for the contexts yet: say why there are none."""
        if failure.check(HandshakeError) is None:
            logBug(self.log, failure)
            return
        self.log.warn(
            "a key in a token cannot be used now; it is tried again at the next handshake that "
            "needs it: {reason}",
            reason=failure.getErrorMessage(),
        )


def _nameAll(keys: Sequence[TokenKey]) -> str:
    return " and ".join(f"the key {key.name}" for key in keys)
