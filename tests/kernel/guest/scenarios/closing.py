"""How sessions end: the kernel says close_notify, on either side."""

from __future__ import annotations

from tests.kernel.guest import peers
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import readFile, writeFile
from tests.kernel.guest.waiting import expect, until


def unmount(lab: Lab, version: str) -> None:
    """
    Unmounting: the server's end, a TLS peer in user space before an NFS server
    without TLS, sees close_notify.

    @param lab: the stage.
    @param version: of NFS.
    """
    serverHost, clientHost = lab.twoHosts()
    lab.agent(clientHost)
    # For the connection to the data server, which is the NFS server itself: NFS
    # 4.2 makes one since nfsd has flexible file layouts.
    lab.agent(serverHost)
    lab.listening()
    lab.server(serverHost, "none:mtls")
    context = peers.tlsContext("server", server=True)
    relay = lab.closing(peers.RpcServer(serverHost, peers.relay(context, serverHost)))
    with lab.mounted(clientHost, version, "mtls", "server.lab", f"port={peers.PORT}") as mount:
        written = writeFile(mount.path / "data", 2)
        expect("SHA-256", readFile(mount.path / "data"), written)
    until(lambda: all(visit.ending for visit in relay.visits), "all connections have ended")
    lab.facts["endings"] = [visit.ending for visit in relay.visits]
    expect("endings", set(lab.facts["endings"]), {peers.CLOSE_NOTIFY})
    lab.recordHandshakes()


def serverStops(lab: Lab) -> None:
    """
    The NFS server stops: its client sees close_notify.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    lab.agent(serverHost)
    lab.listening()
    server = lab.server(serverHost, "mtls")
    client = lab.closing(peers.RpcClient(clientHost))
    client.startTls()
    client.call(5)
    server.stop()
    lab.facts["ending"] = client.ending()
    expect("ending", lab.facts["ending"], peers.CLOSE_NOTIFY)
    lab.recordHandshakes()
