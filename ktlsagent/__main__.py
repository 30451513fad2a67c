"""
C{python3 -P -m ktlsagent}: the program without what C{twistd} has for other programs,
which would be 8 MB of memory more.
"""
# ruff: noqa: E402 - the preparation for the imports comes before them

import os.path
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # "python3 -m" looks for modules in the working directory first, where others may have
    # put some; those that are imported here have been loaded before.  If it is where this
    # program itself comes from, as in a checkout, it is looked in last.
    _first = sys.path.pop(0)
    if os.path.dirname(os.path.dirname(__file__)) == _first:
        sys.path.append(_first)

from ktlsagent import lean, signals

if __name__ == "__main__":
    signals.remember()
    signals.ignoreRotation()
lean.begin()

from typing import Any, cast

from twisted.logger import globalLogBeginner
from twisted.python import usage

from ktlsagent.processes.standardlog import standardLog
from ktlsagent.tap import Options, makeService


def main() -> None:
    """
    Run the agent in the foreground until it is told to stop, as C{twistd -n} does.

    @raise SystemExit: if the arguments or the configuration cannot be used, or if
        the agent cannot work here; it says why.
    """
    options = cast(Any, Options)()
    options.synopsis = f"Usage: python3 -P -m ktlsagent {Options.synopsis}"
    try:
        options.parseOptions()
    except usage.UsageError as error:
        raise SystemExit(f"{options}\nktlsagent: {error}") from error
    service: Any = makeService(options)
    from twisted.internet import reactor as installed  # noqa: PLC0415 - importing it installs it

    reactor: Any = installed
    globalLogBeginner.beginLoggingTo([standardLog(reactor)])
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
