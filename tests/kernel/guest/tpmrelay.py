"""
A way to a TPM that stays open, as a device does, and belongs to who has opened it:
the program relays commands to swtpm, which by itself takes up each one anew.
"""

from __future__ import annotations

import socket
import sys
from typing import BinaryIO

_HEADER_LENGTH = 10


def _message(stream: BinaryIO) -> bytes:
    """
    Read a command or a response.

    @param stream: where from.
    @return: the message; empty at the end.
    """
    header = stream.read(_HEADER_LENGTH)
    return header + stream.read(int.from_bytes(header[2:6], "big") - len(header))


def _relay(path: str) -> None:
    """
    Relay until nobody asks any more.

    @param path: the socket of swtpm.
    """
    while command := _message(sys.stdin.buffer):
        with socket.socket(socket.AF_UNIX) as tpm:
            tpm.connect(path)
            tpm.sendall(command)
            sys.stdout.buffer.write(_message(tpm.makefile("rb")))
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    _relay(sys.argv[1])
