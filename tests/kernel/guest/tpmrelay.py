"""
A way to a TPM that stays open, as a device does, and belongs to who has opened it:
the program relays commands to swtpm, which by itself takes up each one anew.  It can
take as long over signatures as a chip does.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import BinaryIO

_HEADER_LENGTH = 10
_SIGNATURES = frozenset([0x159, 0x15D])
"""C{TPM_CC_RSA_Decrypt}, which signs what has its padding already, and C{TPM_CC_Sign}."""


def _message(stream: BinaryIO) -> bytes:
    """
    Read a command or a response.

    @param stream: where from.
    @return: the message; empty at the end.
    """
    header = stream.read(_HEADER_LENGTH)
    return header + stream.read(int.from_bytes(header[2:6], "big") - len(header))


def _relay(path: str, seconds: float) -> None:
    """
    Relay until nobody asks any more.

    @param path: the socket of swtpm.
    @param seconds: what a signature takes in addition.
    """
    while command := _message(sys.stdin.buffer):
        if int.from_bytes(command[6:_HEADER_LENGTH], "big") in _SIGNATURES:
            time.sleep(seconds)
        with socket.socket(socket.AF_UNIX) as tpm:
            tpm.connect(path)
            tpm.sendall(command)
            sys.stdout.buffer.write(_message(tpm.makefile("rb")))
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    _relay(sys.argv[1], float(sys.argv[2]))
