"""
Certificate paths of TLS servers that PKITS knows nothing of: names, purposes,
trust anchors of all kinds and more than one way to them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.profiles import Trust
from ktlsagent.protocols.asn1 import encode
from ktlsagent.protocols.session import Role
from tests.support.certificates import DAY, NOW
from tests.support.verifier import VALID, Verifier

NAME = "files.example.org"
SPIFFE = x509.UniformResourceIdentifier("spiffe://example.org/nfs")


class Entity:
    """
    Somebody with a key.

    @ivar name: its name.
    @ivar certificate: what was issued to it last.
    """

    certificate: x509.Certificate

    def __init__(self, name: str, *, identified: bool = True) -> None:
        """
        @param name: its common name.
        @param identified: whether what it issues says by which key that was.
        """
        self._identified = identified
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())

    def issue(
        self,
        subject: Entity,
        *extensions: x509.ExtensionType,
        notAfter: datetime = NOW + 30 * DAY,
    ) -> x509.Certificate:
        """
        Sign a certificate.

        @param subject: who it is for.
        @param extensions: what it says.
        @param notAfter: the end of its validity.
        @return: the certificate, which is also the subject's from now on.
        """
        builder = x509.CertificateBuilder(
            self.name,
            subject.name,
            subject._key.public_key(),
            x509.random_serial_number(),
            NOW - 9 * DAY,
            notAfter,
        )
        if self._identified:
            identifiers = (
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                x509.SubjectKeyIdentifier.from_public_key(subject._key.public_key()),
            )
            extensions = (*extensions, *identifiers)
        for extension in extensions:
            critical = isinstance(extension, (x509.BasicConstraints, x509.NameConstraints))
            builder = builder.add_extension(extension, critical=critical)
        subject.certificate = builder.sign(self._key, hashes.SHA256())
        return subject.certificate


def authority(length: int | None = None) -> x509.BasicConstraints:
    """
    Say that somebody is a CA.

    @param length: how many CAs may follow.
    @return: the extension.
    """
    return x509.BasicConstraints(ca=True, path_length=length)


def names(*listed: x509.GeneralName | str) -> x509.SubjectAlternativeName:
    """
    Say what somebody is called.

    @param listed: names, and DNS names as text.
    @return: the extension.
    """
    return x509.SubjectAlternativeName(
        [x509.DNSName(name) if isinstance(name, str) else name for name in listed]
    )


def purposes(*listed: ObjectIdentifier) -> x509.ExtendedKeyUsage:
    """
    Say what a key is for.

    @param listed: the purposes.
    @return: the extension.
    """
    return x509.ExtendedKeyUsage(listed)


def address(text: str) -> x509.IPAddress:
    """
    Make a name of an address or a network.

    @param text: it.
    @return: the name.
    """
    return x509.IPAddress(ipaddress.ip_network(text) if "/" in text else ipaddress.ip_address(text))


class ChainTests(SynchronousTestCase):
    """
    The verdict of a client that has mounted C{files.example.org}.

    @ivar root: a CA that is trusted.
    @ivar middle: a CA that the root has made one.
    @ivar server: the server.
    """

    def setUp(self) -> None:
        self.root, self.middle, self.server = Entity("Root"), Entity("Middle"), Entity("server")
        self.root.issue(self.root, authority())

    def verdict(
        self,
        *others: Entity | x509.Certificate,
        trusted: Sequence[Entity | x509.Certificate] = (),
        name: str = NAME,
    ) -> str:
        """
        Judge the server.

        @param others: what it shows beside its own certificate.
        @param trusted: the trust store; by default the root alone.
        @param name: the name that was mounted.
        @return: the code of the refusal, or L{VALID}.
        """
        store = Path(self.mktemp()).absolute()
        store.write_bytes(
            b"".join(
                _certificate(one).public_bytes(serialization.Encoding.PEM)
                for one in trusted or (self.root,)
            )
        )
        verifier = Verifier(
            Role.CLIENT, Trust((str(store),)), tagDirectory=self.mktemp(), serverName=name
        )
        shown = [_certificate(one) for one in (self.server, *others)]
        return verifier.verdict([crypto.X509.from_cryptography(one) for one in shown])

    def constrained(
        self, *permitted: x509.GeneralName, excluded: Sequence[x509.GeneralName] = ()
    ) -> None:
        """
        Let the middle CA issue certificates for some names only.

        @param permitted: what it may issue them for.
        @param excluded: what it may not.
        """
        constraints = x509.NameConstraints(permitted or None, excluded or None)
        self.root.issue(self.middle, authority(0), constraints)

    def constrainedVerdict(self, *listed: x509.GeneralName | str, name: str = NAME) -> str:
        """
        Judge a server whose certificate is of the middle CA.

        @param listed: the names in it.
        @param name: the name that was mounted.
        @return: the code of the refusal, or L{VALID}.
        """
        self.middle.issue(self.server, names(*listed))
        return self.verdict(self.middle, name=name)

    def test_names(self) -> None:
        """Only a name in subjectAltName counts, and it has to be the one that was mounted."""
        for listed, name, expected in (
            ([NAME], NAME, VALID),
            (["FILES.example.ORG"], NAME, VALID),
            (["*.example.org"], NAME, VALID),
            (["*.example.org"], "example.org", "name-mismatch"),
            (["*.example.org"], "a.files.example.org", "name-mismatch"),
            (["*.org"], NAME, "name-mismatch"),
            (["f*.example.org"], NAME, "name-mismatch"),
            (["other.example.org", NAME], NAME, VALID),
            ([address("192.0.2.7")], "192.0.2.7", VALID),
            (["192.0.2.7"], "192.0.2.7", "name-mismatch"),
            ([address("192.0.2.7")], NAME, "name-mismatch"),
            ([address("2001:db8::7")], "2001:db8:0::7", VALID),
            ([SPIFFE], NAME, "name-mismatch"),
        ):
            self.root.issue(self.server, names(*listed))
            self.assertEqual(self.verdict(name=name), expected, (listed, name))

    def test_commonName(self) -> None:
        """The common name is no name of a server."""
        self.server = Entity(NAME)
        self.root.issue(self.server)
        self.assertEqual(self.verdict(), "name-mismatch")
        self.root.issue(self.server, names("other.example.org"))
        self.assertEqual(self.verdict(), "name-mismatch")

    def test_constrainedHosts(self) -> None:
        """A CA for the hosts of one domain can certify no others."""
        self.constrained(x509.DNSName("example.org"))
        invalid = "certificate-invalid"
        for listed, expected in (
            ([NAME], VALID),
            (["*.example.org", NAME], VALID),
            ([NAME, "files.example.net"], invalid),
            ([NAME, "notexample.org"], invalid),
            # Other kinds of names are not constrained.
            ([NAME, address("192.0.2.7")], VALID),
        ):
            self.assertEqual(self.constrainedVerdict(*listed), expected, listed)
        # What looks like a host name in the subject is one to OpenSSL, if there is no other.
        self.server = Entity("files.example.net")
        self.middle.issue(self.server)
        self.assertEqual(self.verdict(self.middle), invalid)

    def test_excludedHosts(self) -> None:
        """Hosts that a CA may not certify are refused."""
        self.constrained(excluded=[x509.DNSName("secret.example.org")])
        self.assertEqual(self.constrainedVerdict(NAME), VALID)
        listed = (NAME, "a.secret.example.org")
        self.assertEqual(self.constrainedVerdict(*listed), "certificate-invalid")

    def test_constrainedAddresses(self) -> None:
        """A CA for the addresses of one network can certify no others."""
        self.constrained(address("192.0.2.0/24"), address("2001:db8::/32"))
        for text, expected in (
            ("192.0.2.7", VALID),
            ("198.51.100.7", "certificate-invalid"),
            ("2001:db8::7", VALID),
            ("2001:db9::7", "certificate-invalid"),
        ):
            verdict = self.constrainedVerdict(address(text), name=text)
            self.assertEqual(verdict, expected, text)

    def test_constrainedURIs(self) -> None:
        """A CA for the SPIFFE IDs of one trust domain can certify no others."""
        self.constrained(x509.UniformResourceIdentifier("example.org"))
        self.assertEqual(self.constrainedVerdict(NAME, SPIFFE), VALID)
        other = x509.UniformResourceIdentifier("spiffe://example.net/nfs")
        self.assertEqual(self.constrainedVerdict(NAME, other), "certificate-invalid")

    def test_wildcardAroundConstraints(self) -> None:
        """A wildcard is for no host that any CA above it may not certify."""
        wild = "*.example.org"
        for permitted, excluded, bad, good in (
            ((), ("bar.example.org",), "bar.example.org", "foo.example.org"),
            ((), (".bar.example.org", "baz.example.org"), "baz.example.org", "bar.example.org"),
            (("example.org",), ("bar.example.org",), "BAR.example.ORG", "foo.example.org"),
        ):
            self.constrained(*map(x509.DNSName, permitted), excluded=[*map(x509.DNSName, excluded)])
            self.assertEqual(self.constrainedVerdict(wild, name=bad), "name-mismatch")
            self.assertEqual(self.constrainedVerdict(wild, name=good), VALID)
        # The same if it is the root's constraint.
        bar = x509.NameConstraints(None, [x509.DNSName("bar.example.org")])
        self.root.issue(self.root, authority(), bar)
        self.root.issue(self.middle, authority(0))
        self.assertEqual(self.constrainedVerdict(wild, name="bar.example.org"), "name-mismatch")
        self.assertEqual(self.constrainedVerdict(wild, name="foo.example.org"), VALID)

    def test_blanksAroundConstraints(self) -> None:
        """A name with a blank or a line end is not excluded by OpenSSL, and is no name for us."""
        self.constrained(excluded=[x509.DNSName("example.org")])
        for odd in (f"{NAME} ", f"{NAME}\n", f"{NAME}\t", f"{NAME}\r\n", f"{NAME}\x0b"):
            self.assertEqual(self.constrainedVerdict(odd), "name-mismatch", repr(odd))
        # With something before it, it still ends like an excluded one.
        for odd in (f" {NAME}", f"\n{NAME}"):
            self.assertEqual(self.constrainedVerdict(odd), "certificate-invalid", repr(odd))
        self.constrained(excluded=[x509.DNSName(NAME)])
        for odd in (f" {NAME}", f"\n{NAME}", f"{NAME} "):
            self.assertEqual(self.constrainedVerdict(odd), "name-mismatch", repr(odd))

    def test_emptySubtrees(self) -> None:
        """An empty subtree excludes all names of its kind."""
        mail = x509.RFC822Name("root@example.org")
        for tag, name, other in ((0x86, SPIFFE, mail), (0x81, mail, SPIFFE), (0x82, NAME, mail)):
            content = encode(0x30, encode(0xA1, encode(0x30, encode(tag, b""))))
            empty = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.30"), content)
            self.root.issue(self.middle, authority(0), empty)
            self.assertEqual(self.constrainedVerdict(name), "certificate-invalid")
            self.assertEqual(self.constrainedVerdict(other), "name-mismatch")

    def test_hostsOfURIs(self) -> None:
        """What OpenSSL takes for a part of the host is no way around a constraint."""
        self.constrained(excluded=[x509.UniformResourceIdentifier("example.org")])
        for text in (
            *("spiffe://example.org?a", "spiffe://example.org#a", "a://user@example.org/"),
            *(
                "a://example.org.",
                "a://u:p@EXAMPLE.org:80/",
                "a://ex%61mple.org/",
                "urn:example.org",
            ),
        ):
            uri = x509.UniformResourceIdentifier(text)
            self.assertEqual(self.constrainedVerdict(NAME, uri), "certificate-invalid", text)
        for text in ("spiffe://example.net?example.org", "a://b.example.org/", "a://u@b.lab:1?#"):
            uri = x509.UniformResourceIdentifier(text)
            self.assertEqual(self.constrainedVerdict(NAME, uri), VALID, text)

    def test_constraintsThatAreNotKnown(self) -> None:
        """Constraints on names of a kind that OpenSSL cannot compare refuse such names."""
        registered = x509.RegisteredID(ObjectIdentifier("1.3.6.1.4.1.55555.1"))
        self.constrained(registered)
        self.assertEqual(self.constrainedVerdict(NAME, registered), "certificate-invalid")
        self.assertEqual(self.constrainedVerdict(NAME), VALID)

    def test_trustedIntermediate(self) -> None:
        """Whatever is in the trust store is trusted: a CA without its root will do."""
        self.root.issue(self.middle, authority())
        self.middle.issue(self.server, names(NAME))
        self.assertEqual(self.verdict(trusted=[self.middle]), VALID)
        self.assertEqual(self.verdict(), "unknown-ca")
        self.assertEqual(self.verdict(self.middle), VALID)

    def test_trustedServer(self) -> None:
        """So will the server's own certificate, for its name and in its time."""
        self.server.issue(self.server, names(NAME))
        self.assertEqual(self.verdict(), "self-signed")
        self.assertEqual(self.verdict(trusted=[self.server]), VALID)
        self.assertEqual(self.verdict(trusted=[self.server], name="example.org"), "name-mismatch")
        self.server.issue(self.server, names(NAME), notAfter=NOW - DAY)
        self.assertEqual(self.verdict(trusted=[self.server]), "certificate-expired")

    def test_expiredAnchor(self) -> None:
        """A trust anchor whose time is over anchors nothing."""
        self.root.issue(self.server, names(NAME))
        self.root.issue(self.root, authority(), notAfter=NOW - DAY)
        self.assertEqual(self.verdict(), "certificate-expired")

    def test_twoAnchorsOfOneName(self) -> None:
        """While a CA changes its key the certificates by both are good, in either order."""
        old, new = self.root, Entity("Root")
        new.issue(new, authority())
        for issuer in (old, new):
            issuer.issue(self.server, names(NAME))
            for trusted in ([old, new], [new, old]):
                self.assertEqual(self.verdict(trusted=trusted), VALID)

    def test_twoAnchorsThatNothingTellsApart(self) -> None:
        """Without key identifiers OpenSSL knows one CA of each name."""
        old, new = (Entity("Root", identified=False) for _key in range(2))
        for issuer in (old, new):
            issuer.issue(issuer, authority())
        verdicts = []
        for issuer in (old, new):
            issuer.issue(self.server, names(NAME))
            verdicts.append(self.verdict(trusted=[old, new]))
        self.assertEqual(sorted(verdicts), ["bad-signature", VALID])

    def test_crossCertificate(self) -> None:
        """A CA's certificate that is not the right one does not hide the one that is."""
        stranger = Entity("Stranger")
        stranger.issue(stranger, authority())
        expired = self.root.issue(self.middle, authority(), notAfter=NOW - DAY)
        strange = stranger.issue(self.middle, authority())
        good = self.root.issue(self.middle, authority())
        self.middle.issue(self.server, names(NAME))
        for shown in ((good, strange), (expired, good), (good, expired)):
            self.assertEqual(self.verdict(*shown), VALID)
        self.assertEqual(self.verdict(strange, stranger), "unknown-ca")
        self.assertEqual(self.verdict(expired), "certificate-expired")
        # Of two that are valid now OpenSSL takes the first, and does not go back.
        self.assertEqual(self.verdict(strange, good), "unknown-ca")
        self.assertEqual(self.verdict(strange, good, trusted=[self.root, good]), VALID)

    def test_noAuthority(self) -> None:
        """Nobody issues certificates who is no CA, or none for CAs."""
        self.middle.issue(self.server, names(NAME))
        for extensions in ((), (x509.BasicConstraints(ca=False, path_length=None),)):
            self.root.issue(self.middle, *extensions)
            self.assertEqual(self.verdict(self.middle), "certificate-invalid", extensions)
        below = Entity("Below")
        self.root.issue(self.middle, authority(0))
        self.middle.issue(below, authority())
        below.issue(self.server, names(NAME))
        self.assertEqual(self.verdict(below, self.middle), "certificate-invalid")

    def test_policies(self) -> None:
        """Any policies will do, but for a CA that demands some: it gets nobody accepted."""
        some, other = (
            x509.CertificatePolicies(
                [x509.PolicyInformation(ObjectIdentifier(f"1.3.6.1.4.1.55555.2.{number}"), None)]
            )
            for number in range(2)
        )
        self.middle.issue(self.server, names(NAME), some)
        for extensions in ((), (some,), (other,)):
            self.root.issue(self.middle, authority(), *extensions)
            self.assertEqual(self.verdict(self.middle), VALID)
        demand = x509.PolicyConstraints(require_explicit_policy=0, inhibit_policy_mapping=None)
        for extensions in ((), (some,), (other,)):
            self.root.issue(self.middle, authority(), demand, *extensions)
            self.assertEqual(self.verdict(self.middle), "certificate-invalid")

    def test_purposes(self) -> None:
        """A server's key has to be for servers, if it is for something."""
        server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
        for listed, expected in (
            ((server,), VALID),
            ((client, server), VALID),
            ((client,), "wrong-key-purpose"),
            ((ExtendedKeyUsageOID.CODE_SIGNING,), "wrong-key-purpose"),
        ):
            self.root.issue(self.server, names(NAME), purposes(*listed))
            self.assertEqual(self.verdict(), expected, listed)

    def test_purposesOfAuthorities(self) -> None:
        """A CA for other purposes certifies no server, whatever it writes."""
        self.middle.issue(self.server, names(NAME), purposes(ExtendedKeyUsageOID.SERVER_AUTH))
        for listed, expected in (
            (ExtendedKeyUsageOID.SERVER_AUTH, VALID),
            (ExtendedKeyUsageOID.EMAIL_PROTECTION, "wrong-key-purpose"),
            (ExtendedKeyUsageOID.CLIENT_AUTH, "wrong-key-purpose"),
        ):
            self.root.issue(self.middle, authority(), purposes(listed))
            self.assertEqual(self.verdict(self.middle), expected, listed)


def _certificate(one: Entity | x509.Certificate) -> x509.Certificate:
    return one.certificate if isinstance(one, Entity) else one
