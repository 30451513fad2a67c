"""What all schedules share: certificates, keys, contexts of peers, and configurations."""

from __future__ import annotations

import ssl
from pathlib import Path

from ktlsagent.config import AgentConfig
from ktlsagent.errors import ConfigError, Mistake
from ktlsagent.profiles import CertificateFiles, Match, Own, Profile, Trust
from ktlsagent.protocols.session import Role
from tests.simulation.choices import Choices
from tests.support import certificates
from tests.support.agent import peerContext
from tests.support.fakekeyrings import FakeKeyrings

IDENTITY = b"NVMe1R01 nqn.2014-08.org.nvmexpress:uuid:host nqn.target dig=="
SECRET = b"\x00\xff not for any log" * 2
"""The pre-shared key of schedules."""


class Materials:
    """
    Made once: reading and making them is slow.

    @ivar config: the configuration that agents begin with.
    """

    def __init__(self, folder: Path) -> None:
        """
        @param folder: an empty directory for files.
        """
        authority = certificates.authority().certificatePEM
        (folder / "ca.pem").write_bytes(authority)
        self._usable = True
        own = certificates.server()
        (folder / "own.pem").write_bytes(own.certificatePEM)
        (folder / "own.key").write_bytes(own.keyPEM)
        (folder / "own.key").chmod(0o600)
        files = Own((CertificateFiles(str(folder / "own.pem"), str(folder / "own.key")),))
        self.config = AgentConfig(
            profiles=tuple(
                Profile(
                    f"authenticate.{role.value}",
                    match=Match(roles=(role,)),
                    trust=Trust((str(folder / "ca.pem"),)),
                    own=files,
                )
                for role in Role
            ),
            tagDirectory=str(folder / "tags.d"),
        )
        self._clients = [
            peerContext(server=False, credentials=shown, folder=folder)
            for shown in (
                None,
                certificates.client(),
                certificates.ofOtherAuthority(),
                certificates.expired(),
            )
        ]
        self._servers = []
        for shown in (certificates.server(), certificates.server(), certificates.selfSigned()):
            context = peerContext(server=True, credentials=shown, folder=folder)
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(cadata=authority.decode())
            self._servers.append(context)

    def client(self, choices: Choices) -> ssl.SSLContext:
        """
        Choose what a client shows.

        @param choices: the schedule's.
        @return: its TLS settings.
        """
        return choices.one(self._clients)

    def server(self, choices: Choices) -> ssl.SSLContext:
        """
        Choose what a server shows.

        @param choices: the schedule's.
        @return: its TLS settings.
        """
        return choices.one(self._servers)

    def change(self, choices: Choices) -> None:
        """
        Decide what the next reading of the configuration finds.

        @param choices: the schedule's.
        """
        self._usable = choices.happens(0.7)

    def reread(self) -> AgentConfig:
        """
        Read the configuration again.

        @return: the same one.
        @raise ConfigError: if it cannot be used this time.
        """
        if not self._usable:
            raise ConfigError([Mistake("", "", "a file that can be used", "one that cannot")])
        return self.config

    @staticmethod
    def fill(keyrings: FakeKeyrings) -> tuple[int, int]:
        """
        Put the pre-shared key into a keyring.

        @param keyrings: all keys.
        @return: the serials of the keyring and of the key.
        """
        ring = keyrings.addKeyring(".nvme")
        return ring, keyrings.addKey(ring, IDENTITY, SECRET, type="psk")
