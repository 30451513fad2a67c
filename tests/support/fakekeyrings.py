"""A fake of the kernel's keys and of the process keyring."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from zope.interface import implementer

from ktlsagent.errors import StartError
from ktlsagent.interfaces import IKeyrings, KeyDescription
from ktlsagent.keytrust import isKeyring

_FIRST_SERIAL = 0x12345678

_PERMISSIONS = 0x3F010000
"""What the kernel gives to a new key: everything to its possessor, the view of it to its owner."""


def _described(kind: str, description: bytes) -> KeyDescription:
    return KeyDescription(kind, description, 0, _PERMISSIONS)


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
    @ivar searches: how often all keys were looked through.
    @ivar linkError: an errno that L{link} gives.
    @ivar unlinkError: an errno that L{unlink} gives.
    @ivar describes: how often something was described.
    @ivar reads: the serials of the keys that were read, in their order.
    """

    def __init__(self) -> None:
        self.created = False
        self.limit: str | None = None
        self.unavailable: StartError | None = None
        self.findError: int | None = None
        self.searches = 0
        self.linkError: int | None = None
        self.unlinkError: int | None = None
        self.describes = 0
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

    def find(self, names: Collection[str]) -> Mapping[str, int]:
        self.searches += 1
        _raise(self.findError)
        found: dict[str, int] = {}
        for serial, key in self._keys.items():
            name = key.described.description.decode("utf-8", "replace")
            if name in names and key.error is None and isKeyring(key.described, name):
                found.setdefault(name, serial)
        return found

    def search(self, keyring: int, kind: str, description: bytes) -> int | None:
        wanted = description.split(b"\x00")[0]
        refusal: int | None = None
        for serial in self.keys(keyring):
            key = self._keys[serial]
            described = key.described
            # That of the type psk is the kernel's, which takes one that begins alike.
            same = described.description == wanted or (
                kind == "psk" and described.description.startswith(wanted)
            )
            if described.type == kind and same:
                refusal = key.error or (None if key.readable else errno.EACCES)
                if refusal is None:
                    return serial
        _raise(refusal)
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
        self.describes += 1
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
        self._keys.setdefault(serial, _Key(_described("keyring", b"ring %d" % serial)))
        if serial not in self._linked:
            self._linked.append(serial)

    def addKeyring(self, name: str, serial: int | None = None) -> int:
        """
        Make a keyring that nobody has linked.

        @param name: its name.
        @param serial: the serial that it is to have, if it matters.
        @return: its serial.
        """
        return self._add(_Key(_described("keyring", name.encode())), serial)

    def own(self, serial: int, uid: int, permissions: int = _PERMISSIONS) -> None:
        """
        Give a key or a keyring to somebody, or rights in it.

        @param serial: its serial.
        @param uid: who owns it from now on.
        @param permissions: the rights in it from now on.
        """
        key = self._keys[serial]
        key.described = replace(key.described, uid=uid, permissions=permissions)

    def forget(self, serial: int) -> None:
        """
        Let go of a key or a keyring, as the kernel does with one that nobody links.

        @param serial: its serial.
        """
        del self._keys[serial]

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
        described = _described(type, description)
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

    def _add(self, key: _Key, serial: int | None = None) -> int:
        serial = next(self._serials) if serial is None else serial
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
