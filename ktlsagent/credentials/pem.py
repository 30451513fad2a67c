"""What is in a file of certificates or CRLs: blocks of PEM, or one value in DER."""

from __future__ import annotations

import binascii
import re
from binascii import a2b_base64

CERTIFICATE = ("CERTIFICATE", "X509 CERTIFICATE")
"""The labels of a certificate (RFC 7468, section 5; the second one is older)."""

_TRUSTED_CERTIFICATE = "TRUSTED CERTIFICATE"
"""The label of OpenSSL's own form of a certificate, which says more."""

CRL = ("X509 CRL", "CRL")
"""The labels of a CRL (RFC 7468, section 6; GnuTLS reads the second one, too)."""

_ENCRYPTED = (b"Proc-Type: 4,ENCRYPTED", "ENCRYPTED PRIVATE KEY")
"""How a private key with a passphrase is known (RFC 1421, section 4.6.1.1, and RFC 7468)."""

_ELSEWHERE = "PKCS#11 PROVIDER URI"
"""The label of a private key that is in a token, if it does not say that it is one."""

NO_QUESTION = b"-"
"""A passphrase that is none: without any OpenSSL asks for one on a terminal."""

_BEGIN = b"-----BEGIN "
_BLOCK = re.compile(
    rb"-----BEGIN ([^\r\n-]+)-----([^-]*(?:-(?!----)[^-]*)*)-----END ([^\r\n-]+)-----"
)

_DER_SEQUENCE = b"\x30"


def blocks(data: bytes) -> list[tuple[str, bytes]]:
    """
    Find the blocks of a PEM file.  Text between them is explanation.

    @param data: the file's content.
    @return: the label and the text of each, in order.
    @raise ValueError: if one of them has no proper end: half a file is none.
    """
    found = _BLOCK.findall(data)
    if len(found) != data.count(_BEGIN) or any(begin != end for begin, _, end in found):
        raise ValueError("a PEM block without its end")
    return [(begin.decode("latin-1"), text) for begin, text, _end in found]


def decode(data: bytes, labels: tuple[str, ...]) -> list[bytes]:
    """
    Take values of one kind out of a file.  Whether they are of that kind is not
    known yet.

    @param data: the file's content.
    @param labels: how PEM names that kind; other blocks are left out.
    @return: each value in DER.
    @raise ValueError: with words for what is there instead, if there is
        anything that cannot be read.
    """
    if _BEGIN not in data and data.startswith(_DER_SEQUENCE):
        return [data]
    found = blocks(data)
    if any(label == _TRUSTED_CERTIFICATE for label, _text in found):
        raise ValueError("a TRUSTED CERTIFICATE, which is OpenSSL's own form,")
    try:
        return [a2b_base64(text) for label, text in found if label in labels]
    except binascii.Error as error:
        raise ValueError(f"a broken PEM block ({error})") from None


def isPrivateKey(label: str) -> bool:
    """
    Say whether a block is a private key, in this file or elsewhere.

    @param label: the block's label.
    @return: whether it is.
    """
    return label.endswith("PRIVATE KEY") or label == _ELSEWHERE


def privateKey(data: bytes) -> tuple[bytes, bool] | None:
    """
    Take the private key out of a file, in whose other blocks and blanks there may be
    anything.

    @param data: the file's content.
    @return: the key's block as OpenSSL reads it, and whether it has a passphrase;
        C{None} if there is none.
    @raise ValueError: if there is half a block in the file.
    """
    for label, text in blocks(data):
        if isPrivateKey(label):
            lines = b"\n".join(line.strip() for line in text.strip().splitlines())
            name = label.encode("latin-1")
            block = b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (name, lines, name)
            return block, label == _ENCRYPTED[1] or _ENCRYPTED[0] in lines
    return None
