"""
Profiles: which requests one is for, and what it says about them.  Values only;
the first profile that matches a request decides everything about it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeVar

from ktlsagent.peers.authorisation import Access
from ktlsagent.peers.patterns import matchesPattern
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.handshakefamily import AuthMode
from ktlsagent.protocols.record import AlertDescription
from ktlsagent.protocols.session import Demand, Role

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

DEFAULT_GROUPS = ("X25519MLKEM768", "X25519", "P-256", "P-384")
"""The groups offered unless the configuration says otherwise, best first."""

KEY_SHARE = "*"
"""
What marks a group for which a client sends a key share at once.  With none for the group
that the server takes there is another round trip (RFC 8446, section 4.1.4).
"""

_POST_QUANTUM = "MLKEM"
"""What is in the names of groups that few servers have yet."""

SYSTEM = "system"
"""What stands for the system's trust store in a list of trust stores."""


class CRLScope(Enum):
    """Which certificates have to be looked up in a CRL."""

    LEAF = "leaf"
    CHAIN = "chain"


class Tolerated(Enum):
    """What about a CRL is not a refusal, if the profile says so."""

    MISSING = "missing"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    One end of a connection.

    @ivar address: its address; an IPv4 address that came as an IPv6 one is IPv4.
    @ivar port: its TCP port.
    """

    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What is known about a request when its profile is chosen.

    @ivar role: which side we are.
    @ivar mode: how the peers authenticate each other.
    @ivar local: our end of the connection, if it is known.
    @ivar peer: the other end, if it is known.
    @ivar name: the server's name as it was mounted, for a client.
    @ivar keyring: the name of the keyring that the kernel names, if any.
    @ivar namespaces: the names of the network namespace, as far as they are
        known: those under C{/run/netns}, and its inode number.
    """

    role: Role
    mode: AuthMode
    local: Endpoint | None = None
    peer: Endpoint | None = None
    name: str | None = None
    keyring: str | None = None
    namespaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Match:
    """
    Which requests a profile is for: all conditions have to hold, and an empty
    one always does.

    @ivar roles: one of these roles.
    @ivar modes: one of these modes.
    @ivar local: our address is in one of these networks.
    @ivar peer: the peer's address is in one of these networks.
    @ivar localPorts: our port is in one of these ranges.
    @ivar peerPorts: the peer's port is in one of these ranges.
    @ivar names: the mounted name matches one of these patterns, whatever the case.
    @ivar keyrings: the request's keyring has one of these names.
    @ivar namespaces: the network namespace has one of these names.
    """

    roles: Sequence[Role] = ()
    modes: Sequence[AuthMode] = ()
    local: Sequence[Network] = ()
    peer: Sequence[Network] = ()
    localPorts: Sequence[range] = ()
    peerPorts: Sequence[range] = ()
    names: Sequence[str] = ()
    keyrings: Sequence[str] = ()
    namespaces: Sequence[str] = ()

    def matches(self, asked: Asked) -> bool:
        """
        Say whether all conditions hold.  One about something that is not known
        does not.

        @param asked: what is known about the request.
        @return: whether the profile is for it.
        """
        return (
            (not self.roles or asked.role in self.roles)
            and (not self.modes or asked.mode in self.modes)
            and _within(asked.local, self.local, self.localPorts)
            and _within(asked.peer, self.peer, self.peerPorts)
            and (not self.names or _matchesAny(asked.name, self.names))
            and (not self.keyrings or asked.keyring in self.keyrings)
            and (not self.namespaces or bool(asked.namespaces & set(self.namespaces)))
        )


def _matchesAny(name: str | None, patterns: Sequence[str]) -> bool:
    """Say whether a name is known and matches one of some patterns, whatever the case."""
    return name is not None and any(
        matchesPattern(pattern.casefold(), name.casefold()) for pattern in patterns
    )


def _within(endpoint: Endpoint | None, networks: Sequence[Network], ports: Sequence[range]) -> bool:
    """Say whether an end of a connection is in one of some networks and ranges of ports."""
    if endpoint is None:
        return not networks and not ports
    return (not networks or any(endpoint.address in network for network in networks)) and (
        not ports or any(endpoint.port in span for span in ports)
    )


@dataclass(frozen=True, slots=True)
class Trust:
    """
    Who is trusted.

    @ivar stores: files and directories with CA certificates in PEM, and
        L{SYSTEM} for the system's.  Empty: no CA is trusted, the pins decide
        alone, and neither chain nor name is looked at.
    @ivar crls: files and directories with CRLs in PEM or DER; empty: nothing
        is looked up.
    @ivar crlScope: which certificates are looked up.
    @ivar tolerated: which flaws of CRLs are no refusal.
    @ivar pins: SHA-256 digests of the SubjectPublicKeyInfo of the peer's own
        certificate, one of which it has to be; empty: any.
    @ivar rsaBits: the least length of an RSA key anywhere in the chain.
    @ivar rpcPurpose: what the key purposes of RFC 9289 (id-kp-rpcTLSClient and
        id-kp-rpcTLSServer) mean: nothing, as much as clientAuth and serverAuth,
        or one of them has to be there.
    """

    stores: Sequence[str] = (SYSTEM,)
    crls: Sequence[str] = ()
    crlScope: CRLScope = CRLScope.LEAF
    tolerated: frozenset[Tolerated] = frozenset()
    pins: frozenset[bytes] = frozenset()
    rsaBits: int = 2048
    rpcPurpose: Demand = Demand.ACCEPT


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """
    A certificate of our own.

    @ivar certificate: the PEM file of the chain, leaf first.
    @ivar privateKey: the PEM file of the leaf's key, which may be that of a key
        in a token, or a C{pkcs11:} URI.
    """

    certificate: str
    privateKey: str


@dataclass(frozen=True, slots=True)
class Own:
    """
    Who we are.

    @ivar certificates: our certificates, of different kinds of keys; the peer's
        abilities decide between them.
    @ivar pin: where the PIN of the token is that holds the keys: a path, or
        C{credential:NAME} for a file in the service's credentials directory.
    @ivar acceptExpired: whether certificates are used before and after their time.
    """

    certificates: Sequence[CertificateFiles] = ()
    pin: str | None = None
    acceptExpired: bool = False


@dataclass(frozen=True, slots=True)
class Handshake:
    """
    How TLS is spoken.

    @ivar suites: IANA names of the suites to use, best first.
    @ivar groups: OpenSSL's names of the groups to use, best first, some with L{KEY_SHARE}.
    @ivar signatureAlgorithms: OpenSSL's names of the signature algorithms to
        use, best first; empty: OpenSSL's own choice.
    @ivar alpn: whether C{sunrpc} (RFC 9289, section 5) is offered and selected.
    @ivar resumption: whether sessions with certificates are resumed by tickets.
    @ivar pskAlert: what a server tells a client without a pre-shared key of ours.
    """

    suites: Sequence[str] = tuple(CIPHER_SUITES)
    groups: Sequence[str] = DEFAULT_GROUPS
    signatureAlgorithms: Sequence[str] = ()
    alpn: Demand = Demand.ACCEPT
    resumption: bool = False
    pskAlert: AlertDescription = AlertDescription.DECRYPT_ERROR


def withKeyShares(groups: Sequence[str]) -> Sequence[str]:
    """
    Mark the groups for which a client sends key shares, unless that was done: the best
    one, and the best one that all servers may have.

    @param groups: groups, best first.
    @return: the same, at least one with L{KEY_SHARE}.
    """
    if any(group.startswith(KEY_SHARE) for group in groups):
        return groups
    common = next((group for group in groups if _POST_QUANTUM not in group), None)
    shares = (*groups[:1], common)
    return [f"{KEY_SHARE}{group}" if group in shares else group for group in groups]


@dataclass(frozen=True, slots=True)
class Profile:
    """
    A profile as it is configured, for one role.

    @ivar name: its section in the configuration.
    @ivar match: which requests it is for.
    @ivar trust: who is trusted.
    @ivar own: who we are.
    @ivar handshake: how TLS is spoken.
    @ivar access: which of those who are trusted may come in.
    @ivar tags: the names of the session tags that it gives; C{None} for all.
    """

    name: str
    match: Match = Match()
    trust: Trust = Trust()
    own: Own = Own()
    handshake: Handshake = Handshake()
    access: Access = field(default_factory=Access)
    tags: Sequence[str] | None = None


class Matching(Protocol):
    """What a profile is chosen by."""

    @property
    def profile(self) -> Profile:
        """The profile."""


Choice = TypeVar("Choice", bound=Matching)


def choose(among: Sequence[Choice], asked: Asked) -> Choice | None:
    """
    Choose the profile of a request: the first that matches.

    @param among: what has profiles, in the order of the configuration.
    @param asked: what is known about the request.
    @return: the one to serve it with, C{None} if there is none.
    """
    return next((one for one in among if one.profile.match.matches(asked)), None)
