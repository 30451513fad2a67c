"""What mixins with tests are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as TestsMixin
else:
    TestsMixin = object

__all__ = ["TestsMixin"]
