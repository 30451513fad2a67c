"""Tests of L{ktlsagent.protocols.boundedcache}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.protocols.boundedcache import ENTRY_OCTETS, BoundedCache
from tests.support.properties import patient

_OPERATIONS = st.lists(
    st.tuples(st.sampled_from("abcdefg"), st.one_of(st.none(), st.integers(0, 3 * ENTRY_OCTETS)))
)


class BoundedCacheTests(SynchronousTestCase):
    """Tests of L{BoundedCache}."""

    def test_found(self) -> None:
        """What was put in is there until it is taken out."""
        cache: BoundedCache[str, int] = BoundedCache(10 * ENTRY_OCTETS)
        self.assertIsNone(cache.get("a"))
        cache.put("a", 1, 10)
        self.assertEqual((cache.get("a"), cache.octets), (1, ENTRY_OCTETS + 10))
        cache.put("a", 2, 20)
        self.assertEqual((cache.get("a"), cache.octets), (2, ENTRY_OCTETS + 20))
        self.assertEqual((cache.pop("a"), cache.octets), (2, 0))
        self.assertIsNone(cache.pop("a"))

    def test_oldestGoes(self) -> None:
        """The oldest entries make room, as many as it takes."""
        cache: BoundedCache[str, int] = BoundedCache(3 * ENTRY_OCTETS)
        for number, key in enumerate("abc"):
            cache.put(key, number, 0)
        cache.put("d", 3, ENTRY_OCTETS)
        self.assertEqual([cache.get(key) for key in "abcd"], [None, None, 2, 3])

    def test_tooLarge(self) -> None:
        """What is larger than all the room is not kept, nor does anything else survive it."""
        cache: BoundedCache[str, int] = BoundedCache(3 * ENTRY_OCTETS)
        cache.put("a", 1, 0)
        cache.put("b", 2, 3 * ENTRY_OCTETS)
        self.assertEqual((cache.get("a"), cache.get("b"), cache.octets), (None, None, 0))

    @patient
    @given(_OPERATIONS)
    def test_bound(self, operations: list[tuple[str, int | None]]) -> None:
        """Whatever is done, the bound holds and nothing is counted that is not there."""
        cache: BoundedCache[str, int] = BoundedCache(4 * ENTRY_OCTETS)
        for key, octets in operations:
            if octets is None:
                cache.pop(key)
            else:
                cache.put(key, octets, octets)
            there = [found for one in "abcdefg" if (found := cache.get(one)) is not None]
            self.assertEqual(cache.octets, sum(ENTRY_OCTETS + found for found in there))
            self.assertLessEqual(cache.octets, 4 * ENTRY_OCTETS)
