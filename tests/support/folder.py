"""What tests with files share: a folder, and certificates as files have them."""

from __future__ import annotations

import os
from binascii import b2a_base64
from pathlib import Path
from tempfile import TemporaryDirectory

from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.profiles import CertificateFiles
from ktlsagent.protocols.context import OwnCertificate


def block(label: str, content: bytes = b"something") -> bytes:
    """
    Make a block of PEM.

    @param label: its label.
    @param content: what is in it.
    @return: the block.
    """
    name = label.encode()
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (name, b2a_base64(content), name)


def ownFolder(test: SynchronousTestCase) -> Path:
    """
    Make a folder that nobody else can change, wherever the tests run.

    @param test: the test, at the end of which it is removed.
    @return: its absolute path.
    """
    folder = TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    return Path(folder.name)


class FolderTestCase(SynchronousTestCase):
    """
    Has a folder.

    @ivar directory: its absolute path.
    """

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)

    def path(self, name: str) -> str:
        """
        Name a file.

        @param name: its name.
        @return: its path.
        """
        return os.path.join(self.directory, name)

    def write(self, name: str, content: bytes = b"", mode: int = 0o600) -> str:
        """
        Write a file.

        @param name: its name.
        @param content: its content.
        @param mode: its mode.
        @return: its path.
        """
        with open(self.path(name), "wb") as file:
            file.write(content)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def writePair(self, name: str, own: OwnCertificate) -> CertificateFiles:
        """
        Write a certificate and its key.

        @param name: the name of the files.
        @param own: both.
        @return: where they are.
        """
        pem = (crypto.dump_certificate(crypto.FILETYPE_PEM, one) for one in own.chain)
        key = crypto.dump_privatekey(crypto.FILETYPE_PEM, own.key)
        return CertificateFiles(
            self.write(f"{name}.pem", b"".join(pem)), self.write(f"{name}.key", key)
        )
