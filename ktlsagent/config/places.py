"""
How those values in a configuration are read that say where something is: files
and directories, keys in tokens, PINs.

A list may be where tlshd has one path, which may have a C{;} in it, and a URI may
have many.  So a list is cut only at a C{;} that is followed by what can
be the beginning of the next element; any other is a part of one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial
from typing import Final

from ktlsagent.config.keyfile import Entry, hasPIN, quote, unescape
from ktlsagent.config.values import REMOVE, Wrong, readList, readOne

_PATH: Final = "an absolute path"
_URL: Final = re.compile("([A-Za-z][A-Za-z0-9+.-]*):")
_PKCS11: Final = "pkcs11:"
_CREDENTIAL: Final = re.compile(r"credential:(?!\.\.?$)[A-Za-z0-9._-]{1,255}")


def readPath(entry: Entry) -> str:
    """
    Read an absolute path.

    @param entry: the entry.
    @return: the path.
    @raise ConfigError: if it is none.
    """
    return readOne(entry, _path)


def readPaths(entry: Entry) -> tuple[str, ...]:
    """
    Read a list of absolute paths.

    @param entry: the entry.
    @return: the paths, at least one.
    @raise ConfigError: if there is none, or one that is no path.
    """
    return readList(entry, _path, _cut, show=_shown)


def readStores(entry: Entry, words: Collection[str] = ()) -> tuple[str, ...]:
    """
    Read a list of absolute paths and of words that stand for something, or the
    word C{none}.

    @param entry: the entry.
    @param words: the words.
    @return: the paths and words.
    @raise ConfigError: if there is none, or one that is neither.
    """

    def read(piece: str) -> str:
        if piece == "none":
            raise Wrong("none alone", "none among others", "remove it, or the others")
        return piece if piece in words else _path(piece)

    return readList(entry, read, partial(_cut, words=("none", *words)), "none", _shown)


def readKeys(entry: Entry) -> tuple[str, ...]:
    """
    Read a list of private keys: absolute paths and C{pkcs11:} URIs (RFC 7512).

    @param entry: the entry.
    @return: the paths and URIs, at least one.
    @raise ConfigError: if there is none, or one that is neither, or has a PIN.
    """

    def read(piece: str) -> str:
        if hasPIN(piece):
            raise Wrong(
                "no PIN in this file",
                "pin-value in it",
                "put the PIN into a file of its own, name that in token_pin, and change the"
                " PIN: whoever could read this file has seen it",
            )
        if piece.startswith(_PKCS11) and piece.isprintable() and " " not in piece:
            return piece
        return _path(piece, "an absolute path or a pkcs11: URI")

    return readList(entry, read, _cut, show=_shown)


def readPIN(entry: Entry) -> str:
    """
    Read where a PIN is.

    @param entry: the entry.
    @return: an absolute path or C{credential:NAME}.
    @raise ConfigError: if it is neither.
    """
    expected = "an absolute path, or credential:NAME with NAME as in systemd's LoadCredential="

    def read(text: str) -> str:
        if _CREDENTIAL.fullmatch(text):
            return text
        if text and not text.startswith("/"):
            # It may be the PIN itself.
            raise Wrong(expected, "neither", "put the PIN into a file and write its path here")
        return _path(text, expected)

    return readOne(entry, read)


def _cut(entry: Entry, words: Collection[str] = ()) -> list[str]:
    """Cut a list of places."""
    nexts = "|".join(["/", _PKCS11, ";", "$", *(rf"{word}[ \t]*(?:;|$)" for word in words)])
    pieces = re.split(rf"[ \t]*;[ \t]*(?={nexts})", unescape(entry))
    # GLib ends a list with a separator, people leave it out.
    return pieces if pieces[-1] else pieces[:-1]


def _path(path: str, expected: str = _PATH) -> str:
    if path.startswith("/") and path.isprintable():
        return path
    if not path:
        advice = REMOVE
    elif not path.isprintable():
        advice = "remove the characters that cannot be seen"
    elif _URL.match(path):
        advice = "of URLs only pkcs11: can be used, without blanks, and only for a private key"
    else:
        advice = "write the path from / on, without quotes"
    raise Wrong(expected, _shown(path), advice)


def _shown(text: str) -> str:
    url = _URL.match(text)
    return f"a URL of the scheme {quote(url[1])}" if url else quote(text) if text else "nothing"
