"""
The table of the machine suite: keys of the kernel's keyrings, for NVMe/TCP and NFS.

Numbers are those of the requirements: 1 one agent for both ends, 2 with tlshd at the
other end, 3 refusals, 4 connecting again, 5 NFS with keys from the keyring, 7 without
root.  Agents take several seconds to start here, so timeouts are long.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.kernel.cases import Case, camel

_KTLSAGENT: Final = "ktlsagent"
_TLSHD: Final = "tlshd"
_HASHES: Final = {1: "sha256", 2: "sha384"}
_TIMES: Final = 20
_AT_ONCE: Final = 8


def _case(
    name: str, expectation: str, scenario: str, timeout: float = 300.0, **arguments: Any
) -> Case:
    """
    Make a case.

    @param name: its name.
    @param expectation: what it expects.
    @param scenario: its function.
    @param timeout: how many seconds it may take.
    @param arguments: what the function is called with.
    @return: the case.
    """
    return Case(name, expectation, scenario, arguments, timeout=timeout)


def _connections() -> Iterator[Case]:
    """
    Requirements 1 and 2.

    @return: the cases.
    """
    for hmac, version, allQueues in (
        (1, 0, False),
        (1, 1, False),
        (2, 0, False),
        (2, 1, False),
        (2, 1, True),
    ):
        queues = "four queues" if allQueues else "two queues"
        yield _case(
            camel("alone", _HASHES[hmac], f"identity{version}", *queues.split()),
            f"One agent serves target and host: a {_HASHES[hmac]} key, identity version {version}, "
            f"{queues}; data arrives on the disk, kTLS counts, sysfs has the key's serial.",
            "psk.alone",
            hmac=hmac,
            version=version,
            allQueues=allQueues,
        )
    for hmac in _HASHES:
        for target, host in ((_KTLSAGENT, _TLSHD), (_TLSHD, _KTLSAGENT)):
            yield _case(
                camel(target, "serves", host, _HASHES[hmac]),
                f"A host with {host} uses a target with {target}, {_HASHES[hmac]} key.",
                "psk.pair",
                target=target,
                host=host,
                hmac=hmac,
            )
    yield _case(
        "connectTimes",
        "Both agents connect, in turn, in the same guest; how long that takes is measured.",
        "psk.connectTimes",
        times=5,
    )


_REFUSALS: Final = (
    (
        "unknownIdentity",
        "An unknown identity: the same decrypt_error as for a wrong key; the target names its own.",
    ),
    (
        "prefixIdentity",
        "A key whose identity only begins like the one that is offered is not taken for it.",
    ),
    (
        "forgedKeyring",
        "A user's keyring that is listed as root's opens no session by the user's key.",
    ),
    ("missingKey", "Without a key the kernel itself refuses to connect."),
    (
        "revokedAtTarget",
        "A key that was revoked at the target is as good as none: the host gets decrypt_error.",
    ),
    ("revokedAtHost", "A key that was revoked at the host is not used."),
    (
        "unreadableAtHost",
        "A key that the host's agent may not read is refused, with its serial.",
    ),
    ("unreadableAtTarget", "A key that the target's agent may not read ends the handshake."),
    ("withoutTls", "A host without --tls is refused by a port that demands it."),
    ("plainTextHost", "A host that speaks in clear is refused, and the next one is served."),
    ("plainTextTarget", "A target that speaks in clear is refused."),
)


def _refusals() -> Iterator[Case]:
    """
    Requirement 3.

    @return: the cases.
    """
    for name, expectation in _REFUSALS:
        yield _case(name, expectation, f"pskrefusals.{name}")
    for hmac in _HASHES:
        yield _case(
            camel("wrong", "key", _HASHES[hmac]),
            "A wrong key of a known identity is refused by decrypt_error, and both sides get "
            f"EACCES; {_HASHES[hmac]}.",
            "pskrefusals.wrongKey",
            hmac=hmac,
        )
    for side in ("target", "host"):
        yield _case(
            camel("agent", "absent", "at", side),
            f"Without an agent at the {side} connecting fails.",
            "pskrefusals.agentAbsent",
            side=side,
        )
        yield _case(
            camel("agent", "stopped", "at", side),
            f"An agent at the {side} that stands still makes connecting fail after ten seconds, "
            "and works again when it goes on.",
            "pskrefusals.agentStopped",
            side=side,
        )
    for name, expectation in (
        (
            "keyRejectedForGood",
            "A connected host whose key the target forgets, and says so, tries no more.",
        ),
        (
            "keyLackedForAWhile",
            "A connected host whose key the target lacks tries again, and is back with the key.",
        ),
        ("keyGoneForGood", "A connected host whose key is revoked gets ENOKEY and tries no more."),
        (
            "retriedWhileStopped",
            "A host goes on trying while the target's agent stands still, and is back after it.",
        ),
        (
            "retriedWhileAbsent",
            "A host goes on trying while its own agent is gone, and is back with the next one.",
        ),
    ):
        yield _case(name, expectation, f"pskrefusals.{name}")


def _reconnections() -> Iterator[Case]:
    """
    Requirement 4.

    @return: the cases.
    """
    yield _case(
        "resetAgainAndAgain",
        f"A controller survives {_TIMES} resets; no key and no descriptor is left behind.",
        "psk.reset",
        times=_TIMES,
    )
    yield _case(
        "portRemovedAgainAndAgain",
        f"A controller comes back each of {_TIMES} times that the port was gone; no key and no "
        "descriptor is left behind.",
        "psk.portRemoved",
        times=_TIMES,
    )
    yield _case(
        "manyAtOnce",
        f"{_AT_ONCE} controllers connect at once; no request takes another one's key away.",
        "psk.manyAtOnce",
        number=_AT_ONCE,
    )


def _nfs() -> Iterator[Case]:
    """
    Requirements 5 and 7.

    @return: the cases.
    """
    for algorithm in ("ec", "rsa"):
        for server in (_KTLSAGENT, "tlshd-1.0.0"):
            yield _case(
                camel("nfs", algorithm, "from", "keyring", "to", server),
                f"NFS 4.2 is mounted with cert_serial= and privkey_serial=, {algorithm.upper()}, "
                f"in all formats of the key, from a server with {server}.",
                "keyringnfs.mounts",
                algorithm=algorithm,
                server=server,
            )
    yield _case(
        "nfsOneAloneFromKeyring",
        "The certificate or the key may come from the keyring, and the other from a file.",
        "keyringnfs.oneAlone",
    )
    yield _case(
        "nfsRefusedFromKeyring",
        "Keys that do not belong together, are something else, or may not be read are refused, "
        "each with its reason.",
        "keyringnfs.refused",
    )
    yield _case(
        "onlyNetAdmin",
        "An agent with CAP_NET_ADMIN but without root serves NFS, and says that it cannot serve "
        "NVMe.",
        "unprivileged.onlyNetAdmin",
    )


NVME_CASES: Final = (*_connections(), *_refusals(), *_reconnections(), *_nfs())
"""All cases."""
