"""What the documentation shows works."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

import ktlsagent
from ktlsagent.errors import STATUS
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.profiles import CertificateFiles, Own, Trust
from ktlsagent.protocols.session import Role
from tests.support import certificates
from tests.support.agent import AgentTestCase
from tests.support.verifier import VALID, Verifier

DOCS = Path(ktlsagent.__file__).parents[1] / "docs"
_SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


class EmbeddingTests(AgentTestCase):
    """docs/embedding.md"""

    def test_exampleRuns(self) -> None:
        """The example starts an agent that serves a request, and stops it."""
        (example,) = _PYTHON.findall((DOCS / "embedding.md").read_text())
        names: dict[str, Any] = {}
        exec(compile(example, "docs/embedding.md", "exec"), names)
        path = self.folder / "config"
        authority = self.folder / "ca.pem"
        authority.write_bytes(certificates.authority().certificatePEM)
        # Not every machine has a trust store of the system's, the default.
        sections = ("[authenticate.client]", "[authenticate.server]")
        path.write_text("\n".join(f"{name}\nx509.truststore={authority}" for name in sections))
        appliance = names["makeStorageService"](
            self.reactor,
            str(path),
            kernel=HandshakeNetlink(self.kernel.socket, self.kernel.listenersFile),
            kernelTLS=self.kernelTLS,
            keyrings=self.keyrings,
        )
        appliance.startService()
        upcall, client = self.serve()
        self.run_(client)
        self.assertIsNotNone(upcall.status)
        agent = appliance.getServiceNamed("ktlsagent")
        self.successResultOf(appliance.stopService())
        self.assertTrue(agent.ledger.balanced())


class ReadmeTests(SynchronousTestCase):
    """README.md"""

    def test_certificates(self) -> None:
        """The commands make certificates that are good for both sides, for the names in them."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        text = (DOCS.parent / "README.md").read_text()
        commands = [block for block in _SHELL.findall(text) if block.startswith("openssl req ")]
        self.assertEqual(len(commands), 2)
        for command in commands:
            subprocess.run(["sh", "-ec", command], cwd=folder, check=True, capture_output=True)
        machine = crypto.load_certificate(
            crypto.FILETYPE_PEM, (folder / "machine.pem").read_bytes()
        )
        trust = Trust((str(folder / "ca.pem"),))
        own = Own((CertificateFiles(str(folder / "machine.pem"), str(folder / "machine.key")),))
        for role, name, verdict in (
            (Role.CLIENT, "files.example.org", VALID),
            (Role.CLIENT, "192.0.2.7", VALID),
            (Role.CLIENT, "other.example.org", "name-mismatch"),
            (Role.SERVER, None, VALID),
        ):
            verifier = Verifier(
                role, trust, own=own, serverName=name, tagDirectory=str(folder / "tags.d")
            )
            self.assertEqual(verifier.verdict([machine]), verdict, name)


class CodesTests(AgentTestCase):
    """docs/codes.md"""

    def test_everyCodeIsExplained(self) -> None:
        """Every code that the source can log is in the list."""
        text = (DOCS / "codes.md").read_text()
        package = Path(ktlsagent.__file__).parent
        raised = re.compile(rf"(?:{'|'.join(kind.__name__ for kind in STATUS)})\(\s*\"([a-z-]+)\"")
        tables = re.compile(r"^(?:    \w+:|_[A-Z_]+ =) \"([a-z-]+)\",?$", re.MULTILINE)
        codes = set()
        for path in package.rglob("*.py"):
            codes |= set(raised.findall(path.read_text()))
        verification = (package / "protocols" / "verification.py").read_text()
        codes |= set(tables.findall(verification))
        codes |= {"certificate-invalid", "internal-error", "wrong-key"}
        missing = sorted(code for code in codes if f"`{code}`" not in text)
        self.assertEqual(missing, [])
        self.assertGreater(len(codes), 35)
