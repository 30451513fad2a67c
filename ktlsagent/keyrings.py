"""
The process keyring: the kernel links a request's keyring into it at ACCEPT,
and somebody has to take it out again (C{net/handshake/tlshd.c}).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence

import keyutils
from zope.interface import implementer

from ktlsagent.errors import StartError
from ktlsagent.interfaces import IKeyrings
from ktlsagent.ledger import Ledger

_PLACEHOLDER = b"ktlsagent"
_SERIAL = struct.Struct("=i")


@implementer(IKeyrings)
class Keyrings:
    """The running kernel's keyrings, by libkeyutils."""

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

    def unlink(self, serial: int) -> None:
        """See L{IKeyrings}."""
        try:
            keyutils.unlink(serial, keyutils.KEY_SPEC_PROCESS_KEYRING)
        except keyutils.Error as error:
            raise OSError(error.args[0], error.args[1]) from error

    def linked(self) -> Sequence[int]:
        """See L{IKeyrings}."""
        content: bytes = keyutils.read_key(keyutils.KEY_SPEC_PROCESS_KEYRING)
        return [serial for (serial,) in _SERIAL.iter_unpack(content)]


class RequestKeyrings:
    """
    Which requests in flight use which keyring.

    The kernel's link is one, however many requests share it, so it is taken
    out when the last of them ends.
    """

    def __init__(self, keyrings: IKeyrings, ledger: Ledger) -> None:
        """
        @param keyrings: the process keyring.
        @param ledger: where the links are counted.
        """
        self._keyrings = keyrings
        self._ledger = ledger
        self._uses: Counter[int] = Counter()

    def hold(self, serial: int) -> None:
        """
        Note that a request uses a keyring.

        @param serial: the keyring that the kernel has linked.
        """
        self._uses[serial] += 1
        self._ledger.keyLinks = len(self._uses)

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
            self._keyrings.unlink(serial)
