"""
The table of the kernel suite: every scenario with its arguments, as values.

Numbers are those of the requirements: 1 one host, 2 two hosts, 3 suites,
4 refusals, 5 names, 6 records, 7 lives of agents, 8 closing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

_KTLSAGENT: Final = "ktlsagent"
_TLSHD: Final = "tlshd"
_AGENTS: Final = (_KTLSAGENT, _TLSHD)

_SUITES: Final = {
    "aes256gcm": "TLS_AES_256_GCM_SHA384",
    "aes128gcm": "TLS_AES_128_GCM_SHA256",
    "chacha20": "TLS_CHACHA20_POLY1305_SHA256",
    "aes128ccm": "TLS_AES_128_CCM_SHA256",
}

_TIMES: Final = 500


@dataclass(frozen=True, slots=True)
class Case:
    """
    One test.

    @ivar name: its name, in camel case.
    @ivar expectation: what it expects, in a sentence.
    @ivar scenario: the function, C{module.function}.
    @ivar arguments: what it is called with.
    @ivar olderKernel: whether it also runs on the older kernel.
    @ivar timeout: how many seconds it may take.
    """

    name: str
    expectation: str
    scenario: str
    arguments: dict[str, Any] = field(default_factory=dict)
    olderKernel: bool = False
    timeout: float = 90.0


def camel(*words: str) -> str:
    """
    Join words to a name.

    @param words: words, which may hold dots and dashes.
    @return: the name.
    """
    plain = ["".join(part[:1].upper() + part[1:] for part in word.split("-")) for word in words]
    name = "".join(plain).replace(".", "")
    return name[:1].lower() + name[1:]


def _transfers() -> Iterator[Case]:
    """
    Requirements 1 and 2.

    @return: the cases.
    """
    for version, security in product(("4.2", "3"), ("mtls", "tls")):
        yield Case(
            camel("alone", f"v{version}", security),
            f"One agent serves both ends of NFS {version} with xprtsec={security}: 64 MiB survive "
            "a remount (16 in an emulated machine), with kTLS in both directions and no decrypt "
            "error.",
            "transfer.alone",
            {"version": version, "security": security},
            olderKernel=True,
        )
    for server, client, version, security in product(
        _AGENTS, _AGENTS, ("4.2", "3"), ("mtls", "tls")
    ):
        yield Case(
            camel("pair", server, "serves", client, f"v{version}", security),
            f"A file goes from {client} to {server} and back, NFS {version}, xprtsec={security}.",
            "transfer.pair",
            {"server": server, "client": client, "version": version, "security": security},
            olderKernel=True,
        )
    for server, client in product(_AGENTS, _AGENTS):
        yield Case(
            camel("pair", server, "serves", client, "eight", "connections"),
            f"Eight connections of one mount are all served, {client} to {server}.",
            "transfer.pair",
            {
                "server": server,
                "client": client,
                "version": "4.2",
                "security": "mtls",
                "connections": 8,
            },
            olderKernel=True,
        )


def _suites() -> Iterator[Case]:
    """
    Requirement 3.

    @return: the cases.
    """
    for (short, suite), forced, other in product(_SUITES.items(), ("server", "client"), _AGENTS):
        agents = {"server": other, "client": other, forced: _KTLSAGENT}
        yield Case(
            camel("suite", short, "forced", "by", forced, "against", other),
            f"{suite} is used if the {forced}, ktlsagent, knows no other and the peer is {other}.",
            "transfer.suite",
            {"suite": suite, "forced": forced, **agents},
        )


_SERVER_FLAWS: Final = (
    ("expired", "server.lab", "certificate-expired", "certificate_expired"),
    ("not-yet-valid", "server.lab", "certificate-not-yet-valid", "certificate_expired"),
    ("unknown-ca", "server.lab", "unknown-ca", "unknown_ca"),
    ("self-signed", "server.lab", "self-signed", "unknown_ca"),
    ("wrong-name", "server.lab", "name-mismatch", "bad_certificate"),
    ("wrong-ip", "10.0.0.1", "name-mismatch", "bad_certificate"),
)

_CLIENT_FLAWS: Final = tuple(
    (flaw, code, alert) for flaw, _, code, alert in _SERVER_FLAWS if not flaw.startswith("wrong")
)

_BAD_SERVERS: Final = (
    ("tls-1.2", "EACCES", "alert-protocol-version", "-", "EACCES"),
    ("plain-text", "EACCES", "not-tls", "unexpected_message", "EACCES"),
    ("closes", "ETIMEDOUT", "connection-closed", "-", "ETIMEDOUT"),
    ("stalls", "ETIMEDOUT", "deadline", "-", "ETIMEDOUT"),
    # They are gone when the client has its keys: the kernel takes none for the connection,
    # and may notice the end before it is told.
    ("refuses-at-once", "EACCES or EIO", "alert-access-denied", "-", "EACCES"),
    ("closes-at-once", "ETIMEDOUT or EIO", "closed-after-handshake", "-", "ETIMEDOUT"),
)

_BAD_CLIENTS: Final = (
    ("tls-1.2", "protocol-version", "protocol_version", "EACCES"),
    ("plain-text", "not-tls", "unexpected_message", "EACCES"),
    ("closes", "connection-closed", "-", "ETIMEDOUT"),
    ("stalls", "deadline", "-", "ETIMEDOUT"),
)


def _refusals() -> Iterator[Case]:
    """
    Requirement 4.

    @return: the cases.
    """
    for flaw, server, code, alert in _SERVER_FLAWS:
        yield Case(
            camel("server", "certificate", flaw),
            f"The client refuses a server certificate that is {flaw}: mount fails with EACCES, the "
            f"log says {code}, the server gets {alert}.",
            "refusals.serverCertificate",
            {"flaw": flaw, "server": server, "code": code, "alert": alert},
        )
    for flaw, code, alert in _CLIENT_FLAWS:
        yield Case(
            camel("client", "certificate", flaw),
            f"The server refuses a client certificate that is {flaw}: mount fails with EACCES, the "
            f"log says {code}, a client gets {alert}.",
            "refusals.clientCertificate",
            {"flaw": flaw, "code": code, "alert": alert},
        )
    for kind, number, code, alert, status in _BAD_SERVERS:
        yield Case(
            camel("server", kind),
            f"A server that is bad ({kind}) makes mount fail with {number}; the log says {code}.",
            "refusals.badServer",
            {"kind": kind, "number": number, "code": code, "alert": alert, "status": status},
        )
    for kind, code, alert, status in _BAD_CLIENTS:
        yield Case(
            camel("client", kind),
            f"A client that is bad ({kind}) is refused, the log says {code}, the next is served.",
            "refusals.badClient",
            {"kind": kind, "code": code, "alert": alert, "status": status},
        )
    for version in ("4.2", "3"):
        yield Case(
            camel("no", "client", "certificate", f"v{version}"),
            f"An mtls export is not given to a client without a certificate, NFS {version}.",
            "refusals.noClientCertificate",
            {"version": version},
        )
    yield Case(
        "noCertificateConfigured",
        "A mount with xprtsec=mtls fails with EACCES if the client has no certificate.",
        "refusals.noCertificateConfigured",
    )
    yield Case(
        "certificateWithoutKey",
        "A certificate without private key is refused at the start; at a reload the old "
        "configuration stays.",
        "refusals.certificateWithoutKey",
    )
    yield Case(
        "expiredCertificateOfOurOwn",
        "A certificate of our own that has expired is refused at the start and at a reload, unless "
        "it is to be accepted.",
        "refusals.expiredOfOurs",
    )
    yield Case(
        "serverWithoutTls",
        "A server without TLS is refused by the kernel itself.",
        "refusals.serverWithoutTls",
    )


def _names() -> Iterator[Case]:
    """
    Requirement 5.

    @return: the cases.
    """
    names = {"name": "server.lab", "ipv4": "10.0.0.1", "ipv6": "[fd00::1]"}
    for (kind, name), version in product(names.items(), ("4.2", "3")):
        yield Case(
            camel("mount", "by", kind, f"v{version}"),
            f"The server's certificate has to be for {name} of the mount command, NFS {version}.",
            "transfer.name",
            {"server": name, "version": version},
        )


def _records() -> Iterator[Case]:
    """
    Requirement 6.

    @return: the cases.
    """
    yield Case(
        "ticketsBehindFinished",
        "Two NewSessionTickets right behind the server's Finished disturb no mount.",
        "records.tickets",
        {"times": _TIMES},
        timeout=240.0,
    )
    yield Case(
        "firstCallWithFinished",
        "A call in the same segment as the client's Finished is always answered.",
        "records.firstCall",
        {"times": _TIMES},
        timeout=240.0,
    )


def _starts() -> Iterator[Case]:
    """
    What stands in the way of an agent, and the fakes of the unit tests.

    @return: the cases.
    """
    for function, expectation in (
        ("withoutPrivilege", "Without CAP_NET_ADMIN an agent says so and ends with a failure."),
        ("twoAgents", "A second agent in a network namespace is named, and both serve."),
        ("lostReady", "READYs that are lost are noticed, and no request is lost with them."),
    ):
        yield Case(function, expectation, f"starting.{function}", olderKernel=True)
    for workers in ("1", "2"):
        yield Case(
            camel("forged", "to", workers),
            f"What others than the kernel send to an agent of {workers} is dropped, however much "
            "it is, and mounts are served meanwhile.",
            "forging.whileMounting",
            {"workers": workers},
            olderKernel=True,
        )
        yield Case(
            camel("unread", "log", "of", workers),
            f"An agent of {workers} with a log that nobody reads serves and refuses at once, "
            "whatever clients put into it, and says what is missing when it is read.",
            "unread.hugeCertificates",
            {"workers": workers},
            timeout=240.0,
        )
    yield Case(
        "forgedByTenantsRoot",
        "The root of a user namespace, to which the agent's network belongs, cannot end the agent.",
        "forging.tenantsRoot",
        olderKernel=True,
    )
    yield Case(
        "fakesVerified",
        "The tests of the fakes hold on the real kernel as well.",
        "fakes.verified",
        olderKernel=True,
    )


def _presharedKeyPeers() -> Iterator[Case]:
    """
    Pre-shared keys with other libraries; C{gnutls-cli} and C{gnutls-serv} know SHA-256 only.

    @return: the cases.
    """
    for side, (tool, hashName) in product(
        ("server", "client"), (("openssl", "sha256"), ("openssl", "sha384"), ("gnutls", "sha256"))
    ):
        yield Case(
            camel("psk", side, tool, hashName),
            f"A {hashName} pre-shared key gives a kTLS session with {tool} as the {side}.",
            f"pskpeers.{side}",
            {"tool": tool, "hashName": hashName},
        )


def _lives() -> Iterator[Case]:
    """
    Requirements 7 and 8.

    @return: the cases.
    """
    for function, expectation in (
        (
            "killedInHandshake",
            "nfsd survives an agent killed in mid-handshake; the next agent serves.",
        ),
        ("restartedWithPending", "A restarted agent takes over the requests that wait."),
        ("startedAfter", "An agent answers requests that are older than itself."),
        ("terminatedInFlight", "SIGTERM lets the handshakes in flight finish; nothing is owed."),
        (
            "restartedInFlight",
            "A handshake that is under way at a restart is finished beside the new agent.",
        ),
        ("terminatedWhileStalled", "SIGTERM waits for a stalled peer no longer than its deadline."),
    ):
        yield Case(function, expectation, f"lifecycle.{function}")
    for workers in ("1", "2"):
        yield Case(
            camel("restarted", "in", "place", "of", workers),
            f"An agent of {workers} that starts again in the same process eight times costs no "
            "mount.",
            "restarting.inPlace",
            {"workers": workers},
            timeout=240.0,
        )
    for workers in ("1", "2"):
        yield Case(
            camel("restarted", "while", "stalled", "of", workers),
            f"Nobody waits for peers that stall when an agent of {workers} starts again.",
            "restarting.inPlaceWhileStalled",
            {"workers": workers},
            timeout=240.0,
        )
    yield Case(
        "socketHandedOver",
        "Eight agents that are killed cost no mount if their socket is held and handed over.",
        "restarting.handedOver",
        timeout=240.0,
    )
    yield Case(
        "workerKilled",
        "Eight workers that are killed while somebody mounts cost no mount.",
        "restarting.workerKilled",
        timeout=240.0,
    )
    yield Case(
        "workersShare",
        "Two workers share what is asked, reload together, and end with balanced books.",
        "restarting.workersShare",
    )
    for function, expectation in (
        ("full", "No client fails while one of two workers has no descriptor left."),
        ("stopped", "No client fails while one of two workers is stopped."),
        ("templateKilled", "The process that forks workers is made anew when it is killed."),
        ("templateHangs", "A process that forks workers and hangs does not hold up the stop."),
        ("parentFull", "A parent without descriptors costs no worker but the one that died."),
    ):
        yield Case(
            camel("workers", "while", function), expectation, f"sharing.{function}", timeout=240.0
        )
    for version in ("4.2", "3"):
        yield Case(
            camel("unmount", "says", "close", "notify", f"v{version}"),
            f"The server's end sees close_notify when NFS {version} is unmounted.",
            "closing.unmount",
            {"version": version},
        )
    yield Case(
        "serverStopSaysCloseNotify",
        "A client sees close_notify when the NFS server stops.",
        "closing.serverStops",
    )


def _clocks() -> Iterator[Case]:
    """
    The wall clock is set.

    @return: the cases.
    """
    for workers, (function, expectation) in product(
        ("1", "2"),
        (
            ("back", "No handshake fails or stalls while the wall clock is set back by 40 s."),
            ("forward-in-flight", "A handshake under way does not notice a day more, or less."),
            ("forward-at-the-start", "An agent starts while the wall clock runs away."),
            ("forward-at-the-stop", "A day more at a stop does not cost a handshake under way."),
        ),
    ):
        yield Case(
            camel("clock", function, "of", workers),
            expectation,
            f"clocks.{camel(function)}",
            {"workers": workers},
        )


def _signals() -> Iterator[Case]:
    """
    Signals at awkward moments.

    @return: the cases.
    """
    for workers, stop in (("1", "SIGTERM"), ("2", "SIGTERM"), ("1", "SIGQUIT")):
        yield Case(
            camel("stop", "wins", stop.lower(), "of", workers),
            f"{stop} shortly after SIGUSR2 ends an agent of {workers} for good.",
            "signalled.stopWins",
            {"workers": workers, "stop": stop},
        )
    for workers in ("1", "2"):
        yield Case(
            camel("restart", "fails", "of", workers),
            "An agent that has no descriptor to start again with goes on as before.",
            "signalled.restartFails",
            {"workers": workers},
        )
        yield Case(
            camel("hung", "up", "while", "starting", "of", workers),
            "SIGHUP does not kill an agent that is not ready yet.",
            "signalled.hungUpWhileStarting",
            {"workers": workers},
        )


def _managed() -> Iterator[Case]:
    """
    The agent as a service of a real systemd.

    @return: the cases.
    """
    for workers in ("1", "2"):
        for function, what in (("restarted", "Eight restarts"), ("killed", "Eight deaths")):
            yield Case(
                camel(function, "of", workers),
                f"{what} of the unit with {workers} workers cost no mount.",
                f"managed.{function}",
                {"workers": workers},
                timeout=300.0,
            )
    yield Case(
        "stopped",
        "The unit's restrictions let the agent work, and nothing is left after a stop.",
        "managed.stopped",
    )


CASES: Final = (
    *_transfers(),
    *_suites(),
    *_refusals(),
    *_names(),
    *_records(),
    *_starts(),
    *_presharedKeyPeers(),
    *_lives(),
    *_clocks(),
    *_signals(),
)
"""All cases."""

OLDER_KERNEL_CASES: Final = tuple(case for case in CASES if case.olderKernel)
"""The cases for the older kernel."""

MANAGED_CASES: Final = tuple(_managed())
"""The cases for a guest with systemd."""
