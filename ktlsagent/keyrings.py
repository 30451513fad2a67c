"""
The process keyring: the kernel links a request's keyring into it at ACCEPT,
and somebody has to take it out again (C{net/handshake/tlshd.c}).
"""

from __future__ import annotations

import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import keyutils
from twisted.internet.defer import DeferredLock, TimeoutError  # noqa: A004 - its own
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from ktlsagent.errors import StartError
from ktlsagent.interfaces import IAgentReactor, IKeyrings, KeyDescription
from ktlsagent.keytrust import KEYRING, flawOf, isKeyring
from ktlsagent.ledger import Ledger

_PLACEHOLDER = b"ktlsagent"
_MOST_LISTED = 2**24
"""
How many octets of C{/proc/keys} are read at the most.  A user may have 200 keys with
20,000 octets of descriptions, but somebody with many user numbers has as many times that.
"""

_LARGEST_SERIAL = 2**31 - 1

SEARCH_SECONDS = 1.0
"""How long a request waits for a look through all keys."""

_REST = 20
"""How many times as long as such a look took there is none for the same name."""

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

    def find(self, names: Collection[str]) -> Mapping[str, int]:
        """
        See L{IKeyrings}.  Descriptions are in the list as they are, line ends included, so
        anybody can put any line into it: what it says is asked of the kernel again.
        """
        found: dict[str, int] = {}
        wanted = _line(names)
        left = _MOST_LISTED
        with open(self._keysFile, "rb") as lines:
            for line in lines:
                left -= len(line)
                if left < 0 or len(found) == len(names):
                    break
                fields = wanted.fullmatch(line)
                if fields is not None:
                    name = fields["name"].decode()
                    serial = _signed(int(fields["serial"], 16))
                    if name not in found and self._isKeyring(serial, name):
                        found[name] = serial
        return found

    def _isKeyring(self, serial: int, name: str) -> bool:
        try:
            return isKeyring(self.describe(serial), name)
        except OSError:
            # One that may not even be seen is not ours.
            return False

    def search(self, keyring: int, kind: str, description: bytes) -> int | None:
        """See L{IKeyrings}."""
        with _asOSError():
            serial: int | None = keyutils.search(keyring, description, 0, kind.encode())
        return serial

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
        kind, uid, _gid, permissions, description = text.split(b";", 4)
        return KeyDescription(
            kind.decode("ascii", "replace"), description, int(uid), int(permissions, 16)
        )

    def read(self, serial: int) -> bytes:
        """See L{IKeyrings}."""
        with _asOSError():
            payload: bytes = keyutils.read_key(serial)
        return payload


def _line(names: Collection[str]) -> re.Pattern[bytes]:
    """Describe the lines of C{/proc/keys} for keyrings (C{security/keys/proc.c})."""
    choice = b"|".join(re.escape(name.encode()) for name in names)
    return re.compile(
        rb"(?P<serial>[0-9a-f]{8}) \S{7} +\d+ +\S+ [0-9a-f]{8} +\d+ +\d+ keyring   "
        rb"(?P<name>" + choice + rb"): (?:empty|\d+)\n"
    )


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
    @ivar seen: see L{ktlsagent.keys.RequestKeys}; requests share it.
    """

    def __init__(self, keyrings: IKeyrings, ledger: Ledger, reactor: IAgentReactor) -> None:
        """
        @param keyrings: the process keyring.
        @param ledger: where the links are counted.
        @param reactor: has threads to look through all keys in.
        """
        self.keyrings = keyrings
        self.seen: dict[int, bytes] = {}
        self._ledger = ledger
        self._reactor = reactor
        self._uses: Counter[int] = Counter()
        self._known: dict[str, int] = {}
        self._notBefore: dict[str, float] = {}
        self._looking = DeferredLock()

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

    async def borrow(self, names: Sequence[str], note: Callable[[str], None]) -> list[int]:
        """
        Link keyrings for a request that needs them, however late their
        modules were loaded.  One that is not there or may not be linked is
        left out: its keys may be readable for other reasons.

        @param names: the keyrings' names or, in digits, serials.
        @param note: is told of a keyring that is there and is not believed in.
        @return: their serials, each to be given to L{release}.
        """
        await self._find([name for name in names if not name.isdecimal()])
        borrowed = []
        for name in names:
            serial = int(name) if name.isdecimal() else self._known.get(name)
            if serial is None or serial > _LARGEST_SERIAL:
                continue
            try:
                flaw = self._link(serial)
            except OSError:
                continue
            if flaw is None:
                borrowed.append(self.hold(serial))
            else:
                note(f"the keyring {name} is left out: expected one of root's, found {flaw}")
        return borrowed

    def _link(self, serial: int) -> str | None:
        """
        Link a keyring, and look at it then: what is linked cannot become another one.

        @return: what stands against it, in words; then it is not linked.
        @raise OSError: if it is not there, or may not be linked or seen.
        """
        if serial not in self._uses:
            self.keyrings.link(serial)
        try:
            described = self.keyrings.describe(serial)
            flaw = flawOf(described)
            if described.type != KEYRING:
                flaw = f"a key of the type {described.type}"
        except OSError:
            self._unlinkUnused(serial)
            raise
        if flaw is not None:
            self._unlinkUnused(serial)
        return flaw

    def _unlinkUnused(self, serial: int) -> None:
        if serial not in self._uses:
            self.keyrings.unlink(serial)

    async def _find(self, names: Sequence[str]) -> None:
        """
        See to it that the serials of keyrings are known.  That of a name stays known as
        long as it is that of a keyring with this name.  All keys are looked through by one
        request at a time, and seldom for a name that is not found.
        """
        if all(self._isKnown(name) for name in names):
            return
        async with self._looking:
            began = self._reactor.seconds()
            missing = [
                name
                for name in names
                if not self._isKnown(name) and self._notBefore.get(name, began) <= began
            ]
            if not missing:
                return
            pool = self._reactor.getThreadPool()
            search = deferToThreadPool(self._reactor, pool, self.keyrings.find, missing)
            with suppress(OSError, TimeoutError):
                self._known.update(await search.addTimeout(SEARCH_SECONDS, self._reactor))
            now = self._reactor.seconds()
            self._notBefore.update(dict.fromkeys(missing, now + max(1.0, _REST * (now - began))))

    def _isKnown(self, name: str) -> bool:
        """Say whether the serial of a name is known and is still that of a keyring of ours."""
        serial = self._known.get(name)
        try:
            known = serial is not None and isKeyring(self.keyrings.describe(serial), name)
        except OSError:
            known = False
        if not known:
            self._known.pop(name, None)
        return known

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
