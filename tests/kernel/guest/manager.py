"""What systemd does for an agent: it holds descriptors (C{sd_notify(3)}), and hands them on."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from tests.kernel.guest.agents import LOGS
from tests.kernel.guest.waiting import Unexpected

_HAND_OVER = 'exec 3<&"$0"; export LISTEN_PID=$$; exec "$@"'
_MESSAGE_SIZE = 4096


class Manager:
    """
    A manager of one agent.

    @ivar held: the descriptors that it holds.
    """

    def __init__(self) -> None:
        """Wait for what the agent says."""
        self.held: list[int] = []
        self._path = LOGS.parent / "notify"
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        self._socket.settimeout(60.0)

    def prefix(self) -> Sequence[str]:
        """
        Say how the agent is started.

        @return: the beginning of its command.
        """
        words = ["env", f"NOTIFY_SOCKET={self._path}"]
        if self.held:
            words += ["LISTEN_FDS=1", "LISTEN_FDNAMES=ready"]
            words += ["bash", "-c", _HAND_OVER, str(self.held[-1])]
        return words

    def waitUntilReady(self) -> None:
        """
        Hear the agent until it is ready.

        @raise Unexpected: if it says something that nobody expects.
        """
        while True:
            data, descriptors, _flags, _address = socket.recv_fds(self._socket, _MESSAGE_SIZE, 4)
            said = dict(line.split("=") for line in data.decode().splitlines())
            if said == {"READY": "1"}:
                return
            if said == {"FDSTOREREMOVE": "1", "FDNAME": "ready"}:
                self._drop()
            elif said == {"FDSTORE": "1", "FDNAME": "ready", "FDPOLL": "0"}:
                self.held += descriptors
            else:
                raise Unexpected(f"the agent said {said}")

    def close(self) -> None:
        """Hold nothing any more."""
        self._drop()
        self._socket.close()

    def _drop(self) -> None:
        while self.held:
            os.close(self.held.pop())
