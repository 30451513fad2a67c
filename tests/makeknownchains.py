"""
Makes L{ktlsagent.protocols.knownchains}: C{python -m tests.makeknownchains}.

The keys are made for the occasion and kept nowhere, so what comes out is different each
time, and has to be made only if there is to be another chain.
"""

from __future__ import annotations

import ipaddress
import textwrap
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier

import ktlsagent.protocols

_HEAD = '''"""
Certificates for L{ktlsagent.protocols.knownanswers}, made by C{tests/makeknownchains.py}.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CERTIFICATES: Final[Mapping[str, str]] = {
'''

_BEGIN, _END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
_CRITICAL = (x509.NameConstraints, x509.PolicyConstraints)
_POLICY = ObjectIdentifier("1.2.3.4")
_POLICY_TWICE = bytes.fromhex("300e 3005 0603 2a0304 3005 0603 2a0304")
"""Two PolicyInformation of L{_POLICY}, which RFC 5280, section 4.2.1.4, does not allow."""


class _Maker:
    """Signs certificates and collects them."""

    def __init__(self) -> None:
        self.made: dict[str, x509.Certificate] = {}
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}

    def issue(
        self,
        subject: str,
        issuer: str,
        *extensions: x509.ExtensionType,
        isCA: bool = False,
    ) -> None:
        """Sign a certificate; both names are the common names, too."""
        keys = [
            self._keys.setdefault(name, ec.generate_private_key(ec.SECP256R1()))
            for name in (subject, issuer)
        ]
        names = [
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (subject, issuer)
        ]
        builder = x509.CertificateBuilder(
            names[1], names[0], keys[0].public_key(), len(self.made) + 1, _BEGIN, _END
        ).add_extension(x509.BasicConstraints(isCA, None), critical=True)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, _CRITICAL))
        self.made[subject] = builder.sign(keys[1], hashes.SHA256())


def _make() -> dict[str, x509.Certificate]:
    """Make all certificates."""
    maker = _Maker()
    uri, dns = x509.UniformResourceIdentifier, x509.DNSName
    maker.issue("root", "root", isCA=True)
    constraints = x509.NameConstraints(
        [uri(".good.example")],
        [dns("bad.example"), x509.IPAddress(ipaddress.ip_network("10.0.0.0/8"))],
    )
    maker.issue("constrained", "root", constraints, isCA=True)
    for subject, name in (
        ("good", uri("spiffe://a.good.example/x:y")),
        ("uriColon", uri("spiffe://bad.example/x.good.example:y")),
        ("uriUser", uri("spiffe://a.good.example:y@bad.example/x")),
        ("host", dns("a.bad.example")),
        ("address", x509.IPAddress(ipaddress.ip_address("10.0.0.1"))),
    ):
        maker.issue(subject, "constrained", x509.SubjectAlternativeName([name]))
    policy = x509.CertificatePolicies([x509.PolicyInformation(_POLICY, None)])
    maker.issue("policies", "root", policy, x509.PolicyConstraints(0, None), isCA=True)
    twice = x509.UnrecognizedExtension(x509.CertificatePolicies.oid, _POLICY_TWICE)
    maker.issue("policyTwice", "policies", twice)
    maker.issue("noAuthority", "root")
    maker.issue("below", "noAuthority")
    return maker.made


def main() -> None:
    """Write the module."""
    lines = [_HEAD]
    for name, certificate in _make().items():
        content = b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        lines.append(f'    "{name}": (\n')
        lines += [f'        "{line}"\n' for line in textwrap.wrap(content, 86)]
        lines.append("    ),\n")
    lines.append("}\n")
    path = Path(ktlsagent.protocols.__path__[0], "knownchains.py")
    path.write_text("".join(lines))


if __name__ == "__main__":
    main()
