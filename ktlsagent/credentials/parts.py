"""What the contexts of a profile are made of, and the contexts that are made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from OpenSSL import crypto

from ktlsagent.credentials.contexts import ProfileContexts
from ktlsagent.credentials.latecontexts import LateContexts
from ktlsagent.credentials.owncertificates import Missing, OwnFiles
from ktlsagent.credentials.tokens import TokenKey
from ktlsagent.peers.revocation import RevocationLists
from ktlsagent.profiles import Profile, Tolerated
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.handshakefamily import AuthMode
from ktlsagent.protocols.psk import SHA256, SHA384
from ktlsagent.protocols.session import Role
from ktlsagent.protocols.tickets import Tickets
from ktlsagent.protocols.verification import CHAIN_ERRORS, V_CRL_HAS_EXPIRED, V_UNABLE_TO_GET_CRL

_TOLERATED = {
    Tolerated.MISSING: V_UNABLE_TO_GET_CRL,
    Tolerated.EXPIRED: V_CRL_HAS_EXPIRED,
}


@dataclass(frozen=True, slots=True)
class Parts:
    """
    What the contexts of a profile are made of.

    @ivar profile: the profile.
    @ivar modes: the modes that it can be asked for.
    @ivar suites: names of the cipher suites.
    @ivar groups: names of the groups; empty: OpenSSL's own choice.
    @ivar store: what peers with certificates are judged by.
    @ivar own: our certificates.
    @ivar missing: why one of them is not there.
    @ivar moments: when its CRLs begin and end.
    @ivar revocations: these CRLs.
    """

    profile: Profile
    modes: frozenset[AuthMode]
    suites: Sequence[str]
    groups: Sequence[str]
    store: crypto.X509Store
    own: Sequence[OwnFiles] = ()
    missing: Missing | None = None
    moments: Sequence[datetime] = ()
    revocations: RevocationLists = field(default_factory=RevocationLists)

    @property
    def role(self) -> Role:
        """The role, of which a profile has one."""
        return self.profile.match.roles[0]

    def context(self, own: Sequence[OwnCertificate] = (), *, lasting: bool = True) -> TLSContext:
        """
        Make a context for certificates; raises C{SSL.Error} if OpenSSL does not take
        ours.  One that does not last, but is for one request, has no tickets.
        """
        trust, access = self.profile.trust, self.profile.access
        tolerated = frozenset(_TOLERATED[one] for one in trust.tolerated)
        return TLSContext(
            role=self.role,
            suites=self.suites,
            groups=self.groups,
            signatureAlgorithms=self.profile.handshake.signatureAlgorithms,
            alpn=self.profile.handshake.alpn,
            store=self.store,
            own=own,
            tolerated=tolerated if trust.stores else tolerated | CHAIN_ERRORS,
            certificateRequired=bool(access.allow or access.addressInCertificate or trust.pins),
            tickets=self._tickets(own) if lasting and self.profile.handshake.resumption else None,
        )

    def _tickets(self, own: Sequence[OwnCertificate]) -> Tickets:
        """Keep tickets, none longer than our own certificates and the CRLs."""
        ours = [one.chain[0].to_cryptography().not_valid_after_utc for one in own]
        return Tickets([*ours, *self.moments])

    def preSharedKeyContexts(self) -> dict[str, TLSContext]:
        """Make contexts for pre-shared keys, by hash."""
        contexts = {}
        for name in (SHA256, SHA384) if AuthMode.PSK in self.modes else ():
            suites = [suite for suite in self.suites if CIPHER_SUITES[suite].hash == name]
            if suites:
                contexts[name] = TLSContext(role=self.role, suites=suites, groups=self.groups)
        return contexts


def makeContexts(parts: Parts) -> ProfileContexts:
    """
    Make the contexts of a profile, as far as that is possible without a token.

    @param parts: what they are made of.
    @return: the contexts.
    @raise SSL.Error: if OpenSSL does not take one of our certificates.
    """
    contexts = ProfileContexts(
        parts.profile,
        preSharedKey=parts.preSharedKeyContexts(),
        revocations=parts.revocations,
        missing=parts.missing,
    )
    if parts.role is Role.CLIENT and AuthMode.UNAUTH in parts.modes:
        contexts = replace(contexts, anonymousClient=parts.context())
    if parts.role is Role.CLIENT and AuthMode.X509 in parts.modes:
        contexts = replace(contexts, clientWith=lambda own: parts.context([own], lasting=False))
    tokenKeys = [one.key for one in parts.own if isinstance(one.key, TokenKey)]
    if tokenKeys:
        if parts.role is Role.SERVER and AuthMode.X509 in parts.modes:
            contexts = replace(contexts, server=parts.context())
        return replace(contexts, late=LateContexts(tokenKeys, partial(_withKeys, parts, contexts)))
    return _withKeys(parts, contexts, {})


def _withKeys(
    parts: Parts, contexts: ProfileContexts, keys: Mapping[TokenKey, crypto.PKey]
) -> ProfileContexts:
    """Add the contexts that have certificates."""
    if AuthMode.X509 not in parts.modes:
        return contexts
    own = [
        OwnCertificate(one.chain, keys[one.key], slow=True)
        if isinstance(one.key, TokenKey)
        else OwnCertificate(one.chain, one.key)
        for one in parts.own
    ]
    if parts.role is Role.SERVER:
        return replace(contexts, server=parts.context(own))
    if own:
        return replace(contexts, client=parts.context(own), clientCertificate=own[0])
    return contexts
