"""
C{twistd ktlsagent}: its options, and the one place where the agent is put
together for a process of its own.
"""
# ruff: noqa: E402 - the preparation for the imports comes before them

from __future__ import annotations

from ktlsagent import lean

lean.begin()

import atexit
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.components import Componentized

from ktlsagent import __version__, coredumps, readysocket, signals
from ktlsagent.bugs import logBug
from ktlsagent.clocks import makeMonotonic
from ktlsagent.config import AgentConfig, loadConfig
from ktlsagent.errors import AgentError, ConfigError, NetlinkError, StartError
from ktlsagent.interfaces import IAgentReactor
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.processes.remainder import forkOff
from ktlsagent.processes.standardlog import standardLog
from ktlsagent.service import AgentService

if TYPE_CHECKING:
    from ktlsagent.processes.workers import WorkersService

lean.settle()

_FAILURE = 1

_NOT_AGAIN = (
    "ktlsagent: expected to start again in the same process, found {}; the agent has ended: "
    "start it\n"
)

_SHORTEST_LIFE = 10.0
"""After what time the program may start again of its own accord."""


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

    If another process comes after this one, it does not wait for that: what is
    in flight is left to a process of its own.  So SIGQUIT ends the program at
    once, and SIGUSR2 starts it again in the same process, from what is installed
    by then.  The socket for READY stays open meanwhile.  The latter happens by
    itself if a token can be used by a new process only.

    An order to stop wins, whenever it comes: also over a start again that has begun.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - it has no type
        config: str | None,
        *,
        logsElsewhere: bool = False,
    ) -> None:
        """
        @param reactor: the reactor.
        @param config: the configuration file's name, if one was given.
        @param logsElsewhere: whether the log is somewhere else than on standard output.
        """
        self._end: Callable[[], object] | None = None
        self._toStop = False
        self._stopping = False
        self._logsElsewhere = logsElsewhere
        self._renewing = False
        self._hurries = False
        self._ready: int | None = None
        self._reactor = reactor
        self._began = reactor.seconds()
        self._manager = readysocket.Manager(reactor, self._cannotTell)
        self._agent = self._makeAgent(
            loadConfig(config),
            reread=lambda: loadConfig(config),
            fatal=self._fatal,
            kernel=HandshakeNetlink(inherited=readysocket.inherited()),
        )

    def _makeAgent(self, config: AgentConfig, **seams: Any) -> AgentService | WorkersService:  # noqa: ANN401
        """Make the agent of as many processes as are wanted."""
        reactor = cast(IAgentReactor, self._reactor)
        number = len(os.sched_getaffinity(0)) if config.workers is None else config.workers
        if number == 1:
            return AgentService(reactor, config, up=self._tellSystemd, renew=self._renew, **seams)
        # One process needs nothing of that.
        from ktlsagent.processes.workers import WorkersService  # noqa: PLC0415

        return WorkersService(
            reactor,
            config,
            number,
            up=self._tellSystemd,
            relayed=self._logsElsewhere,
            **seams,
        )

    def setServiceParent(self, parent: Any) -> None:  # noqa: ANN401 - twistd's application
        """
        Become part of twistd's application, and have it log in our way to standard
        output, where its own would block as soon as nobody reads.

        @param parent: the application.
        """
        Service.setServiceParent(self, parent)
        if isinstance(parent, Componentized) and not self._logsElsewhere:
            cast(Any, parent).setComponent(ILogObserver, standardLog(self._reactor))

    def startService(self) -> None:
        """
        Start the agent.

        @raise SystemExit: if it cannot work here; the reason has been logged.
        """
        signals.obey(self._signalled)
        try:
            self._agent.startService()
        except (ConfigError, StartError) as error:
            self.log.critical("ktlsagent cannot start: {reason}", reason=str(error))
            raise SystemExit(_FAILURE) from error
        Service.startService(self)
        # The reactor installs handlers of its own when it begins to run.
        signals.keep()
        self._reactor.callWhenRunning(signals.obey, self._signalled)
        lean.settle()

    def stopService(self) -> Deferred[None]:
        """
        Stop the agent.

        @return: fires when it has answered all its requests, or left them to
            another process.
        """
        Service.stopService(self)
        self._stopping = True
        self._manager.stop()
        stopped = self._agent.stopService()
        if self._hurries and self._end is None:
            self._endBy(_exitAtOnce)
        # Threads that wait for a token would be lost in another process.
        if self._hurries and not stopped.called and not self._agent.usedTokens:
            try:
                if not forkOff(self._reactor, self._agent.secondsLeft()):
                    self._agent.forget()
                    return succeed(None)
            except OSError as error:
                self.log.warn(
                    "expected a process for what is in flight, found {error}: waiting for it, and "
                    "mounts with us",
                    error=error,
                )
            else:
                self._finish()
                return stopped.addBoth(lambda _ignored: _exitAtOnce())
        return stopped.addCallback(lambda _ignored: self._stopped())

    def _finish(self) -> None:
        """Be the process that finishes what is in flight, and nothing else."""
        self._endBy(_exitAtOnce)
        self.log.info("process {pid} finishes what is in flight", pid=os.getpid())
        self._leaveReady()
        self._agent.forked()

    def _stopped(self) -> None:
        """All requests are answered: what is left to do must not be held up by a token."""
        if self._agent.usedTokens and self._end is None:
            self._endBy(_exitAtOnce)

    def _signalled(self, number: int) -> None:
        """
        Note an order to stop at once, and have all orders obeyed in the reactor's own
        time: which may be over.
        """
        if number in signals.STOPS:
            self._toStop = True
            if not (self.running or self._stopping or self._listens()):
                # While files are read, which may take long, nothing has begun.
                os._exit(0)
        self._reactor.callFromThread(self._obey, number)

    def _listens(self) -> bool:
        try:
            return self._agent.listener() >= 0
        except NetlinkError:
            return False

    def _obey(self, number: int) -> None:
        if number in signals.STOPS:
            self._hurries = self._hurries or number == signal.SIGQUIT
            # It may have come when a start again had begun.
            self._leaveReady()
            self._stop()
        elif number == signal.SIGUSR2:
            self._restart()
        elif number == signal.SIGHUP:
            self._reload()

    def _tellSystemd(self) -> None:
        """Say that the agent is ready, and have its socket held; it works without that, too."""
        self._manager.tell(self._agent.listener())

    def _cannotTell(self, error: OSError) -> None:
        self.log.warn(
            "expected systemd to take the agent's socket and word of its start, found "
            "{error}: mounts may fail while the agent is restarted; look at NOTIFY_SOCKET",
            error=error,
        )

    def _stop(self) -> None:
        """Stop, once."""
        if self.running and not self._stopping:
            self._stopping = True
            self._reactor.stop()

    def _restart(self) -> None:
        """Stop, and start again in the same process; or go on if that is not possible."""
        if not self.running or self._stopping:
            return
        try:
            readysocket.requireProgram()
            self._ready = os.dup(self._agent.listener())
        except (OSError, NetlinkError) as error:
            self._renewing = False
            self.log.error(
                "expected to start again in the same process, found {error}; going on as before",
                error=error,
            )
            return
        self.log.info("starting again in the same process")
        self._hurries = True
        self._stop()
        self._endBy(self._startAgain)

    def _renew(self) -> None:
        """Start again because of a lost token, but not all the time."""
        if not self._renewing:
            self._renewing = True
            left = max(0.0, self._began + _SHORTEST_LIFE - self._reactor.seconds())
            self.log.warn(
                "a token can be used by a new process only: starting again in {seconds} s",
                seconds=round(left, 1),
            )
            self._reactor.callLater(left, self._restart)

    def _reload(self) -> None:
        if not self.running or self._stopping:
            return
        self.log.info("reloading")
        Deferred.fromCoroutine(self._agent.reload()).addErrback(
            lambda failure: logBug(self.log, failure)
        )

    def _fatal(self, _error: AgentError) -> None:
        """End the program with a failure; the reason has been logged."""
        self._endBy(_exitWithFailure)
        self._stop()

    def _endBy(self, end: Callable[[], object]) -> None:
        """
        Say what the process does in the end, instead of clearing up: twistd has closed
        its log and removed its files by then.  A failure stays one.
        """
        if self._end is None:
            atexit.register(self._atExit)
        if self._end is not _exitWithFailure:
            self._end = end

    def _atExit(self) -> None:
        if self._end is not None:
            self._end()

    def _leaveReady(self) -> None:
        """There is no program to come that the socket for READY would be for."""
        if self._ready is not None:
            os.close(self._ready)
            self._ready = None

    def _startAgain(self) -> None:
        """Become a new process of this program, unless there was an order to stop."""
        signals.keep()
        if self._toStop or self._ready is None:
            _exitAtOnce()
            return
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            readysocket.replaceProcess(self._ready)
        except OSError as error:
            sys.stderr.write(_NOT_AGAIN.format(error))
            _exitWithFailure()


def _exitWithFailure() -> None:
    """
    End the process with a status that says so: twistd has none for a reactor
    that was stopped.
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


def _logsElsewhere(twistd: usage.Options | None) -> bool:
    """Say whether twistd, if we are part of it, logs to something else than standard output."""
    if twistd is None:
        return False
    elsewhere = twistd.get("syslog") or twistd.get("logger") or not twistd.get("nodaemon")
    return bool(elsewhere) or twistd.get("logfile") not in (None, "", "-")


def makeService(options: Options) -> IService:
    """
    Put the agent together.

    @param options: the parsed options.
    @return: the service to run.
    @raise SystemExit: if the configuration or the reactor cannot be used; it says why.
    """
    coredumps.forbid()
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    signals.remember()
    try:
        makeMonotonic(reactor)
        elsewhere = _logsElsewhere(options.parent)
        return cast(IService, ProgramService(reactor, options["config"], logsElsewhere=elsewhere))
    except ConfigError as error:
        raise SystemExit(f"ktlsagent cannot use its configuration:\n{error}") from error
    except StartError as error:
        raise SystemExit(f"ktlsagent cannot start: {error}") from error
