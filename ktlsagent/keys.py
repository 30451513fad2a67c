"""
The keys that a request names by serial or by identity, read from the kernel's
keyrings: pre-shared keys, certificates and private keys.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from OpenSSL import crypto

from ktlsagent.errors import HandshakeError, KeyForbidden, KeyUnusable
from ktlsagent.interfaces import IKeyrings, KeyDescription
from ktlsagent.keytrust import flawOf
from ktlsagent.protocols.context import OwnCertificate
from ktlsagent.protocols.psk import PreSharedKey, hashOf, listIdentities, quoteIdentity
from ktlsagent.texts import listed

_PRESHARED_TYPES = ("psk", "user")
_LENGTHS = range(16, 513)
"""Octets of a PSK that OpenSSL takes."""

_PEM = b"-----BEGIN "
_MOST_SHOWN = 8
_MOST_SEEN = 2**14
_A_KEYRING = "a keyring with pre-shared keys"

_WORDS = {
    errno.ENOKEY: "none with that serial",
    errno.ENOENT: "none with that serial",
    errno.EKEYREVOKED: "that it was revoked",
    errno.EKEYEXPIRED: "that it has expired",
    errno.EKEYREJECTED: "that it was rejected",
}


@dataclass(slots=True)
class _Found:
    """
    What a look for a pre-shared key has found.

    @ivar rings: the keyrings that are believed in, and the serials in each.
    @ivar absent: whether the kernel has none of the identities.
    @ivar present: the serials of the keys, by their identities.
    @ivar more: that there are more keys, in words.
    @ivar unusable: which keys cannot be used and why, in words.
    @ivar refusal: why a keyring cannot be looked into.
    """

    rings: list[tuple[int, Sequence[int]]] = field(default_factory=list)
    absent: bool = False
    present: dict[bytes, int] = field(default_factory=dict)
    more: str = ""
    unusable: list[str] = field(default_factory=list)
    refusal: HandshakeError | None = None


@dataclass(frozen=True, slots=True)
class RequestKeys:
    """
    The keys of one request.

    @ivar keyrings: the kernel's keys.
    @ivar rings: the serials of the keyrings that are linked for the request.
    @ivar seen: identities of keys, by serial, as they were when they were looked at: a peer
        that makes us look at all keys does so once.
    """

    keyrings: IKeyrings
    rings: Sequence[int]
    seen: dict[int, bytes] = field(default_factory=dict)

    def preSharedKey(self, serial: int) -> PreSharedKey:
        """
        Read a PSK.

        @param serial: the key's serial.
        @return: the key, with the identity that its description is.
        @raise KeyUnusable: if it is not there or no PSK.
        @raise KeyForbidden: if it may not be read, or is not believed in.
        """
        described = self._trusted(serial, "a pre-shared key")
        if described.type not in _PRESHARED_TYPES:
            raise KeyUnusable(
                "key-unusable",
                f"expected a pre-shared key of the type {' or '.join(_PRESHARED_TYPES)}, found "
                f"key {serial} of the type {described.type}",
            )
        payload = self._read(serial, "a pre-shared key")
        if len(payload) not in _LENGTHS:
            raise KeyUnusable(
                "key-unusable",
                f"expected a pre-shared key of {_LENGTHS[0]} to {_LENGTHS[-1]} octets, found "
                f"key {serial} with {len(payload)}",
            )
        if self._trusted(serial, "a pre-shared key") != described:
            # Its number has become another key's while it was read.
            raise KeyUnusable(
                "key-unusable", f"expected a pre-shared key as key {serial}, found it replaced"
            )
        identity = described.description
        return PreSharedKey(identity, payload, hashOf(identity, len(payload)), serial)

    def lookUp(self, offered: Sequence[bytes]) -> PreSharedKey:
        """
        Find the first of some identities.  Descriptions are compared for
        equality: the kernel's own search takes one that only begins alike.

        @param offered: identities, the most wanted first.
        @return: its key.
        @raise KeyUnusable: if none of them is there; it lists what is.
        @raise KeyForbidden: if the key may not be read.
        """
        found = _Found()
        for ring in self.rings:
            try:
                self._trusted(ring, _A_KEYRING)
                found.rings.append((ring, self.keyrings.keys(ring)))
            except OSError as error:
                found.refusal = self._refusal(error, ring, _A_KEYRING)
            except HandshakeError as error:
                found.refusal = error
        serial = self._searched(found, offered)
        if serial is None and found.absent:
            # What is told takes no longer the more keys there are.
            self._listed(found, _MOST_SHOWN)
        elif serial is None:
            self._listed(found)
            serial = next((found.present[name] for name in offered if name in found.present), None)
        if serial is not None:
            key = self.preSharedKey(serial)
            if key.identity in offered:
                return key
            # Its number has become another key's.
            self.seen.pop(serial, None)
        if found.refusal is not None:
            try:
                raise found.refusal
            finally:
                # Else the exception and this frame would hold each other.
                del found
        flaws = f"; {listed(found.unusable, between='; ')}" if found.unusable else ""
        raise KeyUnusable(
            "unknown-identity",
            f"expected a key for {_list(offered)}, found keys for {_list(sorted(found.present))}"
            f"{found.more} in {len(self.rings)} keyrings{flaws}",
        )

    def _searched(self, found: _Found, offered: Sequence[bytes]) -> int | None:
        """
        Have the kernel look for the identities, which spares us looking at all keys.

        @return: the key's serial, C{None} if that does not settle it.
        """
        for identity in offered:
            for ring, serials in found.rings:
                for kind in _PRESHARED_TYPES:
                    try:
                        serial = self.keyrings.search(ring, kind, identity)
                        if serial is None:
                            continue
                        described = self.keyrings.describe(serial)
                    except OSError:
                        return None
                    same = described.description == identity and serial in serials
                    return serial if same and flawOf(described) is None else None
        found.absent = True
        return None

    def _listed(self, found: _Found, most: int | None = None) -> None:
        """Look at all keys, or at some."""
        for _ring, serials in found.rings:
            if most is not None and len(serials) > most:
                found.more = " and more"
            for serial in serials[:most]:
                identity = self.seen.get(serial)
                if identity is None:
                    identity = self._identity(serial, found)
                if identity is not None:
                    found.present.setdefault(identity, serial)

    def _identity(self, serial: int, found: _Found) -> bytes | None:
        """Find out which identity a key is for, and remember it: that never changes."""
        try:
            described = self.keyrings.describe(serial)
        except OSError as error:
            found.unusable.append(f"key {serial} cannot be used: {error.strerror}")
            return None
        if described.type not in _PRESHARED_TYPES:
            return None
        flaw = flawOf(described)
        if flaw is not None:
            found.unusable.append(f"key {serial} cannot be used: found {flaw}")
            return None
        if len(self.seen) >= _MOST_SEEN:
            self.seen.clear()
        self.seen[serial] = described.description
        return described.description

    def ownCertificate(
        self, certificate: int | None, privateKey: int | None, configured: OwnCertificate | None
    ) -> OwnCertificate:
        """
        Read a certificate and its key; what the request does not name comes
        from the configuration.

        @param certificate: the certificate's serial, if the request has one.
        @param privateKey: the private key's serial, if the request has one.
        @param configured: the configured pair, if there is one.
        @return: the pair; whether it is one is not looked at.
        @raise KeyUnusable: if a part is missing or cannot be parsed.
        @raise KeyForbidden: if it may not be read.
        """
        if configured is None and (certificate is None or privateKey is None):
            raise KeyUnusable(
                "no-certificate",
                "expected both cert_serial= and privkey_serial=, or the other one in "
                "[authenticate.client], found one alone",
            )
        chain = self._certificates(certificate) if certificate is not None else ()
        key = self._privateKey(privateKey) if privateKey is not None else None
        return OwnCertificate(
            chain or (configured.chain if configured else ()),
            key or (configured.key if configured else crypto.PKey()),
            slow=key is None and configured is not None and configured.slow,
        )

    def _certificates(self, serial: int) -> tuple[crypto.X509, ...]:
        payload = self._trustedPayload(serial, "a certificate")
        try:
            if _PEM in payload:
                found = x509.load_pem_x509_certificates(payload)
            else:
                found = [x509.load_der_x509_certificate(payload)]
        except (ValueError, x509.InvalidVersion) as error:
            raise _unparsable(serial, "a certificate in DER or PEM") from error
        return tuple(crypto.X509.from_cryptography(certificate) for certificate in found)

    def _privateKey(self, serial: int) -> crypto.PKey:
        payload = self._trustedPayload(serial, "a private key")
        load = (
            serialization.load_pem_private_key
            if _PEM in payload
            else serialization.load_der_private_key
        )
        try:
            return crypto.PKey.from_cryptography_key(load(payload, password=None))  # type: ignore[arg-type]
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # Not chained: nobody knows what is quoted in there.
            raise _unparsable(serial, "an unencrypted private key in DER or PEM") from None

    def _trusted(self, serial: int, what: str) -> KeyDescription:
        """Describe a key or a keyring that nobody but root and us has made what it is."""
        try:
            described = self.keyrings.describe(serial)
        except OSError as error:
            raise self._refusal(error, serial, what) from error
        flaw = flawOf(described)
        if flaw is not None:
            raise KeyForbidden(
                "key-untrusted",
                f"expected {what} of root's that nobody else may change, found of key {serial} "
                f"{flaw}; keyctl chown and keyctl setperm mend that",
            )
        return described

    def _read(self, serial: int, what: str) -> bytes:
        try:
            return self.keyrings.read(serial)
        except OSError as error:
            raise self._refusal(error, serial, what) from error

    def _trustedPayload(self, serial: int, what: str) -> bytes:
        self._trusted(serial, what)
        return self._read(serial, what)

    def _refusal(self, error: OSError, serial: int, what: str) -> HandshakeError:
        """Say which key it is and what is missing."""
        where = listed(self.rings, self._name) or "no keyring"
        if error.errno == errno.EACCES:
            return KeyForbidden(
                "key-forbidden",
                f"expected {what}, found that key {serial} may not be read: linked is {where}; "
                "the key needs read permission, or search permission for its possessor",
            )
        found = _WORDS.get(error.errno or 0, str(error.strerror))
        return KeyUnusable(
            "key-unusable", f"expected {what} as key {serial}, found {found}; linked is {where}"
        )

    def _name(self, ring: int) -> str:
        try:
            return self.keyrings.describe(ring).description.decode("utf-8", "backslashreplace")
        except OSError:
            return str(ring)


def _unparsable(serial: int, what: str) -> KeyUnusable:
    return KeyUnusable("key-unusable", f"expected {what}, found something else in key {serial}")


def _list(identities: Sequence[bytes]) -> str:
    return listIdentities(identities, quoteIdentity) or "no identity"
