"""A fake of the process keyring."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from zope.interface import implementer

from ktlsagent.errors import StartError
from ktlsagent.interfaces import IKeyrings


@implementer(IKeyrings)
class FakeKeyrings:
    """
    A process keyring that holds numbers.

    @ivar created: whether the process keyring was made.
    @ivar unavailable: what L{createProcessKeyring} raises.
    @ivar unlinkError: an errno that L{unlink} gives.
    """

    def __init__(self) -> None:
        self.created = False
        self.unavailable: StartError | None = None
        self.unlinkError: int | None = None
        self._linked: list[int] = []

    def createProcessKeyring(self) -> None:
        if self.unavailable is not None:
            raise self.unavailable
        self.created = True

    def unlink(self, serial: int) -> None:
        if self.unlinkError is not None:
            raise OSError(self.unlinkError, os.strerror(self.unlinkError))
        if serial not in self._linked:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._linked.remove(serial)

    def linked(self) -> Sequence[int]:
        return list(self._linked)

    def link(self, serial: int) -> None:
        """
        Link a keyring, as the kernel does at ACCEPT; a second link to the
        same one takes the place of the first.

        @param serial: the keyring's serial.
        """
        if serial not in self._linked:
            self._linked.append(serial)
