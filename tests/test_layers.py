"""The arrows between the modules, as the design draws them."""

from __future__ import annotations

import ast
import string
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import ktlsagent

PACKAGE = Path(ktlsagent.__file__).parent

PURE = {
    "asn1",
    "boundedcache",
    "callbacks",
    "context",
    "cryptoinfo",
    "engine",
    "examination",
    "failures",
    "handshakefamily",
    "interfaces",
    "keyschedule",
    "knownanswers",
    "knownchains",
    "netlink",
    "openssl",
    "psk",
    "pskserver",
    "quickmessages",
    "record",
    "rehearsal",
    "resumption",
    "session",
    "tickets",
    "trafficsecrets",
    "verification",
}
"""The modules of C{protocols} that only turn values into values."""

LAYERS: dict[str, str] = {
    "errors": "",
    "texts": "",
    "bugs": "texts",
    "credentials.expiry": "",
    "credentials.pem": "",
    "credentials.inventory": "protocols",
    "safefiles": "",
    "credentials.filekinds": "credentials.pem",
    "credentials.files": "credentials.filekinds errors safefiles",
    "credentials.tokens": "credentials.pem",
    "credentials.pins": "credentials.files errors",
    "credentials.truststores": (
        "credentials.expiry credentials.files credentials.pem profiles protocols"
    ),
    "credentials.crls": (
        "credentials.expiry credentials.files credentials.inventory credentials.pem profiles "
        "protocols"
    ),
    "credentials.owncertificates": (
        "credentials.expiry credentials.filekinds credentials.files credentials.pem "
        "credentials.tokens profiles protocols"
    ),
    "__init__": "",
    "__main__": "lean processes.standardlog signals tap",
    "clocks": "errors",
    "ledger": "",
    "fairness": "",
    "seldom": "",
    "stepqueue": "errors fairness seldom",
    "peers.patterns": "",
    "peers.folding": "",
    "peers.certificatefields": "protocols",
    "peers.signedcontent": "peers.certificatefields protocols",
    "peers.generalnames": "peers.certificatefields peers.folding protocols",
    "peers.presented": "errors peers.generalnames peers.signedcontent protocols texts",
    "peers.rules": "peers.folding peers.patterns peers.presented peers.signedcontent",
    "peers.authorisation": "errors peers.presented peers.rules texts",
    "profiles": "peers.authorisation peers.patterns protocols",
    "config.keyfile": "errors",
    "config.values": "config.keyfile errors",
    "config.places": "config.keyfile config.values",
    "peers.certificatetexts": "peers.presented",
    "peers.tagfilters": (
        "config.keyfile config.values peers.certificatefields peers.certificatetexts "
        "peers.folding peers.patterns peers.presented "
        "peers.rules"
    ),
    "peers.tagfiles": "config.keyfile config.values errors peers.tagfilters",
    "peers.tags": "errors peers.presented peers.tagfiles peers.tagfilters safefiles",
    "config.peers": "config.keyfile config.values peers.authorisation profiles",
    "config.keys": (
        "config.keyfile config.peers config.places config.values errors profiles protocols"
    ),
    "config.profiles": "config.keyfile config.keys errors peers.authorisation profiles protocols",
    "config": (
        "config.keyfile config.keys config.places config.profiles config.values errors "
        "profiles protocols safefiles"
    ),
    "interfaces": "protocols",
    "credentials.threadsteps": "errors interfaces",
    "coredumps": "",
    "credentials.tokenload": "coredumps credentials.pins credentials.tokens errors protocols",
    "credentials.latecontexts": (
        "bugs credentials.pins credentials.threadsteps credentials.tokenload credentials.tokens "
        "errors interfaces protocols"
    ),
    "peers.nameconstraints": (
        "errors peers.certificatefields peers.folding peers.generalnames protocols texts"
    ),
    "peers.names": "errors peers.generalnames peers.nameconstraints protocols texts",
    "peers.peerrules": (
        "errors peers.certificatefields peers.signedcontent profiles protocols texts"
    ),
    "peers.revocation": "errors profiles protocols",
    "credentials.contexts": (
        "credentials.expiry credentials.inventory credentials.latecontexts peers.revocation "
        "credentials.owncertificates peers.tags profiles protocols"
    ),
    "policy": (
        "credentials.contexts errors peers.authorisation peers.nameconstraints peers.names "
        "peers.peerrules peers.presented peers.tags profiles protocols"
    ),
    "credentials.parts": (
        "credentials.contexts credentials.latecontexts credentials.owncertificates "
        "credentials.tokens peers.revocation profiles protocols"
    ),
    "credentials.loading": (
        "clocks config credentials.contexts credentials.crls credentials.expiry credentials.files "
        "credentials.inventory credentials.owncertificates credentials.parts "
        "credentials.truststores errors peers.authorisation peers.revocation peers.tags profiles "
        "protocols"
    ),
    "keytrust": "interfaces",
    "keys": "errors interfaces keytrust protocols texts",
    "keyrings": "errors interfaces keytrust ledger",
    "ktls": "errors interfaces protocols",
    "netlinksocket": "interfaces",
    "netlink": "errors interfaces netlinksocket protocols",
    "notify": "",
    "sockets": "errors interfaces profiles protocols",
    "report": "bugs errors policy profiles protocols texts",
    "namespace": "",
    "configured": (
        "bugs clocks config credentials.contexts credentials.expiry credentials.inventory "
        "credentials.latecontexts credentials.loading errors fairness interfaces namespace "
        "protocols texts watch"
    ),
    "request": (
        "configured credentials.contexts credentials.latecontexts errors interfaces keyrings "
        "keys ledger peers.peerrules policy profiles protocols report sockets stepqueue"
    ),
    "announcements": "interfaces seldom",
    "banner": "__init__ interfaces protocols",
    "service": (
        "announcements banner bugs clocks config configured credentials.contexts "
        "credentials.latecontexts errors interfaces keyrings ktls ledger netlink netlinksocket "
        "policy protocols request seldom sockets stepqueue texts"
    ),
    "watch": "bugs interfaces notify",
    "lean": "",
    "readysocket": "",
    "signals": "",
    "processes.remainder": "",
    "processes.template": "coredumps lean",
    "processes.backoff": "",
    "processes.channel": "config",
    "processes.standardlog": "texts",
    "processes.workerlog": "processes.standardlog texts",
    "processes.slot": "announcements interfaces",
    "processes.dispatcher": "announcements processes.slot",
    "processes.workerchannel": "processes.channel processes.dispatcher processes.slot",
    "processes.worker": (
        "bugs clocks config coredumps credentials.contexts credentials.tokenload errors lean "
        "processes.channel processes.slot processes.workerlog service"
    ),
    "processes.supervisor": (
        "config credentials.contexts errors processes.backoff processes.channel "
        "processes.dispatcher processes.slot processes.template processes.worker "
        "processes.workerchannel"
    ),
    "processes.workers": (
        "announcements banner bugs config configured errors interfaces keyrings ktls netlink "
        "netlinksocket processes.supervisor processes.template processes.workerlog"
    ),
    "tap": (
        "__init__ bugs clocks config coredumps errors interfaces lean netlink processes.remainder "
        "processes.standardlog processes.workers readysocket service signals"
    ),
}
"""What each module of the package may import from the package."""

BARE = {"credentials", "peers", "processes"}
"""The packages that have nothing in them but modules."""

LOCKS = {"boundedcache"}
"""The pure modules that any thread may use: they know of threads what a lock is."""

FILES_IN_MEMORY = {"openssl"}
"""Modules of C{PURE} that may use C{os}, for files that are nowhere but in memory."""

SYSTEM_CALLS = {
    "sockets",
    "netlinksocket",
    "readysocket",
    "processes.remainder",
    "processes.standardlog",
    "processes.template",
    "processes.worker",
    "processes.workerlog",
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


def modules() -> dict[str, Path]:
    """
    List the modules outside C{protocols}.

    @return: their files by their names below the package, C{__init__} for itself.
    """
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts if parts == ("__init__",) else [p for p in parts if p != "__init__"])
        if parts[0] != "protocols" and name not in BARE:
            found[name] = path
    return found


def ours(names: set[str]) -> set[str]:
    """
    Say which of our modules are among some names.

    @param names: full names.
    @return: the modules' names as in L{LAYERS}.
    """
    known = {*modules(), "protocols"}
    found = set()
    for name in names:
        if name == "ktlsagent.__version__":
            found.add("__init__")
        elif name.startswith("ktlsagent."):
            parts = name.split(".")[1:]
            if parts[0] == "protocols":
                found.add("protocols")
            elif ".".join(parts) in known:
                found.add(".".join(parts))
    return found


class LayerTests(SynchronousTestCase):
    """Dependencies point one way."""

    def test_everyModuleHasItsPlace(self) -> None:
        """Every module of the package is in the table."""
        self.assertEqual(set(modules()), set(LAYERS))

    def test_modulesImportOnlyWhatIsBelowThem(self) -> None:
        """A module imports no module of the package that the table does not give it."""
        for module, path in modules().items():
            found = ours(importedModules(path))
            self.assertEqual(found - set(LAYERS[module].split()), set(), f"imports of {module}")

    def test_theTableHasNoCycle(self) -> None:
        """The table itself can be put into an order."""
        left = {module: set(allowed.split()) - {"protocols"} for module, allowed in LAYERS.items()}
        while left:
            free = {module for module, needs in left.items() if not needs & set(left)}
            self.assertTrue(free, f"a cycle among {sorted(left)}")
            left = {module: needs for module, needs in left.items() if module not in free}

    def test_protocolsImportOnlyErrorsFromAbove(self) -> None:
        """Below C{protocols} nothing of the package is known but errors and texts for people."""
        for path in (PACKAGE / "protocols").glob("*.py"):
            found = ours(importedModules(path))
            self.assertEqual(
                found - {"protocols", "errors", "texts"}, set(), f"imports of {path.stem}"
            )

    def test_thePurePartIsPure(self) -> None:
        """The pure modules import neither Twisted nor what makes system calls."""
        found = {path.stem for path in (PACKAGE / "protocols").glob("*.py")}
        self.assertEqual(found - {"__init__", "handshake"}, PURE)
        forbidden = {"twisted", "socket", "os", "select", "asyncio", "threading", "keyutils"}
        for module in sorted(PURE):
            names = importedModules(PACKAGE / "protocols" / f"{module}.py")
            roots = {name.split(".")[0] for name in names}
            allowed = {"os"} if module in FILES_IN_MEMORY else set()
            allowed |= {"threading"} if module in LOCKS else set()
            self.assertEqual(roots & forbidden - allowed, set(), f"imports of protocols.{module}")

    def test_onlySomeModulesTouchSocketsAndKeys(self) -> None:
        """System calls on sockets and keys are in a few modules."""
        for module, path in modules().items():
            roots = {name.split(".")[0] for name in importedModules(path)}
            if module not in SYSTEM_CALLS | SOCKET_TYPE_ONLY:
                self.assertEqual(roots & {"socket", "keyutils", "fcntl"}, set(), module)

    def test_testsImportNoOtherTests(self) -> None:
        """What test modules share is in tests/support: no test module imports another one."""
        tests = Path(__file__).parent
        found = [
            f"{path.relative_to(tests)}: {name}"
            for path in sorted(tests.rglob("*.py"))
            for name in sorted(importedModules(path))
            if name.startswith("tests.test_")
        ]
        self.assertEqual(found, [])

    def test_logsAskForNoFormat(self) -> None:
        """
        What is logged is rounded by whoever logs it: Twisted does not heed a format
        where an event is written by another process, as a worker's are.
        """
        levels = {"debug", "info", "warn", "error", "critical", "failure"}
        for path in PACKAGE.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in levels
                ):
                    continue
                for text in node.args[:1]:
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        formats = {form for _, _, form, _ in string.Formatter().parse(text.value)}
                        self.assertEqual(formats - {None, ""}, set(), text.value)

    def test_onlyProgramsImportTheReactor(self) -> None:
        """The reactor is a parameter everywhere else."""
        for path in PACKAGE.rglob("*.py"):
            if path.stem not in {"__main__", "tap", "worker"}:
                self.assertNotIn("twisted.internet.reactor", importedModules(path), path.stem)
