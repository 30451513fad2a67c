"""
The files that the configuration names, read once and built into the contexts
that all handshakes share; replaced as a whole or not at all.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from OpenSSL import SSL, crypto

from ktlsagent.config import DEFAULT_GROUPS, AgentConfig, RoleConfig
from ktlsagent.errors import ConfigError, Mistake
from ktlsagent.policy import ContextSet
from ktlsagent.protocols import openssl
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.psk import SHA256, SHA384
from ktlsagent.protocols.session import Role

SYSTEM_TRUST_STORES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where Debian, Fedora, SUSE and Alpine keep the system's trust anchors."""

_CLIENT = "authenticate.client"
_SERVER = "authenticate.server"
_OWN = "ktlsagent"
_PEM_CRL = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def loadContexts(
    config: AgentConfig,
    kernelSuites: frozenset[str],
    systemTrustStores: Sequence[str] = SYSTEM_TRUST_STORES,
) -> ContextSet:
    """
    Read all files and build the contexts.

    @param config: the configuration.
    @param kernelSuites: the cipher suites that the running kernel takes.
    @param systemTrustStores: where to look if no trust store is configured.
    @return: the contexts.
    @raise ConfigError: with all mistakes, if anything is missing or wrong.
    """
    loader = _Loader(config, kernelSuites, systemTrustStores)
    contexts = ContextSet(
        anonymousClient=loader.context(_CLIENT, config.client, withCertificate=False),
        client=loader.context(_CLIENT, config.client) if config.client.certificate else None,
        server=loader.context(_SERVER, config.server),
        clientCertificate=loader.certificates.get(_CLIENT),
        clientWith=loader.clientWith,
        preSharedKey=loader.preSharedKeyContexts(),
        keyrings=config.keyrings,
    )
    if loader.mistakes:
        raise ConfigError(list(dict.fromkeys(loader.mistakes)))
    return contexts


@dataclass
class _Loader:
    """Builds contexts and collects what is wrong on the way."""

    config: AgentConfig
    kernelSuites: frozenset[str]
    systemTrustStores: Sequence[str]
    mistakes: list[Mistake] = field(default_factory=list)
    certificates: dict[str, OwnCertificate] = field(default_factory=dict)
    stores: dict[tuple[str | None, str | None], crypto.X509Store] = field(default_factory=dict)

    def context(
        self, section: str, role: RoleConfig, *, withCertificate: bool = True
    ) -> TLSContext:
        """Build the context of one role, a poor one if anything is wrong with it."""
        store = self._store(section, role)
        own = self._own(section, role) if withCertificate else ()
        try:
            return TLSContext(store=store, own=own, suites=self._suites(), groups=self._groups())
        except (SSL.Error, ValueError) as error:
            self._mistake(
                section,
                "x509.private_key",
                f"the private key of {role.certificate}",
                f"one that does not belong to it in {role.privateKey} ({_words(error)})",
            )
            return TLSContext(store=store, suites=self._suites(), groups=())

    def clientWith(self, own: OwnCertificate) -> TLSContext:
        """Build a client's context with a certificate that is not configured."""
        store = self._store(_CLIENT, self.config.client)
        return TLSContext(store=store, own=(own,), suites=self._suites(), groups=self._groups())

    def preSharedKeyContexts(self) -> dict[tuple[Role, str], TLSContext]:
        """Build the contexts for pre-shared keys, by role and hash."""
        contexts = {}
        for name in (SHA256, SHA384):
            suites = [suite for suite in self._suites() if CIPHER_SUITES[suite].hash == name]
            for role in Role if suites else ():
                contexts[role, name] = TLSContext(role=role, suites=suites, groups=self._groups())
        return contexts

    def _suites(self) -> Sequence[str]:
        """Those of the configured suites that the kernel takes."""
        usable = [name for name in self.config.suites if name in self.kernelSuites]
        if not usable:
            self._mistake(
                _OWN,
                "suites",
                f"at least one of {', '.join(sorted(self.kernelSuites))}, which this kernel takes",
                ", ".join(self.config.suites),
            )
            return self.config.suites
        return usable

    def _groups(self) -> Sequence[str]:
        """Those of the configured groups that OpenSSL has; none means its own choice."""
        supported = openssl.supportedGroups(self.config.groups)
        missing = [name for name in self.config.groups if name not in supported]
        if missing and self.config.groups != DEFAULT_GROUPS:
            self._mistake(
                _OWN,
                "groups",
                f"groups that {SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode()} lets us choose",
                ", ".join(missing),
                "remove them",
            )
        return supported

    def _store(self, section: str, role: RoleConfig) -> crypto.X509Store:
        """Read a trust store and its CRLs, once for all that use the same."""
        store = self.stores.get((role.truststore, role.crl))
        if store is None:
            store = self.stores[role.truststore, role.crl] = crypto.X509Store()
            # Anything in the trust store is trusted, an intermediate CA as
            # well, as tlshd's users know it.
            store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
            self._addAnchors(section, role, store)
            if role.crl is not None:
                self._addCRLs(section, role.crl, store)
        return store

    def _addAnchors(self, section: str, role: RoleConfig, store: crypto.X509Store) -> None:
        path = role.truststore
        expected = "a PEM file of CA certificates"
        if path is None:
            path = next((name for name in self.systemTrustStores if os.path.exists(name)), None)
            if path is None:
                self._mistake(
                    section,
                    "x509.truststore",
                    "the system's trust store at " + " or ".join(self.systemTrustStores),
                    "none of these files",
                    "install ca-certificates or set x509.truststore",
                )
                return
        if self._read(section, "x509.truststore", path, expected) is None:
            return
        try:
            store.load_locations(path)
        except crypto.Error:
            self._mistake(section, "x509.truststore", expected, f"no certificate in {path}")

    def _addCRLs(self, section: str, path: str, store: crypto.X509Store) -> None:
        expected = "a PEM file of CRLs"
        data = self._read(section, "x509.crl", path, expected)
        if data is None:
            return
        blocks = _PEM_CRL.findall(data)
        try:
            for block in blocks:
                store.add_crl(x509.load_pem_x509_crl(block))
        except ValueError as error:
            self._mistake(section, "x509.crl", expected, f"a broken one in {path} ({error})")
        if not blocks:
            self._mistake(section, "x509.crl", expected, f"no CRL in {path}")
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK)

    def _own(self, section: str, role: RoleConfig) -> Sequence[OwnCertificate]:
        """Read our certificate and its key."""
        if role.certificate is None or role.privateKey is None:
            return ()
        chain = self._chain(section, role.certificate)
        key = self._key(section, role.privateKey)
        if not chain or not key:
            return ()
        self.certificates[section] = OwnCertificate(chain, key)
        return (self.certificates[section],)

    def _chain(self, section: str, path: str) -> tuple[crypto.X509, ...]:
        expected = "a PEM file with our certificate and its chain"
        data = self._read(section, "x509.certificate", path, expected)
        if data is None:
            return ()
        try:
            certificates = x509.load_pem_x509_certificates(data)
        except ValueError as error:
            self._mistake(section, "x509.certificate", expected, f"{path} without one ({error})")
            return ()
        return tuple(crypto.X509.from_cryptography(certificate) for certificate in certificates)

    def _key(self, section: str, path: str) -> crypto.PKey | None:
        expected = "a PEM file with an unencrypted private key"
        data = self._read(section, "x509.private_key", path, expected, private=True)
        if data is None:
            return None
        try:
            # A passphrase is given so that OpenSSL does not ask for one on a
            # terminal.
            return crypto.load_privatekey(crypto.FILETYPE_PEM, data, passphrase=b"-")
        except crypto.Error as error:
            kind = "an encrypted one" if b"ENCRYPTED" in data else f"none ({_words(error)})"
            self._mistake(section, "x509.private_key", expected, f"{kind} in {path}")
            return None

    def _read(
        self, section: str, key: str, path: str, expected: str, *, private: bool = False
    ) -> bytes | None:
        """Read a file, and for a private one look at who else can."""
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                data = file.read()
        except OSError as error:
            self._mistake(section, key, expected, f"{path}: {error.strerror}")
            return None
        if private and _readableByOthers(status):
            self._mistake(
                section,
                key,
                "a file that only its owner, or root and one group, can read",
                f"{path} with mode {stat.S_IMODE(status.st_mode):04o}",
                f"chmod 0600 {path}",
            )
        return data

    def _mistake(self, section: str, key: str, expected: str, found: str, advice: str = "") -> None:
        self.mistakes.append(Mistake(section, key, expected, found, advice=advice))


def _readableByOthers(status: os.stat_result) -> bool:
    """
    Say whether a private key's file is open to more than its owner.  A group
    may read what root owns: that is how Debian's ssl-cert works.
    """
    shared = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP
    if status.st_uid != 0:
        shared |= stat.S_IRGRP
    return bool(status.st_mode & shared)


def _words(error: Exception) -> str:
    """Put OpenSSL's error queue, or what took its place, into words."""
    queue = error.args[0] if error.args else ""
    if isinstance(queue, list):
        return "; ".join(entry[2] for entry in queue) or "no reason given"
    return str(error)
