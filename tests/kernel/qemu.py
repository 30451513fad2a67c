"""
Boots a disk image as a whole machine, emulated by QEMU without KVM.

There is one processor: with two, the emulation sometimes makes the kernel fail.
The checkout is the second disk, as a tar archive.  Only the standard library is
used here.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from tests.kernel.guests import BaseGuest, GuestDied
from tests.kernel.rootfs import CHECKOUT, LabError

__all__ = ["Guest", "GuestDied"]

_QEMU: Final = "qemu-system-x86_64"

_DELIVERED: Final = ("ktlsagent", "twisted", "tests")

_PROCESSOR: Final = "max,-avx,-avx2"
"""Wide registers are emulated so slowly that cryptography takes twice as long with them."""

_PATIENCE: Final = 4

_KERNEL_ARGUMENTS: Final = (
    *("console=ttyS1", "panic=-1", "quiet"),
    *("root=/dev/nvme0n1", "rootwait", "ro", "init=/sbin/machine"),
    # What the kernel does not know is the environment of its first process.
    *("LAB_PRELOAD=tests.kernel.guest.warm", f"LAB_PATIENCE={_PATIENCE}"),
    # Emulation is slow enough without these.
    *("mitigations=off", "tsc=reliable", "no_timer_check", "cryptomgr.notests=1"),
    *("audit=0", "apparmor=0"),
)


def _archive() -> int:
    """
    Put what the guest needs of this checkout into an archive without a name.

    @return: its descriptor.
    """

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if member.name.endswith("__pycache__") else member

    with tempfile.TemporaryFile(prefix="ktlsagent-lab-") as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name in _DELIVERED:
                archive.add(CHECKOUT / name, name, filter=wanted)
        file.flush()
        # QEMU insists on a descriptor that is as read-only as the disk.
        return os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY)


class Guest(BaseGuest):
    """A guest that is a whole emulated machine."""

    bootSeconds = 300.0
    patience = _PATIENCE

    def _start(self, root: Path) -> subprocess.Popen[bytes]:
        if shutil.which(_QEMU) is None:
            raise LabError("tools are missing: apt-get install qemu-system-x86")
        line, theirs = socket.socketpair()
        archive = _archive()
        # Descriptor 1 is the file that collects the console.
        command = [_QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        command += [
            "-M",
            "pc",
            "-accel",
            "tcg",
            "-cpu",
            _PROCESSOR,
            "-smp",
            "1",
            "-m",
            self._memory,
        ]
        command += ["-kernel", str(root / "vmlinux")]
        command += ["-append", " ".join((*_KERNEL_ARGUMENTS, *self.recipe.bootOptions))]
        command += ["-drive", f"if=none,id=root,format=raw,snapshot=on,file={root / 'root.ext4'}"]
        command += ["-device", "nvme,drive=root,serial=root"]
        command += ["-add-fd", f"fd={archive},set=1"]
        command += ["-drive", "if=none,id=checkout,format=raw,readonly=on,file=/dev/fdset/1"]
        command += ["-device", "virtio-blk-pci,drive=checkout"]
        command += ["-chardev", f"socket,id=line,fd={theirs.fileno()}", "-serial", "chardev:line"]
        command += ["-serial", "stdio"]
        process = self._launch(command, theirs.detach(), archive)
        self._requests = line.detach()
        self._results = os.dup(self._requests)
        return process
