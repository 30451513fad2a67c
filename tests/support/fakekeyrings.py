"""A fake of the kernel's keys and of the process keyring."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from zope.interface import implementer

from ktlsagent.errors import StartError
from ktlsagent.interfaces import IKeyrings, KeyDescription

_FIRST_SERIAL = 0x12345678


@dataclass
class _Key:
    """
    A key or a keyring.

    @ivar described: its type and name.
    @ivar payload: what a key holds.
    @ivar content: what a keyring holds.
    @ivar error: an errno that every use of it gives.
    @ivar readable: whether it may be read, by whoever has it.
    """

    described: KeyDescription
    payload: bytes = b""
    content: list[int] = field(default_factory=list)
    error: int | None = None
    readable: bool = True


@implementer(IKeyrings)
class FakeKeyrings:
    """
    Keys and keyrings that a test has added, and a process keyring.

    Keys may be read once the keyring that they are in is linked, as their
    possessor may: outside of it they can be seen and not read.

    @ivar created: whether the process keyring was made.
    @ivar limit: what L{restriction} says.
    @ivar unavailable: what L{createProcessKeyring} raises.
    @ivar findError: an errno that L{find} gives.
    @ivar linkError: an errno that L{link} gives.
    @ivar unlinkError: an errno that L{unlink} gives.
    @ivar reads: the serials of the keys that were read, in their order.
    """

    def __init__(self) -> None:
        self.created = False
        self.limit: str | None = None
        self.unavailable: StartError | None = None
        self.findError: int | None = None
        self.linkError: int | None = None
        self.unlinkError: int | None = None
        self.reads: list[int] = []
        self._linked: list[int] = []
        self._keys: dict[int, _Key] = {}
        self._serials = itertools.count(_FIRST_SERIAL)

    def createProcessKeyring(self) -> None:
        if self.unavailable is not None:
            raise self.unavailable
        self.created = True

    def restriction(self) -> str | None:
        return self.limit

    def find(self, name: str) -> int | None:
        _raise(self.findError)
        wanted = KeyDescription("keyring", name.encode())
        for serial, key in self._keys.items():
            if key.described == wanted and key.error is None:
                return serial
        return None

    def link(self, serial: int) -> None:
        _raise(self.linkError)
        self._get(serial)
        self.linkAtAccept(serial)

    def keys(self, keyring: int) -> Sequence[int]:
        key = self._get(keyring)
        if not key.readable:
            _raise(errno.EACCES)
        return list(key.content)

    def describe(self, serial: int) -> KeyDescription:
        return self._get(serial).described

    def read(self, serial: int) -> bytes:
        key = self._get(serial)
        possessed = any(serial in self._keys[ring].content for ring in self._linked)
        if not key.readable or not possessed:
            _raise(errno.EACCES)
        self.reads.append(serial)
        return key.payload

    def unlink(self, serial: int) -> None:
        _raise(self.unlinkError)
        if serial not in self._linked:
            _raise(errno.ENOENT)
        self._linked.remove(serial)

    def linked(self) -> Sequence[int]:
        return list(self._linked)

    def linkAtAccept(self, serial: int) -> None:
        """
        Link a keyring, as the kernel does at ACCEPT, which asks no questions;
        a second link to the same one takes the place of the first.

        @param serial: the keyring's serial; it is made if there is none.
        """
        self._keys.setdefault(serial, _Key(KeyDescription("keyring", b"ring %d" % serial)))
        if serial not in self._linked:
            self._linked.append(serial)

    def addKeyring(self, name: str) -> int:
        """
        Make a keyring that nobody has linked.

        @param name: its name.
        @return: its serial.
        """
        return self._add(_Key(KeyDescription("keyring", name.encode())))

    def addKey(
        self,
        keyring: int,
        description: bytes,
        payload: bytes = b"k" * 32,
        *,
        type: str = "user",  # noqa: A002 - the kernel's word
        readable: bool = True,
    ) -> int:
        """
        Put a key into a keyring.

        @param keyring: the keyring's serial.
        @param description: the key's name; one of the same name is replaced.
        @param payload: what it holds.
        @param type: its type.
        @param readable: whether its possessor may read it.
        @return: its serial.
        """
        content = self._keys[keyring].content
        described = KeyDescription(type, description)
        content[:] = [serial for serial in content if self._keys[serial].described != described]
        serial = self._add(_Key(described, payload, readable=readable))
        content.append(serial)
        return serial

    def spoil(self, serial: int, error: int) -> None:
        """
        Have a key refuse every use.

        @param serial: the key's serial.
        @param error: for example C{EKEYREVOKED}.
        """
        self._keys[serial].error = error

    def forbid(self, serial: int) -> None:
        """
        Have a key or a keyring that may be seen, but not read.

        @param serial: its serial.
        """
        self._keys[serial].readable = False

    def _add(self, key: _Key) -> int:
        serial = next(self._serials)
        self._keys[serial] = key
        return serial

    def _get(self, serial: int) -> _Key:
        if serial not in self._keys:
            _raise(errno.ENOKEY)
        key = self._keys[serial]
        _raise(key.error)
        return key


def _raise(number: int | None) -> None:
    if number is not None:
        raise OSError(number, os.strerror(number))
