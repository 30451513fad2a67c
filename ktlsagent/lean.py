"""
Keeps the program small and quick to start: what nobody uses is not imported,
though others ask for it, and the garbage collector leaves alone what stays.

This is for the program only.  Another program that uses the service imports
things in its own way.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Collection, Mapping
from functools import partial
from importlib import import_module
from importlib.abc import Loader
from importlib.util import find_spec, module_from_spec
from types import MappingProxyType, ModuleType
from typing import Any

_OWN_NAMES = frozenset(("__all__", "__version__"))
"""
What a package itself may define among the names with underscores.  For others
all modules of a program are asked now and then, by tools that look at each.
"""


_UNUSED = (
    # Python's own modules have these for libraries that are looked for, for the text of
    # processes, for source code and coloured tracebacks.  They come first: looking for
    # what follows imports packages, which ask for them.
    "shutil",
    "tempfile",
    "sysconfig",
    "locale",
    "ast",
    "textwrap",
    "tokenize",
    "_colorize",
    # pyOpenSSL and cryptography have these for making certificates and keys.
    "calendar",
    "random",
    # Twisted has these for programs that are files, for cookies, for TLS over its own
    # transports, for terminals.
    "pickle",
    "twisted.persisted.sob",
    "http.cookiejar",
    "twisted.internet.ssl",
    "pty",
    # The agent uses the message classes.  The package imports all the rest as well, a
    # database among it: 10 MB, and more time than anything else that is imported.
    "pyroute2",
)
"""What is imported but not used, or only a module of it."""

_HOMES = {
    # The package itself imports event loops, and TLS for them.
    "asyncio": {"AbstractEventLoop": "events", "Future": "futures", "iscoroutine": "coroutines"},
}
"""What is used of a package, and the modules of it where that is."""

_FUNCTIONS = {
    # Twisted has these for TLS over its own transports.
    "twisted.protocols.tls": ("TLSMemoryBIOFactory", "TLSMemoryBIOProtocol"),
    # Twisted has these for plugins, in archives too, for web pages and their addresses.
    "twisted.python.modules": ("getModule",),
    "html": ("escape",),
    "urllib.parse": ("quote", "unquote"),
    # cryptography has this for keys of SSH.
    "bcrypt": ("kdf",),
    # What is like a word that is not known.
    "difflib": ("get_close_matches",),
}
"""What is imported but not called, functions mostly, and where it is."""


class _Rest:
    """
    A module's C{__getattr__} (PEP 562): if something is asked for that is not
    there, the module is imported after all, once.
    """

    def __init__(
        self,
        module: ModuleType,
        loader: Loader,
        homes: Mapping[str, str],
        functions: Collection[str],
    ) -> None:
        self._module = module
        self._loader = loader
        self._homes = homes
        self._functions = functions
        self._lock = threading.RLock()
        self._begun = False

    def __call__(self, name: str) -> Any:  # noqa: ANN401 - anything may be in a module
        own = self._module.__name__
        if not name.startswith("__") or name in _OWN_NAMES:
            with self._lock:
                if not self._begun:
                    if name in self._functions:
                        return partial(self._call, name)
                    if name in self._homes:
                        return getattr(import_module(f"{own}.{self._homes[name]}"), name)
                    if hasattr(self._module, "__path__") and find_spec(f"{own}.{name}"):
                        return import_module(f"{own}.{name}")
                    self._import()
        try:
            return self._module.__dict__[name]
        except KeyError:
            raise AttributeError(f"module {own!r} has no attribute {name!r}") from None

    def _import(self) -> None:
        with self._lock:
            if not self._begun:
                self._begun = True
                self._loader.exec_module(self._module)

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - any function's
        """Stand for a function."""
        self._import()
        return self._module.__dict__[name](*arguments, **named)


def postpone(
    name: str, homes: Mapping[str, str] = MappingProxyType({}), functions: Collection[str] = ()
) -> None:
    """
    Let a module be imported only when somebody asks it for something.  If it is a
    package, the import of one of its modules imports that and what it needs, and
    not all that the package itself imports.  The modules are the same as ever, and
    so is the package once it is asked for something of its own.

    Nothing happens if the module has been imported, or is not there.

    @param name: the module's name.
    @param homes: names of a package that can be had without it, and in which of its
        modules they are.
    @param functions: names of functions that are imported, but perhaps never called.
    """
    parent, _dot, child = name.rpartition(".")
    try:
        spec = None if name in sys.modules else find_spec(name)
    except ModuleNotFoundError:
        return
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        module.__dict__["__getattr__"] = _Rest(module, spec.loader, homes, functions)
        sys.modules[name] = module
        if parent:
            setattr(sys.modules[parent], child, module)


def begin() -> None:
    """
    Prepare for the import of the program.  While things are only made, looking
    for garbage among them takes a quarter of the time.
    """
    # OpenSSL's algorithms of yore, which nothing here may use.
    os.environ.setdefault("CRYPTOGRAPHY_OPENSSL_NO_LEGACY", "1")
    for name in _UNUSED:
        postpone(name)
    for name, homes in _HOMES.items():
        postpone(name, homes)
    for name, functions in _FUNCTIONS.items():
        postpone(name, functions=functions)
    gc.disable()


def settle() -> None:
    """
    Say that what has been made stays: from now on garbage is looked for, but
    no more among that.  It would take 30 ms each time, in the middle of
    handshakes, and in a forked process it would end the sharing of that memory.
    What has been freed meanwhile goes back to the system, if the C library can do that.
    """
    gc.freeze()
    gc.enable()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
