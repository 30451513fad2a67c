"""
Tests for the systemd unit and the sample configuration in C{conf/}.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.config import AgentConfig, loadConfig, parseConfig
from ktlsagent.config.keys import KEY_ROLES, MATCH_KEYS, ROLE_KEYS
from ktlsagent.errors import ConfigError
from ktlsagent.profiles import CertificateFiles
from ktlsagent.protocols.session import Role

UNIT = Path(__file__).parent.parent / "conf" / "ktlsagent.service"
SAMPLE = Path(__file__).parent.parent / "conf" / "ktlsagent.conf"
_KEY = re.compile(r"^#([a-z0-9_.]+)=")


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
        self.assertEqual(self.unit["Service", "Type"], ["notify"])
        self.assertEqual(self.unit["Service", "NotifyAccess"], ["main"])
        self.assertEqual(
            " ".join(self.unit["Service", "ExecStart"]),
            "/usr/bin/python3 -P -m ktlsagent",
        )
        self.assertEqual(self.unit["Service", "ExecReload"][1:], ["-HUP", "$MAINPID"])
        self.assertEqual(self.unit["Service", "Restart"], ["on-failure"])

    def test_listenerIsHeld(self) -> None:
        """
        The agent's one socket is held over a restart, but not after a stop, and a
        restart is too fast for a mount to notice.
        """
        self.assertEqual(self.unit["Service", "FileDescriptorStoreMax"], ["1"])
        self.assertEqual(self.unit["Service", "FileDescriptorStorePreserve"], ["restart"])
        self.assertEqual(self.unit["Service", "RestartSec"], ["100ms"])

    def test_stopping(self) -> None:
        """
        A stop leaves handshakes more than the 10 seconds they may take, and so does a
        restart, which does not wait for them.
        """
        self.assertEqual(self.unit["Service", "KillMode"], ["process"])
        self.assertEqual(self.unit["Service", "RestartKillSignal"], ["SIGQUIT"])
        (seconds,) = self.unit["Service", "TimeoutStopSec"]
        self.assertGreater(int(seconds), 10)

    def test_urgency(self) -> None:
        """
        The agent runs before the kernel's threads that ask it, by the lowest
        priority that does that, and so do its children.
        """
        self.assertEqual(self.unit["Service", "CPUSchedulingPolicy"], ["rr"])
        self.assertEqual(self.unit["Service", "CPUSchedulingPriority"], ["2"])
        self.assertNotIn(("Service", "CPUSchedulingResetOnFork"), self.unit)
        self.assertNotIn(("Service", "RestrictRealtime"), self.unit)

    def test_privileges(self) -> None:
        """
        The agent is root, for the keyring of NVMe, with the one capability that
        it needs and a session keyring of its own.
        """
        self.assertNotIn(("Service", "User"), self.unit)
        self.assertEqual(self.unit["Service", "CapabilityBoundingSet"], ["CAP_NET_ADMIN"])
        self.assertEqual(self.unit["Service", "KeyringMode"], ["private"])

    def test_sandbox(self) -> None:
        """
        The unit can do what the agent does, and nothing that would keep it from that.
        """
        for key, value in (
            ("LimitCORE", "0"),
            ("ProtectSystem", "strict"),
            ("ProtectHome", "read-only"),
            ("SystemCallFilter", "@system-service"),
        ):
            self.assertEqual(self.unit["Service", key], [value])
        self.assertEqual(
            set(self.unit["Service", "RestrictAddressFamilies"]),
            {"AF_UNIX", "AF_NETLINK", "AF_INET", "AF_INET6"},
        )
        for key in ("PrivateNetwork", "PrivateUsers", "ProcSubset", "MemoryDenyWriteExecute"):
            self.assertNotIn(("Service", key), self.unit)

    def test_noTrailingComments(self) -> None:
        """
        No line ends in a comment, which systemd would take for a value.
        """
        for words in self.unit.values():
            self.assertFalse([word for word in words if word.startswith("#")])


class SampleTests(SynchronousTestCase):
    """
    Tests for the sample configuration, of which each line is a comment: text,
    or a key with its default or with an example.
    """

    def setUp(self) -> None:
        """
        Read the sample.
        """
        self.text = SAMPLE.read_text()

    def uncomment(self, *, examples: bool) -> str:
        """
        Remove the comment signs before keys.

        @param examples: whether before those with examples, too: that is where
            the comment above says so.
        @return: the sample without them.
        """
        blocks = []
        isProfile = False
        for block in self.text.split("\n\n"):
            isProfile = isProfile or "#[profile." in block
            shown = examples or not (isProfile or "example" in block)
            pattern = r"^#(?=\[|[a-z0-9_.]+=)"
            blocks.append(re.sub(pattern, "", block, flags=re.MULTILINE) if shown else block)
        return "\n\n".join(blocks)

    def test_unchanged(self) -> None:
        """
        The sample as it is installed is the defaults.
        """
        self.assertEqual(loadConfig(str(SAMPLE)), AgentConfig(path=str(SAMPLE)))

    def test_defaults(self) -> None:
        """
        The values shown as defaults are the defaults.
        """
        text = self.uncomment(examples=False)
        keys = [line.partition("=")[0] for line in text.splitlines() if line[:1] not in "#["]
        optional = {"x509.certificate", "x509.private_key", "token_pin", "signature_algorithms"}
        optional |= {"x509.pq.certificate", "x509.pq.private_key"}
        for name in set(ROLE_KEYS) - optional - set(KEY_ROLES):
            self.assertGreaterEqual(keys.count(name), 2, name)
        self.assertEqual(parseConfig(text, None), AgentConfig())

    def test_examples(self) -> None:
        """
        The examples for keys without a default can be used as they are.
        """
        archive, client, server = parseConfig(self.uncomment(examples=True), None).profiles
        self.assertEqual(archive.match.roles, (Role.CLIENT,))
        self.assertEqual(archive.match.names, ("archive.example.org", "*.archive.example.org"))
        self.assertEqual(archive.own, client.own)
        for profile, role in ((client, "client"), (server, "server")):
            path = f"/etc/ktlsagent/{role}"
            self.assertEqual(
                profile.own.certificates,
                (
                    CertificateFiles(f"{path}-ml-dsa.pem", f"{path}-ml-dsa.key"),
                    CertificateFiles(f"{path}.pem", f"{path}.key"),
                ),
            )
            self.assertEqual(profile.own.pin, "credential:token-pin")
            self.assertEqual(len(profile.handshake.signatureAlgorithms), 3)

    def test_complete(self) -> None:
        """
        Every key is in the sample, in each section that it can have an effect in,
        and none twice: that of the profile has its own keys and refers to others.
        """
        parts = re.split(r"^#?\[(.+)\]$", self.text, flags=re.MULTILINE)
        shown = {
            section: [key for key in map(_KEY.match, part.splitlines()) if key]
            for section, part in zip(parts[1::2], parts[2::2], strict=True)
        }
        self.assertEqual(list(shown)[-1], "profile.archive")
        for section, matches in shown.items():
            error = self.assertRaises(ConfigError, parseConfig, f"[{section}]\n@=1\n", None)
            known = set(error.mistakes[0].advice.removeprefix("known are ").split(", "))
            if section == "profile.archive":
                known = {"preset", *MATCH_KEYS}
            if section == "authenticate.client":
                known -= set(KEY_ROLES)
            found = [match[1] for match in matches]
            self.assertEqual((set(found), len(found)), (known, len(known)), section)
