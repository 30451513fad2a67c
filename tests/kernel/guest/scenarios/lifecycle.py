"""Agents that come late, die early, or are told to go while they work."""

from __future__ import annotations

import signal
import threading
import time

from tests.kernel.guest import peers
from tests.kernel.guest.agents import Agent
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import refusal
from tests.kernel.guest.waiting import Unexpected, expect, until

_NFSD_SECONDS = 5.0
"""How long nfsd waits for its agent (C{SVC_HANDSHAKE_TO})."""


def _expectService(lab: Lab, host: Host) -> None:
    """
    Check that a client is served.

    @param lab: the stage.
    @param host: the client.
    """
    client = lab.closing(peers.RpcClient(host))
    client.startTls()
    client.call(7)


def killedInHandshake(lab: Lab) -> None:
    """
    The agent is killed in mid-handshake: nfsd gives the connection up by itself,
    and a new agent serves the next.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    agent = lab.agent(serverHost)
    lab.listening()
    lab.server(serverHost, "mtls")
    peer = lab.closing(peers.RpcClient(clientHost))
    started = time.monotonic()
    until(lambda: _holdsRequest(agent), "the agent has accepted the request")
    agent.kill()
    lab.agent(serverHost)
    lab.listening(lab.agents[-1])
    _expectService(lab, clientHost)
    lab.facts["ending"] = peer.ending()
    lab.facts["nfsd-closed-after-s"] = round(time.monotonic() - started, 2)
    if lab.facts["nfsd-closed-after-s"] > _NFSD_SECONDS + 2:
        raise Unexpected(f"nfsd held the dead connection: {lab.facts}")


def _holdsRequest(agent: Agent) -> bool:
    """
    Say whether an agent holds a TCP socket, which can only be a request's.

    @param agent: the agent.
    @return: true if so.
    """
    listing = agent.host.call(
        "ss", "-Htnp", "state", "established", "( sport = :2049 or dport = :2049 )"
    )
    return f"pid={agent.process.pid}," in listing


def _clients(host: Host, number: int) -> tuple[list[threading.Thread], list[str]]:
    """
    Begin handshakes with a server whose agent does not answer yet.

    @param host: the clients' host.
    @param number: how many.
    @return: their threads, and a list that gets their outcomes.
    """
    outcomes: list[str] = []

    def work() -> None:
        try:
            client = peers.RpcClient(host)
            client.startTls()
            client.call(9)
            client.close()
        except (peers.PeerGone, OSError) as error:
            outcomes.append(str(error))
        else:
            outcomes.append("ok")

    threads = [threading.Thread(target=work, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    until(lambda: _connections(host) >= number, "the clients are connected")
    return threads, outcomes


def _connections(host: Host) -> int:
    """
    Count a client's connections to the server.

    @param host: the client.
    @return: how many.
    """
    listing = host.call("ss", "-Htn", "state", "established", "dport = :2049")
    return len(listing.splitlines())


def restartedWithPending(lab: Lab) -> None:
    """
    The agent is killed while requests wait for it; the next one takes them over.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    stopped = lab.agent(serverHost)
    lab.listening()
    lab.server(serverHost, "mtls")
    stopped.process.send_signal(signal.SIGSTOP)
    threads, outcomes = _clients(clientHost, 3)
    stopped.kill()
    agent = lab.agent(serverHost)
    for thread in threads:
        thread.join()
    expect("clients of requests made before the agent's start", outcomes, ["ok"] * 3)
    agent.waitForHandshake(3)
    lab.recordHandshakes()


def startedAfter(lab: Lab) -> None:
    """
    Requests are older than the agent that answers them; without any agent a mount
    fails at once.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    # It listens, so that the kernel asks, but never answers.
    silent = lab.agent(serverHost)
    lab.listening()
    lab.server(serverHost, "mtls")
    expect("mount without an agent", refusal(clientHost, "4.2", "mtls"), "ESRCH")
    silent.process.send_signal(signal.SIGSTOP)
    threads, outcomes = _clients(clientHost, 3)
    agent = lab.agent(serverHost)
    lab.agent(clientHost)
    for thread in threads:
        thread.join()
    expect("clients of requests made before the agent's start", outcomes, ["ok"] * 3)
    agent.waitForHandshake(3)
    silent.kill()
    lab.listening(*lab.agents[1:])
    with lab.mounted(clientHost, "4.2", "mtls") as mount:
        lab.facts["mount-s"] = round(mount.seconds, 3)
    lab.recordHandshakes()


def _inFlight(lab: Lab) -> tuple[Agent, Host, peers.RpcClient]:
    """
    Have a server's agent hold a request whose client says nothing yet.

    @param lab: the stage.
    @return: the agent, the client's host, and the client.
    """
    serverHost, clientHost = lab.twoHosts()
    agent = lab.agent(serverHost)
    lab.listening()
    lab.server(serverHost, "mtls")
    client = lab.closing(peers.RpcClient(clientHost))
    until(lambda: _holdsRequest(agent), "the agent has accepted the request")
    return agent, clientHost, client


def terminatedInFlight(lab: Lab) -> None:
    """
    SIGTERM comes while a handshake is under way: it is finished, then the agent
    ends, and owes nothing.

    @param lab: the stage.
    """
    agent, _clientHost, client = _inFlight(lab)
    agent.process.send_signal(signal.SIGTERM)
    until(lambda: "stopping:" in agent.log(), "the agent has got the signal")
    client.startTls()
    client.call(4)
    agent.waitUntilEnded()
    expect("handshake", agent.waitForHandshake().outcome, "ok")
    agent.stop()
    lab.recordHandshakes()


def restartedInFlight(lab: Lab) -> None:
    """
    The agent starts again while a handshake is under way: a process of its own
    finishes it, and ends; the new agent serves the next.

    @param lab: the stage.
    """
    agent, clientHost, client = _inFlight(lab)
    agent.process.send_signal(signal.SIGUSR2)
    remainder = agent.waitForLog(r"process \d+ finishes").partition(" finishes")[0].split()[-1]
    client.startTls()
    client.call(4)
    expect("handshake", agent.waitForHandshake().outcome, "ok")
    until(lambda: agent.starts() > 1, "the agent has started again", 60.0)
    if _holdsRequest(agent):
        raise Unexpected("expected the new agent without the old one's sockets, found one")
    until(lambda: int(remainder) not in agent.host.processes(), "the other process has ended")
    _expectService(lab, clientHost)
    expect("the next handshake", agent.waitForHandshake(2).outcome, "ok")


def terminatedWhileStalled(lab: Lab) -> None:
    """
    SIGTERM comes while a peer stalls: the agent ends within that request's
    deadline, after it has answered.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    agent = lab.agent(serverHost)
    lab.listening()
    lab.server(serverHost, "mtls")
    lab.closing(peers.RpcClient(clientHost))
    until(lambda: _holdsRequest(agent), "the agent has accepted the request")
    started = time.monotonic()
    agent.process.send_signal(signal.SIGTERM)
    agent.waitUntilEnded()
    lab.facts["ended-after-s"] = round(time.monotonic() - started, 2)
    agent.stop()
    expect("handshake", agent.waitForHandshake().fields["status"], "ETIMEDOUT")
