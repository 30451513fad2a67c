"""
NVMe/TCP connections that must fail, and how: what either agent logs, what is on the
wire, what nvme says, and whether the kernel tries again.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import keyutils

from tests.kernel.guest import nvme
from tests.kernel.guest.agents import KTLSAGENT, Agent
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.waiting import Unexpected, expect, until

_AT_ONCE = 5.0
_ALERT = 0x15
_HANDSHAKE = 0x16
_ICREQ = struct.pack("<BBBBI", 0, 0, 128, 0, 128) + bytes(120)
"""What a host without TLS begins with: an NVMe/TCP initialize-connection request."""


_FINAL = "[debug]\nloglevel=1\n\n[authenticate.server]\npsk_alert=unknown_psk_identity\n"
"""The configuration of a target that tells hosts that their keys do not come back."""


class _Pair:
    """
    A target and a host with an agent each.

    @ivar host: where controllers are.
    @ivar agents: by C{target} and C{host}.
    """

    def __init__(self, lab: Lab, kind: str = KTLSAGENT, text: str = "") -> None:
        """
        Start everything, and listen.

        @param lab: the stage.
        @param kind: both agents.
        @param text: the configuration of the target's.
        """
        self._lab = lab
        self.targetHost, self.host = nvme.twoHosts(lab)
        self.agents = {
            "target": nvme.agent(lab, self.targetHost, kind, text),
            "host": nvme.agent(lab, self.host, kind),
        }
        lab.listening()
        self.target: nvme.Target = lab.closing(nvme.Target(self.targetHost))

    def refused(self, said: str, *options: str, tls: bool = True) -> None:
        """
        Try to connect, and note how that fails.

        @param said: what the kernel has to say about it, if ktlsagent serves it.
        @param options: of C{nvme connect}.
        @param tls: whether to ask for TLS.
        """
        refused = nvme.refusal(self.host, *options, tls=tls)
        self._lab.facts["nvme says"] = refused.output
        self._lab.facts["seconds"] = round(refused.seconds, 2)
        self._lab.facts["kernel says"] = lines = nvme.kernelSaid()
        if self.agents["host"].kind == KTLSAGENT and not any(said in line for line in lines):
            raise Unexpected(f"expected the kernel to say '{said}', found {lines}")

    def expect(self, side: str, **expected: str) -> None:
        """
        Check ktlsagent's last line about a handshake.

        @param side: C{target} or C{host}.
        @param expected: fields; an underscore in a name is a dash in the log.
        """
        agent = self.agents[side]
        if agent.kind != KTLSAGENT:
            self._lab.facts[f"{side} log"] = agent.log().splitlines()[-2:]
            return
        agent.waitForHandshake()
        line = agent.handshakes()[-1]
        self._lab.facts[f"{side} line"] = dict(line.fields)
        expect(f"outcome at the {side}", line.outcome, "failed")
        for name, value in expected.items():
            field = name.replace("_", "-")
            expect(f"{field} at the {side}", line.fields.get(field), value)

    def expectNothing(self, side: str) -> None:
        """
        Check that ktlsagent was not asked.

        @param side: C{target} or C{host}.
        """
        if self.agents[side].kind == KTLSAGENT:
            expect(f"handshakes at the {side}", self.agents[side].handshakes(), [])


def unknownIdentity(lab: Lab, kind: str = KTLSAGENT) -> None:
    """
    The host has a key that the target does not know.

    @param lab: the stage.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind)
    present = nvme.generate()
    own = nvme.ownKey(nvme.anyIdentity())
    pair.refused("TLS handshake complete, error -13", f"--tls_key={own.serial}")
    pair.expect(
        "target", code="unknown-identity", identity=own.identity, alert_sent="decrypt_error"
    )
    pair.expect(
        "host",
        code="alert-decrypt-error",
        identity=own.identity,
        alert_received="decrypt_error",
        status="EACCES",
    )
    if kind == KTLSAGENT:
        reason = lab.facts["target line"]["reason"]
        expect("the reason names the identity that is present", present.identity in reason, True)


def prefixIdentity(lab: Lab) -> None:
    """
    The target has a key whose identity only begins with the one that is offered.

    @param lab: the stage.
    """
    pair = _Pair(lab)
    present = nvme.generate()
    own = nvme.ownKey(present.identity[:-8], payload=keyutils.read_key(present.serial))
    pair.refused("TLS handshake complete, error -13", f"--tls_key={own.serial}")
    pair.expect("target", code="unknown-identity", alert_sent="decrypt_error")
    pair.expect("host", status="EACCES")


def wrongKey(lab: Lab, hmac: int, kind: str = KTLSAGENT) -> None:
    """
    Both have a key of the same identity, but not the same key.

    @param lab: the stage.
    @param hmac: NVMe's number of the hash.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind)
    own = nvme.ownKey(nvme.generate(hmac).identity, hmac)
    pair.refused("TLS handshake complete, error -13", f"--tls_key={own.serial}")
    pair.expect(
        "target",
        code="wrong-key",
        identity=own.identity,
        alert_sent="decrypt_error",
        status="EACCES",
    )
    pair.expect(
        "host",
        code="alert-decrypt-error",
        identity=own.identity,
        alert_received="decrypt_error",
        status="EACCES",
    )


_SOMEBODY = 65533
_EVERYTHING = 0x3F3F3F3F


def _forgeKeyring(name: str, identity: str, payload: bytes) -> None:
    """
    Make a keyring of one's own with a key in it, and another key whose description is a
    line in the list of all keys: it says that the keyring is root's.

    @param name: the name that the keyring is to have.
    @param identity: that of the key.
    @param payload: the key.
    """
    home = keyutils.KEY_SPEC_PROCESS_KEYRING
    ring: int = keyutils.add_key(b"mine", None, home, b"keyring")
    line = f"forged\n{ring:08x} I--Q---     1 perm 3f030000     0     0 keyring   {name}"
    keys = (
        keyutils.add_key(identity.encode(), payload, ring),
        keyutils.add_key(line.encode(), b"nothing", home),
        ring,
    )
    for serial in keys:
        keyutils.set_perm(serial, _EVERYTHING)


def forgedKeyring(lab: Lab) -> None:
    """
    A user of the target makes a keyring that is listed as root's C{backup}, which the
    target's agent looks into: the user's own key, which the host uses, opens no session.

    @param lab: the stage.
    """
    target, host = nvme.twoHosts(lab)
    agents = {
        "target": nvme.agent(lab, target, text="[authenticate]\nkeyrings=backup\n"),
        "host": nvme.agent(lab, host),
    }
    lab.listening()
    lab.closing(nvme.Target(target))
    identity, payload = nvme.anyIdentity(), os.urandom(48)
    ready, done = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(ready)
            os.setgroups([])
            os.setresgid(_SOMEBODY, _SOMEBODY, _SOMEBODY)
            os.setresuid(_SOMEBODY, _SOMEBODY, _SOMEBODY)
            _forgeKeyring("backup", identity, payload)
            os.write(done, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(done)
    try:
        expect("the user has made the keys", os.read(ready, 1), b"1")
        listed = Path("/proc/keys").read_text(encoding="utf-8", errors="replace")
        lab.facts["listed"] = [line for line in listed.splitlines() if "backup" in line]
        expect("lines that name the keyring", len(lab.facts["listed"]), 1)
        own = nvme.ownKey(identity, payload=payload)
        lab.facts["nvme says"] = nvme.refusal(host, f"--tls_key={own.serial}").output
        agents["target"].waitForHandshake()
        line = agents["target"].handshakes()[-1]
        lab.facts["target line"] = dict(line.fields)
        expect("code at the target", line.fields.get("code"), "unknown-identity")
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def missingKey(lab: Lab, kind: str = KTLSAGENT) -> None:
    """
    The host has no key: the kernel itself refuses, and nobody is asked.

    @param lab: the stage.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind)
    pair.refused("no valid PSK found")
    for side in pair.agents:
        pair.expectNothing(side)


def revokedAtTarget(lab: Lab, kind: str = KTLSAGENT) -> None:
    """
    The target's key was revoked; the host still has a copy.

    @param lab: the stage.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind)
    shared = nvme.generate()
    own = nvme.ownKey(shared.identity, payload=keyutils.read_key(shared.serial))
    keyutils.revoke(shared.serial)
    pair.refused("TLS handshake complete, error -13", f"--tls_key={own.serial}")
    pair.expect("target", code="unknown-identity", alert_sent="decrypt_error")
    pair.expect("host", code="alert-decrypt-error", status="EACCES")


def revokedAtHost(lab: Lab, kind: str = KTLSAGENT) -> None:
    """
    The key that the host is to use was revoked.

    @param lab: the stage.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind)
    shared = nvme.generate()
    own = nvme.ownKey(shared.identity, payload=keyutils.read_key(shared.serial))
    keyutils.revoke(own.serial)
    pair.refused(f"key id {own.serial:08x} not found", f"--tls_key={own.serial}")
    lab.facts["host log"] = pair.agents["host"].log().splitlines()[-1]


def unreadableAtHost(lab: Lab, kind: str = KTLSAGENT) -> None:
    """
    The host's key may not be read by its agent.

    @param lab: the stage.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind)
    own = nvme.ownKey(nvme.generate().identity, readable=False)
    pair.refused("TLS handshake complete, error -13", f"--tls_key={own.serial}")
    pair.expect("host", code="key-forbidden", status="EACCES")
    if kind == KTLSAGENT:
        reason = lab.facts["host line"]["reason"]
        expect("the reason names the key", str(own.serial) in reason, True)


def unreadableAtTarget(lab: Lab, kind: str = KTLSAGENT) -> None:
    """
    The target's key may not be read by its agent.

    @param lab: the stage.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind)
    shared = nvme.generate()
    own = nvme.ownKey(shared.identity, payload=keyutils.read_key(shared.serial))
    nvme.hide(shared.serial)
    pair.refused("TLS handshake complete, error -13", f"--tls_key={own.serial}")
    pair.expect("target", code="key-forbidden", alert_sent="decrypt_error", status="EACCES")
    pair.expect("host", code="alert-decrypt-error", status="EACCES")


def withoutTls(lab: Lab, kind: str = KTLSAGENT) -> None:
    """
    A host without C{--tls} meets a port that demands it.

    @param lab: the stage.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind)
    nvme.generate()
    pair.refused("failed to receive icresp", tls=False)
    pair.expect("target", code="not-tls", status="EACCES")
    pair.expectNothing("host")


def plainTextHost(lab: Lab, kind: str = KTLSAGENT) -> None:
    """
    A user-space host speaks NVMe/TCP in clear; the next host is served.

    @param lab: the stage.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind)
    psk = nvme.generate()
    with pair.host.network(), socket.create_connection(("10.0.0.1", nvme.PORT), 15.0) as plain:
        plain.sendall(_ICREQ)
        answer = b""
        try:
            answer = plain.recv(1 << 12)
        except ConnectionResetError:
            lab.facts["ending"] = "reset"
        lab.facts["answer"] = answer.hex(" ")
    pair.expect("target", code="not-tls", status="EACCES")
    if kind == KTLSAGENT:
        # Nothing but the alert in clear, if that.
        expect("first octet of the answer", answer[:1], b"", bytes([_ALERT]))
    controller: nvme.Controller = lab.closing(nvme.Controller(pair.host))
    expect("tls_key in sysfs", controller.serial, psk.serial)


class _PlainTarget:
    """
    A user-space target that answers in clear.

    @ivar greeting: the first octets of what its hosts said.
    """

    def __init__(self, host: Host) -> None:
        """
        Listen.

        @param host: where.
        """
        self.greeting = b""
        with host.network():
            self._listener = socket.create_server(("10.0.0.1", nvme.PORT))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        """Answer one connection."""
        connection, _ = self._listener.accept()
        with connection:
            self.greeting = connection.recv(1 << 12)
            connection.sendall(bytes([1]) + _ICREQ[1:])
            while connection.recv(1 << 12):
                pass

    def close(self) -> None:
        """Close everything."""
        self._listener.close()


def plainTextTarget(lab: Lab) -> None:
    """
    A user-space target answers the ClientHello in clear.

    @param lab: the stage.
    """
    targetHost, outer = nvme.twoHosts(lab)
    agent = nvme.agent(lab, outer)
    lab.listening()
    nvme.generate()
    target = lab.closing(_PlainTarget(targetHost))
    lab.facts["nvme says"] = nvme.refusal(outer).output
    expect("first octet of the host", target.greeting[:1], bytes([_HANDSHAKE]))
    line = agent.waitForHandshake()
    lab.facts["host line"] = dict(line.fields)
    expect("code", line.fields["code"], "not-tls")
    expect("status", line.fields["status"], "EACCES")


def agentAbsent(lab: Lab, side: str) -> None:
    """
    One side has no agent.

    @param lab: the stage.
    @param side: C{target} or C{host}.
    """
    pair = _Pair(lab)
    nvme.generate()
    pair.agents[side].stop()
    pair.refused({"host": "failed to start TLS: -3", "target": "failed to start TLS, err=-3"}[side])
    if lab.facts["seconds"] > _AT_ONCE:
        raise Unexpected(f"expected a failure at once, found one in {lab.facts['seconds']} s")


def agentStopped(lab: Lab, side: str) -> None:
    """
    One side's agent does not move: the kernel gives up after ten seconds; the agent
    that moves again is as good as new.

    @param lab: the stage.
    @param side: C{target} or C{host}.
    """
    pair = _Pair(lab)
    psk = nvme.generate()
    pair.agents[side].process.send_signal(signal.SIGSTOP)
    try:
        pair.refused("error -110")
    finally:
        pair.agents[side].process.send_signal(signal.SIGCONT)
    other = "host" if side == "target" else "target"
    if side == "target":
        pair.expect(other, status="ETIMEDOUT")
    controller: nvme.Controller = lab.closing(nvme.Controller(pair.host))
    expect("tls_key in sysfs", controller.serial, psk.serial)


def _dropped(lab: Lab, pair: _Pair, controller: nvme.Controller) -> None:
    """
    Have a connected controller connect anew, and expect that it is given up.

    @param lab: the stage.
    @param pair: the target and the host.
    @param controller: the controller.
    """
    started = time.monotonic()
    controller.reset()
    controller.waitUntilRemoved()
    lab.facts["removed-s"] = round(time.monotonic() - started, 2)
    lab.facts["kernel says"] = nvme.kernelSaid()[-4:]


def keyRejectedForGood(lab: Lab, kind: str = KTLSAGENT) -> None:
    """
    The target forgets the key of a connected host, and is to say so: EKEYREJECTED ends the
    retries.

    @param lab: the stage.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind, _FINAL if kind == KTLSAGENT else "")
    shared = nvme.generate()
    own = nvme.ownKey(shared.identity, payload=keyutils.read_key(shared.serial))
    controller: nvme.Controller = lab.closing(nvme.Controller(pair.host, f"--tls_key={own.serial}"))
    keyutils.unlink(shared.serial, nvme.keyrings()[".nvme"])
    _dropped(lab, pair, controller)
    pair.expect("host", status="EKEYREJECTED")
    pair.expect("target", code="unknown-identity")


def keyLackedForAWhile(lab: Lab, kind: str = KTLSAGENT) -> None:
    """
    The target lacks the key of a connected host for a while: the host tries again, and is
    back with the key.

    @param lab: the stage.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind)
    shared = nvme.generate()
    payload = keyutils.read_key(shared.serial)
    own = nvme.ownKey(shared.identity, payload=payload)
    controller: nvme.Controller = lab.closing(nvme.Controller(pair.host, f"--tls_key={own.serial}"))
    ring = nvme.keyrings()[".nvme"]
    keyutils.unlink(shared.serial, ring)
    controller.reset()
    if kind == KTLSAGENT:
        until(lambda: len(_failed(pair.agents["host"])) > 1, "the host tries again", 30.0)
        pair.expect("target", code="unknown-identity", alert_sent="decrypt_error")
    expect("the controller is still there", controller.exists, True)
    keyutils.add_key(shared.identity.encode(), payload, ring, b"psk")
    controller.waitUntilLive(60.0)
    controller.transfer(1)


def keyGoneForGood(lab: Lab, kind: str = KTLSAGENT) -> None:
    """
    The key of a connected host is revoked: ENOKEY ends the retries.

    @param lab: the stage.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind)
    shared = nvme.generate()
    controller: nvme.Controller = lab.closing(nvme.Controller(pair.host))
    keyutils.revoke(shared.serial)
    _dropped(lab, pair, controller)


def retriedWhileStopped(lab: Lab, kind: str = KTLSAGENT) -> None:
    """
    The target's agent stands still while the host connects anew: that is transient,
    and the host is back when the agent is.

    @param lab: the stage.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind)
    nvme.generate()
    controller: nvme.Controller = lab.closing(nvme.Controller(pair.host))
    stopped = pair.agents["target"].process
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        resetting = threading.Thread(target=controller.reset)
        resetting.start()
        if kind == KTLSAGENT:
            until(lambda: _failed(pair.agents["host"]), "the host's handshake fails", 30.0)
            lab.facts["host line"] = dict(_failed(pair.agents["host"])[0])
            expect("status at the host", lab.facts["host line"]["status"], "ETIMEDOUT")
        else:
            time.sleep(12.0)
        expect("the controller is still there", controller.exists, True)
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    controller.waitUntilLive(60.0)
    resetting.join()
    controller.transfer(1)


def _failed(agent: Agent) -> list[Any]:
    """
    Find failed handshakes.

    @param agent: a ktlsagent.
    @return: the fields of each.
    """
    return [line.fields for line in agent.handshakes() if line.outcome == "failed"]


def retriedWhileAbsent(lab: Lab, kind: str = KTLSAGENT) -> None:
    """
    The host's agent is gone while the host connects anew: that is transient, and the
    host is back when there is an agent again.

    @param lab: the stage.
    @param kind: both agents.
    """
    pair = _Pair(lab, kind)
    nvme.generate()
    controller: nvme.Controller = lab.closing(nvme.Controller(pair.host))
    pair.agents["host"].stop()
    controller.reset()
    until(lambda: controller.attribute("state") == "connecting", "the host tries again")
    lab.listening(nvme.agent(lab, pair.host, kind))
    controller.waitUntilLive(60.0)
    controller.transfer(1)
