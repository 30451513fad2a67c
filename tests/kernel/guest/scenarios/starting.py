"""What stands in an agent's way when it starts, or in the way of READY."""

from __future__ import annotations

import errno
import os
import socket

from ktlsagent.interfaces import INetlinkSocket
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.netlinksocket import NetlinkSocket
from tests.kernel.guest import peers
from tests.kernel.guest.agents import configuration
from tests.kernel.guest.lab import LOGS, Lab
from tests.kernel.guest.waiting import Unexpected, expect, until

_NOBODY = "65534"
_SO_RCVBUFFORCE = 33


def withoutPrivilege(lab: Lab) -> None:
    """
    An agent without CAP_NET_ADMIN says so, ends with a failure, and is no listener.

    @param lab: the stage.
    """
    host = lab.oneHost()
    file = LOGS.parent / "nobody.conf"
    file.write_text(configuration(None, None))
    ended = host.attempt(
        *("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"),
        *("twistd3", "--nodaemon", "--pidfile=", "ktlsagent", "--config", str(file)),
    )
    lab.facts["exit status"] = ended.returncode
    text = ended.stdout + ended.stderr
    if ended.returncode == 0 or "CAP_NET_ADMIN" not in text or "Traceback" in text:
        raise Unexpected(f"expected one line about CAP_NET_ADMIN and a failure, found:\n{text}")
    rows = host.call("cat", "/proc/net/netlink").splitlines()[1:]
    listeners = [row for row in rows if row.split()[1] == "16" and int(row.split()[3], 16)]
    expect("listeners after it", listeners, [])


def twoAgents(lab: Lab) -> None:
    """
    A second agent is named by the one that comes later; both serve.

    @param lab: the stage.
    """
    host = lab.oneHost()
    first = lab.agent(host)
    lab.listening()
    second = lab.agent(host)
    lab.listening()
    if "another handshake agent listens" not in second.log():
        raise Unexpected(f"the first agent is not named:\n{second.log()}")
    if "another handshake agent" in first.log():
        raise Unexpected("the first agent was alone when it started")
    lab.server(host, "mtls")
    with lab.mounted(host, "4.2", "mtls", "server.lab", "nconnect=4"):
        lines = [len(agent.handshakes()) for agent in (first, second)]
    lab.facts["handshakes of both"] = lines
    if sum(lines) < 2:
        raise Unexpected(f"expected both ends' handshakes, found {lines}")


class _SmallSocket(NetlinkSocket):
    """A netlink socket that holds next to nothing."""

    def join(self, group: int) -> None:
        super().join(group)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 0)


def _openSmall() -> INetlinkSocket:
    return _SmallSocket()


def lostReady(lab: Lab) -> None:
    """
    READYs that nobody reads overflow their socket: that is seen, all that is
    pending can be accepted, and READY works again afterwards.

    @param lab: the stage.
    """
    server, client = lab.twoHosts()
    lab.server(server, "mtls")
    kernel = HandshakeNetlink(_openSmall)
    lab.closing(kernel)
    with server.network():
        kernel.open()
        kernel.listen()
    accepted = 0
    for _connection in range(20):
        lab.closing(peers.RpcClient(client))
        try:
            _refuseNext(kernel, 1.0)
        except Unexpected:
            break
        accepted += 1
    lab.facts["requests until the overflow"] = accepted
    expect("loss of READY noticed", kernel.readReady(), None)
    expect("loss of READY noticed again", kernel.readReady(), 0)
    lab.closing(peers.RpcClient(client))
    _refuseNext(kernel, 5.0)


def _refuseNext(kernel: HandshakeNetlink, seconds: float) -> None:
    """
    Accept a request without looking at READY, and refuse it.

    @param kernel: where from.
    @param seconds: how long to wait for it.
    @raise Unexpected: if there is none.
    """
    request = until(kernel.accept, "a request", seconds)
    if request is None:
        raise Unexpected("a request that is none")
    kernel.done(request.descriptor, errno.EACCES)
    os.close(request.descriptor)
