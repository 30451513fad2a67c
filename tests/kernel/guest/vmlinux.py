"""
Unpacks the installed kernel to C{/boot/vmlinux}, which an emulator starts several
times as fast as one that unpacks itself.  Runs while the disk image is built.
"""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path


def main() -> None:
    """Find the kernel, and its compressed part as the x86 boot protocol says."""
    (packed,) = Path("/usr/lib/modules").glob("*/vmlinuz")
    image = packed.read_bytes()
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    # Behind the compressed data there are four octets with its size.
    compressed = image[start : start + length - 4]
    vmlinux = Path("/boot/vmlinux")
    vmlinux.parent.mkdir(exist_ok=True)
    with vmlinux.open("wb") as file:
        subprocess.run(["zstd", "-dc"], input=compressed, stdout=file, check=True)


if __name__ == "__main__":
    main()
