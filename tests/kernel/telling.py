"""How the demonstrations talk to people."""

from __future__ import annotations

import contextlib
import textwrap
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.kernel.guests import BaseGuest, GuestDied

_SCENARIO_SECONDS: Final = 120.0
_WIDTH: Final = 96


def say(text: str = "", indent: str = "") -> None:
    """
    Print, at once.

    @param text: a paragraph.
    @param indent: before each of its lines.
    """
    filled = textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,
    )
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


def line(outcome: str, fields: Mapping[str, str], shown: tuple[str, ...]) -> str:
    """
    Put an agent's line together again, without what is too long for a screen.

    @param outcome: C{ok} or C{failed}.
    @param fields: all its fields.
    @param shown: those to show.
    @return: the line.
    """
    words = (f"{name}={fields[name]}" for name in shown if name in fields)
    return f"handshake {outcome} {' '.join(words)}"


def run(
    guest: BaseGuest, doing: str, scenario: str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Run a scenario.

    @param guest: where.
    @param doing: what is done, in words, while nothing is to be seen.
    @param scenario: which.
    @param arguments: with what.
    @return: its facts.
    @raise GuestDied: if it fails, with the logs.
    """
    with _ticking(doing):
        result = guest.run(scenario, arguments, _SCENARIO_SECONDS)
    if not result["ok"]:
        logs = "\n".join(f"--- {name}\n{text}" for name, text in result["logs"].items())
        raise GuestDied(f"{result['failure']}\n{logs}")
    facts: dict[str, Any] = result["facts"]
    return facts
