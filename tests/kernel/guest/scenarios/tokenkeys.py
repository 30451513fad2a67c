"""Private keys in tokens: used, gone and back again, slow, and locked."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from typing import Final

from tests.kernel.guest import ktls, peers
from tests.kernel.guest.agents import Agent, HandshakeLine, paused
from tests.kernel.guest.certificates import CLIENT, SERVER
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import readFile, refusal, writeFile
from tests.kernel.guest.sections import identity, roles, section
from tests.kernel.guest.tokens import DIRECTORY, PIN, Tokens
from tests.kernel.guest.waiting import Unexpected, expect, until

_LABEL: Final = "lab"

_NFSD_SECONDS: Final = 5.0
"""How long nfsd waits for its agent."""

_MOST_CLIENTS: Final = 4
"""A key that is given up may take its successor with it: a TPM uses its handles again."""

_SHORTEST_LIFE: Final = 10.0
"""An agent does not renew itself within its first seconds."""

_PLACES: Final = ("1", "2")
"""The workers."""

_RENEWS: Final = "the agent renews itself"
"""What a reason says if a new process can use a token, and the old one cannot."""

_WRONG_PIN: Final = "998877"


def _tokens(lab: Lab, host: Host, kind: str, *, remote: bool = False) -> Tokens:
    """
    Make a host's tokens.

    @param lab: the stage.
    @param host: whose.
    @param kind: C{tpm2} or C{pkcs11}.
    @param remote: whether PKCS#11 leads to a server.
    @return: the tokens.
    """
    made = Tokens(DIRECTORY / host.name, remote=remote)
    lab.closing(made)
    if kind == "tpm2":
        made.startTPM()
    else:
        made.makeToken(_LABEL)
    if remote:
        made.startServer()
    return made


def _process(tokens: Tokens, kind: str) -> tuple[str, Callable[[], None]]:
    """
    Say which process is the token.

    @param tokens: the host's.
    @param kind: C{tpm2} or C{pkcs11}.
    @return: its name, and what starts it.
    """
    return {"tpm2": ("tpm", tokens.startTPM), "pkcs11": ("server", tokens.startServer)}[kind]


class _Away:
    """
    A server whose key is in a token that goes away, and comes back.

    @ivar agent: the server's agent.
    """

    def __init__(self, lab: Lab, kind: str, *, workers: int = 1) -> None:
        """
        @param lab: the stage, with both hosts and agents when this returns.
        @param kind: C{tpm2} or C{pkcs11}.
        @param workers: how many the server's agent has; several share a device.
        """
        host, client = lab.twoHosts()
        self._tokens = _tokens(lab, host, kind, remote=kind == "pkcs11")
        own = _identity(self._tokens, "server", kind)
        self._process, self._start = _process(self._tokens, kind)
        prefix = self._tokens.prefix()
        if workers > 1 and kind == "tpm2":
            prefix = self._tokens.prefixWithDevice()
        text = section("ktlsagent", {"workers": str(workers)}) + roles({}, own)
        self.agent = lab.agent(host, text=text, prefix=prefix)
        lab.agent(client)
        lab.listening()
        self._ready = time.monotonic()
        lab.server(host, "mtls")

    def takeAway(self) -> None:
        """Take the token away."""
        self._tokens.stop(self._process)

    def bringBack(self) -> None:
        """Bring the token back."""
        self._start()

    def outlast(self) -> None:
        """Wait until the agent is old enough to renew itself."""
        time.sleep(max(0.0, self._ready + _SHORTEST_LIFE - time.monotonic()))


def _identity(tokens: Tokens, role: str, kind: str, algorithm: str = "EC") -> dict[str, str]:
    """
    Make a key in a token, and have a certificate issued for it.

    @param tokens: the host's.
    @param role: C{server} or C{client}.
    @param kind: C{tpm2} or C{pkcs11}.
    @param algorithm: C{EC} or C{RSA}.
    @return: the keys of a section that name both.
    """
    name = f"{role}-{algorithm}"
    subject = f"{algorithm.lower()}.{role}.lab"
    names = (subject, *(SERVER if role == "server" else CLIENT).names)
    if kind == "tpm2":
        key = str(tokens.tpmKey(name, algorithm))
        files = {"x509.certificate": tokens.certify(name, key, names)}
    else:
        key = tokens.generateKey(_LABEL, name, algorithm)
        files = {
            "x509.certificate": tokens.certify(name, key, names, PIN),
            "token_pin": str(tokens.pinFile(_LABEL)),
        }
    return {**files, "x509.private_key": key}


def _expectNoPin(lab: Lab) -> None:
    """
    Check that no log has a PIN.

    @param lab: the stage.
    """
    for agent in lab.agents:
        for pin in (f" {PIN} ", _WRONG_PIN):
            expect(f"a PIN in the log of {agent.name}", pin in agent.log(), False)


def _failed(agent: Agent) -> list[HandshakeLine]:
    """
    Return the handshakes that have failed.

    @param agent: the server's agent.
    @return: their lines.
    """
    return [line for line in agent.handshakes() if line.outcome == "failed"]


def _untilServed(lab: Lab) -> int:
    """
    Send clients until one is served.

    @param lab: the stage.
    @return: how many it took.
    @raise Unexpected: if it takes too many.
    """
    outcomes = []
    while "ok" not in outcomes:
        outcomes.append(peers.outcome(lab.hosts[1]))
        if len(outcomes) > _MOST_CLIENTS:
            raise Unexpected(f"expected that one of these clients is served: {outcomes}")
    return len(outcomes)


def used(lab: Lab, kind: str) -> None:
    """
    Both ends have their keys in tokens: one an EC key, one an RSA key, and then
    the other way round.

    @param lab: the stage.
    @param kind: C{tpm2} or C{pkcs11}.
    """
    serverHost, clientHost = lab.twoHosts()
    agents, texts = [], []
    for host, algorithms in ((serverHost, ("EC", "RSA")), (clientHost, ("RSA", "EC"))):
        tokens = _tokens(lab, host, kind)
        own = [_identity(tokens, host.name, kind, algorithm) for algorithm in algorithms]
        texts.append([roles(keys, keys) for keys in own])
        agents.append(lab.agent(host, text=texts[-1][0], prefix=tokens.prefix()))
    lab.listening()
    lab.server(serverHost, "mtls")
    for subjects in (("rsa.client.lab", "ec.server.lab"), ("ec.client.lab", "rsa.server.lab")):
        with lab.mounted(clientHost, "3", "mtls") as mount:
            written = writeFile(mount.path / "data", 1)
            expect("SHA-256", readFile(mount.path / "data"), written)
            expect("kTLS", bool(ktls.sessions(clientHost)), True)
            for agent, text, subject in zip(agents, texts, subjects, strict=True):
                agent.nextHandshake().expect("ok", subject=f"CN={subject}")
                expect("refusal of the others", "refused" in agent.reload(text[1]), False)
    lab.recordHandshakes()
    _expectNoPin(lab)


def gone(lab: Lab, kind: str) -> None:
    """
    What a server's key is in goes away, and comes back: in between clients are
    refused in time, for a reason; afterwards they are served, although OpenSSL's
    provider has lost the token for good: the agent renews itself.

    @param lab: the stage.
    @param kind: C{tpm2} or C{pkcs11}.
    """
    token = _Away(lab, kind)
    agent, clientHost = token.agent, lab.hosts[1]
    with lab.mounted(clientHost, "3", "mtls"):
        agent.nextHandshake().expect("ok")
    if kind == "tpm2":
        # Started again before anybody asked, it has lost the key, which is loaded anew.
        token.takeAway()
        token.bringBack()
        lab.facts["clients until the key was loaded anew"] = _untilServed(lab)
    number = len(_failed(agent))
    token.takeAway()
    found = refusal(clientHost, "3", "mtls", "server.lab", "timeo=30", "retrans=0")
    expect("mount without the token", found, "ETIMEDOUT")
    expect("client without the token", peers.outcome(clientHost) != "ok", True)
    refused = until(
        lambda: _failed(agent)[number + 1 :] and _failed(agent)[number:], "both were refused"
    )
    lab.facts["codes"] = [line.fields["code"] for line in refused]
    lab.facts["alerts"] = [line.fields["alert-sent"] for line in refused]
    lab.facts["reasons"] = sorted({line.fields["reason"] for line in refused})
    for line in refused:
        line.expect("failed", status="ETIMEDOUT", alert_sent="-")
        expect("code", line.fields["code"], "token-failed", "token-unavailable")
        if line.milliseconds > _NFSD_SECONDS * 1000:
            raise Unexpected(f"longer than nfsd waits: {dict(line.fields)}")
    token.outlast()
    since = len(agent.log())
    token.bringBack()
    started = time.monotonic()
    lab.facts["clients until the token was back"] = _untilServed(lab)
    lab.facts["back-s"] = round(time.monotonic() - started, 2)
    agent.waitForLog(_RENEWS, since)
    with lab.mounted(clientHost, "3", "mtls"):
        agent.waitForHandshake(len(agent.handshakes())).expect("ok")
    _expectNoPin(lab)


def survived(lab: Lab, kind: str) -> None:
    """
    A client that writes has to connect again while the server's token is away: the
    file is written all the same, once the token is back, as if nothing had been.

    @param lab: the stage.
    @param kind: C{tpm2} or C{pkcs11}.
    """
    token = _Away(lab, kind)
    agent, (serverHost, clientHost) = token.agent, lab.hosts
    with (
        lab.mounted(clientHost, "3", "mtls", "server.lab", "hard") as mount,
        ThreadPoolExecutor(1) as pool,
    ):
        writeFile(mount.path / "before", 1)
        token.takeAway()
        for threads in ("0", "8"):
            serverHost.call("rpc.nfsd", "--nfs-version", "3", threads)
        writing = pool.submit(writeFile, mount.path / "meanwhile", 1)
        until(lambda: len(_failed(agent)) > 2, "handshakes without the token", 30.0)
        lab.facts["codes"] = [line.fields["code"] for line in _failed(agent)]
        lab.facts["alerts"] = [line.fields["alert-sent"] for line in _failed(agent)]
        token.outlast()
        token.bringBack()
        started = time.monotonic()
        written = writing.result()
        lab.facts["back-s"] = round(time.monotonic() - started, 2)
        expect("SHA-256", readFile(mount.path / "meanwhile"), written)
    lab.facts["renewals"] = agent.starts() - 1
    _expectNoPin(lab)


def shared(lab: Lab, kind: str) -> None:
    """
    Two workers use the same token, each in a way of its own.  It goes away and comes
    back: those that have lost it are replaced.

    @param lab: the stage.
    @param kind: C{tpm2} or C{pkcs11}.
    """
    token = _Away(lab, kind, workers=2)
    agent, clientHost = token.agent, lab.hosts[1]
    for place in _PLACES:
        with _alone(agent, place):
            _mountMany(lab, clientHost)
    served = Counter(re.findall(r"worker=(\d)\] handshake ok", agent.log()))
    lab.facts["handshakes of each"] = dict(served)
    expect("workers that have served", len(served), 2)
    expect("handshakes that failed", len(_failed(agent)), 0)
    token.takeAway()
    for place in _PLACES:
        with _alone(agent, place):
            while place not in re.findall(r"worker=(\d)\] handshake failed", agent.log()):
                peers.outcome(clientHost)
    token.outlast()
    token.bringBack()
    outcomes = []
    turns = cycle(_PLACES)

    def replaced() -> bool:
        with _alone(agent, next(turns)):
            outcomes.append(peers.outcome(clientHost))
        return len(re.findall(r" in a token can be used, ", agent.log())) >= 4

    until(replaced, "two more workers have their key", 60.0)
    lab.facts["clients until both were replaced"] = outcomes
    _mountMany(lab, clientHost)
    _expectNoPin(lab)


@contextmanager
def _alone(agent: Agent, place: str) -> Iterator[None]:
    """
    Have one of two workers get all requests: on one processor the first one would get them
    otherwise.

    @param agent: the agent.
    @param place: which worker.
    """
    (other,) = (pid for number, pid in agent.workers.items() if number != place)
    with paused(other):
        yield


def _mountMany(lab: Lab, host: Host) -> None:
    """
    Mount with many connections.

    @param lab: the stage.
    @param host: the client.
    """
    for _time in range(3):
        with lab.mounted(host, "4.2", "mtls", "server.lab", "nconnect=8") as mount:
            lab.facts.setdefault("mount-s", []).append(round(mount.seconds, 2))


def slow(lab: Lab, kind: str) -> None:
    """
    A token that says nothing any more holds up the handshakes that need it, up to
    their deadline, and no others.

    @param lab: the stage.
    @param kind: C{tpm2} or C{pkcs11}.
    """
    serverHost, clientHost = lab.twoHosts()
    tokens = _tokens(lab, serverHost, kind, remote=kind == "pkcs11")
    own = _identity(tokens, "server", kind)
    # Clients that come by IPv6 are served with a key from a file.
    plain = section("profile.plain", {"role": "server", "peer": "fd00::/16"}, identity("server"))
    agent = lab.agent(serverHost, text=plain + roles({}, own), prefix=tokens.prefix())
    lab.agent(clientHost)
    lab.listening()
    lab.server(serverHost, "mtls")
    expect("client with the token", peers.outcome(clientHost), "ok")
    with tokens.hanging({"tpm2": "tpm", "pkcs11": "server"}[kind]):
        waiting = threading.Thread(target=peers.outcome, args=(clientHost,))
        started = time.monotonic()
        waiting.start()
        time.sleep(0.3)
        seconds = []
        for _ in range(3):
            with lab.mounted(clientHost, "3", "mtls", "[fd00::1]") as mount:
                seconds.append(round(mount.seconds, 2))
        lab.facts["mount-s meanwhile"] = seconds
        expect("the other client waits still", waiting.is_alive(), True)
        waiting.join()
        lab.facts["waited-s"] = round(time.monotonic() - started, 2)
    _expectSlow(lab, agent)
    # What nobody waits for any more is signed first.
    lab.facts["clients until the token is back"] = _untilServed(lab)


def _expectSlow(lab: Lab, agent: Agent) -> None:
    """
    Check the lines of the handshakes.

    @param lab: the stage.
    @param agent: the server's agent.
    """
    agent.waitForHandshake(5)
    lines = agent.handshakes()
    for line in lines:
        if line.fields["profile"] == "profile.plain":
            line.expect("ok")
    failed = _failed(agent)
    expect("handshakes that failed", len(failed), 1)
    failed[0].expect("failed", code="token-slow", profile="authenticate.server", status="ETIMEDOUT")
    lab.facts["reason"] = failed[0].fields["reason"]
    if failed[0].milliseconds > _NFSD_SECONDS * 1000:
        raise Unexpected(f"longer than nfsd waits: {dict(failed[0].fields)}")


def locked(lab: Lab) -> None:
    """
    The PIN is wrong, then right.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    tokens = _tokens(lab, serverHost, "pkcs11")
    own = _identity(tokens, "server", "pkcs11")
    tokens.pinFile(_LABEL, _WRONG_PIN)
    agent = lab.agent(serverHost, text=roles({}, own), prefix=tokens.prefix())
    lab.agent(clientHost)
    lab.listening()
    lab.server(serverHost, "mtls")
    found = refusal(clientHost, "3", "mtls", "server.lab", "timeo=30", "retrans=0")
    expect("mount with a wrong PIN", found, "EACCES")
    expect("client with a wrong PIN", peers.outcome(clientHost) != "ok", True)
    # A client has its alert before the line is written.
    agent.waitForHandshake(2)
    for line in agent.handshakes():
        line.expect("failed", code="pin-refused", status="ENOKEY", alert_sent="internal_error")
    lab.facts["reason"] = agent.handshakes()[0].fields["reason"]
    tokens.pinFile(_LABEL)
    number = len(agent.handshakes())
    with lab.mounted(clientHost, "3", "mtls"):
        agent.waitForHandshake(number + 1).expect("ok")
    _expectNoPin(lab)
