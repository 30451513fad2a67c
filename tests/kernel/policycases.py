"""
The table of the policy's scenarios: who is trusted, with what, for what, on the real
kernel.  Their names begin with what they are about.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.kernel.cases import Case, camel

_KTLSAGENT: Final = "ktlsagent"
_TLSHD: Final = "tlshd"

_MIXED: Final = ((_TLSHD, _KTLSAGENT), (_KTLSAGENT, _TLSHD))
"""Server and client where one of them is tlshd."""


def _plain() -> Iterator[Case]:
    """
    Scenarios that run once.

    @return: the cases.
    """
    for name, scenario, expectation in (
        (
            "profilesByNetwork",
            "profiles.byNetwork",
            "A server judges clients by the profile of their network, and no other.",
        ),
        (
            "profilesByName",
            "profiles.byName",
            "A client mounts from servers of different authorities by profiles for their names.",
        ),
        (
            "revocationFlaws",
            "revocation.flaws",
            "Expired and missing CRLs refuse everybody, unless they are tolerated.",
        ),
        (
            "revocationScopes",
            "revocation.scopes",
            "A revoked authority matters if the whole chain is looked up; clients look up, too.",
        ),
        (
            "mlDsaBesideEcdsa",
            "postquantum.besideEcdsa",
            "ML-DSA is used between ends that know it, OpenSSL's included, and ECDSA otherwise.",
        ),
        (
            "alpnOfClients",
            "rpctls.alpnOfClients",
            "A server selects sunrpc, does without or refuses, as its profile says.",
        ),
        (
            "alpnOfServers",
            "rpctls.alpnOfServers",
            "A client offers sunrpc or not, and refuses a server without if it has to.",
        ),
        (
            "purposes",
            "rpctls.purposes",
            "The key purposes of RFC 9289 are nothing, enough, or demanded, as the profile says.",
        ),
        (
            "accessRules",
            "authorisation.rules",
            "Rules of every kind let clients in or not, deny wins, and addresses are compared.",
        ),
        (
            "accessByStrength",
            "authorisation.strength",
            "RSA keys that are shorter than a profile wants are refused by either end.",
        ),
        (
            "certificatesByKindOfKey",
            "postquantum.byKindOfKey",
            "Of ML-DSA, ECDSA, Ed25519 and RSA certificates a client sees what it can verify.",
        ),
        (
            "tags",
            "tagging.tags",
            "Session tags are found, logged, and let a client in; a broken file changes nothing.",
        ),
        (
            "pinsAlone",
            "pins.alone",
            "Pinned keys encrypt without an authority, for xprtsec=tls and xprtsec=mtls.",
        ),
        (
            "pinsBesideChain",
            "pins.besideChain",
            "Pins beside an authority: both have to be right.",
        ),
        (
            "tokenLocked",
            "tokenkeys.locked",
            "With a wrong PIN a server refuses; with the right one it serves.",
        ),
    ):
        yield Case(name, expectation, scenario)


def _varied() -> Iterator[Case]:
    """
    Scenarios that run several times.

    @return: the cases.
    """
    for how in ("change", "reload"):
        yield Case(
            camel("revocation", "by", how),
            f"A client is cut off at the next handshake after its revocation, by {how}.",
            "revocation.cutOff",
            {"how": how},
        )
    for security in ("mtls", "tls"):
        yield Case(
            camel("resumption", security),
            f"Mounts with xprtsec={security} resume the session before, and not over a reload.",
            "resumption.mounts",
            {"security": security},
        )
    for server, client in _MIXED:
        agents: dict[str, Any] = {"server": server, "client": client}
        yield Case(
            camel("resumption", server, "serves", client),
            f"Where one side wants resumption, it is full handshakes for {client} and {server}.",
            "resumption.withTlshd",
            agents,
        )
        yield Case(
            camel("mlDsa", server, "serves", client),
            f"{client} mounts from {server} by ECDSA where a profile leaves ML-DSA out.",
            "postquantum.beside",
            agents,
        )
        yield Case(
            camel("rpcTls", server, "serves", client),
            f"Certificates for RPC alone are good for {client} and {server}, sunrpc is not known.",
            "rpctls.withTlshd",
            agents,
        )
    for kind in ("tpm2", "pkcs11"):
        yield Case(
            camel("token", kind),
            f"Both ends have keys in tokens, {kind}, of EC and of RSA.",
            "tokenkeys.used",
            {"kind": kind},
        )
        yield Case(
            camel("token", kind, "gone"),
            f"Without its token, {kind}, a server refuses in time; with it again one serves.",
            "tokenkeys.gone",
            {"kind": kind},
        )
        yield Case(
            camel("token", kind, "survived"),
            f"A file is written although the client connects while the token, {kind}, is away.",
            "tokenkeys.survived",
            {"kind": kind},
        )
        yield Case(
            camel("token", kind, "shared"),
            f"Two workers have the same key in a token, {kind}, and are replaced when it was away.",
            "tokenkeys.shared",
            {"kind": kind},
            timeout=180.0,
        )
        yield Case(
            camel("token", kind, "slow"),
            f"A token, {kind}, that says nothing holds up no handshake that does not need it.",
            "tokenkeys.slow",
            {"kind": kind},
        )
    for client in (_KTLSAGENT, _TLSHD):
        yield Case(
            camel("access", "by", "san", "for", client),
            f"Of two clients of one authority one is allowed and one not; the client is {client}.",
            "authorisation.bySan",
            {"client": client},
        )
    for server in (_KTLSAGENT, _TLSHD):
        yield Case(
            camel("refused", "behind", "by", server),
            f"A client that {server} refuses when it is through itself names the alert in its log.",
            "authorisation.refusedBehind",
            {"server": server},
        )


def _costs() -> Iterator[Case]:
    """
    Measurements, which are no part of the suite.

    @return: the cases.
    """
    for key in ("ec", "rsa", "ml-dsa", "tpm-ec", "tpm-rsa", "slow-tpm-ec"):
        yield Case(
            camel("resumption", key),
            f"Sixteen connections at once with a server's {key} key are full, or resumed.",
            "resumption.cost",
            {"key": key},
            timeout=300.0,
        )


POLICY_CASES: Final = (*_plain(), *_varied())
"""All cases."""

COST_CASES: Final = tuple(_costs())
"""What is only measured."""
