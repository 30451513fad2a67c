"""NVMe/TCP with pre-shared keys: connections that have to work, and go on working."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

from tests.kernel.guest import ktls, nvme
from tests.kernel.guest.agents import KTLSAGENT, Agent
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.waiting import Unexpected, expect, until

_ALL_QUEUES = ("--nr-io-queues=1", "--nr-write-queues=1", "--nr-poll-queues=1")
"""As many as a machine with one processor can have: three, and the administrative one."""

_BY_KEYRING = """\
[profile.others]
preset=nvme
keyring=others

[profile.disks]
preset=nvme
keyring=.nvme
"""
"""Two profiles, of which the second is for requests with the usual keyring."""


def expectLines(agent: Agent, psk: nvme.Psk, number: int) -> None:
    """
    Check what ktlsagent logged of handshakes that worked.

    @param agent: any agent; others are not looked at.
    @param psk: the key that was used.
    @param number: how many handshakes it has to have served, at least.
    """
    if agent.kind != KTLSAGENT:
        return
    agent.waitForHandshake(number)
    for line in agent.handshakes():
        expect(f"outcome in the log of {agent.name}", line.outcome, "ok")
        expect("mode", line.fields["mode"], "psk")
        expect("identity", line.fields["identity"], psk.identity)
        expect("suite", line.fields["suite"], nvme.SUITES[psk.hmac])
        expect("status", line.fields["status"], "0")


def _serve(
    lab: Lab, target: Host, host: Host, psk: nvme.Psk, options: tuple[str, ...] = ()
) -> nvme.Controller:
    """
    Connect, move data, and look at everything that the kernel says about it.

    @param lab: the stage, with its agents.
    @param target: where the target is to be.
    @param host: where the controller is to be.
    @param psk: the key that has to be used.
    @param options: of C{nvme connect}.
    @return: the controller.
    """
    hosts = {target.name: target, host.name: host}.values()
    before = {each.name: ktls.statistics(each) for each in hosts}
    lab.closing(nvme.Target(target))
    controller: nvme.Controller = lab.closing(nvme.Controller(host, *options))
    lab.facts["connect-ms"] = round(controller.seconds * 1000)
    expect("queues", controller.queues, 4 if options else 2)
    expect("tls_key in sysfs", controller.serial, psk.serial)
    lab.facts["write-MiB/s"] = round(2 / controller.transfer(2), 1)
    ends = 2 if target is host else 1
    for each in hosts:
        found = ktls.sessions(each, nvme.PORT)
        expect(f"TLS sessions of {each.name}", len(found), controller.queues * ends)
        for session in found:
            expect(
                f"session of {each.name}",
                (session.version, session.transmit, session.receive, session.suite),
                ("1.3", "sw", "sw", nvme.SUITES[psk.hmac]),
            )
        after = ktls.statistics(each)
        for name in ("TlsTxSw", "TlsRxSw"):
            rise = after[name] - before[each.name][name]
            expect(f"{name} of {each.name}", rise, controller.queues * ends)
        same = before[each.name]["TlsDecryptError"]
        expect(f"TlsDecryptError of {each.name}", after["TlsDecryptError"], same)
    for agent in lab.agents:
        expectLines(agent, psk, controller.queues * ends)
    lab.recordHandshakes()
    return controller


def alone(lab: Lab, hmac: int, version: int, *, allQueues: bool, kind: str = KTLSAGENT) -> None:
    """
    Target and host in one network, one agent.

    @param lab: the stage.
    @param hmac: NVMe's number of the key's hash.
    @param version: of the identity.
    @param allQueues: whether to use as many queues as there can be.
    @param kind: the agent.
    """
    host = nvme.oneHost(lab)
    agent = nvme.agent(lab, host, kind, _BY_KEYRING if kind == KTLSAGENT else "")
    lab.listening()
    psk = nvme.generate(hmac, version)
    controller = _serve(lab, host, host, psk, _ALL_QUEUES if allQueues else ())
    for line in agent.handshakes():
        expect("profile", line.fields["profile"], "profile.disks")
    lab.facts["identity"] = psk.identity
    expect("tls_mode in sysfs", controller.attribute("tls_mode"), "tls")


def pair(lab: Lab, target: str, host: str, hmac: int) -> None:
    """
    Target and host in two networks, an agent each.

    @param lab: the stage.
    @param target: the target's agent.
    @param host: the host's agent.
    @param hmac: NVMe's number of the key's hash.
    """
    targetHost, outer = nvme.twoHosts(lab)
    nvme.agent(lab, targetHost, target)
    nvme.agent(lab, outer, host)
    lab.listening()
    _serve(lab, targetHost, outer, nvme.generate(hmac)).disconnect()


def connectTimes(lab: Lab, times: int) -> None:
    """
    Measure how long C{nvme connect} takes with either agent on both sides, in turn.

    @param lab: the stage.
    @param times: how often.
    """
    host = nvme.oneHost(lab)
    lab.closing(nvme.Target(host))
    nvme.generate()
    taken: dict[str, list[int]] = {}
    for kind in ("ktlsagent", "tlshd") * 2:
        agent = nvme.agent(lab, host, kind)
        lab.listening(agent)
        for _ in range(times):
            controller = nvme.Controller(host)
            controller.disconnect()
            taken.setdefault(kind, []).append(round(controller.seconds * 1000))
        agent.stop()
    for kind, values in taken.items():
        lab.facts[f"connect-ms {kind} median"] = sorted(values)[len(values) // 2]
        lab.facts[f"connect-ms {kind}"] = values


def _descriptors(agent: Agent) -> int:
    """
    Count what an agent holds open.

    @param agent: the agent.
    @return: how many descriptors.
    """
    return len(os.listdir(f"/proc/{agent.process.pid}/fd"))


def _connected(lab: Lab, kind: str) -> tuple[nvme.Target, Agent, Agent, nvme.Controller]:
    """
    Connect two hosts.

    @param lab: the stage.
    @param kind: both agents.
    @return: the target, its agent, the host's agent, and the controller.
    """
    targetHost, outer = nvme.twoHosts(lab)
    agents = [nvme.agent(lab, each, kind) for each in (targetHost, outer)]
    lab.listening()
    nvme.generate()
    target: nvme.Target = lab.closing(nvme.Target(targetHost))
    controller: nvme.Controller = lab.closing(nvme.Controller(outer))
    return target, agents[0], agents[1], controller


def reset(lab: Lab, times: int, kind: str = KTLSAGENT) -> None:
    """
    Reset the controller again and again; nothing is left behind.

    @param lab: the stage.
    @param times: how often.
    @param kind: both agents.
    """
    _, targetAgent, hostAgent, controller = _connected(lab, kind)
    controller.transfer(1)
    agents = (targetAgent, hostAgent)
    before = [_descriptors(agent) for agent in agents]
    started = time.monotonic()
    for _ in range(times):
        controller.reset()
        controller.waitUntilLive()
    lab.facts["reset-ms"] = round((time.monotonic() - started) * 1000 / times)
    controller.transfer(1)
    _expectHandshakes(agents, 2 * (times + 1))
    expect("open descriptors", [_descriptors(agent) for agent in agents], before)


def portRemoved(lab: Lab, times: int, kind: str = KTLSAGENT) -> None:
    """
    Take the port away and bring it back, again and again.

    @param lab: the stage.
    @param times: how often.
    @param kind: both agents.
    """
    target, targetAgent, hostAgent, controller = _connected(lab, kind)
    agents = (targetAgent, hostAgent)
    before = [_descriptors(agent) for agent in agents]
    serial = controller.serial
    started = time.monotonic()
    for _ in range(times):
        target.deafen()
        until(lambda: controller.attribute("state") != "live", "the host has noticed")
        target.listen()
        controller.waitUntilLive()
        expect("tls_key in sysfs", controller.serial, serial)
    lab.facts["outage-ms"] = round((time.monotonic() - started) * 1000 / times)
    controller.transfer(1)
    _expectHandshakes(agents, 2 * (times + 1))
    expect("open descriptors", [_descriptors(agent) for agent in agents], before)


def _expectHandshakes(agents: tuple[Agent, ...], number: int) -> None:
    """
    Check that ktlsagent served all.

    @param agents: any agents.
    @param number: how many handshakes, at least.
    """
    for agent in agents:
        if agent.kind == KTLSAGENT:
            agent.waitForHandshake(number)
            bad = [line for line in agent.handshakes() if line.outcome != "ok"]
            expect(f"failed handshakes of {agent.name}", bad, [])


def manyAtOnce(lab: Lab, number: int, kind: str = KTLSAGENT) -> None:
    """
    Connect many controllers at once: their requests share a keyring and overlap.

    @param lab: the stage.
    @param number: how many.
    @param kind: both agents.
    """
    targetHost, outer = nvme.twoHosts(lab)
    agents = [nvme.agent(lab, each, kind) for each in (targetHost, outer)]
    lab.listening()
    psk = nvme.generate()
    lab.closing(nvme.Target(targetHost))
    before = [_descriptors(agent) for agent in agents]

    def connect(_number: int) -> nvme.Controller:
        return nvme.Controller(outer, "--duplicate-connect")

    started = time.monotonic()
    with ThreadPoolExecutor(number) as pool:
        controllers: list[nvme.Controller] = list(pool.map(connect, range(number)))
    lab.facts["all-connected-ms"] = round((time.monotonic() - started) * 1000)
    for controller in controllers:
        lab.closing(controller)
        expect("tls_key in sysfs", controller.serial, psk.serial)
    for agent in agents:
        expectLines(agent, psk, 2 * number)
    expect("TLS sessions", len(ktls.sessions(outer, nvme.PORT)), 2 * number)
    expect("open descriptors", [_descriptors(agent) for agent in agents], before)
    if len({controller.name for controller in controllers}) != number:
        raise Unexpected(f"expected {number} controllers, found {controllers}")
