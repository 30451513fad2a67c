"""What property tests have in common."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""
Decorates a property test so that no clock decides about it: on a busy machine it is
slow, but not wrong.
"""

changes = st.lists(st.tuples(st.integers(1, 999), st.integers(0, 255)), min_size=1, max_size=3)
"""Places of octets, and what becomes of them."""
