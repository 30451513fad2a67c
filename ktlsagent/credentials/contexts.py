"""What requests are served with: the contexts of each profile, made once and shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ktlsagent.credentials.expiry import Expiry
from ktlsagent.credentials.inventory import Inventory
from ktlsagent.credentials.latecontexts import LateContexts
from ktlsagent.credentials.owncertificates import Missing, OwnFiles
from ktlsagent.peers.revocation import RevocationLists
from ktlsagent.peers.tags import TagSet
from ktlsagent.profiles import Profile
from ktlsagent.protocols.context import OwnCertificate, TLSContext


@dataclass(frozen=True, slots=True)
class ProfileContexts:
    """
    The contexts of one profile, and so of one role.

    @ivar profile: the profile.
    @ivar anonymousClient: for a client that shows no certificate.
    @ivar client: for a client that does; C{None} if none is configured.
    @ivar server: for a server; without a certificate if none is configured, or
        its key is yet to come.
    @ivar clientCertificate: what L{client} shows first, if there is one.
    @ivar clientWith: makes a context for a client with another certificate;
        raises C{SSL.Error} if certificate and key do not belong together.
    @ivar preSharedKey: for pre-shared keys, by the key's hash.
    @ivar revocations: the CRLs that peers with certificates are looked up in.
    @ivar late: makes the same once the tokens with our private keys have
        answered, and then with L{client} or L{server}; C{None} if all is there.
    @ivar missing: why there is no certificate of ours, although one is configured.
    """

    profile: Profile
    anonymousClient: TLSContext | None = None
    client: TLSContext | None = None
    server: TLSContext | None = None
    clientCertificate: OwnCertificate | None = None
    clientWith: Callable[[OwnCertificate], TLSContext] | None = None
    preSharedKey: Mapping[str, TLSContext] = field(default_factory=dict)
    revocations: RevocationLists = field(default_factory=RevocationLists)
    late: LateContexts[ProfileContexts] | None = None
    missing: Missing | None = None


@dataclass(frozen=True, slots=True)
class ProfileSet:
    """
    All that is in use at a time; replaced as a whole or not at all.

    @ivar profiles: the profiles in the order of the configuration; the first
        that matches a request is used.
    @ivar keyrings: names of more keyrings in which keys may be.
    @ivar tags: the session tags.
    @ivar inventory: what is trusted and shown, to tell what a reload changes.
    @ivar expiries: what ends, and when.
    @ivar paths: the files and directories that it was made of.
    @ivar notices: what is odd about them, in sentences; to be logged once.
    @ivar own: our certificates, by the files that they are in.
    """

    profiles: Sequence[ProfileContexts]
    keyrings: Sequence[str] = ()
    tags: TagSet = field(default_factory=TagSet)
    inventory: Inventory = field(default_factory=Inventory)
    expiries: Sequence[Expiry] = ()
    paths: frozenset[str] = frozenset()
    notices: Sequence[str] = ()
    own: Mapping[str, OwnFiles] = field(default_factory=dict)

    @property
    def begins(self) -> datetime | None:
        """When the next of our certificates can be used that cannot yet."""
        waited = [one.missing.begins for one in self.profiles if one.missing is not None]
        return min((begins for begins in waited if begins is not None), default=None)

    def late(self) -> Sequence[LateContexts[ProfileContexts]]:
        """
        List what waits for tokens.

        @return: the contexts, in the order of the profiles.
        """
        return [contexts.late for contexts in self.profiles if contexts.late is not None]
