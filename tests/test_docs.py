"""What the documentation shows works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ktlsagent
from ktlsagent.errors import STATUS
from ktlsagent.netlink import HandshakeNetlink
from tests.support.agent import AgentTestCase

DOCS = Path(ktlsagent.__file__).parents[1] / "docs"
_PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


class EmbeddingTests(AgentTestCase):
    """docs/embedding.md"""

    def test_exampleRuns(self) -> None:
        """The example starts an agent that serves a request, and stops it."""
        (example,) = _PYTHON.findall((DOCS / "embedding.md").read_text())
        names: dict[str, Any] = {}
        exec(compile(example, "docs/embedding.md", "exec"), names)
        path = self.folder / "config"
        path.write_text("")
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
