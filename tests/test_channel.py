"""Tests for L{ktlsagent.processes.channel}."""

from __future__ import annotations

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.config import AgentConfig, parseConfig
from ktlsagent.processes.channel import Channel, decodeConfig, encodeConfig

_EVERYTHING = """
[ktlsagent]
workers=2
[profile.one]
preset=nfs-client
local=192.0.2.0/24
peer_port=2049
spki_pins=sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=
allow=dns:*.example.org;othername:1.2.3.4=a*;subject.CN:b
crl_tolerate=missing
"""


class RecordingChannel(Channel):
    """
    A channel that keeps what it hears.

    @ivar words: that.
    """

    def __init__(self) -> None:
        self.words: list[tuple[str, bytes]] = []

    def heard(self, word: str, value: bytes) -> None:
        self.words.append((word, value))


class ChannelTests(SynchronousTestCase):
    """Tests for L{Channel}."""

    def test_said(self) -> None:
        """What one end says the other hears, in whatever pieces it comes."""
        transport = StringTransport()
        near = Channel()
        near.say("before there is anybody")
        near.makeConnection(transport)
        near.say("stop")
        near.say("load", b"what else")
        for size in (1, 7, 100):
            far = RecordingChannel()
            data = transport.value()
            for at in range(0, len(data), size):
                far.dataReceived(data[at : at + size])
            self.assertEqual(far.words, [("stop", b""), ("load", b"what else")])

    def test_toBeOverridden(self) -> None:
        """A channel alone does not know what to do."""
        self.assertRaises(NotImplementedError, Channel().dataReceived, b"stop\n")

    def test_configurations(self) -> None:
        """Any configuration passes through it."""
        for config in (AgentConfig(), parseConfig(_EVERYTHING, "/a/path")):
            word = encodeConfig(config)
            self.assertNotIn(b"\n", word)
            self.assertEqual(decodeConfig(word), config)
