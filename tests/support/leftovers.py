"""Finds what outlives the answer of its request."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.handshake import HandshakeProtocol
from ktlsagent.protocols.pskserver import PreSharedKeyServer
from ktlsagent.request import Handover, Upcall
from ktlsagent.sockets import UpcallTransport

_KINDS: tuple[type[Any], ...] = (
    *(SSL.Connection, TLSEngine, PreSharedKeyServer),
    *(HandshakeProtocol, Handover, Upcall, UpcallTransport),
)
"""What holds OpenSSL's buffers, keys or a descriptor."""


class Leftovers:
    """
    Weak references to all that was made for requests in a test, which has no garbage
    collector: what is there when all have been answered would stay for long.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        """
        @param case: the test.
        """
        self._number = itertools.count()
        self._made: weakref.WeakValueDictionary[int, object] = weakref.WeakValueDictionary()
        gc.disable()
        case.addCleanup(gc.enable)
        for kind in _KINDS:
            case.patch(kind, "__init__", self._noting(kind.__init__))

    def _noting(self, initialize: Callable[..., None]) -> Callable[..., None]:
        def noted(made: object, *arguments: Any, **named: Any) -> None:
            self._made[next(self._number)] = made
            initialize(made, *arguments, **named)

        return noted

    def found(self) -> list[str]:
        """
        Look what is left.

        @return: the names of the kinds.
        """
        return [type(one).__name__ for one in self._made.values()]
