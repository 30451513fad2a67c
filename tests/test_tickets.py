"""Tests of L{ktlsagent.protocols.tickets}."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.protocols import tickets
from ktlsagent.protocols.boundedcache import ENTRY_OCTETS
from ktlsagent.protocols.tickets import (
    LIFETIME_SECONDS,
    MOST_HELD,
    Held,
    Issued,
    NewTicket,
    Proof,
    Tickets,
    readTicket,
)
from tests.support import certificates
from tests.support.clock import Clocks
from tests.support.properties import patient

HANDSHAKE = 22
NEW_SESSION_TICKET = 4

PROOF = Proof((), 1000.0, 2000.0, 700.0)


def vector(content: bytes, octets: int) -> bytes:
    """Build a vector of the presentation language."""
    return len(content).to_bytes(octets, "big") + content


def message(identity: bytes = b"ticket", nonce: bytes = b"\x00", lifetime: int = 7200) -> bytes:
    """Build a C{NewSessionTicket}."""
    content = lifetime.to_bytes(4, "big") + b"age!" + vector(nonce, 1) + vector(identity, 2)
    return bytes((NEW_SESSION_TICKET,)) + vector(content + vector(b"", 2), 3)


def held(proof: Proof = PROOF) -> Held:
    """Make a ticket of a server."""
    return Held(proof, SSL.Session())


class ReadTicketTests(SynchronousTestCase):
    """Tests of L{readTicket}."""

    @patient
    @given(st.binary(min_size=1, max_size=300), st.binary(max_size=255), st.integers(0, 2**32 - 1))
    def test_ticket(self, identity: bytes, nonce: bytes, lifetime: int) -> None:
        """A ticket is found, whatever its nonce."""
        found = readTicket(HANDSHAKE, message(identity, nonce, lifetime))
        self.assertEqual(found, NewTicket(lifetime, identity))

    def test_somethingElse(self) -> None:
        """Nothing else is one, nor is a record with a ticket and more, or with a part of one."""
        whole = message()
        for contentType, content in (
            (23, whole),
            (21, b"\x01\x00"),
            (HANDSHAKE, b""),
            (HANDSHAKE, b"\x18\x00\x00\x01\x00"),
            (HANDSHAKE, whole + whole),
            (HANDSHAKE, whole[:-1]),
            (HANDSHAKE, message(b"")),
        ):
            self.assertRaises(ValueError, readTicket, contentType, content)

    @patient
    @given(st.binary(max_size=60))
    def test_arbitrary(self, content: bytes) -> None:
        """Arbitrary content is a ticket or refused, never anything else."""
        for data in (content, bytes((NEW_SESSION_TICKET,)) + vector(content, 3)):
            try:
                found = readTicket(HANDSHAKE, data)
            except ValueError:
                continue
            self.assertIn(found.identity, content)

    def test_repr(self) -> None:
        """Neither tickets nor sessions are in what these values look like."""
        text = f"{readTicket(HANDSHAKE, message(b'secret'))} {held()}"
        self.assertNotIn("secret", text)
        self.assertNotIn("Session", text)


class ProofTests(SynchronousTestCase):
    """For how long something has been proven."""

    def setUp(self) -> None:
        self.chain = (certificates.server().certificate, certificates.authority().certificate)
        self.end = min(one.not_valid_after_utc for one in self.chain)
        self.clock = Clocks(self.end.timestamp() - 10 * LIFETIME_SECONDS)

    def made(self, *moments: timedelta) -> Tickets:
        """Make tickets that end at some moments, counted from the end of the first certificate."""
        return Tickets(
            [self.end + moment for moment in moments], self.clock.wall, self.clock.monotonic
        )

    def until(self, *moments: timedelta) -> float:
        """Say until which date a proof made now holds, in seconds from now."""
        proof = self.made(*moments).proof(self.chain)
        self.assertEqual((proof.chain, proof.since), (self.chain, self.clock.wall()))
        return proof.until - self.clock.wall()

    def test_lifetime(self) -> None:
        """It holds for two hours, however the wall clock is set; without a certificate, too."""
        self.clock.advance(7)
        tickets = self.made()
        for chain in self.chain, ():
            expires = tickets.proof(chain).expires
            self.clock.step(-3600)
            self.assertEqual(expires - self.clock.monotonic(), LIFETIME_SECONDS)

    def test_certificate(self) -> None:
        """It does not hold when a certificate has ended."""
        self.clock.step(10 * LIFETIME_SECONDS - 60)
        self.assertEqual(self.until(), 60)

    def test_moments(self) -> None:
        """Nor when a CRL ends, or a new one begins; what is past is past."""
        self.clock.step(10 * LIFETIME_SECONDS - 3600)
        second = timedelta(seconds=1)
        self.assertEqual(self.until(-3000 * second, -10 * second, -7200 * second), 600)

    def test_limited(self) -> None:
        """It holds no longer than the server takes the ticket."""
        made = self.made()
        proof = made.proof(())
        self.assertEqual(
            made.limited(proof, 30), replace(proof, expires=self.clock.monotonic() + 30)
        )
        self.assertEqual(made.limited(proof, 2**32 - 1), proof)


class TicketsTests(SynchronousTestCase):
    """Tickets are good once, and not for ever."""

    def setUp(self) -> None:
        self.clock = Clocks()
        self.tickets = Tickets((), self.clock.wall, self.clock.monotonic)

    def test_redeemedOnce(self) -> None:
        """A ticket that was issued is taken once; others never."""
        issued = Issued(PROOF, b"context")
        self.tickets.issue(b"a", issued)
        self.assertIsNone(self.tickets.redeem([]))
        self.assertIsNone(self.tickets.redeem([b"b"]))
        self.assertIs(self.tickets.redeem([b"b", b"a"]), issued)
        self.assertIsNone(self.tickets.redeem([b"a"]))

    def test_redeemedInTime(self) -> None:
        """A ticket is not taken when its time is over, or the clock has been set back."""
        for now, good in ((999.0, False), (1000.0, True), (1999.0, True), (2000.0, False)):
            self.clock.step(now - self.clock.wall())
            self.check(good=good)

    def test_age(self) -> None:
        """
        A ticket gets too old while the wall clock is set back again and again; and is
        young, though that was set forward, as long as no date has come.
        """
        for passes, step, good in ((0, 400, True), (699, -600, True), (1, -1, False)):
            self.clock.advance(passes)
            self.clock.step(step)
            self.check(good=good)

    def check(self, *, good: bool) -> None:
        """Check whether tickets are taken now."""
        self.tickets.issue(b"a", Issued(PROOF, b"context"))
        self.assertIs(self.tickets.redeem([b"a"]) is not None, good)
        self.tickets.hold("server", held())
        self.assertIs(self.tickets.take("server") is not None, good)

    def test_issuedAreBounded(self) -> None:
        """The oldest tickets are forgotten if there are too many."""
        self.patch(tickets, "_MOST_OCTETS", 3 * ENTRY_OCTETS - 1)
        self.tickets = Tickets((), self.clock.wall, self.clock.monotonic)
        for identity in (b"a", b"b", b"c"):
            self.tickets.issue(identity, Issued(PROOF, identity))
        self.assertIsNone(self.tickets.redeem([b"a"]))
        self.assertIsNotNone(self.tickets.redeem([b"b"]))
        self.assertIsNotNone(self.tickets.redeem([b"c"]))

    def test_takenOnce(self) -> None:
        """A server's tickets are used once each, the newest first; others' not at all."""
        first, second = held(), held()
        self.tickets.hold("server", first)
        self.tickets.hold("server", second)
        self.assertIsNone(self.tickets.take("other"))
        self.assertIs(self.tickets.take("server"), second)
        self.assertIs(self.tickets.take("server"), first)
        self.assertIsNone(self.tickets.take("server"))

    def test_whatIsOverIsPassed(self) -> None:
        """Tickets whose time is over are dropped on the way to one that is good."""
        good = held()
        self.tickets.hold("server", good)
        self.tickets.hold("server", held(replace(PROOF, until=1500.0)))
        self.assertIs(self.tickets.take("server"), good)
        self.assertTrue(self.tickets.wants("server"))

    def test_wants(self) -> None:
        """As many are wanted as a mount has connections."""
        for _number in range(MOST_HELD):
            self.assertTrue(self.tickets.wants("server"))
            self.tickets.hold("server", held())
        self.assertFalse(self.tickets.wants("server"))
        self.assertTrue(self.tickets.wants("other"))

    def test_serversAreBounded(self) -> None:
        """The servers that were met first are forgotten if there are too many."""
        self.patch(tickets, "_MOST_OCTETS", 12000)
        self.tickets = Tickets((), self.clock.wall, self.clock.monotonic)
        for server in "abc":
            self.tickets.hold(server, held())
        self.assertEqual(
            [self.tickets.take(server) is None for server in "abc"], [True, False, False]
        )
