"""Tests for L{ktlsagent.profiles}."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.profiles import (
    DEFAULT_GROUPS,
    Asked,
    Endpoint,
    Match,
    Profile,
    choose,
    withKeyShares,
)
from ktlsagent.protocols.handshakefamily import AuthMode
from ktlsagent.protocols.session import Role


def endpoint(address: str, port: int = 2049) -> Endpoint:
    """
    Make one end of a connection.

    @param address: its address.
    @param port: its port.
    @return: the end.
    """
    return Endpoint(ipaddress.ip_address(address), port)


KNOWN = Asked(
    role=Role.CLIENT,
    mode=AuthMode.X509,
    local=endpoint("10.0.0.1", 800),
    peer=endpoint("10.0.0.2"),
    name="Server.lab",
    keyring="keys",
    namespaces=frozenset({"blue", "4026531840"}),
)
"""A request about which everything is known."""

UNKNOWN = Asked(Role.SERVER, AuthMode.PSK)
"""One about which nothing is known but what always is."""


class KeyShareTests(SynchronousTestCase):
    """For which groups clients send key shares."""

    def test_byDefault(self) -> None:
        """For the best one, and for the best one that is not post-quantum."""
        for groups, shares in (
            (DEFAULT_GROUPS, ["*X25519MLKEM768", "*X25519", "P-256", "P-384"]),
            (("X25519", "X25519MLKEM768"), ["*X25519", "X25519MLKEM768"]),
            (
                ("SecP384r1MLKEM1024", "X25519MLKEM768", "P-384"),
                ["*SecP384r1MLKEM1024", "X25519MLKEM768", "*P-384"],
            ),
            (("X25519MLKEM768",), ["*X25519MLKEM768"]),
            (("ffdhe2048", "P-256"), ["*ffdhe2048", "P-256"]),
            ((), []),
        ):
            self.assertEqual(withKeyShares(groups), shares)

    def test_chosen(self) -> None:
        """What is chosen stays."""
        self.assertEqual(withKeyShares(("X25519", "*P-256")), ("X25519", "*P-256"))


IPV4 = ipaddress.ip_network("10.0.0.0/8")
IPV6 = ipaddress.ip_network("fd00::/16")


class MatchTests(SynchronousTestCase):
    """Tests for L{Match}."""

    def holds(self, match: Match, *requests: Asked) -> None:
        """
        Expect that a condition holds.

        @param match: the condition.
        @param requests: of what.
        """
        for asked in requests:
            self.assertTrue(match.matches(asked), asked)

    def fails(self, match: Match, *requests: Asked) -> None:
        """
        Expect that a condition does not hold.

        @param match: the condition.
        @param requests: of what.
        """
        for asked in requests:
            self.assertFalse(match.matches(asked), asked)

    def test_empty(self) -> None:
        """Without a condition any request matches, whatever is known of it."""
        self.holds(Match(), KNOWN, UNKNOWN)

    def test_role(self) -> None:
        """The role is one of those that are listed."""
        self.holds(Match(roles=(Role.CLIENT,)), KNOWN)
        self.holds(Match(roles=(Role.CLIENT, Role.SERVER)), KNOWN, UNKNOWN)
        self.fails(Match(roles=(Role.SERVER,)), KNOWN)

    def test_mode(self) -> None:
        """The mode is one of those that are listed."""
        self.holds(Match(modes=(AuthMode.X509,)), KNOWN)
        self.holds(Match(modes=(AuthMode.X509, AuthMode.PSK)), KNOWN, UNKNOWN)
        self.fails(Match(modes=(AuthMode.UNAUTH, AuthMode.PSK)), KNOWN)

    def test_addresses(self) -> None:
        """An address is in one of the networks, of whichever kind; either end has its own."""
        local, peer = Match(local=(IPV6, IPV4)), Match(peer=(IPV6, IPV4))
        for address in ("10.0.0.1", "10.255.255.255", "fd00::1"):
            self.holds(local, replace(KNOWN, local=endpoint(address), peer=None))
            self.holds(peer, replace(KNOWN, peer=endpoint(address), local=None))
        for address in ("11.0.0.1", "fe80::1", "::ffff:10.0.0.1"):
            self.fails(local, replace(KNOWN, local=endpoint(address)))
            self.fails(peer, replace(KNOWN, peer=endpoint(address)))

    def test_oneAddress(self) -> None:
        """A network may be one address, and an address of the other kind is never in it."""
        self.holds(Match(peer=(ipaddress.ip_network("10.0.0.2"),)), KNOWN)
        self.fails(Match(peer=(ipaddress.ip_network("10.0.0.3"),)), KNOWN)
        self.fails(Match(peer=(ipaddress.ip_network("::/0"),)), KNOWN)

    def test_ports(self) -> None:
        """A port is in one of the ranges; either end has its own."""
        ranges = (range(2049, 2050), range(600, 1024))
        local, peer = Match(localPorts=ranges), Match(peerPorts=ranges)
        for port in (2049, 600, 1023):
            self.holds(local, replace(KNOWN, local=endpoint("10.0.0.1", port), peer=None))
            self.holds(peer, replace(KNOWN, peer=endpoint("10.0.0.1", port), local=None))
        for port in (2048, 2050, 599, 1024):
            self.fails(local, replace(KNOWN, local=endpoint("10.0.0.1", port)))
            self.fails(peer, replace(KNOWN, peer=endpoint("10.0.0.1", port)))

    def test_addressAndPort(self) -> None:
        """Both the address and the port have to be right."""
        match = Match(peer=(IPV4,), peerPorts=(range(2049, 2050),))
        self.holds(match, KNOWN)
        self.fails(
            match,
            replace(KNOWN, peer=endpoint("11.0.0.2")),
            replace(KNOWN, peer=endpoint("10.0.0.2", 20049)),
        )

    def test_name(self) -> None:
        """The name matches one of the patterns, whatever the case, and as a whole."""
        for pattern in ("server.lab", "SERVER.*", "*.lab", "serve?.lab", "*"):
            self.holds(Match(names=("other", pattern)), KNOWN)
        for pattern in ("server", "lab", "?server.lab", ""):
            self.fails(Match(names=(pattern,)), KNOWN)

    def test_keyring(self) -> None:
        """The keyring has one of the names, exactly."""
        self.holds(Match(keyrings=("other", "keys")), KNOWN)
        self.fails(Match(keyrings=("Keys", "key", "*")), KNOWN)

    def test_namespace(self) -> None:
        """One of the names of the namespace is among those that are listed."""
        for name in ("blue", "4026531840"):
            self.holds(Match(namespaces=("other", name)), KNOWN)
        self.fails(Match(namespaces=("red", "BLUE")), KNOWN)

    def test_unknown(self) -> None:
        """A condition about what is not known does not hold, however wide it is."""
        for match in (
            Match(local=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))),
            Match(peer=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))),
            Match(localPorts=(range(65536),)),
            Match(peerPorts=(range(65536),)),
            Match(names=("*",)),
            Match(keyrings=("",)),
            Match(namespaces=("",)),
        ):
            self.fails(match, UNKNOWN)

    def test_allConditions(self) -> None:
        """All conditions have to hold: each alone makes the difference."""
        match = Match(
            roles=(Role.CLIENT,),
            modes=(AuthMode.X509,),
            local=(IPV4,),
            peer=(IPV4,),
            localPorts=(range(600, 1024),),
            peerPorts=(range(2049, 2050),),
            names=("*.lab",),
            keyrings=("keys",),
            namespaces=("blue",),
        )
        self.holds(match, KNOWN)
        self.fails(
            match,
            replace(KNOWN, role=Role.SERVER),
            replace(KNOWN, mode=AuthMode.UNAUTH),
            replace(KNOWN, local=endpoint("11.0.0.1", 800)),
            replace(KNOWN, local=endpoint("10.0.0.1", 80)),
            replace(KNOWN, local=None),
            replace(KNOWN, peer=endpoint("11.0.0.2")),
            replace(KNOWN, peer=endpoint("10.0.0.2", 80)),
            replace(KNOWN, peer=None),
            replace(KNOWN, name="server.example"),
            replace(KNOWN, name=None),
            replace(KNOWN, keyring="others"),
            replace(KNOWN, keyring=None),
            replace(KNOWN, namespaces=frozenset({"red"})),
            replace(KNOWN, namespaces=frozenset()),
        )


@dataclass(frozen=True)
class Prepared:
    """Something that was made of a profile."""

    profile: Profile


class ChooseTests(SynchronousTestCase):
    """Tests for L{choose}."""

    def test_firstMatch(self) -> None:
        """The first that matches is chosen, however well a later one fits."""
        among = [
            Prepared(Profile("server", Match(roles=(Role.SERVER,)))),
            Prepared(Profile("any")),
            Prepared(Profile("exact", Match(roles=(Role.CLIENT,), names=("server.lab",)))),
        ]
        self.assertIs(choose(among, KNOWN), among[1])
        self.assertIs(choose(among, UNKNOWN), among[0])
        self.assertIs(choose(among[::-1], KNOWN), among[2])

    def test_none(self) -> None:
        """If none matches there is none."""
        self.assertIsNone(choose([], KNOWN))
        self.assertIsNone(choose([Prepared(Profile("x", Match(keyrings=("x",))))], KNOWN))
