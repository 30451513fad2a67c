"""NFS on the lab's hosts: the kernel's server with one export, and mounts of it."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Final

from tests.kernel.guest.hosts import Host
from tests.kernel.guest.waiting import PATIENCE, until

EXPORT: Final = "/run/export"
MOUNT_POINT: Final = "/run/mnt"

_MIB: Final = 1 << 20


class NfsServer:
    """
    The kernel's NFS server on a host, with the one export C{/run/export}.

    @ivar host: the host.
    """

    def __init__(self, host: Host, security: str, threads: int = 8) -> None:
        """
        Start it.

        @param host: where.
        @param security: the export's C{xprtsec}: C{none}, C{tls}, C{mtls}, or
            several with colons.
        @param threads: how many threads serve.
        """
        self.host = host
        self._helpers: list[subprocess.Popen[bytes]] = []
        host.call("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
        self._helper("rpcbind", "-f", "-w")
        until(lambda: not host.attempt("rpcinfo", "-p").returncode, "rpcbind answers")
        # With its client tracking nfsd knows that there is nobody to wait for:
        # no grace period, in which opening a file hangs.
        self._helper("nfsdcld", "--foreground", "--pipefsdir=/run/rpc_pipefs")
        self._control("nfsv4leasetime", "10")
        self._control("nfsv4gracetime", "10")
        options = f"rw,no_root_squash,no_subtree_check,fsid=0,insecure,xprtsec={security}"
        host.call("exportfs", "-o", options, f"*:{EXPORT}")
        self._helper("rpc.mountd", "--foreground")
        host.call("rpc.nfsd", "--nfs-version", "3", str(threads))
        until(lambda: "mountd" in host.attempt("rpcinfo", "-p").stdout, "rpc.mountd is registered")

    def _helper(self, *command: str) -> None:
        """
        Start a process that serves the server.

        @param command: its command.
        """
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._helpers.append(self.host.start(*command, **quiet))

    def _control(self, name: str, value: str) -> None:
        """
        Write to one of nfsd's control files, in the host's own instance.

        @param name: the file.
        @param value: what to write.
        """
        self.host.path(f"/proc/fs/nfsd/{name}").write_text(f"{value}\n")

    def stop(self) -> None:
        """Stop it; its connections are closed."""
        if self._helpers:
            self.host.call("rpc.nfsd", "0")
            while self._helpers:
                helper = self._helpers.pop()
                helper.terminate()
                helper.wait()
            self.host.call("umount", "/proc/fs/nfsd")


class MountRefused(Exception):
    """
    The kernel did not mount.

    @ivar number: mount(2)'s errno; 0 if mount.nfs did not say.
    @ivar output: what mount.nfs said.
    """

    def __init__(self, number: int, output: str) -> None:
        name = errno.errorcode.get(number, "unknown errno")
        super().__init__(f"mount refused with {name}:\n{output}")
        self.number = number
        self.output = output


_NUMBERS: Final = {os.strerror(number): number for number in errno.errorcode}


class Mount:
    """
    A mounted export.

    @ivar host: where it is mounted.
    @ivar path: the mount point, as seen from here.
    @ivar seconds: how long mounting took.
    """

    def __init__(
        self, host: Host, version: str, security: str, server: str = "server.lab", *options: str
    ) -> None:
        """
        Mount.

        @param host: where.
        @param version: C{3} or C{4.2}.
        @param security: C{xprtsec}.
        @param server: the server, as in the mount command.
        @param options: further mount options.
        @raise MountRefused: if the kernel refuses.
        """
        self.host = host
        self.path = host.path(MOUNT_POINT)
        source = f"{server}:{EXPORT if version == '3' else '/'}"
        words = [f"vers={version}", f"xprtsec={security}", "proto=tcp" + "6" * ("[" in server)]
        words += ["soft", f"timeo={100 * PATIENCE}", "retrans=1", "retry=0", "port=2049"]
        words += ["nolock"] * (version == "3")
        overridden = {option.partition("=")[0] for option in options}
        words = [word for word in words if word.partition("=")[0] not in overridden]
        started = time.monotonic()
        done = host.attempt(
            "mount", "-v", "-t", "nfs", "-o", ",".join([*words, *options]), source, MOUNT_POINT
        )
        self.seconds = time.monotonic() - started
        if done.returncode:
            output = done.stdout + done.stderr
            said = re.findall(r"mount\(2\): (.*)", output)
            raise MountRefused(_NUMBERS.get(said[-1], 0) if said else 0, output)

    def unmount(self) -> None:
        """Unmount."""
        self.host.call("umount", MOUNT_POINT)


def refusal(
    host: Host, version: str, security: str, server: str = "server.lab", *options: str
) -> str:
    """
    Try a mount that has to be refused.

    @param host: where.
    @param version: as for L{Mount}.
    @param security: as for L{Mount}.
    @param server: as for L{Mount}.
    @param options: as for L{Mount}.
    @return: the name of mount(2)'s errno; C{mounted} if it was not refused.
    """
    try:
        Mount(host, version, security, server, *options).unmount()
    except MountRefused as refused:
        return errno.errorcode.get(refused.number, str(refused))
    return "mounted"


def writeFile(path: Path, mebibytes: int) -> str:
    """
    Write a file of random data through to the server.

    @param path: the file.
    @param mebibytes: its size.
    @return: its SHA-256.
    """
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for _ in range(mebibytes):
            block = os.urandom(_MIB)
            digest.update(block)
            file.write(block)
        os.fsync(file.fileno())
    return digest.hexdigest()


def readFile(path: Path) -> str:
    """
    Read a file.

    @param path: the file.
    @return: its SHA-256.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
