"""
The demonstration: C{python3 -m tests.kernel.demo} shows a real kernel that mounts
NFS over mutual TLS with ktlsagent on both ends, and what a refusal looks like.

Only the standard library is used here: it runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.kernel.rootfs import FORKY, LabError
from tests.kernel.uml import Guest, GuestDied

_SCENARIO_SECONDS: Final = 120.0
_WIDTH: Final = 96
_MOUNT: Final = "client# mount -t nfs -o vers=4.2,xprtsec=mtls server.lab:/ /mnt"
_SHOWN: Final = ("role", "peer", "name", "version", "suite", "group", "subject", "took", "status")
_SHOWN_REFUSED: Final = ("code", "role", "name", "subject", "status", "alert-sent")


def _say(text: str = "", indent: str = "") -> None:
    """
    Print, at once.

    @param text: a paragraph.
    @param indent: before each of its lines.
    """
    filled = textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")
    print("\n".join(filled), flush=True)


@contextlib.contextmanager
def _ticking(text: str) -> Iterator[None]:
    """
    Show that time passes while something is under way.

    @param text: what.
    """
    done = threading.Event()

    def tick() -> None:
        while not done.wait(1.0):
            print(".", end="", flush=True)

    print(f"   ({text}", end="", flush=True)
    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
        print(")", flush=True)


def _line(outcome: str, fields: Mapping[str, str], shown: tuple[str, ...]) -> str:
    """
    Put an agent's line together again, without what is too long for a screen.

    @param outcome: C{ok} or C{failed}.
    @param fields: all its fields.
    @param shown: those to show.
    @return: the line.
    """
    words = (f"{name}={fields[name]}" for name in shown if name in fields)
    return f"handshake {outcome} {' '.join(words)}"


def _run(guest: Guest, scenario: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """
    Run a scenario.

    @param guest: where.
    @param scenario: which.
    @param arguments: with what.
    @return: its facts.
    @raise GuestDied: if it fails, with the logs.
    """
    with _ticking("starting two hosts, their agents and the NFS server "):
        result = guest.run(scenario, arguments, _SCENARIO_SECONDS)
    if not result["ok"]:
        logs = "\n".join(f"--- {name}\n{text}" for name, text in result["logs"].items())
        raise GuestDied(f"{result['failure']}\n{logs}")
    facts: dict[str, Any] = result["facts"]
    return facts


def _showGood(guest: Guest) -> None:
    """
    Show a mount that works.

    @param guest: where.
    """
    _say("1. NFS over mutual TLS: two hosts, server.lab and client.lab, an agent on each")
    facts = _run(guest, "demo.good", {})
    _say(_MOUNT, "   ")
    _say(f"{' '.join(facts['mounted'].split())}: mounted in {facts['seconds']:.2f} s", "   ")
    _say("client# echo ... > /mnt/hello.txt; cat /mnt/hello.txt", "   ")
    _say(facts["file"], "   ")
    for host in ("client", "server"):
        _say(f"What ktlsagent on the {host} logged:", "   ")
        _say(_line("ok", facts[f"{host} line"], _SHOWN), "     ")
    counters = ", ".join(f"{name} +{value}" for name, value in facts["tls_stat"].items())
    _say(f"The kernel's own counters on the client (/proc/net/tls_stat): {counters}", "   ")
    _say()


def _showRefused(guest: Guest, number: int, flaw: str, title: str) -> None:
    """
    Show a mount that is refused.

    @param guest: where.
    @param number: of the paragraph.
    @param flaw: what is wrong with the server's certificate.
    @param title: the same in words.
    """
    _say(f"{number}. {title}")
    facts = _run(guest, "demo.refused", {"flaw": flaw})
    _say(_MOUNT, "   ")
    _say(facts["mount"], "   ")
    _say("Why, says ktlsagent on the client:", "   ")
    _say(_line("failed", facts["line"], _SHOWN_REFUSED), "     ")
    _say(f"reason: {facts['line']['reason']}", "     ")
    _say()


def main() -> None:
    """Run the demonstration."""
    started = time.monotonic()
    guest = Guest(FORKY, _say)
    try:
        _say("ktlsagent: a real Linux kernel, in user mode, asks it for TLS handshakes")
        guest.boot()
        _say()
        _showGood(guest)
        _showRefused(guest, 2, "wrong-name", "A server whose certificate is for another name")
        _showRefused(guest, 3, "expired", "A server whose certificate has expired")
    except (LabError, GuestDied) as error:
        sys.exit(f"the demonstration cannot go on: {error}")
    finally:
        guest.close()
    _say(
        f"Seen in {time.monotonic() - started:.0f} s: ktlsagent did the handshakes of both ends, "
        "the kernel encrypted what went over the network in both directions, without an error, and "
        "two servers that were not who they should be were refused, each with its reason."
    )


if __name__ == "__main__":
    main()
