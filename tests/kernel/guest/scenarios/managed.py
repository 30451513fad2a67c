"""The agent under a real systemd: restarted, killed and stopped while somebody mounts."""

from __future__ import annotations

import re
import time
from pathlib import Path

from tests.kernel.guest.agents import configuration
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import refusal
from tests.kernel.guest.peers import RpcClient
from tests.kernel.guest.scenarios.restarting import Mounting, untilGivenUp
from tests.kernel.guest.units import ManagedAgent, shown
from tests.kernel.guest.waiting import expect

_PAUSE = 0.1
_TIMES = 8
_NET_ADMIN = 1 << 12


def _begin(lab: Lab, workers: str) -> tuple[Host, ManagedAgent]:
    """
    Start the unit, and an NFS server.

    @param lab: the stage.
    @param workers: how many workers the agent has.
    @return: the host, and the agent.
    """
    host = lab.oneHost()
    agent = lab.agent(host, text=configuration(workers=workers), agentClass=ManagedAgent)
    assert isinstance(agent, ManagedAgent)
    lab.server(host, "mtls")
    return host, agent


def restarted(lab: Lab, workers: str) -> None:
    """
    The unit is restarted eight times, each time while a peer stalls: that costs no
    mount, nobody waits for the peer, and it gets its answer.

    @param lab: the stage.
    @param workers: how many workers the agent has.
    """
    host, agent = _begin(lab, workers)
    mounting = Mounting(host)
    seconds = []
    stalled = []
    for _time in range(_TIMES):
        stalled.append(lab.closing(RpcClient(host)))
        time.sleep(_PAUSE)
        mounts = len(mounting.seconds)
        started = time.monotonic()
        agent.restart()
        seconds.append(round(time.monotonic() - started, 2))
        mounting.waitForMore(mounts)
    lab.facts["restart-s"] = seconds
    mounting.finish(lab)
    expect("what stalled peers saw", {one.ending() for one in stalled}, {"eof"})
    untilGivenUp(agent, _TIMES)
    expect("starts", agent.starts(), _TIMES + 1)
    if "is not used" in agent.log():
        expect("the socket that was held", "not used", "used")


def killed(lab: Lab, workers: str) -> None:
    """
    The unit's main process is killed eight times: that costs no mount.  Workers finish
    what they have begun, and say so.

    @param lab: the stage.
    @param workers: how many workers the agent has.
    """
    host, agent = _begin(lab, workers)
    stalled = lab.closing(RpcClient(host))
    mounting = Mounting(host)
    for _time in range(_TIMES):
        time.sleep(_PAUSE)
        mounts = len(mounting.seconds)
        agent.killMain()
        mounting.waitForMore(mounts)
    mounting.finish(lab)
    expect("starts", agent.starts(), _TIMES + 1)
    expect("what the stalled peer saw", stalled.ending(), "eof")
    if workers != "1":
        untilGivenUp(agent, 1)


def stopped(lab: Lab) -> None:
    """
    The unit has one capability and serves both ends of a mount; once it is stopped,
    its socket is not held, and a mount fails at once.

    @param lab: the stage.
    """
    host, agent = _begin(lab, "1")
    with lab.mounted(host, "4.2", "mtls") as mount:
        lab.facts["mount-s"] = round(mount.seconds, 2)
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    found = dict(re.findall(r"^(\w+):\s+(\S+)", status, re.MULTILINE))
    expect("capabilities that it can have", int(found["CapBnd"], 16), _NET_ADMIN)
    expect("no new privileges", found["NoNewPrivs"], "1")
    expect("filtered system calls", found["Seccomp"], "2")
    limits = Path(f"/proc/{agent.process.pid}/limits").read_text()
    expect("core dumps", re.findall(r"Max core file size +(\d+) +(\d+)", limits), [("0", "0")])
    owner = Path(f"/proc/{agent.process.pid}/mem").stat().st_uid
    expect("whose its memory is", owner, 0)
    mounts = Path(f"/proc/{agent.process.pid}/mountinfo").read_text()
    expect("whether /usr can be written", " / / ro," in mounts, True)
    expect("what is held", shown("NFileDescriptorStore"), "1")
    agent.stop()
    expect("what is held after a stop", shown("NFileDescriptorStore"), "0")
    expect("a mount after a stop", refusal(host, "4.2", "mtls"), "ESRCH")
