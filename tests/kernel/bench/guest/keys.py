"""
The certificates of the measurements: for each kind of key a CA, a server and a client
that it has certified, and trust stores with that CA alone or with those of the system.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

_DIRECTORY: Final = Path("/tmp/lab/bench")
_SYSTEM: Final = Path("/etc/ssl/certs/ca-certificates.crt")

_KINDS: Final = {
    "ecdsa": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "rsa": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    "mldsa": ("-algorithm", "ML-DSA-65"),
}

_CA: Final = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
_LEAF: Final = (
    "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
    "extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=DNS:{0}.lab,IP:10.0.0.1\n"
)


def certificate(kind: str, name: str) -> str:
    """
    Say where a certificate is; make it, and all of its kind, first if need be.

    @param kind: C{ecdsa}, C{rsa} or C{mldsa}.
    @param name: C{ca}, C{server} or C{client}.
    @return: the path of a PEM file.
    """
    directory = _DIRECTORY / kind
    if not directory.exists():
        directory.mkdir(parents=True)
        _issue(kind, "ca", _CA)
        for leaf in ("server", "client"):
            _issue(kind, leaf, _LEAF.format(leaf))
    return str(directory / f"{name}.pem")


def privateKey(kind: str, name: str) -> str:
    """
    Say where a certificate's key is.

    @param kind: as for L{certificate}.
    @param name: as for L{certificate}.
    @return: the path of a PEM file.
    """
    return certificate(kind, name).removesuffix("pem") + "key"


def trustStore(kind: str, size: str) -> str:
    """
    Say where a trust store is.

    @param kind: the kind of its CA.
    @param size: C{small} for that CA alone, C{system} for those of the system as well.
    @return: the path of a PEM file.
    """
    authority = certificate(kind, "ca")
    if size == "small":
        return authority
    store = Path(authority).with_name("system.pem")
    if not store.exists():
        store.write_text(_SYSTEM.read_text() + Path(authority).read_text())
    return str(store)


def rootCount() -> int:
    """
    Count the CAs that the system trusts.

    @return: how many.
    """
    return _SYSTEM.read_text().count("BEGIN CERTIFICATE")


def _issue(kind: str, name: str, extensions: str) -> None:
    """
    Make a certificate and its key.

    @param kind: of key.
    @param name: what its files are called.
    @param extensions: as openssl reads them.
    """
    base = _DIRECTORY / kind / name
    key, extensionFile = base.with_suffix(".key"), base.with_suffix(".ext")
    extensionFile.write_text(extensions)
    _openssl("genpkey", *_KINDS[kind], "-out", str(key))
    command = ["x509", "-new", "-subj", f"/CN={name}.lab", "-days", "30"]
    command += ["-extfile", str(extensionFile), "-out", str(base.with_suffix(".pem"))]
    if name == "ca":
        command += ["-key", str(key)]
    else:
        issuer = base.with_name("ca")
        command += ["-force_pubkey", str(key)]
        command += ["-CA", str(issuer.with_suffix(".pem")), "-CAkey", str(issuer) + ".key"]
    _openssl(*command)


def _openssl(*arguments: str) -> None:
    """
    Run openssl.

    @param arguments: its arguments.
    """
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
