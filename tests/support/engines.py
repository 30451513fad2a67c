"""What tests of engines have in common."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import HandshakeError, PeerRejected
from ktlsagent.protocols import openssl
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.interfaces import EngineState
from ktlsagent.protocols.session import EstablishedSession

GROUPS = openssl.supportedGroups(("X25519MLKEM768", "X25519", "P-256", "P-384"))
"""Those of the groups that this OpenSSL lets us choose."""


def accept(chain: Sequence[x509.Certificate]) -> PeerRejected | None:
    """Accept every certificate whose chain is good."""
    return None


class EngineTestCase(SynchronousTestCase):
    """What the tests of engines share."""

    def session(self, engine: TLSEngine) -> EstablishedSession:
        """Check that an engine has a session, and get it."""
        self.assertIs(engine.state, EngineState.COMPLETE, engine.error)
        self.assertIsNone(engine.error)
        if engine.session is None:
            raise self.failureException("no session")
        return engine.session

    def failure(self, engine: TLSEngine) -> HandshakeError:
        """Check that an engine has failed, and get its error."""
        self.assertIs(engine.state, EngineState.FAILED)
        self.assertIsNone(engine.session)
        if engine.error is None:
            raise self.failureException("no error")
        return engine.error

    def assertMatch(self, client: TLSEngine, server: TLSEngine) -> EstablishedSession:
        """Check that two engines have two ends of one session."""
        ours, theirs = self.session(client), self.session(server)
        self.assertEqual(ours.suite, theirs.suite)
        self.assertEqual(ours.group, theirs.group)
        # assertEqual would show the keys.
        self.assertTrue(ours.transmit == theirs.receive, "client to server")
        self.assertTrue(ours.receive == theirs.transmit, "server to client")
        self.assertFalse(ours.transmit.keys == ours.receive.keys, "one key for both directions")
        self.assertEqual((ours.transmit.sequence, ours.receive.sequence), (0, 0))
        return ours
