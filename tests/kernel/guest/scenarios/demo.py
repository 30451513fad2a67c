"""What the demonstration shows; the host puts it into words."""

from __future__ import annotations

from tests.kernel.guest import ktls
from tests.kernel.guest.agents import configuration
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import Mount, MountRefused
from tests.kernel.guest.waiting import Unexpected, expect

_TEXT = "written over mutual TLS"


def good(lab: Lab) -> None:
    """
    Mount over mutual TLS, write and read a file.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    agents = [lab.agent(serverHost), lab.agent(clientHost)]
    lab.listening()
    lab.server(serverHost, "mtls")
    before = ktls.statistics(clientHost)
    with lab.mounted(clientHost, "4.2", "mtls") as mount:
        (mount.path / "hello.txt").write_text(_TEXT + "\n")
        # Read where the server keeps it: it went over the network.
        found = serverHost.path("/run/export/hello.txt").read_text().strip()
        expect("file at the server", found, _TEXT)
        lab.facts["file"] = (mount.path / "hello.txt").read_text().strip()
        lab.facts["mounted"] = clientHost.call("findmnt", "-n", "-o", "SOURCE,FSTYPE", "/run/mnt")
        lab.facts["session"] = str(ktls.sessions(clientHost)[0])
        lab.facts["seconds"] = mount.seconds
    for agent in agents:
        lab.facts[f"{agent.host.name} line"] = dict(agent.waitForHandshake().fields)
    after = ktls.statistics(clientHost)
    lab.facts["tls_stat"] = {
        name: after[name] - before[name] for name in ("TlsTxSw", "TlsRxSw", "TlsDecryptError")
    }


def refused(lab: Lab, flaw: str) -> None:
    """
    Try to mount from a server with a bad certificate.

    @param lab: the stage.
    @param flaw: what is wrong with it.
    """
    serverHost, clientHost = lab.twoHosts()
    lab.agent(serverHost, text=configuration(server=f"server-{flaw}"))
    agent = lab.agent(clientHost)
    lab.listening()
    lab.server(serverHost, "mtls")
    try:
        Mount(clientHost, "4.2", "mtls").unmount()
    except MountRefused as error:
        lab.facts["mount"] = error.output.strip().splitlines()[-1]
    else:
        raise Unexpected("the mount was not refused")
    lab.facts["line"] = dict(agent.waitForHandshake().fields)
