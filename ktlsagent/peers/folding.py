"""
The form in which the names of hosts, URIs and addresses of e-mail are compared: in
lower case where the case does not count, and only the letters of ASCII.  Others fold
to them elsewhere (U+212A to C{k}), and nowhere in OpenSSL.
"""

from __future__ import annotations

import re
import string

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

_SCHEME_AND_HOST = re.compile(r"[^:/?#]*:(?://[^/?#]*)?")


def folded(text: str) -> str:
    """
    Bring a text into lower case.

    @param text: any text.
    @return: it with the letters of ASCII in lower case, and nothing else changed.
    """
    return text.translate(_LOWER)


def foldedURI(uri: str) -> str:
    """
    Bring a URI into the form in which it is compared.

    @param uri: any URI.
    @return: it with scheme and authority in lower case; nothing is decoded.
    """
    head = _SCHEME_AND_HOST.match(uri)
    return uri if head is None else folded(head[0]) + uri[head.end() :]


def foldedEmail(address: str) -> str:
    """
    Bring an address of e-mail into the form in which it is compared.

    @param address: any address.
    @return: it with the domain in lower case.
    """
    local, at, domain = address.rpartition("@")
    return local + at + folded(domain)
