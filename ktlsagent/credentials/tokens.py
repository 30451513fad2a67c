"""
Own private keys that live elsewhere: in a TPM 2.0 (C{TSS2 PRIVATE KEY} in PEM), or in
a token that PKCS#11 leads to (a C{pkcs11:} URI, plain or in PEM).
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from ktlsagent.credentials import pem

TPM: Final = "tpm2"
PKCS11: Final = "pkcs11"
_URI_LABEL: Final = b"PKCS#11 PROVIDER URI"
_PROVIDERS: Final = {"TSS2 PRIVATE KEY": TPM, _URI_LABEL.decode(): PKCS11}
"""Which provider of OpenSSL reads which PEM."""

_URI: Final = re.compile(r"pkcs11:([!-~]*)")
_ATTRIBUTE: Final = re.compile(r"[a-z0-9-]+=(?:[^%;?]|%[0-9A-Fa-f]{2})*", re.ASCII)
_NOT_OF_TOKEN: Final = frozenset(["object", "id", "type"])
"""Attributes that are about the key, and not about its token."""

_VERSION: Final = b"PKCS#11 Provider URI v1.0"
_SEQUENCE, _VISIBLE_STRING, _UTF8_STRING = 0x30, 0x1A, 0x0C


@dataclass(frozen=True, slots=True)
class TokenKey:
    """
    A key in a token, not loaded.  Equal ones are the same key.

    @ivar name: what to call it: its file, or its URI without what may be secret.
    @ivar provider: the provider of OpenSSL that leads to it.
    @ivar pem: what OpenSSL loads it from.
    @ivar pin: where its PIN is: a path, or C{credential:NAME} for a file in
        the service's credentials directory.
    @ivar token: what to call the token, as far as it is known: keys with the
        same one count wrong PINs together.
    """

    name: str
    provider: str
    pem: bytes = field(repr=False)
    pin: str | None = None
    token: str = ""

    @classmethod
    def fromURI(cls, uri: str, pin: str | None = None) -> TokenKey:
        """
        Name a key by a PKCS#11 URI (RFC 7512).

        @param uri: the URI.
        @param pin: where the PIN is, if not in the URI.
        @return: the key.
        @raise ValueError: if it is no such URI; it says what is wrong, without secrets.
        """
        match = _URI.fullmatch(uri)
        if match is None:
            raise ValueError("characters that a URI cannot have; write them as % and two digits")
        path, _question, query = match[1].partition("?")
        attributes = [one for one in path.split(";") if one]
        if not all(map(_ATTRIBUTE.fullmatch, attributes)):
            raise ValueError("an attribute that is not of the form name=value")
        names = {attribute.partition("=")[0] for attribute in attributes}
        if not names & {"object", "id"}:
            raise ValueError("neither object= nor id=, so that any key could be meant")
        if "type" not in names:
            # The public key may have the same name.
            attributes.append("type=private")
        name = "pkcs11:" + ";".join(attributes)
        kept, source = _withoutPIN(query)
        if source is not None and pin is not None:
            raise ValueError("a pin-source beside token_pin; remove one of the two")
        token = sorted(one for one in attributes if one.partition("=")[0] not in _NOT_OF_TOKEN)
        whole = "?".join(filter(None, (name, kept)))
        return cls(name, PKCS11, _pemOf(whole), pin or source, ";".join(token))

    @classmethod
    def fromPEM(cls, path: str, data: bytes, pin: str | None = None) -> TokenKey | None:
        """
        Name a key by a PEM file, if the file is one of a token.

        @param path: the file's name.
        @param data: what is in it.
        @param pin: where the PIN is, if there is one.
        @return: the key, C{None} if the file is of another kind.
        @raise ValueError: if there is but half a key in it.
        """
        for label, _text in pem.blocks(data):
            provider = _PROVIDERS.get(label)
            if provider is not None:
                return cls(path, provider, data, pin, provider)
        return None


def _withoutPIN(query: str) -> tuple[str, str | None]:
    """Take the place of the PIN out of a URI's query."""
    kept, source = [], None
    for attribute in query.split("&"):
        name, _equals, value = attribute.partition("=")
        if name == "pin-value":
            raise ValueError("a PIN (pin-value); put it into a file and name that in token_pin")
        if name == "pin-source":
            source = unquote(value).removeprefix("file:")
            source = "/" + source.lstrip("/") if source.startswith("/") else ""
            if not source:
                raise ValueError(
                    "a pin-source that is no file; name a file with the PIN in token_pin"
                )
        elif attribute:
            kept.append(attribute)
    return "&".join(kept), source


def _pemOf(uri: str) -> bytes:
    """Write a URI as pkcs11-provider's own kind of PEM."""
    fields = _encode(_VISIBLE_STRING, _VERSION) + _encode(_UTF8_STRING, uri.encode("ascii"))
    body = base64.encodebytes(_encode(_SEQUENCE, fields))
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (_URI_LABEL, body, _URI_LABEL)


def _encode(tag: int, content: bytes) -> bytes:
    """Encode a value in DER."""
    length = len(content)
    if length < 0x80:  # noqa: PLR2004 - the short form
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content
