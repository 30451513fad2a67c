"""What the program imports, and what it does not."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import ktlsagent
from ktlsagent import lean
from ktlsagent.lean import postpone
from tests.support import certificates

ROOT = Path(ktlsagent.__file__).parents[1]

IMPORTED = """
def imported():
    # A module that has been postponed has nothing but what all modules have.
    return {
        name for name, module in list(sys.modules.items())
        if "__getattr__" not in vars(module) or len(vars(module)) > 10
    }
"""
"""Lists what has been imported."""

HANDSHAKE = """
import ktlsagent.__main__
from twisted.internet import epollreactor
from OpenSSL import crypto
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.interfaces import TLSParameters
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.record import splitRecords
from ktlsagent.protocols.session import Role

def read(name):
    with open("FOLDER/" + name + ".pem", "rb") as file:
        return file.read()

def engine(role):
    pem = read(role.value)
    store = crypto.X509Store()
    store.add_cert(crypto.load_certificate(crypto.FILETYPE_PEM, read("ca")))
    chain = (crypto.load_certificate(crypto.FILETYPE_PEM, pem),)
    own = [OwnCertificate(chain, crypto.load_privatekey(crypto.FILETYPE_PEM, pem))]
    suites = ["TLS_AES_128_GCM_SHA256"]
    context = TLSContext(role=role, store=store, own=own, suites=suites, groups=())
    return TLSEngine(TLSParameters(role, context, "server.lab", lambda chain: None))

client, server = engine(Role.CLIENT), engine(Role.SERVER)
before = imported()
output, to, other = client.start(), server, client
while output:
    output = b"".join(map(to.receiveRecord, splitRecords(output)))
    to, other = other, to
print(client.state.value, server.state.value, *imported() - before)
"""
"""Prints how a handshake between two engines of ours ends, and what it imports."""


class PostponeTests(SynchronousTestCase):
    """Packages whose modules come without all the rest."""

    NAME = "ktlsagent_test_package"

    def setUp(self) -> None:
        """Write a package whose own code imports all its modules, and postpone it."""
        folder = Path(self.mktemp()) / self.NAME
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(
            f"from {self.NAME}.big import BIG\n"
            f"from {self.NAME}.small import SMALL\n"
            "__version__ = '1'\n"
        )
        (folder / "big.py").write_text(
            "BIG = object()\n\n\ndef double(number):\n    return 2 * number\n"
        )
        (folder / "small.py").write_text("SMALL = object()\n")
        sys.path.insert(0, str(folder.parent))
        self.addCleanup(sys.path.remove, str(folder.parent))
        self.addCleanup(self.forget)
        postpone(self.NAME)

    def forget(self) -> None:
        """Let the package be imported anew."""
        for name in [name for name in sys.modules if name.startswith(self.NAME)]:
            del sys.modules[name]

    def imported(self) -> set[str]:
        """
        Say which modules of the package have been imported.

        @return: their names.
        """
        prefix = f"{self.NAME}."
        return {name.removeprefix(prefix) for name in sys.modules if name.startswith(prefix)}

    def package(self) -> ModuleType:
        """
        Import the package as everybody does.

        @return: it.
        """
        return import_module(self.NAME)

    def test_oneModule(self) -> None:
        """A module is imported without the others."""
        import_module(f"{self.NAME}.small")
        self.assertEqual(self.imported(), {"small"})

    def test_theRest(self) -> None:
        """Who asks the package for anything gets it, and all modules are there but once."""
        small = import_module(f"{self.NAME}.small")
        self.assertIs(self.package().BIG, sys.modules[f"{self.NAME}.big"].BIG)
        self.assertIs(self.package().SMALL, small.SMALL)
        self.assertEqual(self.imported(), {"big", "small"})

    def test_fromImport(self) -> None:
        """C{from package import name} and C{import *} find what the package has."""
        names: dict[str, object] = {}
        exec(f"from {self.NAME} import BIG", names)
        self.assertIn("BIG", names)
        self.forget()
        postpone(self.NAME)
        exec(f"from {self.NAME} import *", names)
        self.assertIn("SMALL", names)

    def test_moduleOfPackage(self) -> None:
        """C{from package import module} imports that module alone."""
        names: dict[str, object] = {}
        exec(f"from {self.NAME} import small", names)
        self.assertIs(names["small"], sys.modules[f"{self.NAME}.small"])
        self.assertEqual(self.imported(), {"small"})

    def test_plainModule(self) -> None:
        """A module, too, is only imported when it is asked for something."""
        self.postponeModule()
        module = import_module(f"{self.NAME}.big")
        self.assertNotIn("BIG", vars(module))
        self.assertIs(module.BIG, vars(module)["BIG"])

    def test_belongsToItsPackage(self) -> None:
        """The package knows a module that has been postponed, as any other."""
        self.postponeModule()
        names: dict[str, Any] = {}
        exec(f"import {self.NAME}.big", names)
        self.assertIs(names[self.NAME].big, sys.modules[f"{self.NAME}.big"])
        self.assertEqual(self.imported(), {"big"})

    def test_homes(self) -> None:
        """Something whose module is known is had without the package."""
        self.forget()
        postpone(self.NAME, homes={"SMALL": "small"})
        names: dict[str, object] = {}
        exec(f"from {self.NAME} import SMALL", names)
        self.assertEqual(self.imported(), {"small"})
        self.assertIs(self.package().BIG, sys.modules[f"{self.NAME}.big"].BIG)
        self.assertIs(self.package().SMALL, names["SMALL"])

    def test_functions(self) -> None:
        """A function is imported when it is called."""
        self.postponeModule(functions=["double"])
        names: dict[str, Any] = {}
        exec(f"from {self.NAME}.big import double", names)
        module = sys.modules[f"{self.NAME}.big"]
        self.assertNotIn("BIG", vars(module))
        self.assertEqual([names["double"](21), names["double"](number=4)], [42, 8])
        self.assertIn("BIG", vars(module))
        self.assertIs(module.double, vars(module)["double"])

    def postponeModule(self, **arguments: Any) -> None:
        """Postpone a module of the package."""
        postpone(f"{self.NAME}.big", **arguments)

    def test_version(self) -> None:
        """The package's version is there."""
        self.assertEqual(self.package().__version__, "1")

    def test_missing(self) -> None:
        """What the package does not have is missing, as ever."""
        message = f"module '{self.NAME}' has no attribute 'NOTHING'"
        for _time in range(2):
            error = self.assertRaises(AttributeError, getattr, self.package(), "NOTHING")
            self.assertEqual(str(error), message)

    def test_toolsThatLookAtAllModules(self) -> None:
        """Who asks for a name that tools put into modules does not import anything."""
        self.assertFalse(hasattr(self.package(), "__warningregistry__"))
        self.assertEqual(self.imported(), set())

    def test_threads(self) -> None:
        """Several threads that ask at once all get the same."""
        found: list[object] = []
        threads = [
            threading.Thread(target=lambda: found.append(self.package().BIG)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found, [self.package().BIG] * 8)

    def test_alreadyImported(self) -> None:
        """A package that has been imported is left alone."""
        self.forget()
        package = self.package()
        postpone(self.NAME)
        self.assertIs(sys.modules[self.NAME], package)
        self.assertEqual(self.imported(), {"big", "small"})

    def test_noPackage(self) -> None:
        """A package that is not there is left to the import that needs it."""
        for name in "ktlsagent_test_missing", "ktlsagent_test_missing.part":
            postpone(name)
            self.assertNotIn(name, sys.modules)


class SettleTests(SynchronousTestCase):
    """The garbage collector and what stays."""

    def setUp(self) -> None:
        """Leave no trace."""
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.enable)

    def test_begin(self) -> None:
        """No garbage is looked for while the program is imported."""
        lean.begin()
        self.assertFalse(gc.isenabled())

    def test_settle(self) -> None:
        """Afterwards it is, but not among what is there."""
        lean.begin()
        lean.settle()
        self.assertTrue(gc.isenabled())
        self.assertGreater(gc.get_freeze_count(), 1000)


class ProgramTests(SynchronousTestCase):
    """The program, in a process of its own."""

    def tell(self, script: str) -> str:
        """
        Run a script in a process of its own.

        @param script: the script.
        @return: what it printed.
        """
        return subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{script}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    def test_onlyWhatIsUsed(self) -> None:
        """Nothing large is imported that the agent does not use and Twisted does not import."""
        shown = self.tell(
            IMPORTED + "import ktlsagent.__main__\n"
            "from twisted.internet import epollreactor\n"
            "print(*imported())\n"
        )
        unused = {
            *("multiprocessing", "pyroute2.iproute", "pyroute2.ndb", "sqlite3", "unittest"),
            *("http.server", "xml", "twisted.conch.ssh", "twisted.mail", "twisted.web"),
            *("twisted.names", "twisted.spread", "twisted.trial", "setuptools", "pycparser"),
            *("asyncio.base_events", "email.parser", "http.client", "html.entities", "pdb"),
            *("secrets", "ssl", "twisted.scripts.twistd"),
            *("yaml", "zipfile"),
        }
        imported = set(shown.split())
        self.assertIn("pyroute2.netlink", imported)
        self.assertEqual(imported & unused, set())
        ofPyroute2 = {name for name in imported if name.startswith("pyroute2.")}
        self.assertLessEqual(
            ofPyroute2, {"pyroute2.common", "pyroute2.netlink", "pyroute2.netlink.exceptions"}
        )

    def test_asTwisted(self) -> None:
        """As twistd loads it, it does without as much as Twisted lets it."""
        imported = self.tell(
            "from twisted.scripts import twistd\nimport ktlsagent.tap\nprint(*sys.modules)\n"
        ).split()
        self.assertIn("pdb", imported)
        self.assertNotIn("pyroute2.iproute", imported)

    def test_handshake(self) -> None:
        """All that a handshake needs has been imported before the first one."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        for name, own in ("server", certificates.server()), ("client", certificates.client()):
            (folder / f"{name}.pem").write_bytes(own.certificatePEM + own.keyPEM)
        (folder / "ca.pem").write_bytes(certificates.authority().certificatePEM)
        shown = self.tell(IMPORTED + HANDSHAKE.replace("FOLDER", str(folder)))
        self.assertEqual(shown.split(), ["complete", "complete"])

    def test_sameMessages(self) -> None:
        """The messages are the same as with all of pyroute2."""
        script = (
            "from ktlsagent.protocols.handshakefamily import encodeAccept, encodeDone\n"
            "from ktlsagent.protocols.netlink import getFamily, getPolicy\n"
            "print(encodeAccept(28, 1).hex())\n"
            "print(encodeDone(28, 2, descriptor=9, status=13, remoteAuth=[7], tags=['a']).hex())\n"
            "print(getFamily('handshake', 3).hex())\n"
            "print(getPolicy(28, 3, 4).hex())\n"
            "print('pyroute2.iproute' in sys.modules)\n"
        )
        *messages, whole = self.tell(script).split()
        self.assertEqual(whole, "True")
        self.assertEqual(self.tell("import ktlsagent.tap\n" + script).split(), [*messages, "False"])

    def test_pyroute2IsStillThere(self) -> None:
        """Who wants more of pyroute2 gets it, with the same message classes."""
        shown = self.tell(
            "import ktlsagent.tap\n"
            "from ktlsagent.protocols.netlink import genlmsg\n"
            "import pyroute2\n"
            "from pyroute2 import IPRoute\n"
            "print(isinstance(IPRoute, type), pyroute2.netlink.genlmsg is genlmsg)\n"
        )
        self.assertEqual(shown.split(), ["True", "True"])
