"""
OpenSSL's own client before the kernel's NFS server: what C{peers} does for RPC, and
C{openssl s_client} for TLS, with whatever options a scenario needs.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
from typing import Final

from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import LOGS
from tests.kernel.guest.peers import RpcClient, rpcCall
from tests.kernel.guest.waiting import until

_XID: Final = 0x53434C49
_SECONDS: Final = 20.0


class OpensslClient:
    """
    C{openssl s_client}, connected to a host's NFS server.

    @ivar outcome: C{ok} if a call was answered over TLS; otherwise what it said.
    """

    _started = 0

    def __init__(self, host: Host, *options: str) -> None:
        """
        Connect, shake hands, and make a call.

        @param host: from where.
        @param options: of C{openssl s_client}.
        """
        OpensslClient._started += 1
        name = f"s_client-{OpensslClient._started}"
        path = LOGS.parent / f"{name}.socket"
        self._log = LOGS / f"{name}.log"
        path.unlink(missing_ok=True)
        rpc = RpcClient(host)
        command = ["openssl", "s_client", "-unix", str(path), "-tls1_3", "-nocommands", *options]
        with (
            contextlib.closing(socket.socket(socket.AF_UNIX)) as listener,
            self._log.open("wb") as log,
        ):
            listener.bind(str(path))
            listener.listen()
            listener.settimeout(_SECONDS)
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
            near = listener.accept()[0]
        far = rpc.stream.connection
        for pair in ((near, far), (far, near)):
            threading.Thread(target=_pump, args=pair, daemon=True).start()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(rpcCall(_XID))
            process.stdin.flush()
            until(lambda: process.poll() is not None or self._answered(), f"{name} has ended")
        process.kill()
        process.communicate()
        near.close()
        rpc.close()
        alert = re.search(r"alert ([\w ]+)", self.output())
        said = alert[1].replace(" ", "_") if alert else "no answer"
        self.outcome = "ok" if self._answered() else said

    def _answered(self) -> bool:
        """Say whether the call was answered."""
        return _XID.to_bytes(4, "big") in self._log.read_bytes()

    def output(self) -> str:
        """
        Return what it wrote.

        @return: the text.
        """
        return self._log.read_text(errors="replace")

    def said(self, name: str) -> str:
        """
        Find something in its summary.

        @param name: as in C{Peer signature type}.
        @return: what follows; empty if there is no such line.
        """
        match = re.search(rf"^{name}: (.*)", self.output(), re.MULTILINE)
        return match[1].strip() if match else ""


def _pump(source: socket.socket, target: socket.socket) -> None:
    """
    Pass on what comes, to its end.

    @param source: where from.
    @param target: where to.
    """
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
