"""What docs/tokens.md shows works."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.config import parseConfig
from ktlsagent.credentials.threadsteps import MOST_THREADS
from ktlsagent.credentials.tokens import TokenKey
from tests.kernel.guest import tokens

DOCS = Path(__file__).parents[1] / "docs"
TEXT = (DOCS / "tokens.md").read_text()
BLOCKS = re.findall(r"```ini\n(.*?)```", TEXT, re.DOTALL)
_CODE = re.compile(r"^\| `([a-z-]+)` \|", re.MULTILINE)


class TokenDocsTests(SynchronousTestCase):
    """Tests for docs/tokens.md."""

    def test_configurations(self) -> None:
        """Every example of a configuration can be used, and names the keys that it shows."""
        keys = []
        for text in BLOCKS:
            if "x509." in text:
                profile = parseConfig(text, None).profiles[-1]
                keys += [(one.privateKey, profile.own.pin) for one in profile.own.certificates]
        self.assertEqual(
            keys,
            [
                ("/etc/ktlsagent/server.key", None),
                ("pkcs11:token=files;object=server-key;type=private", "credential:token-pin"),
            ],
        )
        uri, pin = keys[1]
        self.assertEqual(TokenKey.fromURI(uri, pin).name, uri)

    def test_openssl(self) -> None:
        """OpenSSL's configuration is the one that the kernel lab's tokens are used with."""
        shown = [line for line in BLOCKS[0].splitlines() if line]
        used = tokens._CONFIGURATION.format(
            modules="/usr/lib/x86_64-linux-gnu/ossl-modules", pkcs11=tokens._SOFTHSM
        )
        self.assertEqual(shown, used.splitlines())

    def test_codes(self) -> None:
        """Every code of a token has an advice."""
        (section,) = re.findall(
            r"## Keys in tokens\n(.*?)\n## ", (DOCS / "codes.md").read_text(), re.DOTALL
        )
        self.assertEqual(sorted(_CODE.findall(TEXT)), sorted(_CODE.findall(section)))

    def test_numbers(self) -> None:
        """The number of threads is the real one."""
        found = set(re.findall(r"at most (\d+) for each key|of (\d+) that may|If (\d+) wait", TEXT))
        self.assertEqual({int("".join(match)) for match in found}, {MOST_THREADS})
