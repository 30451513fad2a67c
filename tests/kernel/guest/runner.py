"""
Serves scenarios to the host: reads a request a line from the first serial line,
runs it in a process of its own, and writes a line with its result.

It is PID 1 of the guest, or a service of what is.  A scenario that takes too long is
ended, with the place where it hung in its log; one that leaves processes behind is said
to be unclean.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import termios
import time
import traceback
import tty
from pathlib import Path
from typing import Any, Final

from tests.kernel.guest import agents, certificates, hosts, ktls, lab, nfs, peers

_PRELOADED: Final = (agents, hosts, ktls, nfs, peers)
"""Imported here, once, so that no scenario pays for it."""

_PRELOAD: Final = "LAB_PRELOAD"
"""Names what else is imported beforehand, where importing takes long."""

_LINE: Final = "LAB_LINE"
"""
Names the descriptor of the line to the host, where that is not the serial line: then
the kernel is not the guest's own, either.
"""

_LINES_KEPT: Final = 200


def _openLine() -> int:
    """
    Open the line to the host.

    @return: a descriptor that passes bytes on as they are.
    """
    if _LINE in os.environ:
        return int(os.environ[_LINE])
    line = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    tty.setraw(line)
    attributes = termios.tcgetattr(line)
    attributes[2] |= termios.CLOCAL
    termios.tcsetattr(line, termios.TCSANOW, attributes)
    os.set_blocking(line, True)
    return line


def _send(line: int, value: dict[str, Any]) -> None:
    """
    Write a value as a line of JSON.

    @param line: where.
    @param value: what.
    """
    data = json.dumps(value).encode() + b"\n"
    while data:
        data = data[os.write(line, data) :]


def _perform(request: dict[str, Any], output: int, results: int) -> None:
    """
    Run a scenario; called in its own process, which ends with it.

    @param request: what to run.
    @param output: where its standard output goes.
    @param results: where its result goes.
    """
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    # A thread of its own says where it hung: a signal would not get through to a
    # process that waits for a server.
    faulthandler.dump_traceback_later(request["timeout"] - 1.0)
    moduleName, _, functionName = request["scenario"].rpartition(".")
    result: dict[str, Any] = {"ok": False, "failure": "", "facts": {}}
    scene = lab.Lab()
    try:
        inPackage = moduleName if "." in moduleName else f"guest.scenarios.{moduleName}"
        module = importlib.import_module(f"tests.kernel.{inPackage}")
        with scene:
            getattr(module, functionName)(scene, **request["arguments"])
        result["ok"] = True
    except lab.Unexpected as error:
        result["failure"] = str(error)
        traceback.print_exc()
    except BaseException:  # noqa: BLE001 - whatever it is, the host learns it
        result["failure"] = traceback.format_exc()
    result["facts"] = scene.facts
    with os.fdopen(results, "w") as stream:
        json.dump(result, stream, default=str)
    sys.stdout.flush()
    os._exit(0)


def _unit(process: str) -> str:
    """
    Say which service a process belongs to.

    @param process: its PID.
    @return: its control group; nothing where there are none.
    """
    path = Path(f"/proc/{process}/cgroup")
    return path.read_text() if path.exists() else ""


def _strangers() -> list[tuple[int, str]]:
    """
    Find the user-space processes besides this one, after reaping the dead.  Where
    there is a service manager, only those that are in the same unit.

    @return: PID and command of each.
    """
    own = _unit("self")
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if command and int(name) != os.getpid() and _unit(name) == own:
                found.append((int(name), command.strip()))
    return found


def _collectLogs() -> dict[str, str]:
    """
    Gather what was logged during the scenario.

    @return: the end of every log, by its name.
    """
    logs = {
        path.stem: "\n".join(path.read_text(errors="replace").splitlines()[-_LINES_KEPT:])
        for path in sorted(lab.LOGS.glob("*.log"))
    }
    if _LINE not in os.environ:
        kernel = subprocess.run(["dmesg", "--notime"], capture_output=True, text=True, check=False)
        logs["kernel"] = "\n".join(kernel.stdout.splitlines()[-_LINES_KEPT:])
    return {name: text for name, text in logs.items() if text}


def _run(request: dict[str, Any]) -> dict[str, Any]:
    """
    Run a scenario to its end, or end it.

    @param request: C{scenario}, C{arguments} and C{timeout}.
    @return: its result.
    """
    for path in lab.LOGS.glob("*.log"):
        path.unlink()
    if _LINE not in os.environ:
        subprocess.run(["dmesg", "--clear"], check=False)
    started = time.monotonic()
    results, resultsWrite = os.pipe()
    output = os.open(lab.LOGS / "scenario.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    child = os.fork()
    if child == 0:
        os.close(results)
        _perform(request, output, resultsWrite)
    os.close(resultsWrite)
    os.close(output)
    text = b""
    hung = False
    while not hung:
        left = started + request["timeout"] - time.monotonic()
        if not select.select([results], [], [], max(0.0, left))[0]:
            hung = True
        elif data := os.read(results, 1 << 16):
            text += data
        else:
            break
    os.close(results)
    if text and not hung:
        result: dict[str, Any] = json.loads(text)
    else:
        failure = "took more than {timeout} s" if hung else "its process died"
        result = {"ok": False, "facts": {}, "failure": failure.format_map(request)}
    strangers = [found for found in _strangers() if found[0] != child]
    for pid, _ in [(child, ""), *strangers]:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    if strangers and result["ok"]:
        result.update(ok=False, failure=f"processes were left behind: {strangers}")
    result["clean"] = not hung and not strangers and bool(text)
    result["seconds"] = round(time.monotonic() - started, 2)
    result["logs"] = _collectLogs()
    return result


def main() -> None:
    """Serve requests until the guest is switched off."""
    lab.LOGS.mkdir(parents=True)
    certificates.issueAll()
    for name in filter(None, os.environ.get(_PRELOAD, "").split(",")):
        importlib.import_module(name)
    line = _openLine()
    _send(line, {"release": os.uname().release})
    with os.fdopen(os.dup(line), "rb", buffering=0) as requests:
        while request := requests.readline():
            _send(line, _run(json.loads(request)))


if __name__ == "__main__":
    main()
