"""ML-DSA certificates beside classical ones: which one is shown to whom."""

from __future__ import annotations

from typing import Final

from tests.kernel.guest import peers
from tests.kernel.guest.agents import KTLSAGENT, Agent
from tests.kernel.guest.certificates import CLIENT, SERVER, Authority
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import readFile, refusal, writeFile
from tests.kernel.guest.opensslpeers import OpensslClient
from tests.kernel.guest.sections import identity, roles
from tests.kernel.guest.waiting import expect, until

_ECDSA: Final = "ecdsa_secp256r1_sha256"


def _issue() -> None:
    """Make a server and a client of each kind, told apart by their subjects."""
    ca = Authority("pq")
    for role, wanted in (("server", SERVER), ("client", CLIENT)):
        ca.issue(f"{role}-ec", wanted)
        ca.issue(f"{role}-pq", wanted, subject=f"pq.{role}.lab", key="ml-dsa")


def _text(**keys: str) -> str:
    """
    Write a configuration with both kinds of certificates for both roles.

    @param keys: more keys of both roles.
    @return: the text.
    """
    own = {
        role: {**identity(f"{role}-ec"), **identity(f"{role}-pq", kind="x509.pq"), **keys}
        for role in ("client", "server")
    }
    return roles(own["client"], own["server"], truststore="pq")


def _mounted(lab: Lab, client: Host, version: str = "4.2", *rest: str) -> None:
    """
    Mount, write, and read.

    @param lab: the stage.
    @param client: where.
    @param version: of NFS.
    @param rest: server and options.
    """
    with lab.mounted(client, version, "mtls", *rest) as mount:
        written = writeFile(mount.path / "data", 1)
        expect("SHA-256", readFile(mount.path / "data"), written)


def _shown(server: Agent, client: Agent, prefix: str) -> None:
    """
    Check what both sides have shown each other.

    @param server: the server's agent.
    @param client: the client's agent.
    @param prefix: of the subjects.
    """
    client.nextHandshake().expect("ok", subject=f"CN={prefix}server.lab")
    server.nextHandshake().expect("ok", subject=f"CN={prefix}client.lab")


def besideEcdsa(lab: Lab) -> None:
    """
    Both ends have both kinds; ML-DSA is used wherever both ends know it, with our
    peer, with C{openssl s_client}, and with a server that has nothing else.

    @param lab: the stage.
    """
    _issue()
    serverHost, clientHost = lab.twoHosts()
    server = lab.agent(serverHost, text=_text())
    client = lab.agent(clientHost, text=_text())
    lab.listening()
    # NFS 3, which makes no connection to a data server.
    lab.server(serverHost, "none:mtls")
    _mounted(lab, clientHost, "3")
    _shown(server, client, "pq.")
    client.reload(_text(signature_algorithms=_ECDSA))
    _mounted(lab, clientHost, "3")
    _shown(server, client, "")
    for offered, used in ((f"mldsa65:{_ECDSA}", "mldsa65"), (_ECDSA, _ECDSA)):
        own = "pq" if used == "mldsa65" else "ec"
        files = identity(f"client-{own}")
        options = ("-cert", files["x509.certificate"], "-key", files["x509.private_key"])
        peer = OpensslClient(clientHost, "-sigalgs", offered, *options)
        expect(f"openssl s_client that offers {offered}", peer.outcome, "ok")
        expect("Peer signature type", peer.said("Peer signature type"), used)
        prefix = "pq." if own == "pq" else ""
        server.nextHandshake().expect("ok", subject=f"CN={prefix}client.lab")
    client.reload(_text())
    context = peers.tlsContext("server-pq", server=True)
    relay = lab.closing(peers.RpcServer(serverHost, peers.relay(context, serverHost)))
    _mounted(lab, clientHost, "3", "server.lab", f"port={peers.PORT}")
    expect("connections to OpenSSL's server", len(relay.visits), 1)
    client.nextHandshake().expect("ok", subject="CN=pq.server.lab")
    lab.recordHandshakes()


def byKindOfKey(lab: Lab) -> None:
    """
    A server has a certificate of each kind of key; each client sees the one that it
    can verify, and the most wanted one of several.

    @param lab: the stage.
    """
    ca = Authority("kinds")
    kinds = {
        "mldsa65": "ml-dsa",
        _ECDSA: "ec",
        "ed25519": "ed25519",
        "rsa_pss_rsae_sha256": "rsa",
    }
    own = []
    for key in kinds.values():
        ca.issue(f"server-{key}", SERVER, subject=f"{key}.lab", key=key)
        own.append(identity(f"server-{key}"))
    serverHost, clientHost = lab.twoHosts()
    files = {name: ";".join(each[name] for each in own) for name in own[0]}
    agent = lab.agent(serverHost, text=roles({}, files, "kinds"))
    lab.listening()
    lab.server(serverHost, "tls")
    for offered, used in (*((one, one) for one in kinds), (":".join(kinds), "mldsa65")):
        peer = OpensslClient(clientHost, "-sigalgs", offered)
        expect(f"openssl s_client that offers {offered}", peer.outcome, "ok")
        expect("Peer signature type", peer.said("Peer signature type"), used)
        subject = f"\nsubject=CN={kinds[used]}.lab\n"
        expect(f"{subject.strip()} in what it says", subject in peer.output(), True)
        agent.nextHandshake().expect("ok")


def beside(lab: Lab, server: str, client: str) -> None:
    """
    One end has both kinds, the other one is tlshd.

    GnuTLS offers ML-DSA also where it was built without: it is shown an ML-DSA
    certificate then, and fails.  Profiles for such peers leave ML-DSA out.

    @param lab: the stage.
    @param server: the server's agent.
    @param client: the client's agent.
    """
    _issue()
    serverHost, clientHost = lab.twoHosts()
    # With ML-DSA files as well tlshd chooses those, and then cannot sign with them.
    classical = roles(identity("client-ec"), identity("server-ec"), "pq")
    agents = [
        lab.agent(host, kind, _text() if kind == KTLSAGENT else classical)
        for host, kind in ((serverHost, server), (clientHost, client))
    ]
    lab.listening()
    lab.server(serverHost, "mtls")
    lab.facts["mount with ML-DSA"] = refusal(clientHost, "3", "mtls")
    ours, theirs = agents if server == KTLSAGENT else agents[::-1]
    lab.facts["tlshd says"] = theirs.log().splitlines()[-1]
    ours.reload(_text(signature_algorithms=_ECDSA))
    # The kernel goes on with the refused one for a while.
    number = len(ours.handshakes())
    _mounted(lab, clientHost, "3")
    subject = "client.lab" if ours.host is serverHost else "server.lab"
    until(
        lambda: any(
            line.outcome == "ok" and line.fields["subject"] == f"CN={subject}"
            for line in ours.handshakes()[number:]
        ),
        f"a handshake with {subject}",
    )
