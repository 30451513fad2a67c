"""Tests of L{ktlsagent.protocols.examination}: whose verdict it is."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import PeerRejected
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.interfaces import TLSParameters
from ktlsagent.protocols.session import Role
from ktlsagent.protocols.verification import V_UNABLE_TO_GET_CRL
from tests.support.certificates import DAY, NOW
from tests.support.tlspeers import pair


def refuse(_chain: Sequence[x509.Certificate]) -> PeerRejected:
    """Refuse everybody."""
    return PeerRejected("name-mismatch", "expected somebody else")


class FirstVerdictTests(SynchronousTestCase):
    """A server's chain has flaws that OpenSSL looks for when the judge has been asked."""

    def verdict(
        self,
        *ofAuthority: x509.ExtensionType,
        host: str = "bad.lab",
        flags: int = crypto.X509StoreFlags.POLICY_CHECK,
        tolerated: frozenset[int] = frozenset(),
    ) -> str:
        """
        Let a client that refuses everybody judge a server.

        @param ofAuthority: what the certificate of its CA says, all of it critical.
        @param host: the server's name.
        @param flags: what OpenSSL looks at besides.
        @param tolerated: what the client tolerates.
        @return: the code of the refusal.
        """
        names = [
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
            for text in ("Root", "Middle", "server")
        ]
        keys = [ec.generate_private_key(ec.SECP256R1()) for _name in names]
        made = []
        for place, (subject, key) in enumerate(zip(names, keys, strict=True)):
            issuer = max(0, place - 1)
            builder = x509.CertificateBuilder(
                names[issuer], subject, key.public_key(), place + 1, NOW - DAY, NOW + DAY
            ).add_extension(x509.BasicConstraints(place < 2, None), critical=True)
            for extension in ofAuthority if place == 1 else ():
                builder = builder.add_extension(extension, critical=True)
            if place == 2:
                listed = x509.SubjectAlternativeName([x509.DNSName(host)])
                builder = builder.add_extension(listed, critical=False)
            made.append(crypto.X509.from_cryptography(builder.sign(keys[issuer], hashes.SHA256())))
        store = crypto.X509Store()
        store.set_flags(flags)
        store.add_cert(made[0])
        own = OwnCertificate((made[2], made[1]), crypto.PKey.from_cryptography_key(keys[2]))
        client, server = (
            TLSEngine(
                TLSParameters(
                    role,
                    TLSContext(
                        store=store,
                        own=owned,
                        suites=tuple(CIPHER_SUITES),
                        groups=(),
                        role=role,
                        tolerated=tolerated,
                    ),
                    None,
                    refuse,
                )
            )
            for role, owned in ((Role.CLIENT, ()), (Role.SERVER, (own,)))
        )
        pair(client, server)
        assert client.error is not None
        return client.error.code

    def test_judge(self) -> None:
        """If there is nothing else, the judge's refusal stands."""
        self.assertEqual(self.verdict(), "name-mismatch")
        constraints = x509.NameConstraints(None, [x509.DNSName("bad.lab")])
        self.assertEqual(self.verdict(constraints, host="good.lab"), "name-mismatch")

    def test_tolerated(self) -> None:
        """What is tolerated is no reason either."""
        flags, missing = crypto.X509StoreFlags.CRL_CHECK, frozenset({V_UNABLE_TO_GET_CRL})
        self.assertEqual(self.verdict(flags=flags), "crl-missing")
        self.assertEqual(self.verdict(flags=flags, tolerated=missing), "name-mismatch")

    def test_nameConstraints(self) -> None:
        """A name that the CA may not issue is the reason, not that it is another one."""
        bad = [x509.DNSName("bad.lab")]
        good = [x509.DNSName("good.lab")]
        for constraints in (x509.NameConstraints(None, bad), x509.NameConstraints(good, None)):
            self.assertEqual(self.verdict(constraints), "certificate-invalid")

    def test_policies(self) -> None:
        """So is a policy that the CA demands."""
        self.assertEqual(self.verdict(x509.PolicyConstraints(0, None)), "certificate-invalid")
