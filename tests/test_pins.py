"""Tests for L{ktlsagent.credentials.pins}."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.credentials.pins import LOCKED, pinState, readPIN
from ktlsagent.errors import KeyUnusable


class PINTestCase(SynchronousTestCase):
    """Has a place for PINs."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.patch(os, "environ", {"CREDENTIALS_DIRECTORY": self.directory})

    def write(self, content: bytes, mode: int = 0o600) -> str:
        """
        Write a PIN's file.

        @param content: what is in it.
        @param mode: its mode.
        @return: its path.
        """
        path = os.path.join(self.directory, "pin")
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)
        return path

    def refusal(self, place: str) -> str:
        """
        Read a PIN that cannot be used.

        @param place: where it is.
        @return: why.
        """
        error = self.assertRaises(KeyUnusable, readPIN, place)
        assert isinstance(error, KeyUnusable)
        self.assertEqual(error.code, LOCKED)
        return error.reason


class ReadPINTests(PINTestCase):
    """Tests for L{readPIN}."""

    def test_file(self) -> None:
        """The PIN is the first line, without its end."""
        for content in (b"4321", b"4321\n", b"4321\r\n", b"4321\nthe token in the basement\n"):
            self.assertEqual(readPIN(self.write(content)), b"4321")

    def test_blanks(self) -> None:
        """Blanks may be part of it."""
        self.assertEqual(readPIN(self.write(b" 43 21 \n")), b" 43 21 ")

    def test_credential(self) -> None:
        """A credential of the service is a file, too."""
        self.write(b"4321\n", 0o400)
        self.assertEqual(readPIN("credential:pin"), b"4321")

    def test_noCredentials(self) -> None:
        """Without credentials the unit's missing line is named."""
        self.patch(os, "environ", {})
        self.assertIn("LoadCredential=pin:/", self.refusal("credential:pin"))

    def test_missing(self) -> None:
        """A file that is not there is named."""
        self.assertIn("/none: No such file", self.refusal(os.path.join(self.directory, "none")))
        self.assertIn("/none: No such file", self.refusal("credential:none"))

    def test_open(self) -> None:
        """A file that others can read is refused, as a private key's is."""
        path = self.write(b"4321\n", 0o644)
        self.assertIn("with mode 0644; chmod 0600 " + path, self.refusal(path))

    def test_nothing(self) -> None:
        """An empty first line is no PIN, nor is half a file."""
        for content in (b"", b"\n4321\n", b"\r\n", b"4" * 256):
            reason = self.refusal(self.write(content))
            self.assertIn("characters there", reason)
            self.assertNotIn("444", reason)


class PINStateTests(PINTestCase):
    """Tests for L{pinState}."""

    def test_same(self) -> None:
        """As long as nothing happens the state is the same, whatever the file is called."""
        path = self.write(b"4321\n")
        self.assertEqual(pinState(path), pinState(path))
        self.assertEqual(pinState(path), pinState("credential:pin"))

    def test_changed(self) -> None:
        """Another PIN in the same file is another state; no file is one as well."""
        path = self.write(b"4321\n")
        states = [pinState(path)]
        os.utime(path, ns=(1, 1))
        states.append(pinState(path))
        self.write(b"54321\n")
        states.append(pinState(path))
        os.unlink(path)
        states.append(pinState(path))
        self.assertEqual(len(set(states)), 4)
