"""The traffic secrets of a handshake, out of OpenSSL's key log."""

from __future__ import annotations

from ktlsagent.errors import SessionUnusable
from ktlsagent.protocols.cryptoinfo import IV_LENGTH, CipherSuite
from ktlsagent.protocols.keyschedule import (
    CLIENT_TRAFFIC_SECRET,
    SERVER_TRAFFIC_SECRET,
    TrafficKeys,
    parseKeyLogLine,
    trafficKeys,
)
from ktlsagent.protocols.session import Role


class TrafficSecrets:
    """The application traffic secrets of both directions, until they are forgotten."""

    def __init__(self, role: Role) -> None:
        """
        @param role: which side we are.
        """
        labels = (CLIENT_TRAFFIC_SECRET, SERVER_TRAFFIC_SECRET)
        self._own, self._peers = labels if role is Role.CLIENT else labels[::-1]
        self._lines: dict[bytes, bytes] = {}

    def keep(self, line: bytes) -> None:
        """
        Keep a line of the key log, if it is about an application traffic secret.

        @param line: the line.
        """
        label = line.partition(b" ")[0]
        if label in (CLIENT_TRAFFIC_SECRET, SERVER_TRAFFIC_SECRET):
            self._lines[label] = line

    @property
    def ours(self) -> bool:
        """Whether the one of our sending direction is there."""
        return self._own in self._lines

    def keys(self, suite: CipherSuite, *, own: bool) -> TrafficKeys:
        """
        Derive the keys of one direction.

        @param suite: the negotiated suite.
        @param own: whether of that in which we send.
        @return: the keys.
        @raise SessionUnusable: if the secret is not there.
        """
        try:
            _label, secret = parseKeyLogLine(self._lines[self._own if own else self._peers])
        except (KeyError, ValueError):
            raise SessionUnusable(
                "no-traffic-secret",
                "expected the application traffic secrets of both directions in the key log, "
                "found them missing or unreadable",
            ) from None
        return trafficKeys(suite.hash, secret, suite.keyLength, IV_LENGTH)

    def forget(self) -> None:
        """Forget all of them."""
        self._lines.clear()
