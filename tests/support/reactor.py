"""A reactor in the test's hand: its time and its turns pass when the test says so."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.unix import Server
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from ktlsagent.interfaces import IAgentReactor

_TURNS = 1000


class TurnThreadPool(ThreadPool):
    """A pool without threads: what it is given runs in a later turn of the reactor."""

    def __init__(self, reactor: TurnReactor) -> None:
        """
        @param reactor: gives the turns.
        """
        super().__init__(0, 0)
        self._reactor = reactor

    def callInThreadWithCallback(
        self,
        onResult: Callable[[bool, Any], object] | None,
        func: Callable[..., Any],
        *args: Any,
        **kw: Any,
    ) -> None:
        """
        See L{ThreadPool.callInThreadWithCallback}.
        """
        self._reactor.callLater(0, self._run, onResult, func, args, kw)

    @staticmethod
    def _run(
        onResult: Callable[[bool, Any], object] | None,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kw: dict[str, Any],
    ) -> None:
        try:
            result, success = func(*args, **kw), True
        except Exception:  # noqa: BLE001 - as the real pool does
            result, success = Failure(), False
        if onResult is not None:
            onResult(success, result)
        # A failure's traceback has this frame, which would keep it and all that called it.
        del result


class EagerThreadPool(TurnThreadPool):
    """A pool whose threads are done before whoever gave them their work goes on."""

    def callInThreadWithCallback(
        self,
        onResult: Callable[[bool, Any], object] | None,
        func: Callable[..., Any],
        *args: Any,
        **kw: Any,
    ) -> None:
        """
        See L{ThreadPool.callInThreadWithCallback}.
        """
        self._run(onResult, func, args, kw)


class HeldThreadPool(TurnThreadPool):
    """A pool whose threads hang until the test lets them go on."""

    def __init__(self, reactor: TurnReactor) -> None:
        """
        @param reactor: gives the turns.
        """
        super().__init__(reactor)
        self._held: list[Callable[[], None]] = []

    @property
    def held(self) -> int:
        """How many threads hang."""
        return len(self._held)

    def callInThreadWithCallback(
        self,
        onResult: Callable[[bool, Any], object] | None,
        func: Callable[..., Any],
        *args: Any,
        **kw: Any,
    ) -> None:
        """
        See L{ThreadPool.callInThreadWithCallback}.
        """
        self._held.append(lambda: self._run(onResult, func, args, kw))

    def release(self, which: int = 0) -> None:
        """
        Let a thread go on to its end; the reactor hears of it in its next turn.

        @param which: its place among those that hang.
        """
        self._held.pop(which)()


@implementer(IAgentReactor)
class TurnReactor(Clock):
    """
    A clock that stands still, real descriptors, and threads that are none.

    @ivar readers: who waits to read.
    @ivar writers: who waits to write.
    @ivar threadPool: runs in turns of the reactor.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[IReadDescriptor] = []
        self.writers: list[IWriteDescriptor] = []
        self.threadPool = TurnThreadPool(self)

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Factory) -> None:
        """See L{twisted.internet.interfaces.IReactorSocket}; only for AF_UNIX."""
        assert family == socket.AF_UNIX
        Server._fromConnectedSocket(descriptor, factory, self)

    def addReader(self, reader: IReadDescriptor) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        if writer not in self.writers:
            self.writers.append(writer)

    def removeReader(self, reader: IReadDescriptor) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        if writer in self.writers:
            self.writers.remove(writer)

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]:
        removed: list[IReadDescriptor | IWriteDescriptor] = [*self.readers, *self.writers]
        self.readers, self.writers = [], []
        return removed

    def getReaders(self) -> list[IReadDescriptor]:
        return list(self.readers)

    def getWriters(self) -> list[IWriteDescriptor]:
        return list(self.writers)

    def getThreadPool(self) -> ThreadPool:
        return self.threadPool

    def suggestThreadPoolSize(self, size: int) -> None:
        """There are no threads."""

    def callInThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:  # noqa: A002 - the interface's name
        self.callLater(0, callable, *args, **kwargs)

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:  # noqa: A002 - the interface's name
        self.callLater(0, callable, *args, **kwargs)

    def turn(self, seconds: float = 0.0) -> bool:
        """
        Take one turn: run what is due, but not what that schedules, as a real
        reactor does; then serve the descriptors that are ready, without waiting
        for any.

        @param seconds: how much time passes before.
        @return: whether there was anything to do.
        """
        self.rightNow += seconds
        due = [call for call in self.calls if call.getTime() <= self.rightNow]
        for call in sorted(due, key=lambda call: call.getTime()):
            if call.active():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
        readable, writable, _ = select.select(self.readers, self.writers, [], 0)
        for reader in readable:
            if reader in self.readers:
                self._lose(reader, reader.doRead())
        for writer in writable:
            if writer in self.writers:
                writer.doWrite()
        return bool(due or readable or writable)

    def _lose(self, reader: IReadDescriptor, why: Any) -> None:
        """Say that a connection is lost, as real reactors do."""
        if why is not None:
            self.removeReader(reader)
            reader.connectionLost(Failure(why))

    def settle(self) -> None:
        """
        Take turns until there is nothing left to do at this time.

        @raise AssertionError: if there is no end to it.
        """
        for _turn in range(_TURNS):
            if not self.turn():
                return
        raise AssertionError(f"still busy after {_TURNS} turns")
