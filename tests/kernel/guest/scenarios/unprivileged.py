"""An agent that is not root and has CAP_NET_ADMIN only."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

from tests.kernel.guest import nvme
from tests.kernel.guest.agents import configuration
from tests.kernel.guest.certificates import privateKey
from tests.kernel.guest.lab import LOGS, Lab
from tests.kernel.guest.nfs import readFile, writeFile
from tests.kernel.guest.waiting import Unexpected, expect, until

_NOBODY: Final = 65534

_DROPPED: Final = (
    *("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"),
    *("--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin"),
    "--bounding-set=-all,+net_admin",
)


def _readable() -> str:
    """
    Write a configuration whose private keys nobody may read.

    @return: its text.
    """
    text = configuration()
    for name in ("client", "server"):
        copy = LOGS.parent / f"nobody-{name}.key"
        shutil.copyfile(privateKey(name), copy)
        copy.chmod(0o600)
        os.chown(copy, _NOBODY, _NOBODY)
        text = text.replace(privateKey(name), str(copy))
    return text


def onlyNetAdmin(lab: Lab) -> None:
    """
    NFS works; NVMe does not, which the agent says at its start and for the request.

    @param lab: the stage.
    """
    host = nvme.oneHost(lab)
    agent = nvme.agent(lab, host, text=_readable(), prefix=_DROPPED)
    lab.listening()
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    expect("uid of the agent", re.findall(r"^Uid:\s+(\d+)", status, re.MULTILINE), [str(_NOBODY)])
    atStart = agent.log()
    lab.facts["at start"] = [line for line in atStart.splitlines() if ".nvme" in line]
    lab.server(host, "mtls")
    with lab.mounted(host, "4.2", "mtls", "10.0.0.1") as mount:
        written = writeFile(mount.path / "data", 1)
        expect("SHA-256", readFile(mount.path / "data"), written)
    nvme.generate()
    lab.closing(nvme.Target(host))
    before = len(agent.log())
    refused = nvme.refusal(host)
    lab.facts["nvme says"] = refused.output
    lab.facts["seconds"] = round(refused.seconds, 2)
    until(lambda: "keyring" in agent.log()[before:], "the agent says what it cannot do")
    lab.facts["per request"] = agent.log()[before:].splitlines()[:4]
    if not lab.facts["at start"]:
        raise Unexpected(f"expected a word about .nvme at the start, found none:\n{atStart}")
