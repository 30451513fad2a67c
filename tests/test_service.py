"""The service: start, drain, reload, stop, and what it says."""

from __future__ import annotations

import errno
import resource
import time

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ktlsagent import configured
from ktlsagent.clocks import dateNow
from ktlsagent.config import AgentConfig
from ktlsagent.errors import AgentError, ConfigError, StartError
from ktlsagent.profiles import Match, Profile, Trust
from ktlsagent.protocols.session import Role
from ktlsagent.service import AgentService
from tests.support import certificates
from tests.support.agent import AgentTestCase
from tests.support.brokenopenssl import acceptAll
from tests.support.fakekernel import FORGER, SERVERHELLO, attribute
from tests.support.reactor import TurnReactor


class StartTests(AgentTestCase):
    """Starting."""

    def test_saysThatItIsReady(self) -> None:
        """A start ends with one line: the version and the suites that the kernel takes."""
        self.kernelTLS.suites = frozenset({"TLS_AES_128_GCM_SHA256"})
        self.start()
        (line,) = self.logged("ready")
        self.assertIn("kTLS takes TLS_AES_128_GCM_SHA256", line)
        self.assertNotIn("CHACHA20", line)
        self.assertTrue(self.keyrings.created)

    def test_saysWhatIsConfigured(self) -> None:
        """The files of both roles and all notices are logged."""
        self.start(self.configuration(certificates.server(), notices=("a notice",)))
        self.assertEqual(len(self.logged("profile authenticate.")), 2)
        self.assertEqual(len(self.logged("certificates none")), 1)
        self.assertEqual(len(self.logged("a notice")), 1)

    def test_takesWhatIsPending(self) -> None:
        """Requests that came before the agent are served."""
        upcall, client = self.serve()
        self.start()
        self.run_(client)
        self.assertEqual(upcall.status, 0)

    def test_noFamily(self) -> None:
        """A kernel without the family is a reason not to start, and what to do is said."""
        self.kernel.hasFamily = False
        error = self.assertRaises(StartError, self.agent(AgentConfig()).startService)
        self.assertIn("CONFIG_NET_HANDSHAKE", str(error))
        self.assertEqual(self.kernel.sockets, [])

    def test_noPrivilege(self) -> None:
        """Without CAP_NET_ADMIN the agent does not start, and leaves the group."""
        self.kernel.privileged = False
        error = self.assertRaises(StartError, self.agent(self.configuration()).startService)
        self.assertIn("CAP_NET_ADMIN", str(error))
        self.assertEqual(self.kernel.sockets, [])

    def test_noKernelTLS(self) -> None:
        """Without kTLS the agent does not start, and nobody thinks it is there."""
        self.kernelTLS.unavailable = StartError("no kTLS")
        self.assertRaises(StartError, self.agent(self.configuration()).startService)
        self.assertEqual(self.kernel.sockets, [])

    def test_brokenOpenSSL(self) -> None:
        """With an OpenSSL that is known to be broken the agent does not start, and says why."""
        self.patch(configured, "requireKnownAnswers", acceptAll)
        error = self.assertRaises(StartError, self.agent(self.configuration()).startService)
        self.assertIn("expected an OpenSSL that refuses", str(error))
        self.assertEqual(self.kernel.sockets, [])

    def test_badConfiguration(self) -> None:
        """Files that are missing are a reason not to start."""
        config = AgentConfig(
            profiles=(Profile("broken", Match(roles=(Role.CLIENT,)), Trust(("/missing",))),)
        )
        error = self.assertRaises(ConfigError, self.agent(config).startService)
        self.assertIn("/missing", str(error))
        self.assertEqual(self.kernel.sockets, [])

    def test_anotherAgent(self) -> None:
        """A second listener is named, and the agent works beside it."""
        other = self.kernel.socket()
        other.join(self.kernel.groups["tlshd"])
        self.addCleanup(other.close)
        self.start()
        (line,) = self.logged("another handshake agent")
        self.assertIn(str(other.portId()), line)

    def test_restriction(self) -> None:
        """What cannot be done with keys is said at the start."""
        self.keyrings.limit = "not root: no NVMe"
        self.start()
        self.assertEqual(len(self.logged("not root: no NVMe")), 1)

    def test_insideAnotherProgram(self) -> None:
        """The agent starts and stops with its parent."""
        agent = self.agent(self.configuration())
        parent = MultiService()
        agent.setServiceParent(parent)
        parent.startService()
        self.assertTrue(agent.running)
        self.successResultOf(parent.stopService())
        self.assertFalse(agent.running)

    def test_reactorByTheWallClock(self) -> None:
        """A host is told if its reactor follows the wall clock, and what to do about it."""
        self.start()
        self.assertEqual(self.logged("makeMonotonic"), [])
        self.patch(TurnReactor, "seconds", lambda _reactor: time.time())
        self.patch(configured, "dateNow", dateNow)
        self.start()
        self.assertEqual(len(self.logged("call ktlsagent.clocks.makeMonotonic before")), 1)

    def test_defaultSeams(self) -> None:
        """Without seams the agent is that of the running kernel; nothing is opened yet."""
        agent = AgentService(self.reactor, AgentConfig())
        self.assertFalse(agent.running)


class DrainTests(AgentTestCase):
    """Taking requests."""

    def test_allAreTakenBeforeAnyWork(self) -> None:
        """Every pending request is accepted before a step of cryptography runs."""
        agent = self.start()
        asked = [self.serve() for _number in range(20)]
        for _upcall, client in asked:
            client.turn()
        self.reactor.turn()
        self.assertEqual(agent.ledger.accepted, 20)
        self.assertEqual(self.kernelTLS.sessions, [])
        self.run_(*(client for _upcall, client in asked))
        self.assertEqual([upcall.status for upcall, _client in asked], [0] * 20)

    def test_lostHints(self) -> None:
        """After ENOBUFS everything pending is taken, and the loss is said, once."""
        self.start()
        announce = self.kernel.announce
        self.patch(self.kernel, "announce", lambda: None)
        upcall, client = self.serve()
        self.kernel.loseHints()
        announce()
        other, another = self.serve()
        self.run_(client, another)
        self.assertEqual((upcall.status, other.status), (0, 0))
        self.assertEqual(len(self.logged("READY notifications were lost")), 1)

    def test_more(self) -> None:
        """All that is pending is taken at one READY, also what no READY of its own has come for."""
        agent = self.start()
        announce = self.kernel.announce
        self.patch(self.kernel, "announce", lambda: None)
        upcalls = [self.ask(SERVERHELLO)[0] for _number in range(3)]
        announce()
        self.reactor.turn()
        self.assertEqual(agent.ledger.accepted, 3)
        self.reactor.turn(5)
        self.assertEqual({upcall.status for upcall in upcalls}, {errno.ETIMEDOUT})

    def test_strays(self) -> None:
        """A message that nobody asked for is dropped, so that it does not fill the buffer."""
        self.start()
        command = next(opened for opened in self.kernel.sockets if not opened.joined)
        command.deliver(b"what is this")
        self.reactor.settle()
        command.deliver(b"and this")
        self.reactor.settle()
        self.assertEqual(len(self.logged("netlink messages that nobody asked for")), 1)
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(upcall.status, 0)

    def test_forged(self) -> None:
        """
        What others than the kernel send is dropped, on both sockets, and said once in a
        minute; nothing is asked of the kernel for it.
        """
        agent = self.start()
        asked: list[object] = []
        self.patch(agent._kernel, "accept", lambda: asked.append(None))
        for opened in self.kernel.sockets:
            for _number in range(700):
                opened.deliver(b"what is this", FORGER)
        self.reactor.settle()
        self.assertEqual(asked, [])
        (line,) = self.logged("not the kernel's")
        self.assertIn("512 so far, the last one from port 4711", line)
        self.assertEqual(self.logged("nobody asked for"), [])
        self.reactor.advance(60)
        self.kernel.forge(b"again")
        self.reactor.settle()
        self.assertIn("1401 so far", self.logged("not the kernel's")[1])
        self.assertTrue(agent.running)

    def test_unreadableRequest(self) -> None:
        """A request that cannot be read is refused at once, and its keyring given back."""
        agent = self.start()
        ring = self.keyrings.addKeyring("a ring")
        linked: list[int] = []

        def link(ring: int) -> None:
            linked.append(ring)
            self.keyrings.link(ring)

        self.kernel._linkKeyring = link
        upcall, _far = self.ask(SERVERHELLO, keyring=ring, more=attribute(6, b""))
        self.reactor.turn()
        self.assertEqual(len(self.logged("a request cannot be read")), 1)
        self.assertEqual(linked, [ring])
        self.assertEqual(upcall.status, errno.EOPNOTSUPP)
        self.assertEqual(list(self.keyrings.linked()), [])
        self.assertTrue(agent.ledger.balanced())

    def test_requestThatCannotBeHandedOver(self) -> None:
        """A request that the kernel ends itself does not keep the next ones from being served."""

        def refuse(serial: int) -> None:
            raise OSError(errno.EACCES, "no link permission")

        self.kernel._linkKeyring = refuse
        self.start()
        lost, _far = self.ask(SERVERHELLO, keyring=99)
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual((lost.status, upcall.status), (errno.EIO, 0))
        (line,) = self.logged("could not hand a request over")
        self.assertIn("EACCES (its keyring cannot be linked", line)

    def test_endlessRefusals(self) -> None:
        """Refusals without end do not hold the reactor up."""
        self.start()

        def refuse(datagrams: list[bytes]) -> list[bytes]:
            return [
                data[:16] + (-errno.ENOMEM).to_bytes(4, "little", signed=True) + data[20:]
                for data in datagrams
            ]

        self.kernel.filter = refuse
        self.kernel.announce()
        self.reactor.turn()
        self.assertEqual(len(self.logged("could not hand a request over")), 50)
        self.kernel.filter = list
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(upcall.status, 0)

    def test_noFreeDescriptor(self) -> None:
        """Without room for a descriptor requests stay with the kernel until there is some."""
        self.start()
        upcall, client = self.serve()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            self.reactor.turn()
            self.reactor.turn(0.05)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.assertEqual(len(self.kernel.pending), 1)
        self.assertEqual(len(self.logged("no request is accepted for now")), 1)
        self.reactor.turn(0.1)
        self.run_(client)
        self.assertEqual(upcall.status, 0)

    def test_announcedLongBefore(self) -> None:
        """
        The time of a request that could not be taken at once counts from its READY; and
        that of the next one, which is taken at once, from there.
        """
        self.start()
        first, _client = self.serve()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            self.reactor.turn()
            self.reactor.pump([0.1] * 20)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.reactor.turn(0.1)
        self.reactor.settle()
        second, _client = self.serve()
        self.reactor.settle()
        for passes, answered in ((2.3, 0), (0.2, 1), (1.9, 1), (0.2, 2)):
            self.reactor.advance(passes)
            self.reactor.settle()
            statuses = [upcall.status for upcall in (first, second)]
            self.assertEqual(statuses.count(errno.ETIMEDOUT), answered, passes)

    def test_noFreeDescriptorWhenStopped(self) -> None:
        """An agent that has been stopped does not come back for requests."""
        agent = self.start()
        _upcall, _client = self.serve()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            self.reactor.turn()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.successResultOf(self.stop(agent))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.reactor.turn(1)
        self.assertEqual(len(self.kernel.pending), 1)

    def test_debugLines(self) -> None:
        """loglevel=1 shows every request as it comes."""
        self.start(self.configuration(certificates.server(), debugLevel=1))
        _upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(len(self.logged("accepted HandshakeRequest(")), 1)


class FatalTests(AgentTestCase):
    """What the agent cannot go on after."""

    def test_netlinkBreaks(self) -> None:
        """Sockets that are of no use are fatal, once."""
        fatal: list[AgentError] = []
        self.start(fatal=fatal.append)
        self.kernel.readError = errno.EIO
        self.kernel.announce()
        self.run_()
        self.assertEqual(len(fatal), 1)
        self.assertEqual(len(self.logged("cannot go on")), 1)

    def test_privilegeIsLost(self) -> None:
        """An agent that may not accept any more is fatal; without a handler it is logged."""
        self.start()
        self.kernel.privileged = False
        self.kernel.announce()
        self.run_()
        self.assertEqual(len(self.logged("cannot go on")), 1)

    def test_reactorIsDeaf(self) -> None:
        """A reactor that drops the socket of READY is a bug and fatal."""
        fatal: list[AgentError] = []
        self.start(fatal=fatal.append)
        reader = self.reactor.readers[0]
        reader.connectionLost(Failure(ZeroDivisionError()))
        self.assertEqual(len(fatal), 1)
        self.assertEqual(reader.logPrefix(), "netlink")
        self.flushLoggedErrors(ZeroDivisionError)


class ReloadTests(AgentTestCase):
    """SIGHUP."""

    def test_newCertificate(self) -> None:
        """Requests after a reload are served with the new files."""
        config = self.configuration(certificates.server())
        agent = self.start(config)
        self.configuration(certificates.chained())
        done = Deferred.fromCoroutine(agent.reload())
        self.reactor.settle()
        self.assertTrue(self.successResultOf(done))
        _upcall, client = self.serve()
        self.run_(client)
        shown = client.tls.getpeercert(binary_form=True)
        expected = certificates.chained().certificate.public_bytes(Encoding.DER)
        self.assertEqual(shown, expected)

    def test_mistakeKeepsTheOld(self) -> None:
        """A reload with a mistake is refused with the reason; the old files stay in use."""
        agent = self.start(self.configuration(certificates.server()))
        (self.folder / "authenticate.server.key").chmod(0o644)
        done = Deferred.fromCoroutine(agent.reload())
        self.reactor.settle()
        self.assertFalse(self.successResultOf(done))
        (line,) = self.logged("reload refused")
        self.assertIn("0644", line)
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(upcall.status, 0)

    def test_newConfiguration(self) -> None:
        """The function that reads the configuration again is asked."""
        configurations = [self.configuration(certificates.server())]
        agent = self.start(self.configuration(), reread=configurations.pop)
        done = Deferred.fromCoroutine(agent.reload())
        self.reactor.settle()
        self.assertTrue(self.successResultOf(done))
        upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(upcall.status, 0)


class StopTests(AgentTestCase):
    """SIGTERM."""

    def test_atRest(self) -> None:
        """An idle agent stops at once and shows its books."""
        agent = self.start()
        self.successResultOf(self.stop(agent))
        (line,) = self.logged("stopped:")
        self.assertIn("accepted=0 answered=0 in-flight=0 descriptors=0 timers=0 key-links=0", line)
        self.assertEqual(self.kernel.sockets, [])
        self.assertEqual(self.reactor.readers, [])

    def test_requestsInFlightAreFinished(self) -> None:
        """What was accepted is served; what comes later is not."""
        agent = self.start()
        upcall, client = self.serve()
        client.turn()
        self.reactor.turn()
        stopped = self.stop(agent)
        self.assertNoResult(stopped)
        late, _far = self.ask(SERVERHELLO)
        self.run_(client)
        self.successResultOf(stopped)
        self.assertEqual((upcall.status, late.status), (0, None))
        self.assertEqual(len(self.logged("1 requests are still in flight")), 1)

    def test_forked(self) -> None:
        """In a process that was forked off, requests in flight have their keyrings."""
        agent = self.start()
        upcall, _far = self.ask(SERVERHELLO, keyring=99)
        self.reactor.settle()
        self.keyrings.unlink(99)
        stopped = self.stop(agent)
        agent.forked()
        self.assertEqual(self.keyrings.linked(), [99])
        self.reactor.turn(4.6)
        self.successResultOf(stopped)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)

    def test_forget(self) -> None:
        """What another process answers is not answered, whatever happens here."""
        agent = self.start()
        upcall, _far = self.ask(SERVERHELLO)
        self.reactor.settle()
        stopped = self.stop(agent)
        agent.forget()
        self.reactor.turn(4.6)
        self.successResultOf(stopped)
        self.assertEqual(upcall.answers, [])
        self.kernel.upcalls.clear()

    def test_aSilentPeerDoesNotHoldItUp(self) -> None:
        """The last request ends by its deadline, and the agent with it."""
        agent = self.start()
        upcall, _far = self.ask(SERVERHELLO)
        self.run_()
        stopped = self.stop(agent)
        self.assertNoResult(stopped)
        self.reactor.turn(4.6)
        self.successResultOf(stopped)
        self.assertEqual(upcall.status, errno.ETIMEDOUT)
