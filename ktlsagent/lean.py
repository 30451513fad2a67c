"""
Keeps the program small and quick to start: a package's part that is wanted
comes without the rest of the package, and the garbage collector leaves alone
what stays.

This is for the program only.  Another program that uses the service imports
things in its own way.
"""

from __future__ import annotations

import gc
import sys
import threading
from importlib.abc import Loader
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_OWN_NAMES = frozenset(("__all__", "__version__"))
"""
What a package itself may define among the names with underscores.  For others
all modules of a program are asked now and then, by tools that look at each.
"""


class _Rest:
    """
    A package's C{__getattr__} (PEP 562): if something is asked for that is not
    there, the package is imported after all, once.
    """

    def __init__(self, package: ModuleType, loader: Loader) -> None:
        self._package = package
        self._loader = loader
        self._lock = threading.RLock()
        self._begun = False

    def __call__(self, name: str) -> Any:  # noqa: ANN401 - anything may be in a module
        if not name.startswith("__") or name in _OWN_NAMES:
            with self._lock:
                if not self._begun:
                    self._begun = True
                    self._loader.exec_module(self._package)
        try:
            return self._package.__dict__[name]
        except KeyError:
            raise AttributeError(
                f"module {self._package.__name__!r} has no attribute {name!r}"
            ) from None


def postpone(name: str) -> None:
    """
    Let the import of one of a package's modules import that and what it needs,
    and not all that the package itself imports.  The modules are the same as
    ever, and so is the package once it is asked for something of its own.

    Nothing happens if the package has been imported, or is not there.

    @param name: the package's name, without a dot.
    """
    spec = None if name in sys.modules else find_spec(name)
    if spec is not None and spec.loader is not None:
        package = module_from_spec(spec)
        package.__dict__["__getattr__"] = _Rest(package, spec.loader)
        sys.modules[name] = package


def begin() -> None:
    """
    Prepare for the import of the program.  While things are only made, looking
    for garbage among them takes a quarter of the time.
    """
    # Of pyroute2 the agent uses the message classes.  The package imports all the rest as
    # well, a database among it: 10 MB and more time than anything else that is imported.
    postpone("pyroute2")
    gc.disable()


def settle() -> None:
    """
    Say that what has been made stays: from now on garbage is looked for, but
    no more among that.  It would take 30 ms each time, in the middle of
    handshakes, and in a forked process it would end the sharing of that memory.
    """
    gc.freeze()
    gc.enable()
