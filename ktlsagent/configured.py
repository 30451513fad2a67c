"""
The configuration in use and what was made of its files: read at the start,
replaced as a whole or not at all when something changes, and watched for what
runs out.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from ktlsagent.bugs import logBug
from ktlsagent.clocks import DAY_SECONDS, Calendar, dateNow
from ktlsagent.config import AgentConfig
from ktlsagent.credentials.contexts import ProfileSet
from ktlsagent.credentials.expiry import warnings
from ktlsagent.credentials.inventory import delta
from ktlsagent.credentials.latecontexts import Tokens
from ktlsagent.credentials.loading import loadProfiles
from ktlsagent.errors import ConfigError
from ktlsagent.fairness import Bounds, boundsFor
from ktlsagent.interfaces import IAgentReactor
from ktlsagent.namespace import namespaceNames
from ktlsagent.protocols.knownanswers import requireKnownAnswers
from ktlsagent.texts import NAME, listed, printable
from ktlsagent.watch import FileWatch

_REASON = 3000
"""Characters of the mistakes that are logged: with what is before them less than 4 kB."""


class Configured:
    """
    What requests are served with, kept up to date.

    @ivar config: the configuration in use.
    @ivar profiles: what was made of its files.
    @ivar bounds: how many handshakes may be in progress.
    @ivar namespaces: the names of our network namespace.
    """

    log = Logger()
    config: AgentConfig
    profiles: ProfileSet
    bounds: Bounds

    def __init__(  # noqa: PLR0913 - what leads and what follows
        self,
        reactor: IAgentReactor,
        config: AgentConfig,
        tokens: Tokens | None,
        reread: Callable[[], AgentConfig] | None = None,
        now: Callable[[], datetime] | None = None,
        *,
        following: bool = False,
        used: Callable[[], None] | None = None,
        profiles: ProfileSet | None = None,
    ) -> None:
        """
        @param reactor: gives time, and threads to read files in.
        @param config: the configuration to begin with.
        @param tokens: the tokens with keys of ours; without them no request
            is to be served from here.
        @param reread: reads the configuration again, for L{reload}; called in
            a thread.  Without it the same configuration's files are read again.
        @param now: the wall clock, if not the machine's.
        @param following: whether another process leads: it is that one which
            watches the files, and says what is in use and what runs out.
        @param used: called when something else is in use than before.
        @param profiles: what the files have been made into already, if they have.
        """
        self.config = config
        self.namespaces: frozenset[str] = frozenset()
        self._reactor = reactor
        self._tokens = tokens
        self._reread = reread
        self._now = now or dateNow
        self._following = following
        self._used = used
        self._made = profiles
        self._running = False
        self._suites: frozenset[str] = frozenset()
        self._lock = DeferredLock()
        self._watch = FileWatch(reactor, self._filesChanged)
        self._calendar = Calendar(reactor, self._warn, self._stepped, self._now)
        self._waiting: IDelayedCall | None = None

    def load(self, suites: frozenset[str]) -> None:
        """
        Read everything for the first time.

        @param suites: the cipher suites that the running kernel takes.
        @raise ConfigError: with all mistakes, if anything is missing or wrong.
        @raise StartError: if OpenSSL is known to be broken.
        """
        if not self._following:
            requireKnownAnswers()
        self._suites = suites
        self.namespaces = namespaceNames()
        self.profiles = self._made or loadProfiles(self.config, suites, now=self._now())
        self._made = None
        self.bounds = _bounds(self.config)

    def start(self) -> None:
        """Say what is in use, begin to watch it, and wake the tokens that it needs."""
        self._running = True
        if not self._following:
            self._say()
        if self._tokens is not None:
            self._tokens.begin(self.profiles.late())
        if not self._following:
            self._watch.watch(self.profiles.paths)
            self._calendar.start()
            self._await(self.profiles.begins)

    def stop(self) -> None:
        """Watch nothing any more."""
        self._running = False
        self._watch.stop()
        self._calendar.stop()
        self._await(None)

    async def reload(self) -> bool:
        """
        Read the configuration and all its files again, and use them for the
        requests to come; or, if anything in them is wrong, go on as before.

        @return: whether what was read is in use.
        """
        return await self._replace("reload", self._reread)

    def _filesChanged(self) -> None:
        """Files have changed on disk.  The configuration is not read: an edit may be under way."""
        self.log.info("files of the configuration have changed: reading them again")
        Deferred.fromCoroutine(self._replace("change of files", None)).addErrback(self._failed)

    def _stepped(self, seconds: float) -> None:
        """The wall clock was set: of what was read other things may be good now."""
        self.log.warn(
            "the wall clock was set by {seconds} s: reading the files of the configuration again, "
            "as certificates and CRLs have dates",
            seconds=f"{seconds:+.0f}",
        )
        Deferred.fromCoroutine(self._readByTheClock()).addErrback(self._failed)

    def _await(self, begins: datetime | None) -> None:
        """
        Read the files again when a certificate of ours can be used that cannot yet.  If
        the wall clock is set meanwhile, they are read anyway.
        """
        if self._waiting is not None and self._waiting.active():
            self._waiting.cancel()
        if begins is not None:
            seconds = max(0.0, (begins - self._now()).total_seconds())
            self._waiting = self._reactor.callLater(min(seconds, DAY_SECONDS), self._begun)

    def _begun(self) -> None:
        self.log.info("a certificate can be used now: reading the files of the configuration again")
        Deferred.fromCoroutine(self._replace("begin of a certificate", None)).addErrback(
            self._failed
        )

    async def _readByTheClock(self) -> None:
        if not await self._replace("change of the clock", None) and self._running:
            self._warn()

    async def _replace(self, occasion: str, reread: Callable[[], AgentConfig] | None) -> bool:
        """
        Read all, and swap it for what is in use; one after the other, so that what was
        asked for last is in use: none reads before the last one is through.
        """
        await self._lock.acquire()
        try:
            return await self._readAndUse(occasion, reread)
        finally:
            self._lock.release()
            if not self._running:
                # Stopped meanwhile.
                self._watch.stop()

    async def _readAndUse(self, occasion: str, reread: Callable[[], AgentConfig] | None) -> bool:
        try:
            # Files may be slow.
            config, profiles, namespaces, changes = await deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), lambda: self._read(reread)
            )
        except ConfigError as error:
            self.log.error(
                "{occasion} refused, what was read before stays in use until the next change or "
                "reload:\n{reason}",
                occasion=occasion,
                reason=listed(
                    error.mistakes,
                    lambda mistake: printable(str(mistake)),
                    length=NAME,
                    most=_REASON,
                    between="\n",
                ),
            )
            return False
        before = self.profiles.notices
        self.config, self.profiles, self.namespaces = config, profiles, namespaces
        self.bounds = _bounds(config)
        if not self._following:
            for change in changes or ("no certificate and no CRL is another one",):
                self.log.info("{occasion}: {change}", occasion=occasion, change=change)
            if reread is not None:
                self._say()
            else:
                self._notice(set(profiles.notices) - set(before))
        if self._running:
            if self._tokens is not None:
                self._tokens.begin(profiles.late())
            if not self._following:
                self._warn()
                self._await(profiles.begins)
        if self._used is not None:
            self._used()
        return True

    def _read(
        self, reread: Callable[[], AgentConfig] | None
    ) -> tuple[AgentConfig, ProfileSet, frozenset[str], Sequence[str]]:
        config = self.config if reread is None else reread()
        profiles = self._load(config)
        if not self._following:
            self._watch.watch(profiles.paths)
            if profiles.paths != self.profiles.paths:
                # Some were not watched while they were read.
                profiles = self._load(config)
        changes = delta(self.profiles.inventory, profiles.inventory)
        return config, profiles, namespaceNames(), changes

    def _load(self, config: AgentConfig) -> ProfileSet:
        return loadProfiles(config, self._suites, now=self._now(), inUse=self.profiles)

    def _failed(self, failure: Failure) -> None:
        logBug(self.log, failure)

    def _warn(self) -> None:
        """Say what has run out, or will soon."""
        for sentence in warnings(self.profiles.expiries, self._now()):
            self.log.warn("{sentence}", sentence=sentence)

    def _notice(self, notices: Iterable[str]) -> None:
        for notice in notices:
            self.log.warn("{notice}", notice=notice)

    def _say(self) -> None:
        self._notice((*self.config.notices, *self.profiles.notices))
        for profile in self.config.profiles:
            self.log.info(
                "profile {profile} ({role}): trust {stores}, certificates {certificates}",
                profile=profile.name,
                role=", ".join(role.value for role in profile.match.roles),
                stores=", ".join(profile.trust.stores) or "by pins only",
                certificates=", ".join(own.certificate for own in profile.own.certificates)
                or "none",
            )
        self.log.info(
            "configuration {path}; at most {most} handshakes at once, {perPeer} with one peer",
            path=self.config.path or "none (defaults)",
            most=self.bounds.most,
            perPeer=self.bounds.mostPerPeer,
        )


def _bounds(config: AgentConfig) -> Bounds:
    """Find out what this machine can afford."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    descriptors, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        descriptors = sys.maxsize
    return boundsFor(config.mostHandshakes, config.mostPerPeer, memory, descriptors)
