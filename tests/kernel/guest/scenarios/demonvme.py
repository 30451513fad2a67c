"""What the demonstration of NVMe/TCP shows; the host puts it into words."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.guest import ktls, nvme
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.waiting import expect

_MEBIBYTES = 4


def good(lab: Lab) -> None:
    """
    Connect with a key, and write and read data.

    @param lab: the stage.
    """
    targetHost, outer = nvme.twoHosts(lab)
    agents = [nvme.agent(lab, host) for host in (targetHost, outer)]
    lab.listening()
    lab.closing(nvme.Target(targetHost))
    psk = nvme.generate()
    before = ktls.statistics(outer)
    controller: nvme.Controller = lab.closing(nvme.Controller(outer))
    expect("tls_key in sysfs", controller.serial, psk.serial)
    seconds = controller.transfer(_MEBIBYTES)
    lab.facts["transfer"] = f"{_MEBIBYTES} MiB, {_MEBIBYTES / seconds:.1f} MiB/s"
    lab.facts["seconds"] = controller.seconds
    lab.facts["device"] = controller.name
    lab.facts["queues"] = controller.queues
    lab.facts["tls_key"] = controller.attribute("tls_key")
    lab.facts["key"] = next(
        row for row in Path("/proc/keys").read_text().splitlines() if psk.identity in row
    )
    lab.facts["session"] = str(ktls.sessions(outer, nvme.PORT)[0])
    for agent in agents:
        lab.facts[f"{agent.host.name} line"] = dict(agent.waitForHandshake().fields)
    after = ktls.statistics(outer)
    lab.facts["tls_stat"] = {
        name: after[name] - before[name] for name in ("TlsTxSw", "TlsRxSw", "TlsDecryptError")
    }
