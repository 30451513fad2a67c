"""
The process keyring: the kernel links a request's keyring into it at ACCEPT,
and somebody has to take it out again (C{net/handshake/tlshd.c}).
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import keyutils
from zope.interface import implementer

from ktlsagent.errors import StartError
from ktlsagent.interfaces import IKeyrings, KeyDescription
from ktlsagent.ledger import Ledger

_PLACEHOLDER = b"ktlsagent"
_KEYS_FIELDS = 9
"""Fields of a line of C{/proc/keys}; the last is the description and its details."""

_KEYS_OWNER = 5
"""Which of them is the owner's uid."""

_SERIAL = struct.Struct("=i")


@implementer(IKeyrings)
class Keyrings:
    """The running kernel's keys, by libkeyutils."""

    def __init__(self, keysFile: str = "/proc/keys") -> None:
        """
        @param keysFile: where the kernel lists the keys that we may see.
        """
        self._keysFile = keysFile

    def createProcessKeyring(self) -> None:
        """See L{IKeyrings}."""
        try:
            # libkeyutils' own call for it is not bound; adding a key creates
            # the keyring, and unlinking it leaves what else is in there.
            key = keyutils.add_key(_PLACEHOLDER, b"1", keyutils.KEY_SPEC_PROCESS_KEYRING)
            keyutils.unlink(key, keyutils.KEY_SPEC_PROCESS_KEYRING)
        except keyutils.Error as error:
            raise StartError(
                f"expected a process keyring, found {error}; the kernel needs CONFIG_KEYS, and "
                "a sandbox has to allow keyctl(2)"
            ) from error

    def restriction(self) -> str | None:
        """See L{IKeyrings}."""
        if os.geteuid() == 0:
            return None
        return (
            f"the agent runs as uid {os.geteuid()}: the keyring .nvme is root's, so NVMe/TCP "
            "cannot be served, and keys of .nfs only if others may read them; NFS with files works"
        )

    def find(self, name: str) -> int | None:
        """
        See L{IKeyrings}.  libkeyutils' own search does not look everywhere.
        Others' keyrings are passed over: a name is nobody's property.
        """
        owners = ("0", str(os.geteuid()))
        with open(self._keysFile, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.split(maxsplit=_KEYS_FIELDS - 1)
                if len(fields) == _KEYS_FIELDS and fields[-2] == "keyring":
                    # The description is followed by a colon and the content's size.
                    found = fields[-1].rpartition(":")[0]
                    usable = "R" not in fields[1] and fields[_KEYS_OWNER] in owners
                    if found == name and usable:
                        return _signed(int(fields[0], 16))
        return None

    def link(self, serial: int) -> None:
        """See L{IKeyrings}."""
        with _asOSError():
            keyutils.link(serial, keyutils.KEY_SPEC_PROCESS_KEYRING)

    def unlink(self, serial: int) -> None:
        """See L{IKeyrings}."""
        with _asOSError():
            keyutils.unlink(serial, keyutils.KEY_SPEC_PROCESS_KEYRING)

    def linked(self) -> Sequence[int]:
        """See L{IKeyrings}."""
        return self.keys(keyutils.KEY_SPEC_PROCESS_KEYRING)

    def keys(self, keyring: int) -> Sequence[int]:
        """See L{IKeyrings}."""
        return [serial for (serial,) in _SERIAL.iter_unpack(self.read(keyring))]

    def describe(self, serial: int) -> KeyDescription:
        """See L{IKeyrings}."""
        with _asOSError():
            text: bytes = keyutils.describe_key(serial)
        kind, _uid, _gid, _permissions, description = text.split(b";", 4)
        return KeyDescription(kind.decode("ascii", "replace"), description)

    def read(self, serial: int) -> bytes:
        """See L{IKeyrings}."""
        with _asOSError():
            payload: bytes = keyutils.read_key(serial)
        return payload


def _signed(serial: int) -> int:
    """Serials are C{key_serial_t}: 32 bits with a sign."""
    return serial - 2**32 if serial >= 2**31 else serial


@contextmanager
def _asOSError() -> Iterator[None]:
    """Turn libkeyutils' errors into the standard library's."""
    try:
        yield
    except keyutils.Error as error:
        raise OSError(error.args[0], os.strerror(error.args[0])) from error


class RequestKeyrings:
    """
    Which requests in flight use which keyring.

    The kernel's link is one, however many requests share it, so it is taken
    out when the last of them ends.

    @ivar keyrings: the process keyring.
    """

    def __init__(self, keyrings: IKeyrings, ledger: Ledger) -> None:
        """
        @param keyrings: the process keyring.
        @param ledger: where the links are counted.
        """
        self.keyrings = keyrings
        self._ledger = ledger
        self._uses: Counter[int] = Counter()

    def hold(self, serial: int) -> int:
        """
        Note that a request uses a keyring.

        @param serial: the keyring, which is linked.
        @return: the same, to be given to L{release}.
        """
        self._uses[serial] += 1
        self._ledger.keyLinks = len(self._uses)
        return serial

    def name(self, serial: int | None) -> str | None:
        """
        Name a request's keyring.

        @param serial: the keyring, if the request has one.
        @return: its name, C{None} if there is none or it cannot be seen.
        """
        try:
            description = b"" if serial is None else self.keyrings.describe(serial).description
        except OSError:
            return None
        return description.decode("utf-8", "backslashreplace") or None

    def borrow(self, names: Sequence[str]) -> list[int]:
        """
        Link keyrings for a request that needs them, however late their
        modules were loaded.  One that is not there or may not be linked is
        left out: its keys may be readable for other reasons.

        @param names: the keyrings' names or, in digits, serials.
        @return: their serials, each to be given to L{release}.
        """
        borrowed = []
        for name in names:
            try:
                serial = int(name) if name.isdecimal() else self.keyrings.find(name)
                if serial is None:
                    continue
                if serial not in self._uses:
                    self.keyrings.link(serial)
            except OSError:
                continue
            borrowed.append(self.hold(serial))
        return borrowed

    def release(self, serial: int) -> None:
        """
        Note that a request is done with a keyring; the last one takes it out.

        @param serial: the keyring.
        @raise OSError: if it cannot be taken out.
        """
        self._uses[serial] -= 1
        if self._uses[serial] == 0:
            del self._uses[serial]
            self._ledger.keyLinks = len(self._uses)
            self.keyrings.unlink(serial)

    def linkAgain(self) -> None:
        """
        Link all keyrings in use: a process that was forked off has a process
        keyring of its own.  One that may not be linked is left out.
        """
        for serial in self._uses:
            with suppress(OSError):
                self.keyrings.link(serial)
