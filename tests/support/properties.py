"""How the property tests run: on a busy machine they are slow, but not wrong."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Decorates a property test so that no clock decides about it."""
