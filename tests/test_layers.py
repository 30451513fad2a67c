"""The arrows between the modules, as the design draws them."""

from __future__ import annotations

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import ktlsagent

PACKAGE = Path(ktlsagent.__file__).parent

PURE = {
    "asn1",
    "callbacks",
    "context",
    "cryptoinfo",
    "engine",
    "failures",
    "handshakefamily",
    "keyschedule",
    "netlink",
    "openssl",
    "psk",
    "pskserver",
    "record",
    "rehearsal",
    "session",
    "tickets",
    "verification",
}
"""The modules of C{protocols} that only turn values into values."""

LAYERS: dict[str, str] = {
    "errors": "",
    "expiry": "",
    "pem": "",
    "inventory": "protocols",
    "files": "errors",
    "tokens": "pem",
    "pins": "errors files",
    "truststores": "expiry files pem profiles protocols",
    "crls": "expiry files inventory pem profiles protocols",
    "owncertificates": "expiry files pem profiles protocols tokens",
    "__init__": "",
    "ledger": "",
    "fairness": "",
    "seldom": "",
    "stepqueue": "errors fairness seldom",
    "patterns": "",
    "presented": "errors protocols",
    "rules": "patterns presented",
    "authorisation": "errors presented rules",
    "profiles": "authorisation patterns protocols",
    "keyfile": "errors",
    "configvalues": "errors keyfile",
    "configplaces": "configvalues keyfile",
    "certificatetexts": "presented",
    "tagfilters": "certificatetexts configvalues keyfile patterns presented rules",
    "tagfiles": "configvalues errors keyfile tagfilters",
    "tags": "errors tagfiles tagfilters",
    "configpeers": "authorisation configvalues keyfile profiles",
    "configkeys": "configpeers configplaces configvalues errors keyfile profiles protocols",
    "configprofiles": "authorisation configkeys errors keyfile profiles protocols",
    "config": (
        "configkeys configplaces configprofiles configvalues errors keyfile profiles protocols"
    ),
    "interfaces": "protocols",
    "threadsteps": "errors interfaces",
    "tokenload": "errors pins protocols tokens",
    "latecontexts": "errors interfaces pins protocols threadsteps tokenload tokens",
    "names": "errors protocols",
    "peerrules": "errors profiles protocols",
    "contexts": "expiry inventory latecontexts profiles protocols tags",
    "policy": "authorisation contexts errors names peerrules profiles protocols tags",
    "parts": "contexts latecontexts owncertificates profiles protocols tokens",
    "credentials": (
        "authorisation config contexts crls errors expiry files inventory owncertificates parts "
        "profiles protocols tags truststores"
    ),
    "keys": "errors interfaces protocols",
    "keyrings": "errors interfaces ledger",
    "ktls": "errors interfaces protocols",
    "netlinksocket": "interfaces",
    "netlink": "errors interfaces netlinksocket protocols",
    "notify": "",
    "sockets": "errors interfaces protocols",
    "report": "errors policy profiles protocols",
    "namespace": "",
    "configured": (
        "config contexts credentials errors expiry fairness interfaces inventory latecontexts "
        "namespace watch"
    ),
    "request": (
        "configured contexts errors interfaces keyrings keys latecontexts ledger policy profiles "
        "protocols report sockets stepqueue"
    ),
    "service": (
        "__init__ config configured errors interfaces keyrings ktls latecontexts ledger netlink "
        "protocols request seldom stepqueue"
    ),
    "watch": "interfaces notify",
    "lean": "",
    "readysocket": "",
    "template": "lean",
    "channel": "config",
    "worker": "channel config errors lean netlink service",
    "workers": (
        "channel config configured errors interfaces keyrings ktls netlink service template worker"
    ),
    "tap": "__init__ config errors interfaces lean netlink readysocket service workers",
}
"""What each module of the package may import from the package."""

FILES_IN_MEMORY = {"openssl"}
"""Modules of C{PURE} that may use C{os}, for files that are nowhere but in memory."""

SYSTEM_CALLS = {
    "sockets",
    "netlinksocket",
    "readysocket",
    "template",
    "worker",
    "ktls",
    "keyrings",
}
"""The modules that make system calls on sockets and keys."""

SOCKET_TYPE_ONLY = {"interfaces", "request"}
"""Modules that name the type C{socket.socket} and make no call."""


def importedModules(path: Path) -> set[str]:
    """
    List what a module imports, by full name.

    @param path: the module's file.
    @return: the names of modules, and of names imported from them.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(names: set[str]) -> set[str]:
    """
    Say which of our modules are among some names.

    @param names: full names.
    @return: first components below the package, C{__init__} for itself.
    """
    found = set()
    for name in names:
        if name == "ktlsagent.__version__":
            found.add("__init__")
        elif name.startswith("ktlsagent."):
            part = name.split(".")[1]
            if (PACKAGE / f"{part}.py").exists() or (PACKAGE / part).is_dir():
                found.add(part)
    return found


class LayerTests(SynchronousTestCase):
    """Dependencies point one way."""

    def test_everyModuleHasItsPlace(self) -> None:
        """Every module of the package is in the table."""
        modules = {path.stem for path in PACKAGE.glob("*.py")}
        self.assertEqual(modules, set(LAYERS))

    def test_modulesImportOnlyWhatIsBelowThem(self) -> None:
        """A module imports no module of the package that the table does not give it."""
        for module, allowed in LAYERS.items():
            found = ours(importedModules(PACKAGE / f"{module}.py"))
            self.assertEqual(found - set(allowed.split()), set(), f"imports of {module}")

    def test_theTableHasNoCycle(self) -> None:
        """The table itself can be put into an order."""
        left = {module: set(allowed.split()) - {"protocols"} for module, allowed in LAYERS.items()}
        while left:
            free = {module for module, needs in left.items() if not needs & set(left)}
            self.assertTrue(free, f"a cycle among {sorted(left)}")
            left = {module: needs for module, needs in left.items() if module not in free}

    def test_protocolsImportOnlyErrorsFromAbove(self) -> None:
        """Below C{protocols} nothing of the package is known but the errors."""
        for path in (PACKAGE / "protocols").glob("*.py"):
            found = ours(importedModules(path))
            self.assertEqual(found - {"protocols", "errors"}, set(), f"imports of {path.stem}")

    def test_thePurePartIsPure(self) -> None:
        """The pure modules import neither Twisted nor what makes system calls."""
        modules = {path.stem for path in (PACKAGE / "protocols").glob("*.py")}
        self.assertEqual(modules - {"__init__", "handshake"}, PURE)
        forbidden = {"twisted", "socket", "os", "select", "asyncio", "threading", "keyutils"}
        for module in sorted(PURE):
            names = importedModules(PACKAGE / "protocols" / f"{module}.py")
            roots = {name.split(".")[0] for name in names}
            allowed = {"os"} if module in FILES_IN_MEMORY else set()
            self.assertEqual(roots & forbidden - allowed, set(), f"imports of protocols.{module}")

    def test_onlySomeModulesTouchSocketsAndKeys(self) -> None:
        """System calls on sockets and keys are in a few modules."""
        for path in PACKAGE.glob("*.py"):
            roots = {name.split(".")[0] for name in importedModules(path)}
            if path.stem not in SYSTEM_CALLS | SOCKET_TYPE_ONLY:
                self.assertEqual(roots & {"socket", "keyutils", "fcntl"}, set(), path.stem)

    def test_onlyProgramsImportTheReactor(self) -> None:
        """The reactor is a parameter everywhere else."""
        for path in PACKAGE.rglob("*.py"):
            if path.stem not in {"tap", "worker"}:
                self.assertNotIn("twisted.internet.reactor", importedModules(path), path.stem)
