"""
C{twistd ktlsagent}: its options, and the one place where the agent is put
together for a process of its own.
"""
# ruff: noqa: E402 - what is postponed has to be so before it is imported

from __future__ import annotations

from ktlsagent.lean import postpone

# Of pyroute2 the agent uses the message classes.  The package imports all the rest as
# well, a database among it: 10 MB and more time than anything else that is imported.
postpone("pyroute2")

import atexit
import os
import signal
import sys
from typing import Any, cast

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python import usage

from ktlsagent import __version__
from ktlsagent.config import loadConfig
from ktlsagent.errors import AgentError, ConfigError, StartError
from ktlsagent.interfaces import IAgentReactor
from ktlsagent.service import AgentService

_FAILURE = 1


class Options(usage.Options):
    """The options of C{twistd ktlsagent}."""

    synopsis = "[--config FILE]"
    longdesc = (
        "Answers the Linux kernel's TLS handshake requests for NFS and NVMe/TCP. The "
        "configuration is tlshd's; without --config it is /etc/tlshd.conf or /etc/tlshd/config."
    )
    optParameters = [["config", "c", None, "The configuration file."]]  # noqa: RUF012 - usage's way
    compData = usage.Completions(optActions={"config": usage.CompleteFiles()})

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"ktlsagent {__version__}")  # noqa: T201 - what was asked for
        sys.exit(0)


class ProgramService(Service):
    """
    The agent as a program: signals, and the exit status.

    SIGHUP reloads.  SIGTERM and SIGINT stop with the exit status 0 when the
    last request is answered; twistd itself would end by the signal.
    """

    log = Logger()

    def __init__(self, reactor: Any, config: str | None) -> None:  # noqa: ANN401 - it has no type
        """
        @param reactor: the reactor.
        @param config: the configuration file's name, if one was given.
        """
        self._failed = False
        self._reactor = reactor
        self._agent = AgentService(
            cast(IAgentReactor, reactor),
            loadConfig(config),
            reread=lambda: loadConfig(config),
            fatal=self._fatal,
        )

    def startService(self) -> None:
        """
        Start the agent.

        @raise SystemExit: if it cannot work here; the reason has been logged.
        """
        try:
            self._agent.startService()
        except (ConfigError, StartError) as error:
            self.log.critical("ktlsagent cannot start: {reason}", reason=str(error))
            raise SystemExit(_FAILURE) from error
        Service.startService(self)
        self._reactor.callWhenRunning(self._handleSignals)

    def stopService(self) -> Deferred[None]:
        """
        Stop the agent.

        @return: fires when it has answered all its requests.
        """
        Service.stopService(self)
        return self._agent.stopService().addCallback(lambda _ignored: self._stopped())

    def _stopped(self) -> None:
        """All requests are answered: what is left to do must not be held up by a token."""
        if self._agent.usedTokens and not self._failed:
            atexit.register(_exitAtOnce)

    def _handleSignals(self) -> None:
        """Take over the signals, after the reactor has installed its own handlers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._stop))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._reload))

    def _stop(self) -> None:
        if self.running:
            self._reactor.stop()

    def _reload(self) -> None:
        self.log.info("reloading")
        Deferred.fromCoroutine(self._agent.reload()).addErrback(
            lambda failure: self.log.failure("This is a bug in ktlsagent", failure=failure)
        )

    def _fatal(self, _error: AgentError) -> None:
        """End the program with a failure; the reason has been logged."""
        self._failed = True
        atexit.register(_exitWithFailure)
        self._stop()


def _exitWithFailure() -> None:
    """
    End the process with a status that says so: twistd has none for a reactor
    that was stopped.  It has closed its log and removed its files by now.
    """
    _exitAtOnce(_FAILURE)


def _exitAtOnce(status: int = 0) -> None:
    """
    End the process without the clearing up that C libraries do.

    @param status: its exit status.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def makeService(options: Options) -> IService:
    """
    Put the agent together.

    @param options: the parsed options.
    @return: the service to run.
    @raise SystemExit: if the configuration cannot be used; it says why.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    try:
        return cast(IService, ProgramService(reactor, options["config"]))
    except ConfigError as error:
        raise SystemExit(f"ktlsagent cannot use its configuration:\n{error}") from error
