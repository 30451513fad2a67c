"""The keys that a profile has in the configuration, and the presets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ktlsagent.config.keyfile import Entry
from ktlsagent.config.peers import (
    readNetworks,
    readPins,
    readPorts,
    readRules,
    readTags,
    remarkOnDenied,
)
from ktlsagent.config.places import readKeys, readPaths, readPIN, readStores
from ktlsagent.config.values import readChoice, readChoices, readNames, readNumber
from ktlsagent.errors import ConfigError
from ktlsagent.profiles import DEFAULT_GROUPS, KEY_SHARE, SYSTEM, CRLScope, Tolerated
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.handshakefamily import AuthMode
from ktlsagent.protocols.record import AlertDescription, alertName
from ktlsagent.protocols.session import Demand, Role

GROUPS: Final = (
    *DEFAULT_GROUPS,
    "SecP256r1MLKEM768",
    "SecP384r1MLKEM1024",
    "P-521",
    "X448",
    "ffdhe2048",
    "ffdhe3072",
)
"""The key exchange groups that may be configured, by OpenSSL's names."""

SIGNATURE_ALGORITHMS: Final = (
    "mldsa65",
    "mldsa87",
    "mldsa44",
    "ecdsa_secp256r1_sha256",
    "ecdsa_secp384r1_sha384",
    "ecdsa_secp521r1_sha512",
    "ed25519",
    "ed448",
    "rsa_pss_pss_sha256",
    "rsa_pss_pss_sha384",
    "rsa_pss_pss_sha512",
    "rsa_pss_rsae_sha256",
    "rsa_pss_rsae_sha384",
    "rsa_pss_rsae_sha512",
    "rsa_pkcs1_sha256",
    "rsa_pkcs1_sha384",
    "rsa_pkcs1_sha512",
)
"""
The signature algorithms that may be configured, by the names of RFC 8446, which
are OpenSSL's.  Those with C{pkcs1} are only for the signatures in certificates
(section 4.2.3): a peer may need them to see that it can send the chain that it has.
"""

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "nfs-client": {
        "role": (Role.CLIENT,),
        "mode": (AuthMode.X509, AuthMode.UNAUTH),
        "alpn": Demand.ACCEPT,
        "rpc_purpose": Demand.ACCEPT,
    },
    "nfs-server": {
        "role": (Role.SERVER,),
        "mode": (AuthMode.X509,),
        "alpn": Demand.ACCEPT,
        "rpc_purpose": Demand.ACCEPT,
    },
    "nvme": {
        "mode": (AuthMode.PSK,),
        "suites": ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"),
        "alpn": Demand.OFF,
    },
}
"""
What the presets set.

RFC 9289, section 5, wants clients to offer the protocol C{sunrpc} and servers to
select it, and clients to give up otherwise.  tlshd does neither, and so do other
agents in use; to require it by default would end their mounts, so it is offered,
selected where it is offered, and what is not C{sunrpc} is refused.  Section 5.2.1
defines key purposes for RPC and makes no certificate carry them: with C{accept}
they are worth as much as C{clientAuth} and C{serverAuth}.  The NFS client asks for
the modes x509 (C{xprtsec=mtls}) and unauth (C{xprtsec=tls}), nfsd for x509 alone.

NVMe/TCP, on host and target, has pre-shared keys and no certificates, and no
protocol for ALPN.  Its transport specification names these two suites; the hash of
a key decides which of them it goes with, and the stronger is offered first.
"""

ROLES: Final = {role.value: role for role in Role}
"""The roles by their names in the configuration."""

MODES: Final = {mode.name.lower(): mode for mode in (AuthMode.X509, AuthMode.UNAUTH, AuthMode.PSK)}
"""The modes by their names in the configuration."""

_ALPN: Final = {"off": Demand.OFF, "prefer": Demand.ACCEPT, "require": Demand.REQUIRE}

_PSK_ALERTS: Final = {
    alertName(alert): alert
    for alert in (AlertDescription.DECRYPT_ERROR, AlertDescription.UNKNOWN_PSK_IDENTITY)
}

# Other names under which operators know the groups, only for advice.
_GROUP_ALIASES: Final = {
    "secp256r1": "P-256",
    "prime256v1": "P-256",
    "secp384r1": "P-384",
    "secp521r1": "P-521",
}


@dataclass(frozen=True, slots=True)
class Key:
    """
    What is done with a key.

    @ivar read: turns its entry into a value or raises L{ConfigError}.
    @ivar field: the field that the value is for, if it is for one.
    @ivar notice: what is done instead, if the value has no effect.
    @ivar needs: a key without which it cannot be in its section.
    @ivar remark: says what is to be thought of, if there is anything, with a value.
    """

    read: Callable[[Entry], object]
    field: str = ""
    notice: str = ""
    needs: str = ""
    remark: Callable[[Any], str] | None = None


def _readTolerated(entry: Entry) -> frozenset[Tolerated]:
    choices = {one.value: one for one in Tolerated}
    return frozenset(readChoices(entry, choices, nothing="none"))


def _readRSABits(entry: Entry) -> int:
    advice = "shorter keys can be broken: replace the certificates that have them"
    return readNumber(entry, 2048, 16384, advice)


def _readSignatureAlgorithms(entry: Entry) -> tuple[str, ...]:
    names = readNames(entry, SIGNATURE_ALGORITHMS)
    if all(name.startswith("rsa_pkcs1") for name in names):
        expected = "at least one for handshakes"
        advice = "add rsa_pss_rsae_sha256: RSA keys sign so in TLS 1.3 (RFC 8446, section 4.2.3)"
        found = "only some for signatures in certificates"
        raise ConfigError([entry.mistake(expected, found, advice)])
    return names


MATCH_KEYS: Final = {
    "role": Key(partial(readChoices, choices=ROLES), "roles"),
    "mode": Key(partial(readChoices, choices=MODES), "modes"),
    "local": Key(readNetworks, "local"),
    "peer": Key(readNetworks, "peer"),
    "local_port": Key(readPorts, "localPorts"),
    "peer_port": Key(readPorts, "peerPorts"),
    "name": Key(readNames, "names"),
    "keyring": Key(readNames, "keyrings"),
    "namespace": Key(readNames, "namespaces"),
}
"""Which requests a profile is for."""

TRUST_KEYS: Final = {
    "x509.truststore": Key(partial(readStores, words=(SYSTEM,)), "stores"),
    "x509.crl": Key(readStores, "crls"),
    "crl_scope": Key(partial(readChoice, choices={one.value: one for one in CRLScope}), "crlScope"),
    "crl_tolerate": Key(_readTolerated, "tolerated"),
    "spki_pins": Key(readPins, "pins"),
    "rsa_bits": Key(_readRSABits, "rsaBits"),
    "rpc_purpose": Key(
        partial(readChoice, choices={one.value: one for one in Demand}), "rpcPurpose"
    ),
}
"""Who is trusted."""

IDENTITY_KEYS: Final = {
    "x509.certificate": Key(readPaths, needs="x509.private_key"),
    "x509.private_key": Key(readKeys, needs="x509.certificate"),
    "x509.pq.certificate": Key(readPaths, needs="x509.pq.private_key"),
    "x509.pq.private_key": Key(readKeys, needs="x509.pq.certificate"),
    "token_pin": Key(readPIN, "pin"),
}
"""Who we are; they are inherited together or not at all."""

OWN_KEYS: Final = {
    **IDENTITY_KEYS,
    "own_expired": Key(
        partial(readChoice, choices={"refuse": False, "accept": True}), "acceptExpired"
    ),
}
"""Who we are, and whether for ever."""

SUITE_KEYS: Final = {
    "suites": Key(partial(readNames, known=CIPHER_SUITES), "suites"),
    "groups": Key(
        partial(readNames, known=GROUPS, aliases=_GROUP_ALIASES, mark=KEY_SHARE), "groups"
    ),
}
"""How TLS is spoken, with certificates and without."""

HANDSHAKE_KEYS: Final = {
    **SUITE_KEYS,
    "signature_algorithms": Key(_readSignatureAlgorithms, "signatureAlgorithms"),
    "alpn": Key(partial(readChoice, choices=_ALPN), "alpn"),
    "resumption": Key(partial(readChoice, choices={"off": False, "on": True}), "resumption"),
    "psk_alert": Key(partial(readChoice, choices=_PSK_ALERTS), "pskAlert"),
}
"""How TLS is spoken."""

ACCESS_KEYS: Final = {
    "allow": Key(partial(readRules, nothing="any"), "allow"),
    "deny": Key(partial(readRules, nothing="none"), "deny", remark=remarkOnDenied),
    "client_address": Key(
        partial(readChoice, choices={"off": False, "require": True}), "addressInCertificate"
    ),
}
"""Which of those who are trusted may come in."""

ROLE_KEYS: Final[Mapping[str, Key]] = {
    **TRUST_KEYS,
    **OWN_KEYS,
    **HANDSHAKE_KEYS,
    **ACCESS_KEYS,
    "tags": Key(readTags, "tags"),
}
"""The keys of [authenticate.client] and [authenticate.server]."""

PROFILE_KEYS: Final[Mapping[str, Key]] = {
    "preset": Key(partial(readChoice, choices={name: name for name in PRESETS})),
    **MATCH_KEYS,
    **ROLE_KEYS,
}
"""The keys of [profile.NAME]."""

KEY_MODES: Final[Mapping[str, Sequence[AuthMode]]] = {
    **dict.fromkeys(ROLE_KEYS, (AuthMode.X509, AuthMode.UNAUTH)),
    **dict.fromkeys(OWN_KEYS, (AuthMode.X509,)),
    **dict.fromkeys(SUITE_KEYS, tuple(AuthMode)),
    "psk_alert": (AuthMode.PSK,),
}
"""In which modes a key has an effect; one that is not here in all."""

KEY_ROLES: Final[Mapping[str, Sequence[Role]]] = {
    "client_address": (Role.SERVER,),
    "psk_alert": (Role.SERVER,),
    "tags": (Role.SERVER,),
}
"""In which roles a key has an effect; one that is not here in both."""
