"""What a handshake finds out about its peer, from OpenSSL's verdicts and the judge's."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from OpenSSL import SSL, crypto

from ktlsagent.errors import HandshakeError, PeerRejected, SessionUnusable
from ktlsagent.protocols import failures, openssl
from ktlsagent.protocols.interfaces import TLSParameters
from ktlsagent.protocols.tickets import Proof
from ktlsagent.protocols.verification import (
    CERTIFICATE_INVALID,
    CHAIN_ERRORS,
    CRL_ERRORS,
    LATE_ERRORS,
    V_APPLICATION_VERIFICATION,
    V_CERT_REJECTED,
    V_HOSTNAME_MISMATCH,
    V_OK,
    alertError,
    chainError,
)
from ktlsagent.texts import cut


class _Unreadable(Exception):
    """A certificate that OpenSSL can read, but we cannot; the cause says why."""


def _read(certificate: crypto.X509) -> x509.Certificate:
    try:
        return certificate.to_cryptography()
    except Exception as reason:  # InvalidVersion, for one, is no ValueError
        raise _Unreadable from reason


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
        self._store = parameters.context.store or crypto.X509Store()
        self._tolerated = parameters.context.tolerated
        self._anchored = not self._tolerated >= CHAIN_ERRORS

    def judge(self, chain: Sequence[crypto.X509], error: int, depth: int) -> int:
        """
        Judge the peer's chain (called by the context).  A peer that is known
        without any CA is judged at the first call, before anything else.

        @param chain: the certificates, the peer's own first.
        @param error: what OpenSSL found, an C{X509_V_ERR_*}; 0 if it found
            nothing up to the end.
        @param depth: which certificate the error is about.
        @return: 0 to go on, or the C{X509_V_ERR_*} that OpenSSL makes an alert of.
        """
        try:
            number, self.refusal = self._verdict(chain, error, depth)
        except _Unreadable as unreadable:
            number, self.refusal = (
                V_CERT_REJECTED,
                PeerRejected(
                    CERTIFICATE_INVALID,
                    f"expected certificates from the {self._peer} that can be read, "
                    f"found {cut(str(unreadable.__cause__))}",
                ),
            )
        return V_OK if self.refusal is None else number

    def _verdict(
        self, chain: Sequence[crypto.X509], error: int, depth: int
    ) -> tuple[int, HandshakeError | None]:
        """Say whether the peer is refused, and by which error; only what matters is read."""
        isFirst = self.presented is None
        own = self.presented = self.presented or _read(chain[0])
        if self._keyed:
            return V_APPLICATION_VERIFICATION, failures.keyIgnored(self._peer)
        if isFirst and not self._anchored:
            self.chain = (own,)
            refusal = self._judge(self.chain)
            if refusal is not None:
                return V_HOSTNAME_MISMATCH, refusal
        if error and not self._passesOver(error, depth, isAnchor=0 < depth == len(chain) - 1):
            return alertError(error), chainError(error, depth, _read(chain[depth]), self._peer)
        if not error and self._anchored:
            self.chain = (own, *map(_read, chain[1:]))
            refusal = self._judge(self.chain)
            return (V_OK, None) if refusal is None else self._firstOf(chain, refusal)
        return V_OK, None

    def _firstOf(
        self, chain: Sequence[crypto.X509], refusal: HandshakeError
    ) -> tuple[int, HandshakeError]:
        """
        Find out which comes first, the judge's refusal or what OpenSSL would still find: a
        name that its CA may not issue is no name of the peer's, whichever was asked for.
        """
        try:
            crypto.X509StoreContext(self._store, chain[0], chain[1:]).verify_certificate()
        except crypto.X509StoreContextError as found:
            number, depth, _words = found.errors
            if number in LATE_ERRORS:
                certificate = _read(chain[depth])
                return alertError(number), chainError(number, depth, certificate, self._peer)
        return V_HOSTNAME_MISMATCH, refusal

    def _passesOver(self, error: int, depth: int, *, isAnchor: bool) -> bool:
        """Say whether an error is none for us."""
        # OpenSSL looks a trust anchor up as well if the whole chain is looked up.
        # It is trusted whatever its issuer says (RFC 5280, section 6.1), which
        # is mostly nobody that OpenSSL knows.
        if error in self._tolerated or (isAnchor and error in CRL_ERRORS):
            return True
        # Nobody vouches for CA certificates that lead to no CA that is trusted:
        # what is wrong with them does not matter.
        return depth > 0 and not self._anchored

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
