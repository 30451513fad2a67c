"""Bytes on the edge of the handshake: none may be lost on the way to the kernel."""

from __future__ import annotations

import ctypes
import errno
import time

from tests.kernel.guest import ktls, peers
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.waiting import Unexpected, expect, until

_LIBC = ctypes.CDLL(None, use_errno=True)

_CALLS_OF_A_MOUNT = 2
"""NULL, and then EXCHANGE_ID: sent only after the reply to NULL was understood."""


def _mount(host: Host) -> str:
    """
    Try to mount from L{peers.RpcServer}, by mount(2) itself.

    @param host: in whose network.
    @return: the name of the errno.
    """
    options = (
        f"vers=4.1,proto=tcp,port={peers.PORT},addr=10.0.0.1,clientaddr=10.0.0.2,sec=sys,"
        "xprtsec=tls,soft,timeo=50,retrans=1"
    )
    with host.network():
        done = _LIBC.mount(b"server.lab:/", b"/mnt", b"nfs", 0, options.encode())
    return errno.errorcode[ctypes.get_errno()] if done else "mounted"


def tickets(lab: Lab, times: int) -> None:
    """
    The server sends two NewSessionTickets right behind its Finished, as OpenSSL
    does; the kernel's client must understand everything that follows.

    @param lab: the stage.
    @param times: how often.
    """
    serverHost, clientHost = lab.twoHosts()
    agent = lab.agent(clientHost)
    lab.listening()
    context = peers.tlsContext("server", server=True)
    expect("tickets that the server sends", context.num_tickets, 2)
    server = lab.closing(peers.RpcServer(serverHost, peers.serveCalls(context)))
    before = ktls.statistics(clientHost)
    started = time.monotonic()
    errors: dict[str, int] = {}
    seen = 0
    for number in range(times):
        name = _mount(clientHost)
        errors[name] = errors.get(name, 0) + 1
        until(lambda: all(visit.ending for visit in server.visits), f"connection {number} ends")
        visits = server.visits[seen:]
        seen += len(visits)
        if not visits or visits[-1].calls < _CALLS_OF_A_MOUNT:
            raise Unexpected(
                f"mount {number} ({name}): expected {_CALLS_OF_A_MOUNT} calls, found {visits}"
            )
    lab.facts["mounts"] = errors
    lab.facts["per-second"] = round(times / (time.monotonic() - started), 1)
    complete = [visit for visit in server.visits if visit.calls]
    lab.facts["endings"] = sorted({visit.ending for visit in complete})
    after = ktls.statistics(clientHost)
    expect("TlsDecryptError", after["TlsDecryptError"], before["TlsDecryptError"])
    expect("connections with calls", len(complete), times)
    expect("sessions received", after["TlsRxSw"] - before["TlsRxSw"], times)
    agent.waitForHandshake(seen)
    # A handshake that expires is one whose octets the kernel has taken itself:
    # the work that reads the reply to the AUTH_TLS probe was not at its end.
    outcomes = [line.fields.get("code", line.outcome) for line in agent.handshakes()]
    expect("handshakes", outcomes, ["ok"] * times)
    _summarize(lab)


def firstCall(lab: Lab, times: int) -> None:
    """
    The client sends its first call in the same segment as its Finished; nfsd
    must answer it.

    @param lab: the stage.
    @param times: how often.
    """
    serverHost, clientHost = lab.twoHosts()
    agent = lab.agent(serverHost)
    lab.listening()
    lab.server(serverHost, "mtls")
    before = ktls.statistics(serverHost)
    started = time.monotonic()
    for number in range(times):
        peer = peers.RpcClient(clientHost)
        try:
            peer.startTls(corked=True)
            peer.call(number + 2)
        except peers.PeerGone as gone:
            raise Unexpected(f"connection {number}: the first call was lost: {gone}") from None
        finally:
            peer.close()
    lab.facts["per-second"] = round(times / (time.monotonic() - started), 1)
    after = ktls.statistics(serverHost)
    expect("TlsDecryptError", after["TlsDecryptError"], before["TlsDecryptError"])
    agent.waitForHandshake(times)
    expect("handshakes", [line.outcome for line in agent.handshakes()], ["ok"] * times)
    _summarize(lab)


def _summarize(lab: Lab) -> None:
    """
    Note the spread of the handshake times instead of each.

    @param lab: the stage.
    """
    lab.recordHandshakes()
    for name in [name for name in lab.facts if name.startswith("handshake-ms")]:
        times = sorted(lab.facts[name])
        lab.facts[name] = {
            "p50": times[len(times) // 2],
            "p99": times[len(times) * 99 // 100],
            "max": times[-1],
        }
