"""
Files that are something else than what they are named for: what they are, and the
command that makes of them what is wanted.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography import x509
from OpenSSL import crypto

from ktlsagent.credentials import pem

_Kind = tuple[str, str]
"""What a file is, and what to do; there C{{old}} stands for it and C{{new}} for another one."""

_SWAP: Final = "name the certificate in x509.certificate and the private key in x509.private_key"
_SIGN: Final = "have a CA sign it, and name the certificate that it sends back"
_CERTIFICATE: Final = ("a certificate and no private key", _SWAP)
_PRIVATE_KEY: Final = ("a private key and no certificate", _SWAP)
_REQUEST: Final = ("a certificate request", _SIGN)
_CRL: Final = ("a CRL", "name it in crl=")
_PUBLIC_KEY: Final = ("a public key, which is neither private nor certified", "")
_PKCS7: Final = ("PKCS#7", "openssl pkcs7 -in {old} -print_certs -out {new}")

_LABELS: Final[Mapping[str, _Kind]] = {
    **dict.fromkeys(pem.CERTIFICATE, _CERTIFICATE),
    **dict.fromkeys(pem.CRL, _CRL),
    "OPENSSH PRIVATE KEY": (
        "a private key in OpenSSH's own form",
        "cp -p {old} {new} && ssh-keygen -p -m PKCS8 -f {new}",
    ),
    "CERTIFICATE REQUEST": _REQUEST,
    "NEW CERTIFICATE REQUEST": _REQUEST,
    "PKCS7": _PKCS7,
    "CMS": _PKCS7,
    "PUBLIC KEY": _PUBLIC_KEY,
    "RSA PUBLIC KEY": _PUBLIC_KEY,
    "SSH2 PUBLIC KEY": _PUBLIC_KEY,
}
"""By the label of a block (RFC 7468)."""

_BEGINNINGS: Final[Mapping[bytes, _Kind]] = {
    b"PuTTY-User-Key-File": (
        "a private key in PuTTY's own form",
        "puttygen {old} -O private-openssh-new -o {new} && ssh-keygen -p -m PKCS8 -f {new}",
    ),
    b"ssh-": _PUBLIC_KEY,
    b"ecdsa-sha2-": _PUBLIC_KEY,
    b"\xff\xfe": ("text in UTF-16", "iconv -f UTF-16 -t ASCII {old} >{new}"),
    b"\xfe\xff": ("text in UTF-16", "iconv -f UTF-16 -t ASCII {old} >{new}"),
    b"\xfe\xed\xfe\xed": (
        "a Java key store",
        (
            "keytool -importkeystore -srckeystore {old} -deststoretype PKCS12 -destkeystore "
            "{old}.p12, and then openssl pkcs12 -in {old}.p12"
        ),
    ),
}
"""By what a file begins with."""

_SIGNED_DATA: Final = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02"
_PFX: Final = b"\x02\x01\x03\x30"
"""C{signedData} (RFC 5652, section 5.1), and the version of a PFX (RFC 7292, section 4)."""

_HEADER: Final = 20
"""In how many octets of DER these come."""


class OtherKind(ValueError):
    """A file is of another kind than the one that is wanted."""

    def __init__(self, words: str, advice: str = "") -> None:
        """
        @param words: what the file is.
        @param advice: what to do, with C{{old}} for the file and C{{new}} for another one.
        """
        super().__init__(words)
        self._advice = advice

    def advice(self, path: str) -> str:
        """
        Say what to do.

        @param path: the file's name.
        @return: words, or a command; may be empty.
        """
        return self._advice.format(old=shlex.quote(path), new=shlex.quote(f"{path}.pem"))


def otherKind(data: bytes, *, key: bool) -> OtherKind:
    """
    Say what a file is in which there is not what is wanted.

    @param data: its content.
    @param key: whether a private key is wanted, and not a certificate.
    @return: what it is and what to do about it; nothing of its content is quoted.
    """
    return OtherKind(*(_ofPEM(data) or _ofBeginning(data) or _ofDER(data, key=key)))


def lockedKey() -> OtherKind:
    """
    Say that a private key has a passphrase, which nobody is there to type.

    @return: what it is and what to do about it.
    """
    return OtherKind("an encrypted one", "(umask 077; openssl pkey -in {old} -out {new})")


def _ofPEM(data: bytes) -> _Kind | None:
    """Look at the labels of blocks."""
    try:
        labels = [label for label, _text in pem.blocks(data)]
    except ValueError:
        return None
    for label in labels:
        if label in _LABELS:
            return _LABELS[label]
        if pem.isPrivateKey(label):
            return _PRIVATE_KEY
    return None


def _ofBeginning(data: bytes) -> _Kind | None:
    """Look at how the file begins."""
    if not data.strip():
        return "an empty file", ""
    return next((kind for begin, kind in _BEGINNINGS.items() if data.startswith(begin)), None)


def _ofDER(data: bytes, *, key: bool) -> _Kind:
    """Try to read it."""
    if _SIGNED_DATA in data[:_HEADER]:
        return "PKCS#7", "openssl pkcs7 -inform DER -in {old} -print_certs -out {new}"
    if _PFX in data[:_HEADER]:
        part = "-nocerts -noenc" if key else "-nokeys"
        return "PKCS#12", f"(umask 077; openssl pkcs12 -in {{old}} {part} -out {{new}})"
    inDER = ("a private key in DER", "(umask 077; openssl pkey -in {old} -out {new})")
    kinds: tuple[tuple[Callable[[bytes], Any], _Kind], ...] = (
        (x509.load_der_x509_certificate, _CERTIFICATE),
        (_loadKey, inDER if key else _PRIVATE_KEY),
        (x509.load_der_x509_csr, _REQUEST),
        (x509.load_der_x509_crl, _CRL),
    )
    for load, kind in kinds:
        try:
            load(data)
        except Exception:  # noqa: BLE001, S112 - cryptography raises many kinds
            continue
        return kind
    return "none", ""


def _loadKey(data: bytes) -> object:
    return crypto.load_privatekey(crypto.FILETYPE_ASN1, data)
