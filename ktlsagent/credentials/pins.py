"""PINs of tokens: where they are, and that nobody else can read them there."""

from __future__ import annotations

import os
from typing import Final

from ktlsagent.credentials.files import Files, Named
from ktlsagent.errors import KeyUnusable

LOCKED: Final = "token-locked"
"""The code of the error that there is no PIN."""

_CREDENTIAL: Final = "credential:"
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
_PIN_FILE: Final = Named(
    "", "token_pin", "a file with the PIN, and nothing else, on its first line"
)
_LONGEST_PIN: Final = 255


def readPIN(place: str) -> bytes:
    """
    Read a PIN.

    @param place: a path, or C{credential:NAME}.
    @return: the PIN.
    @raise KeyUnusable: if there is none, or others can read it.
    """
    path = _path(place)
    if not os.path.isabs(path):
        raise KeyUnusable(
            LOCKED,
            f"expected the PIN in the credential {path}, found that the service has none: "
            f"write LoadCredential={path}:/path/of/the/file into its unit",
        )
    files = Files()
    data = files.read(_PIN_FILE, path, private=True) or b""
    pin = data.partition(b"\n")[0].rstrip(b"\r")
    if not files.mistakes and not 0 < len(pin) <= _LONGEST_PIN:
        files.mistake(_PIN_FILE, f"{path} with {len(pin)} characters there")
    if files.mistakes:
        raise KeyUnusable(LOCKED, str(files.mistakes[0]))
    return pin


def pinState(place: str) -> object:
    """
    Tell versions of a PIN's file from each other, without a look at the PIN.

    @param place: a path, or C{credential:NAME}.
    @return: something that is equal as long as the file is the same.
    """
    try:
        status = os.stat(_path(place))
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _path(place: str) -> str:
    """Find a PIN's file; the path of a credential is relative if the service has none."""
    if not place.startswith(_CREDENTIAL):
        return place
    return os.path.join(os.environ.get(_CREDENTIALS, ""), place.removeprefix(_CREDENTIAL))
