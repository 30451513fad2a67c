"""
The demonstration: C{python3 -m tests.kernel.demo} shows a real kernel that mounts
NFS over mutual TLS with ktlsagent on both ends, and what a refusal looks like.

Only the standard library is used here: it runs before anything is installed.
"""

from __future__ import annotations

import sys
import time
from typing import Final

from tests.kernel.rootfs import FORKY, LabError
from tests.kernel.telling import line, run, say
from tests.kernel.uml import Guest, GuestDied

_DOING: Final = "starting two hosts, their agents and the NFS server "
_MOUNT: Final = "client# mount -t nfs -o vers=4.2,xprtsec=mtls server.lab:/ /mnt"
_SHOWN: Final = ("role", "peer", "name", "version", "suite", "group", "subject", "took", "status")
_SHOWN_REFUSED: Final = ("code", "role", "name", "subject", "status", "alert-sent")


def _showGood(guest: Guest) -> None:
    """
    Show a mount that works.

    @param guest: where.
    """
    say("1. NFS over mutual TLS: two hosts, server.lab and client.lab, an agent on each")
    facts = run(guest, _DOING, "demo.good", {})
    say(_MOUNT, "   ")
    say(f"{' '.join(facts['mounted'].split())}: mounted in {facts['seconds']:.2f} s", "   ")
    say("client# echo ... > /mnt/hello.txt; cat /mnt/hello.txt", "   ")
    say(facts["file"], "   ")
    for host in ("client", "server"):
        say(f"What ktlsagent on the {host} logged:", "   ")
        say(line("ok", facts[f"{host} line"], _SHOWN), "     ")
    counters = ", ".join(f"{name} +{value}" for name, value in facts["tls_stat"].items())
    say(f"The kernel's own counters on the client (/proc/net/tls_stat): {counters}", "   ")
    say()


def _showRefused(guest: Guest, number: int, flaw: str, title: str) -> None:
    """
    Show a mount that is refused.

    @param guest: where.
    @param number: of the paragraph.
    @param flaw: what is wrong with the server's certificate.
    @param title: the same in words.
    """
    say(f"{number}. {title}")
    facts = run(guest, _DOING, "demo.refused", {"flaw": flaw})
    say(_MOUNT, "   ")
    say(facts["mount"], "   ")
    say("Why, says ktlsagent on the client:", "   ")
    say(line("failed", facts["line"], _SHOWN_REFUSED), "     ")
    say(f"reason: {facts['line']['reason']}", "     ")
    say()


def main() -> None:
    """Run the demonstration."""
    started = time.monotonic()
    guest = Guest(FORKY, say)
    try:
        say("ktlsagent: a real Linux kernel, in user mode, asks it for TLS handshakes")
        guest.boot()
        say()
        _showGood(guest)
        _showRefused(guest, 2, "wrong-name", "A server whose certificate is for another name")
        _showRefused(guest, 3, "expired", "A server whose certificate has expired")
    except (LabError, GuestDied) as error:
        sys.exit(f"the demonstration cannot go on: {error}")
    finally:
        guest.close()
    say(
        f"Seen in {time.monotonic() - started:.0f} s: ktlsagent did the handshakes of both ends, "
        "the kernel encrypted what went over the network in both directions, without an error, and "
        "two servers that were not who they should be were refused, each with its reason."
    )


if __name__ == "__main__":
    main()
