"""
The demonstration of NVMe/TCP: C{python3 -m tests.kernel.demo_nvme} shows a real kernel
that connects to a disk over TLS with a pre-shared key, with ktlsagent on both ends, and
what refusals look like.

Only the standard library is used here: it runs before anything is installed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from tests.kernel.qemu import Guest, GuestDied
from tests.kernel.rootfs import MACHINE, LabError
from tests.kernel.telling import line, run, say

_DOING: Final = "starting a target, a host and their agents "
_GENERATE: Final = "# nvme gen-tls-key --hmac=2 --identity=1 --hostnqn=... --subsysnqn=... --insert"
_CONNECT: Final = "host# nvme connect -t tcp -a 10.0.0.1 -s 4420 -n nqn.2026-01.lab:disk --tls"
_SHOWN: Final = ("role", "peer", "mode", "version", "suite", "group", "took", "status")
_SHOWN_REFUSED: Final = ("code", "role", "mode", "status", "alert-sent", "alert-received")


def _showGood(guest: Guest) -> None:
    """
    Show a connection that works.

    @param guest: where.
    """
    say("1. NVMe/TCP over TLS 1.3 with a pre-shared key: a target and a host, an agent on each")
    facts = run(guest, _DOING, "demonvme.good", {})
    say(_GENERATE, "   ")
    say(f"/proc/keys: {' '.join(facts['key'].split())}", "   ")
    say(_CONNECT, "   ")
    device = f"/sys/class/nvme/{facts['device']}"
    say(f"{facts['device']}: {facts['queues']} queues in {facts['seconds']:.2f} s", "   ")
    say(f"{device}/tls_key: {facts['tls_key']}, the key's serial", "   ")
    say(f"{facts['transfer']} written, read back, and compared with the target's disk", "   ")
    for host in ("host", "target"):
        say(f"What ktlsagent on the {host} logged:", "   ")
        say(line("ok", facts[f"{host} line"], _SHOWN), "     ")
    counters = ", ".join(f"{name} +{value}" for name, value in facts["tls_stat"].items())
    say(f"The kernel's own counters on the host (/proc/net/tls_stat): {counters}", "   ")
    say()


def _showRefused(
    guest: Guest, number: int, title: str, scenario: str, arguments: Mapping[str, Any]
) -> None:
    """
    Show a connection that is refused.

    @param guest: where.
    @param number: of the paragraph.
    @param title: what is wrong.
    @param scenario: which scenario shows it.
    @param arguments: with what.
    """
    say(f"{number}. {title}")
    facts = run(guest, _DOING, scenario, arguments)
    say(f"{_CONNECT} --tls_key=...", "   ")
    say(facts["nvme says"], "   ")
    say(f"kernel: {facts['kernel says'][-1]}", "   ")
    for host in ("target", "host"):
        say(f"Why, says ktlsagent on the {host}:", "   ")
        say(line("failed", facts[f"{host} line"], _SHOWN_REFUSED), "     ")
        say(f"reason: {facts[f'{host} line']['reason']}", "     ")
    say()


def main() -> None:
    """Run the demonstration."""
    started = time.monotonic()
    guest = Guest(MACHINE, say)
    try:
        say("ktlsagent: a real Linux kernel, in an emulated machine, asks it for TLS handshakes")
        say("Half a minute to boot ...")
        guest.boot()
        say()
        _showGood(guest)
        _showRefused(
            guest, 2, "A key that the target does not know", "pskrefusals.unknownIdentity", {}
        )
        _showRefused(
            guest, 3, "The right name, but another key", "pskrefusals.wrongKey", {"hmac": 2}
        )
    except (LabError, GuestDied) as error:
        sys.exit(f"the demonstration cannot go on: {error}")
    finally:
        guest.close()
    say(
        f"Seen in {time.monotonic() - started:.0f} s: ktlsagent did the handshakes of both ends "
        "with a key from the kernel's keyring, the kernel encrypted what went to the disk and "
        "came from it, and two hosts without the right key were refused, each with its reason."
    )


if __name__ == "__main__":
    main()
