"""The agent's verdict on a certificate path, without the handshake around it."""

from __future__ import annotations

from collections.abc import Sequence

from OpenSSL import crypto

from ktlsagent.config import AgentConfig
from ktlsagent.credentials.loading import loadProfiles
from ktlsagent.peers.nameconstraints import judgeNames
from ktlsagent.peers.names import judgeName, referenceName
from ktlsagent.peers.peerrules import judgeChain
from ktlsagent.profiles import Match, Own, Profile, Trust
from ktlsagent.protocols.context import TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.handshakefamily import AuthMode
from ktlsagent.protocols.session import Role
from ktlsagent.protocols.verification import CERTIFICATE_INVALID, chainError
from tests.support import certificates

VALID = "valid"
"""Stands for no refusal."""


class Verifier:
    """
    Judges as an agent with one profile does.

    @ivar context: what OpenSSL judges chains by.
    """

    def __init__(
        self,
        role: Role,
        trust: Trust,
        *,
        tagDirectory: str,
        own: Own | None = None,
        serverName: str | None = None,
    ) -> None:
        """
        @param role: whether it is a client or a server.
        @param trust: who is trusted.
        @param tagDirectory: where no tags are defined.
        @param own: its own certificates.
        @param serverName: the name that a client has mounted.
        @raise ConfigError: if the agent would not start.
        """
        profile = Profile(
            f"authenticate.{role.value}",
            Match(roles=(role,), modes=(AuthMode.UNAUTH, AuthMode.X509)),
            trust,
            own or Own(),
        )
        config = AgentConfig(profiles=(profile,), tagDirectory=tagDirectory)
        (contexts,) = loadProfiles(config, frozenset(CIPHER_SUITES)).profiles
        context = contexts.server if role is Role.SERVER else contexts.anonymousClient
        assert context is not None
        self.context: TLSContext = context
        self._role = role
        self._trust = trust
        self._revocations = contexts.revocations
        self._name = None if serverName is None else referenceName(serverName.encode())

    def verdict(self, shown: Sequence[crypto.X509]) -> str:
        """
        Judge a peer.

        @param shown: the certificates that it shows, its own first.
        @return: the code of the refusal, or L{VALID}.
        """
        store = self.context._context.get_cert_store()
        assert store is not None
        verification = crypto.X509StoreContext(store, shown[0], shown[1:])
        try:
            verified = verification.get_verified_chain()
        except crypto.X509StoreContextError as error:
            number, depth, _words = error.errors
            # The certificate matters to the words only.
            certificate = certificates.client().certificate
            return chainError(number, depth, certificate, self._role.peer).code
        try:
            chain = [certificate.to_cryptography() for certificate in verified]
        except ValueError:
            return CERTIFICATE_INVALID
        refusal = judgeChain(chain, self._role, self._trust)
        refusal = refusal or self._revocations.judge(chain, self._role.peer)
        refusal = refusal or judgeNames(chain, self._role.peer)
        if refusal is None and self._name is not None:
            refusal = judgeName(self._name, chain)
        return VALID if refusal is None else refusal.code
