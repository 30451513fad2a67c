"""
Tests for L{ktlsagent.signals}, with real signals.  What comes over an C{exec} is in C{test_tap}.
"""

from __future__ import annotations

import os
import signal

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent import signals

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class SignalsTests(SynchronousTestCase):
    """
    Signals are raised in the thread of the test.

    @ivar handled: the orders that were obeyed.
    """

    def setUp(self) -> None:
        self.handled: list[int] = []
        for number in ALL:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            signal.signal(number, signal.SIG_DFL)
        self.addCleanup(signal.pthread_sigmask, signal.SIG_SETMASK, signal.pthread_sigmask(0, ()))

    def test_remembered(self) -> None:
        """What comes before somebody obeys is obeyed then, in its order; after that at once."""
        signals.remember()
        signals.ignoreRotation()
        for number in signal.SIGHUP, signal.SIGUSR2, signal.SIGUSR1:
            signal.raise_signal(number)
        signals.obey(self.handled.append)
        self.assertEqual(self.handled, [signal.SIGHUP, signal.SIGUSR2])
        for number in ALL:
            self.handled.clear()
            signal.raise_signal(number)
            self.assertEqual(self.handled, [] if number == signal.SIGUSR1 else [number])

    def test_stop(self) -> None:
        """An order to stop does not wait before anything has begun."""
        exits: list[int] = []
        self.patch(os, "_exit", exits.append)
        signals.remember()
        for number in signals.STOPS:
            signal.raise_signal(number)
        self.assertEqual(exits, [0, 0, 0])

    def test_kept(self) -> None:
        """What is kept is obeyed by the next who does; be it after an exec."""
        for following in (lambda: None, signals.remember):
            signals.obey(self.fail)
            signals.keep()
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGUSR1)
            for number in (signal.SIGHUP, signal.SIGUSR2):
                signal.signal(number, lambda number, _frame: self.handled.append(number))
            following()
            signals.obey(self.handled.append)
            self.assertEqual(self.handled, [signal.SIGHUP])
            self.handled.clear()

    def test_rotation(self) -> None:
        """Who takes up new log files at SIGUSR1 goes on to do so."""
        signal.signal(signal.SIGUSR1, lambda number, _frame: self.handled.append(number))
        signals.ignoreRotation()
        signals.obey(self.fail)
        signal.raise_signal(signal.SIGUSR1)
        self.assertEqual(self.handled, [signal.SIGUSR1])
