"""What a handshake finds out about its peer, from OpenSSL's verdicts and the judge's."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from OpenSSL import SSL

from ktlsagent.errors import HandshakeError, PeerRejected, SessionUnusable
from ktlsagent.protocols import failures, openssl
from ktlsagent.protocols.interfaces import TLSParameters
from ktlsagent.protocols.tickets import Proof
from ktlsagent.protocols.verification import (
    CERTIFICATE_INVALID,
    CHAIN_ERRORS,
    CRL_ERRORS,
    V_APPLICATION_VERIFICATION,
    V_CERT_REJECTED,
    V_HOSTNAME_MISMATCH,
    V_OK,
    alertError,
    chainError,
)


class Examination:
    """
    The examination of one handshake's peer.

    @ivar presented: the peer's own certificate, as soon as it has been looked
        at, whatever the verdict.
    @ivar chain: the peer's certificates as they were verified; empty if it has
        shown none, or none that is good.
    @ivar refusal: why it is refused, if so.
    """

    def __init__(self, parameters: TLSParameters) -> None:
        """
        @param parameters: how the handshake is to be run.
        """
        self.presented: x509.Certificate | None = None
        self.chain: tuple[x509.Certificate, ...] = ()
        self.refusal: HandshakeError | None = None
        self._peer = parameters.role.peer
        self._judge = parameters.judge
        self._keyed = parameters.preSharedKey is not None
        self._tolerated = parameters.context.tolerated
        self._anchored = True

    def judge(self, chain: Sequence[x509.Certificate], error: int, depth: int) -> int:
        """
        Judge the peer's chain (called by the context).

        @param chain: the certificates, the peer's own first.
        @param error: what OpenSSL found, an C{X509_V_ERR_*}; 0 if it found
            nothing up to the end.
        @param depth: which certificate the error is about.
        @return: 0 to go on, or the C{X509_V_ERR_*} that OpenSSL makes an alert of.
        """
        self.presented = chain[0]
        if self._keyed:
            self.refusal = failures.keyIgnored(self._peer)
            return V_APPLICATION_VERIFICATION
        if self._passesOver(error, depth, isAnchor=0 < depth == len(chain) - 1):
            return V_OK
        if error != V_OK:
            self.refusal = chainError(error, depth, chain[depth], self._peer)
            return alertError(error)
        self.chain = tuple(chain if self._anchored else chain[:1])
        self.refusal = self._judge(self.chain)
        return V_OK if self.refusal is None else V_HOSTNAME_MISMATCH

    def _passesOver(self, error: int, depth: int, *, isAnchor: bool) -> bool:
        """Say whether an error is none for us."""
        if error in self._tolerated:
            self._anchored = self._anchored and error not in CHAIN_ERRORS
            return True
        # OpenSSL looks a trust anchor up as well if the whole chain is looked up.
        # It is trusted whatever its issuer says (RFC 5280, section 6.1), which
        # is mostly nobody that OpenSSL knows.
        if isAnchor and error in CRL_ERRORS:
            return True
        # Nobody vouches for CA certificates that lead to no CA that is trusted:
        # what is wrong with them does not matter.
        return depth > 0 and not self._anchored

    def unreadable(self, reason: Exception) -> int:
        """
        Refuse a certificate that OpenSSL can read, but we cannot (called by the context).

        @param reason: what is wrong with it.
        @return: the C{X509_V_ERR_*} that OpenSSL makes an alert of.
        """
        self.refusal = PeerRejected(
            CERTIFICATE_INVALID,
            f"expected certificates from the {self._peer} that can be read, found {reason}",
        )
        return V_CERT_REJECTED

    def noProtocol(self, offered: Sequence[bytes]) -> None:
        """
        Note that a client offers other protocols than ours (called by the context).

        @param offered: the protocols.
        """
        self.refusal = failures.otherProtocolsOffered(offered)

    def settle(self, connection: SSL.Connection, proof: Proof | None) -> bool:
        """
        Make sure that it is known who the peer is, and that this was judged.

        @param connection: the connection, whose handshake is complete.
        @param proof: what was proven in an earlier handshake, if one is to be
            resumed.
        @return: whether it was resumed.
        @raise SessionUnusable: if there is a session without having been judged.
        """
        used = openssl.usedPreSharedKey(connection)
        shown = connection.get_peer_certificate()
        proof = proof if used else None
        if proof is not None:
            self.chain = proof.chain
            self.presented = next(iter(self.chain), None)
            judged = (shown and shown.to_cryptography()) == self.presented
        else:
            judged = (shown is None) is (self.chain == ())
        if not judged:
            raise SessionUnusable(
                "not-judged",
                f"expected to judge the certificate of the {self._peer}, found a session without",
            )
        if (self._keyed or proof is not None) is not used:
            raise SessionUnusable(
                "psk-not-used",
                f"expected a session by the pre-shared key that the {self._peer} was asked "
                "for, found one by other means",
            )
        return proof is not None
