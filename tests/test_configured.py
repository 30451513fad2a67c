"""Tests for L{ktlsagent.configured}."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NoReturn

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from twisted.internet.defer import Deferred

from ktlsagent import configured as module
from ktlsagent.clocks import DAY_SECONDS, LOOK_SECONDS
from ktlsagent.config import AgentConfig
from ktlsagent.configured import Configured
from ktlsagent.credentials.latecontexts import Tokens
from ktlsagent.errors import ConfigError, Mistake, StartError
from ktlsagent.profiles import Match, Profile, Trust
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.session import Role
from ktlsagent.watch import LONGEST_SECONDS, SETTLE_SECONDS
from tests.support import certificates
from tests.support.agent import AgentTestCase
from tests.support.brokenopenssl import acceptAll
from tests.support.certificates import Credentials
from tests.support.clock import Clocks
from tests.support.reactor import EagerThreadPool, HeldThreadPool


def pem(crl: x509.CertificateRevocationList) -> bytes:
    """
    Write a CRL as a file has it.

    @param crl: the CRL.
    @return: its octets.
    """
    return crl.public_bytes(serialization.Encoding.PEM)


class ConfiguredTests(AgentTestCase):
    """
    Tests for L{Configured}.

    @ivar clock: the clocks.
    """

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clocks(certificates.NOW.timestamp(), self.reactor)

    def configured(self, *profiles: Profile, **arguments: object) -> Configured:
        """
        Put a configuration to use.

        @param profiles: profiles before the default ones.
        @param arguments: for the constructor.
        @return: what is in use.
        """
        config = self.configuration(certificates.server(), None, *profiles)
        configured = Configured(
            self.reactor,
            config,
            Tokens(self.reactor),
            now=self.clock.date,
            **arguments,  # type: ignore[arg-type]
        )
        configured.load(frozenset(CIPHER_SUITES))
        configured.start()
        self.addCleanup(configured.stop)
        self.reactor.settle()
        return configured

    def reload(self, configured: Configured) -> bool:
        """
        Reload.

        @param configured: what is in use.
        @return: whether what was read is in use.
        """
        done = Deferred.fromCoroutine(configured.reload())
        self.reactor.settle()
        return self.successResultOf(done)

    def test_saysWhatIsInUse(self) -> None:
        """Each profile is named with what it trusts and shows, and so is the file."""
        self.configured(
            Profile(
                "profile.pins",
                Match(roles=(Role.CLIENT,), names=("pinned.lab",)),
                Trust((), pins=frozenset({b"p" * 32})),
            )
        )
        (line,) = self.logged("profile profile.pins")
        self.assertIn("trust by pins only, certificates none", line)
        (line,) = self.logged("profile authenticate.server (server)")
        self.assertIn("ca.pem, certificates ", line)
        self.assertEqual(len(self.logged("configuration none (defaults)")), 1)

    def test_brokenOpenSSL(self) -> None:
        """OpenSSL is asked once, by the process that leads: the others have the same one."""
        self.patch(module, "requireKnownAnswers", acceptAll)
        self.assertRaises(StartError, self.configured)
        self.configured(following=True)

    def test_mistakesAtTheStart(self) -> None:
        """What is wrong at the start is raised, not logged."""
        configured = Configured(
            self.reactor,
            self.configuration(
                None, None, Profile("broken", Match(roles=(Role.CLIENT,)), Trust(("/no",)))
            ),
            Tokens(self.reactor),
        )
        error = self.assertRaises(ConfigError, configured.load, frozenset(CIPHER_SUITES))
        self.assertIn("/no", str(error))

    def test_reloadReadsTheConfigurationAgain(self) -> None:
        """A reload takes the configuration up, and says what it is."""
        again = [self.configuration(None, None, debugLevel=1)]
        configured = self.configured(reread=again.pop)
        self.assertTrue(self.reload(configured))
        self.assertEqual(configured.config.debugLevel, 1)
        self.assertEqual(len(self.logged("profile authenticate.client")), 2)

    def test_reloadSaysWhatChanges(self) -> None:
        """The difference between the old files and the new ones is logged."""
        configured = self.configured()
        before = configured.profiles
        self.profile("authenticate.server", Role.SERVER, certificates.chained())
        self.assertTrue(self.reload(configured))
        self.assertIsNot(configured.profiles, before)
        (line,) = self.logged("reload: replaced the certificate in ")
        self.assertIn("authenticate.server.pem", line)
        self.assertTrue(self.reload(configured))
        self.assertEqual(len(self.logged("reload: no certificate and no CRL is another one")), 1)

    def test_reloadRefused(self) -> None:
        """A reload with a mistake keeps what is in use, and says what is wrong."""
        configured = self.configured()
        before = configured.profiles
        (self.folder / "ca.pem").write_text("half a ")
        self.assertFalse(self.reload(configured))
        self.assertIs(configured.profiles, before)
        (line,) = self.logged("reload refused")
        self.assertIn("stays in use", line)
        self.assertIn("ca.pem", line)

    def test_reloadRefusedForMany(self) -> None:
        """Of very many mistakes the first are told, each in one line, whatever is in them."""
        configured = self.configured()
        mistakes = [Mistake("a", "b", "c", f"\n[ktlsagent] {number}") for number in range(5000)]
        configured._reread = lambda: self.fail_(mistakes)
        self.assertFalse(self.reload(configured))
        (line,) = self.logged("reload refused")
        self.assertLess(len(line), 4000)
        first, *others, last = line.split("\n")
        self.assertIn("reload refused", first)
        self.assertTrue(all(one.startswith("[a] b: expected c, found \\n[k") for one in others))
        self.assertRegex(last, "^and [0-9]+ more$")

    def fail_(self, mistakes: Sequence[Mistake]) -> NoReturn:
        """
        Fail to read the configuration.

        @param mistakes: what is wrong.
        @raise ConfigError: always.
        """
        raise ConfigError(mistakes)

    def test_changeOfFiles(self) -> None:
        """Files that change are read again by themselves; the configuration is not."""
        configured = self.configured(reread=lambda: self.fail("the configuration was read"))
        before = configured.profiles
        self.profile("authenticate.server", Role.SERVER, certificates.chained())
        self.reactor.settle()
        self.assertIs(configured.profiles, before)
        self.reactor.advance(SETTLE_SECONDS)
        self.reactor.settle()
        self.assertIsNot(configured.profiles, before)
        self.assertEqual(len(self.logged("change of files: replaced the certificate in ")), 1)

    def test_halfAChange(self) -> None:
        """A set that is written in halves is taken up when it is whole."""
        configured = self.configured()
        before = configured.profiles
        certificate = self.folder / "authenticate.server.pem"
        certificate.write_bytes(certificates.chained().certificatePEM)
        self.reactor.settle()
        self.reactor.advance(SETTLE_SECONDS)
        self.reactor.settle()
        self.assertIs(configured.profiles, before)
        self.assertEqual(len(self.logged("change of files refused")), 1)
        (self.folder / "authenticate.server.key").write_bytes(certificates.chained().keyPEM)
        self.reactor.settle()
        self.reactor.advance(LONGEST_SECONDS)
        self.reactor.settle()
        self.assertIsNot(configured.profiles, before)

    def test_noticesOfNewFiles(self) -> None:
        """What is odd about new files is said once, also if nobody asked for a reload."""
        crls = self.folder / "crls"
        crls.mkdir()
        (crls / "lab.crl").write_bytes(pem(certificates.authority().revocationList()))
        trust = Trust((str(self.folder / "ca.pem"),), (str(crls),))
        lab = Profile("profile.lab", Match(roles=(Role.SERVER,), names=("lab",)), trust)
        self.configured(lab)
        self.assertEqual(self.logged("of no CA"), [])
        for number in (1, 2):
            crl = certificates.otherAuthority().revocationList()
            (crls / f"other{number}.crl").write_bytes(pem(crl))
            self.reactor.settle()
            self.reactor.advance(SETTLE_SECONDS)
            self.reactor.settle()
        self.assertEqual(len(self.logged("other1.crl is of no CA")), 1)

    def test_stoppedInMidReload(self) -> None:
        """What is stopped while it reads watches nothing afterwards."""
        configured = self.configured()
        Deferred.fromCoroutine(configured.reload())
        configured.stop()
        self.reactor.settle()
        self.assertEqual(self.reactor.readers, [])

    def test_warnsEveryDay(self) -> None:
        """What ends soon is said at the start and each day, until it is replaced."""
        self.clock.step(timedelta(days=27))
        configured = self.configured()
        first = len(self.logged("ends in"))
        self.assertGreater(first, 0)
        self.reactor.advance(24 * 60 * 60)
        self.assertEqual(len(self.logged("ends in")), 2 * first)
        configured.stop()
        self.reactor.advance(24 * 60 * 60)
        self.assertEqual(len(self.logged("ends in")), 2 * first)

    def step(self, by: timedelta) -> None:
        """Set the wall clock, and let it be noticed."""
        self.clock.step(by)
        self.reactor.advance(LOOK_SECONDS)
        self.reactor.settle()

    def test_clockIsSet(self) -> None:
        """When the wall clock is set the files are read again, and what ends is said."""
        configured = self.configured(reread=lambda: self.fail("the configuration was read"))
        before = configured.profiles
        self.assertEqual(self.logged("ends in"), [])
        self.step(timedelta(days=28))
        self.assertIsNot(configured.profiles, before)
        self.assertEqual(len(self.logged("was set by +2419200 s")), 1)
        self.assertGreater(len(self.logged("ends in")), 0)

    def test_clockIsSetAndFilesAreBroken(self) -> None:
        """What ends is said even if nothing can be read."""
        configured = self.configured()
        before = configured.profiles
        (self.folder / "ca.pem").write_text("half a ")
        self.step(timedelta(days=28))
        self.assertIs(configured.profiles, before)
        self.assertEqual(len(self.logged("change of the clock refused")), 1)
        self.assertGreater(len(self.logged("ends in")), 0)

    def test_clockIsSetAndStopped(self) -> None:
        """What is stopped while it reads by the clock says nothing any more."""
        configured = self.configured()
        (self.folder / "ca.pem").write_text("half a ")
        self.clock.step(timedelta(days=28))
        self.reactor.turn(LOOK_SECONDS)
        configured.stop()
        self.reactor.settle()
        self.assertEqual(self.logged("ends in"), [])

    def test_followerDoesNotLookAtTheClock(self) -> None:
        """A worker is told by its parent when files are to be read."""
        configured = self.configured(following=True)
        before = configured.profiles
        self.step(timedelta(days=28))
        self.assertIs(configured.profiles, before)

    def test_theLastReloadWins(self) -> None:
        """
        However readings overlap, and whatever asked for them, what the last reload has
        read of the configuration is in use; one that is refused changes nothing.
        """
        levels = {"first": 1, "second": 2}
        for pool in EagerThreadPool, HeldThreadPool:
            for asked, level in (
                (("first", "files"), 1),
                (("files", "first"), 1),
                (("first", "files", "second", "files"), 2),
                (("first", "broken", "files"), 1),
                (("files", "broken"), 0),
                (("first", "clock"), 1),
            ):
                configured = self.configured()
                threads = self.reactor.threadPool = pool(self.reactor)
                for one in asked:
                    config = self.configuration(None, None, debugLevel=levels.get(one, 0))
                    configured._reread = self.refuse if one == "broken" else (lambda c=config: c)
                    if one == "files":
                        configured._filesChanged()
                    elif one == "clock":
                        configured._stepped(60.0)
                    else:
                        Deferred.fromCoroutine(configured.reload())
                self.finish(threads)
                self.assertEqual(configured.config.debugLevel, level, (pool, asked))
                configured.stop()

    def put(self, made: Credentials) -> None:
        """Put another certificate in place."""
        (self.folder / "authenticate.server.pem").write_bytes(made.certificatePEM)
        (self.folder / "authenticate.server.key").write_bytes(made.keyPEM)

    def subjects(self, configured: Configured) -> list[str]:
        """List the certificates of ours that are in use."""
        return [one.subject for one in configured.profiles.own.values()]

    def test_renewedTooEarly(self) -> None:
        """A renewed certificate is taken up when its time comes; the old one is used until then."""
        configured = self.configured()
        self.put(certificates.notYetValid())
        self.assertTrue(self.reload(configured))
        self.assertEqual(self.subjects(configured), ["CN=server.lab"])
        self.assertEqual(len(self.logged("it is used from then on")), 1)
        self.reactor.turn(DAY_SECONDS - 5)
        self.reactor.settle()
        self.assertEqual(self.subjects(configured), ["CN=server.lab"])
        self.reactor.turn(5)
        self.reactor.settle()
        self.assertEqual(self.subjects(configured), ["CN=early.lab"])
        self.assertEqual(len(self.logged("a certificate can be used now")), 1)

    def test_startedTooEarly(self) -> None:
        """A certificate whose time has not come keeps nothing from starting."""
        self.configuration(certificates.notYetValid())
        config = self.configuration(certificates.notYetValid())
        configured = Configured(self.reactor, config, None, now=self.clock.date)
        configured.load(frozenset(CIPHER_SUITES))
        configured.start()
        self.addCleanup(configured.stop)
        self.assertEqual(self.subjects(configured), [])
        self.reactor.turn(DAY_SECONDS)
        self.reactor.settle()
        self.assertEqual(self.subjects(configured), ["CN=early.lab"])
        self.assertIsNone(configured.profiles.begins)

    def test_waitsForTheNextOne(self) -> None:
        """Only what was read last is waited for, and nothing by who has stopped."""
        configured = self.configured()
        self.put(certificates.notYetValid())
        self.reload(configured)
        self.put(certificates.server())
        self.reload(configured)
        self.reactor.turn(DAY_SECONDS)
        self.reactor.settle()
        self.assertEqual(self.logged("a certificate can be used now"), [])
        self.put(certificates.notYetValid())
        self.reload(configured)
        configured.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def refuse(self) -> AgentConfig:
        """Find a mistake in the configuration."""
        raise ConfigError([])

    def finish(self, threads: object) -> None:
        """Let everything come to its end, a thread at a time."""
        self.reactor.settle()
        while isinstance(threads, HeldThreadPool) and threads.held:
            threads.release()
            self.reactor.settle()

    def test_stoppedWhileReadingWaits(self) -> None:
        """What is stopped while readings wait for each other watches nothing afterwards."""
        for broken in False, True:
            configured = self.configured()
            threads = self.reactor.threadPool = HeldThreadPool(self.reactor)
            for _time in range(2):
                Deferred.fromCoroutine(configured.reload())
            configured.stop()
            if broken:
                (self.folder / "ca.pem").write_text("half a ")
            self.finish(threads)
            self.assertEqual(self.reactor.readers, [])
