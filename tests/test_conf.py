"""
Tests for the systemd unit in C{conf/}.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

UNIT = Path(__file__).parent.parent / "conf" / "ktlsagent.service"


def readUnit(text: str) -> dict[tuple[str, str], list[str]]:
    """
    Read a unit file.

    @param text: the file.
    @return: by section and key the words of all its lines.
    """
    section = ""
    settings: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            settings[section, key].extend(value.split())
    return dict(settings)


class UnitTests(SynchronousTestCase):
    """
    Tests for what the unit promises to mounts, to tlshd and to the agent.
    """

    def setUp(self) -> None:
        """
        Read the unit.
        """
        self.unit = readUnit(UNIT.read_text())

    def test_beforeMounts(self) -> None:
        """
        The agent starts before the first remote mount, and that order exists
        even if nothing else asks for it.
        """
        self.assertIn("remote-fs-pre.target", self.unit["Unit", "Before"])
        self.assertIn("remote-fs-pre.target", self.unit["Unit", "Wants"])
        self.assertEqual(self.unit["Unit", "DefaultDependencies"], ["no"])
        self.assertEqual(self.unit["Install", "WantedBy"], ["remote-fs.target"])

    def test_noCircle(self) -> None:
        """
        The agent waits for nothing that may itself wait for a remote mount.
        """
        self.assertEqual(self.unit["Unit", "After"], ["tlshd.service"])
        self.assertNotIn(("Unit", "Requires"), self.unit)

    def test_beforeOtherConsumers(self) -> None:
        """
        The agent starts before an NFS server and NVMe connections.
        """
        for unit in ("nfs-server.service", "nvmf-autoconnect.service"):
            self.assertIn(unit, self.unit["Unit", "Before"])

    def test_shutdown(self) -> None:
        """
        A shutdown stops the agent and waits for it, which the unit has to say
        since it has no default dependencies.
        """
        self.assertIn("shutdown.target", self.unit["Unit", "Conflicts"])
        self.assertIn("shutdown.target", self.unit["Unit", "Before"])

    def test_oneAgent(self) -> None:
        """
        The agent and tlshd never run at the same time.
        """
        self.assertIn("tlshd.service", self.unit["Unit", "Conflicts"])
        self.assertIn("tlshd.service", self.unit["Unit", "After"])

    def test_running(self) -> None:
        """
        The unit starts the agent in the foreground, reloads it by SIGHUP and
        restarts it after a failure.
        """
        self.assertEqual(self.unit["Service", "Type"], ["simple"])
        self.assertEqual(
            " ".join(self.unit["Service", "ExecStart"]),
            "/usr/bin/twistd -n --pidfile= ktlsagent",
        )
        self.assertEqual(self.unit["Service", "ExecReload"][1:], ["-HUP", "$MAINPID"])
        self.assertEqual(self.unit["Service", "Restart"], ["on-failure"])

    def test_stopping(self) -> None:
        """
        A stop leaves handshakes more than the 10 seconds they may take.
        """
        (seconds,) = self.unit["Service", "TimeoutStopSec"]
        self.assertGreater(int(seconds), 10)

    def test_privileges(self) -> None:
        """
        The agent is root, for the keyring of NVMe, with the one capability that
        it needs and a session keyring of its own.
        """
        self.assertNotIn(("Service", "User"), self.unit)
        self.assertEqual(self.unit["Service", "CapabilityBoundingSet"], ["CAP_NET_ADMIN"])
        self.assertEqual(self.unit["Service", "KeyringMode"], ["private"])

    def test_noTrailingComments(self) -> None:
        """
        No line ends in a comment, which systemd would take for a value.
        """
        for words in self.unit.values():
            self.assertFalse([word for word in words if word.startswith("#")])
