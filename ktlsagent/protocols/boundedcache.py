"""A cache with a bound in octets."""

from __future__ import annotations

from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

ENTRY_OCTETS = 512
"""What an entry takes besides its content: a short key and some small objects."""

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class BoundedCache(Generic[_Key, _Value]):
    """
    Cache that forgets its oldest entries when all together take too much memory.
    Any thread may use it.

    @ivar octets: how much memory the entries take, as those say who put them in.
    """

    def __init__(self, most: int) -> None:
        """
        @param most: how many octets of memory they may take.
        """
        self.octets = 0
        self._most = most
        self._lock = Lock()
        self._entries: dict[_Key, tuple[_Value, int]] = {}

    def get(self, key: _Key) -> _Value | None:
        """
        Look an entry up.

        @param key: its key.
        @return: its value, C{None} if there is none.
        """
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: _Key, value: _Value, octets: int) -> None:
        """
        Add an entry, or replace it.

        @param key: its key.
        @param value: its value.
        @param octets: how much memory both take, besides L{ENTRY_OCTETS}.
        """
        with self._lock:
            self._remove(key)
            self._entries[key] = (value, ENTRY_OCTETS + octets)
            self.octets += ENTRY_OCTETS + octets
            while self.octets > self._most:
                self._remove(next(iter(self._entries)))

    def pop(self, key: _Key) -> _Value | None:
        """
        Take an entry out.

        @param key: its key.
        @return: its value, C{None} if there is none.
        """
        with self._lock:
            return self._remove(key)

    def _remove(self, key: _Key) -> _Value | None:
        value, octets = self._entries.pop(key, (None, 0))
        self.octets -= octets
        return value
