"""
NVMe/TCP on the lab's hosts: the kernel's target, its host, and the pre-shared keys
in its keyring.

Target and host are parts of one kernel, with one keyring C{.nvme}: a key that only
the host is to have is in a keyring of the scenario and named by C{tls_key}.
"""

from __future__ import annotations

import base64
import contextlib
import json
import mmap
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import keyutils

from tests.kernel.guest.agents import KTLSAGENT, Agent
from tests.kernel.guest.hosts import CommandFailed, Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.waiting import expect, until
from tests.kernel.guest.warm import WarmAgent

PORT: Final = 4420
SUBSYSTEM: Final = "nqn.2026-01.lab:disk"
HOST_ID: Final = "11111111-2222-3333-4444-555555555555"
HOST_NQN: Final = f"nqn.2014-08.org.nvmexpress:uuid:{HOST_ID}"

SUITES: Final = {1: "TLS_AES_128_GCM_SHA256", 2: "TLS_AES_256_GCM_SHA384"}
"""The suite that both agents prefer for the hash of a key, by NVMe's number of it."""

OWN_SESSION: Final = ("keyctl", "session", "-")
"""
Begins a command that shall possess no keys but those that it finds itself: without
a session keyring of their own, all processes of a user share one, and tlshd and
nvme link keyrings into that.
"""

_BACKING: Final = "/dev/ram0"
_CONFIGURATION: Final = Path("/sys/kernel/config")
_NVMET: Final = _CONFIGURATION / "nvmet"
_CLASS: Final = Path("/sys/class/nvme")
_MODULES: Final = ("nvmet-tcp", "nvme-tcp", "brd", "aesni_intel")
_MIB: Final = 1 << 20
_KEY_LENGTHS: Final = {1: 32, 2: 48}


class OuterHost(Host):
    """
    The machine's own network as a host.

    A controller connects in the network of the process that asks for it, but
    connects again in this one.
    """

    namespaces = ("--mount", "--uts")

    def processes(self) -> list[int]:
        """
        List the processes that entered its mount namespace, without its holder.

        @return: their PIDs.
        """
        own = os.stat(f"/proc/{self.pid}/ns/mnt").st_ino
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}/ns/mnt").st_ino == own and int(name) != self.pid:
                    found.append(int(name))
        return found


def prepare() -> None:
    """Load the modules, and mount what the target is configured by."""
    subprocess.run(["modprobe", "-a", *_MODULES], check=True)
    if not _NVMET.exists():
        subprocess.run(["mount", "-t", "configfs", "configfs", str(_CONFIGURATION)], check=True)


def oneHost(lab: Lab) -> Host:
    """
    Make a host that is its own target.

    @param lab: the stage.
    @return: the host.
    """
    prepare()
    host = lab.host("both", OuterHost)
    host.addAddresses("lo", ["10.0.0.1/32"])
    lab.closing(_Undo(host, "ip", "address", "del", "10.0.0.1/32", "dev", "lo"))
    lab.closing(NvmeKeys())
    return host


def twoHosts(lab: Lab) -> tuple[Host, Host]:
    """
    Make a target's host and the machine's own network, with a cable between them.

    @param lab: the stage.
    @return: the target and the host.
    """
    prepare()
    target = lab.host("target")
    host = lab.host("host", OuterHost)
    cable = ("eth0", "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
    target.call("ip", "link", "add", *cable)
    target.addAddresses("eth0", ["10.0.0.1/24"])
    host.addAddresses("eth0", ["10.0.0.2/24"])
    lab.closing(_Undo(host, "ip", "link", "del", "eth0"))
    lab.closing(NvmeKeys())
    return target, host


def agent(
    lab: Lab, host: Host, kind: str = KTLSAGENT, text: str = "", prefix: Sequence[str] = ()
) -> Agent:
    """
    Start an agent in a session of its own.

    @param lab: the stage.
    @param host: where.
    @param kind: which.
    @param text: its configuration; by default it has no certificates.
    @param prefix: what begins its command besides.
    @return: the agent, which need not listen yet.
    """
    text = text or "[debug]\nloglevel=1\n"
    warm = kind == KTLSAGENT and not prefix
    return lab.agent(host, kind, text, (*OWN_SESSION, *prefix), WarmAgent if warm else Agent)


@dataclass(frozen=True, slots=True)
class _Undo:
    """
    A command that undoes something.

    @ivar host: where it runs.
    @ivar command: the command.
    """

    host: Host
    command: tuple[str, ...]

    def __init__(self, host: Host, *command: str) -> None:
        object.__setattr__(self, "host", host)
        object.__setattr__(self, "command", command)

    def close(self) -> None:
        """Undo it."""
        self.host.call(*self.command)


@dataclass(frozen=True, slots=True)
class Psk:
    """
    A pre-shared key.

    @ivar serial: its serial number.
    @ivar identity: its description, which is the identity on the wire.
    @ivar hmac: NVMe's number of its hash.
    """

    serial: int
    identity: str
    hmac: int


def keyrings() -> dict[str, int]:
    """
    Find the keyrings of the whole system.

    @return: serial numbers by name.
    """
    rows = re.findall(r"^(\w+) .* keyring +(\.\w+):", Path("/proc/keys").read_text(), re.MULTILINE)
    return {name: int(serial, 16) for serial, name in rows}


class NvmeKeys:
    """The keyring C{.nvme}; the scenario possesses what is in there."""

    def __init__(self) -> None:
        """Link it into the process keyring."""
        self.serial = keyrings()[".nvme"]
        keyutils.link(self.serial, keyutils.KEY_SPEC_PROCESS_KEYRING)

    def close(self) -> None:
        """Take everything out of it."""
        keyutils.clear(self.serial)


def generate(hmac: int = 2, version: int = 1) -> Psk:
    """
    Generate a key and put it into C{.nvme}, as an administrator does.

    @param hmac: 1 for SHA-256, 2 for SHA-384.
    @param version: of the identity, 0 or 1.
    @return: the key.
    """
    command = ["nvme", "gen-tls-key", f"--hmac={hmac}", f"--identity={version}", "--insert"]
    command += [f"--hostnqn={HOST_NQN}", f"--subsysnqn={SUBSYSTEM}"]
    done = subprocess.run([*OWN_SESSION, *command], capture_output=True, text=True, check=False)
    inserted = re.search(r"Inserted TLS key (\w+)", done.stdout)
    if inserted is None:
        raise CommandFailed(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    serial = int(inserted[1], 16)
    return Psk(serial, describe(serial), hmac)


def describe(serial: int) -> str:
    """
    Read a key's description.

    @param serial: the key.
    @return: what follows its permissions.
    """
    text: bytes = keyutils.describe_key(serial)
    return text.rstrip(b"\0").decode().split(";", 4)[4]


def anyIdentity(hmac: int = 2) -> str:
    """
    Make an identity of the right form that no key has.

    @param hmac: NVMe's number of the hash.
    @return: the identity.
    """
    digest = base64.b64encode(os.urandom(_KEY_LENGTHS[hmac])).decode()
    return f"NVMe1R{hmac:02} {HOST_NQN} {SUBSYSTEM} {digest}"


def ownKey(identity: str, hmac: int = 2, *, readable: bool = True, payload: bytes = b"") -> Psk:
    """
    Make a key that is not in C{.nvme}, for the host alone.

    @param identity: its identity.
    @param hmac: NVMe's number of its hash.
    @param readable: whether root may read it.
    @param payload: the key itself; random by default.
    @return: the key.
    """
    serial: int = keyutils.add_key(
        identity.encode(),
        payload or os.urandom(_KEY_LENGTHS[hmac]),
        keyutils.KEY_SPEC_PROCESS_KEYRING,
        b"psk",
    )
    rights = keyutils.KEY_POS_ALL | keyutils.KEY_USR_VIEW
    keyutils.set_perm(serial, rights | (keyutils.KEY_USR_READ if readable else 0))
    return Psk(serial, identity, hmac)


def hide(serial: int) -> None:
    """
    Take everybody's right to read a key that this process possesses.

    @param serial: the key.
    """
    # A possessor may read what it may search for.
    readable = keyutils.KEY_POS_READ | keyutils.KEY_POS_SEARCH
    keyutils.set_perm(serial, keyutils.KEY_POS_ALL & ~readable | keyutils.KEY_USR_VIEW)


class Target:
    """
    The kernel's target: one subsystem on a RAM disk, one port.

    @ivar host: where it listens.
    """

    def __init__(self, host: Host, *, required: bool = True) -> None:
        """
        Configure it, and listen.

        @param host: where.
        @param required: whether the port demands TLS or only offers it.
        """
        self.host = host
        self._port = _NVMET / "ports/1"
        self._subsystem = _NVMET / "subsystems" / SUBSYSTEM
        self._namespace = self._subsystem / "namespaces/1"
        self._hostName = _NVMET / "hosts" / HOST_NQN
        self._hostName.mkdir()
        self._subsystem.mkdir()
        (self._subsystem / "attr_allow_any_host").write_text("0")
        (self._subsystem / "allowed_hosts" / HOST_NQN).symlink_to(self._hostName)
        self._namespace.mkdir()
        (self._namespace / "device_path").write_text(_BACKING)
        (self._namespace / "enable").write_text("1")
        self._port.mkdir()
        for name, value in (
            ("adrfam", "ipv4"),
            ("trtype", "tcp"),
            ("traddr", "10.0.0.1"),
            ("trsvcid", str(PORT)),
            ("tsas", "tls1.3"),
            ("treq", "required" if required else "not required"),
        ):
            (self._port / f"addr_{name}").write_text(value)
        self.listen()

    @property
    def _link(self) -> Path:
        """What makes the port listen."""
        return self._port / "subsystems" / SUBSYSTEM

    def listen(self) -> None:
        """Listen, in the host's network."""
        with self.host.network():
            self._link.symlink_to(self._subsystem)

    def deafen(self) -> None:
        """Close the port and all its connections."""
        self._link.unlink()

    def close(self) -> None:
        """Take everything away."""
        with contextlib.suppress(FileNotFoundError):
            self.deafen()
        (self._subsystem / "allowed_hosts" / HOST_NQN).unlink()
        for path in (self._port, self._namespace, self._subsystem, self._hostName):
            path.rmdir()


class ConnectRefused(Exception):
    """
    The kernel did not connect.

    @ivar output: what nvme said.
    @ivar seconds: how long it took.
    """

    def __init__(self, output: str, seconds: float) -> None:
        super().__init__(f"nvme connect failed after {seconds:.2f} s: {output}")
        self.output = output
        self.seconds = seconds


class Controller:
    """
    A connected controller.

    @ivar name: its device, as in C{nvme1}.
    @ivar seconds: how long connecting took.
    """

    def __init__(self, host: Host, *options: str, tls: bool = True) -> None:
        """
        Connect.

        @param host: from where.
        @param options: of C{nvme connect} besides.
        @param tls: whether to use TLS.
        @raise ConnectRefused: if that fails.
        """
        command = ["nvme", "connect", "--transport=tcp", "--traddr=10.0.0.1", f"--trsvcid={PORT}"]
        command += [f"--nqn={SUBSYSTEM}", f"--hostnqn={HOST_NQN}", f"--hostid={HOST_ID}"]
        command += ["--reconnect-delay=1", "--output-format=json", *["--tls"] * tls, *options]
        if not any(option.startswith("--nr-io-queues") for option in options):
            command.append("--nr-io-queues=1")
        self.host = host
        started = time.monotonic()
        done = host.attempt(*OWN_SESSION, *command)
        self.seconds = time.monotonic() - started
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if "session keyring" not in line]
            raise ConnectRefused(" ".join([*said, done.stdout]).strip(), self.seconds)
        self.name: str = json.loads(done.stdout)["device"]

    @property
    def exists(self) -> bool:
        """Whether the kernel still has it."""
        return (_CLASS / self.name).exists()

    def attribute(self, name: str) -> str:
        """
        Read what sysfs says about it.

        @param name: the attribute.
        @return: its value; empty if the controller is no more.
        """
        try:
            return (_CLASS / self.name / name).read_text().strip()
        except OSError:
            return ""

    @property
    def serial(self) -> int:
        """The serial number of the key that sysfs says it uses."""
        return int(self.attribute("tls_key") or "0", 16)

    @property
    def queues(self) -> int:
        """How many queues it has, the administrative one included."""
        return int(self.attribute("queue_count"))

    def waitUntilLive(self, seconds: float = 30.0) -> None:
        """
        Wait until it is connected.

        @param seconds: how long.
        """
        until(lambda: self.attribute("state") == "live", f"{self.name} is live", seconds)

    def waitUntilRemoved(self, seconds: float = 30.0) -> None:
        """
        Wait until the kernel has given it up.

        @param seconds: how long.
        """
        until(lambda: not self.exists, f"{self.name} is removed", seconds)

    def reset(self) -> None:
        """Have it connect anew; returns when that is done or has failed."""
        with contextlib.suppress(OSError):
            (_CLASS / self.name / "reset_controller").write_text("1")

    def transfer(self, mebibytes: int = 2) -> float:
        """
        Write random data, read it back, and compare both with the RAM disk.

        @param mebibytes: how much.
        @return: the seconds that writing took.
        """
        # The device has the name of the path to the namespace, and comes later.
        device = Path(f"/dev/{self.name}n1")
        until(device.exists, f"{device} exists")
        data = os.urandom(mebibytes * _MIB)
        started = time.monotonic()
        _writeDirect(device, data)
        seconds = time.monotonic() - started
        expect("data read back over TLS", _readDirect(device, len(data)) == data, True)
        expect("data on the RAM disk", _readDirect(Path(_BACKING), len(data)) == data, True)
        return seconds

    def disconnect(self) -> None:
        """Disconnect it, unless it is no more."""
        if self.exists:
            self.host.call(*OWN_SESSION, "nvme", "disconnect", f"--device={self.name}")
            self.waitUntilRemoved()

    close = disconnect


def refusal(host: Host, *options: str, tls: bool = True) -> ConnectRefused:
    """
    Try to connect, which has to fail.

    @param host: as for L{Controller}.
    @param options: as for L{Controller}.
    @param tls: as for L{Controller}.
    @return: how it failed.
    """
    try:
        controller = Controller(host, *options, tls=tls)
    except ConnectRefused as refused:
        return refused
    controller.disconnect()
    expect("nvme connect", "connected", "refused")
    raise AssertionError


def _writeDirect(device: Path, data: bytes) -> None:
    """
    Write past the page cache.

    @param device: the block device.
    @param data: whole mebibytes.
    """
    descriptor = os.open(device, os.O_WRONLY | os.O_DIRECT)
    with _aligned() as buffer:
        try:
            for start in range(0, len(data), _MIB):
                buffer[:] = data[start : start + _MIB]
                os.pwrite(descriptor, buffer, start)
        finally:
            os.close(descriptor)


def _readDirect(device: Path, length: int) -> bytes:
    """
    Read past the page cache.

    @param device: the block device.
    @param length: whole mebibytes.
    @return: the data.
    """
    descriptor = os.open(device, os.O_RDONLY | os.O_DIRECT)
    found = b""
    with _aligned() as buffer:
        try:
            for start in range(0, length, _MIB):
                os.preadv(descriptor, [buffer], start)
                found += buffer[:]
        finally:
            os.close(descriptor)
    return found


@contextlib.contextmanager
def _aligned() -> Iterator[mmap.mmap]:
    """Provide a mebibyte that begins at a page."""
    with mmap.mmap(-1, _MIB) as buffer:
        yield buffer


def kernelSaid() -> list[str]:
    """
    Read what the kernel said about NVMe during this scenario.

    @return: its lines.
    """
    done = subprocess.run(["dmesg", "--notime"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if line.startswith(("nvme", "nvmet"))]
