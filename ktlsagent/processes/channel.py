"""The channel between the parent and a worker, which carries lines, and what is said on it."""

from __future__ import annotations

import base64

# By name, so that it is imported now (see L{ktlsagent.lean}): before workers are forked,
# and not in each of them, where it would take 1 MB.
from pickle import dumps, loads

from twisted.internet.protocol import Protocol

from ktlsagent.config import AgentConfig


class Channel(Protocol):
    """
    One end of a channel.

    From the parent come C{place}, with the worker's number and whether the parent
    logs for it, C{load}, with the configuration, to start and to reload, C{use}, with
    it, to start without reading its files again if they were read before the fork, and
    C{stop}.  To the parent go C{pid} with the process id, first of all, C{up}, C{loaded}
    with C{yes} or C{no}, C{failed}, and C{renew} if only a new worker can use a token;
    C{back} with the number of requests that a worker was given and has no room for, and
    C{room} when it has.
    """

    _begun = b""

    def dataReceived(self, data: bytes) -> None:
        """
        Take lines apart.

        @param data: what has come.
        """
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            word, _, value = line.partition(b" ")
            self.heard(word.decode(), value)

    def heard(self, word: str, value: bytes) -> None:
        """
        The other end has said something; to be overridden.

        @param word: what about.
        @param value: the rest.
        """
        raise NotImplementedError

    def say(self, word: str, value: bytes = b"") -> None:
        """
        Say something to the other end, if it is still there.

        @param word: what about.
        @param value: the rest, in one line.
        """
        if self.transport is not None:
            self.transport.write(word.encode() + b" " + value + b"\n")


def encodeConfig(config: AgentConfig) -> bytes:
    """
    Write a configuration as one word.

    @param config: the configuration.
    @return: the word.
    """
    return base64.b64encode(dumps(config))


def decodeConfig(word: bytes) -> AgentConfig:
    """
    Read what L{encodeConfig} has written in the parent.

    @param word: the word.
    @return: the configuration.
    """
    config: AgentConfig = loads(base64.b64decode(word))  # noqa: S301 - our own parent's
    return config
