"""
Loads private keys that are in tokens, and finds out why one cannot be loaded.

OpenSSL's providers make keys of them that look like any other, but take their time,
and now and then refuse.  They say little about the reason, so it is looked for here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from OpenSSL import SSL, crypto

from ktlsagent import coredumps
from ktlsagent.credentials.pins import LOCKED, readPIN
from ktlsagent.credentials.tokens import PKCS11, TPM, TokenKey
from ktlsagent.errors import HandshakeError, KeyUnusable, TokenFailed, TokenLost
from ktlsagent.protocols.openssl import errorWords, meetProviders
from ktlsagent.protocols.rehearsal import rehearse

PIN_REFUSED: Final = "pin-refused"
"""The code of the error that says so."""

_ELSEWHERE_SECONDS: Final = 20.0
_ELSEWHERE: Final = (
    "import json, sys; wanted = json.load(sys.stdin); sys.path[:] = wanted.pop('path'); "
    "from ktlsagent.credentials import tokenload; tokenload.answer(wanted)"
)

_DOCS: Final = "docs/tokens.md has the whole set-up"


def load(key: TokenKey) -> crypto.PKey:
    """
    Load a key, which may take long: call it in a thread.

    The provider for PKCS#11 looks for tokens once, at its first use, and not
    again as long as the process lives.  So whether the token is there is
    found out in another process first.  The provider for TPMs connects to its
    TPM when the process starts, and not again if it has lost it.

    @param key: the key.
    @return: the key, whose signatures are made by the token.
    @raise TokenFailed: if the token is not there or does not answer.
    @raise TokenLost: if it is there, but not for this process.
    @raise KeyUnusable: if it will not do so before somebody has mended something.
    """
    if key.provider == PKCS11:
        _loadElsewhere(key)
    try:
        return loadHere(key)
    except HandshakeError as error:
        if key.provider != PKCS11 and not _loadsElsewhere(key, error):
            raise
        raise TokenLost(
            "token-unavailable",
            f"{error.reason}; a new process can use it, but not this one, which has looked for "
            "it too early, or has lost it",
        ) from None


def providers() -> Sequence[str]:
    """
    Find out which providers for tokens OpenSSL has in this process.  It loads
    those of its configuration when it comes to life, and never another time.

    @return: their names.
    """
    return [provider for provider in (TPM, PKCS11) if _isLoaded(provider)]


def loadHere(key: TokenKey) -> crypto.PKey:
    """
    Load a key in this process, whatever comes of it.

    @param key: the key.
    @return: the key.
    @raise TokenFailed: as for L{load}.
    @raise KeyUnusable: as for L{load}.
    """
    pin = b"" if key.pin is None else readPIN(key.pin)
    question = _Question(pin)
    try:
        loaded = crypto.load_privatekey(crypto.FILETYPE_PEM, key.pem, question)
    except crypto.Error as error:
        raise _notLoaded(key, error, asked=question.asked) from None
    meetProviders()
    try:
        rehearse(loaded)
    except (SSL.Error, crypto.Error) as error:
        if question.asked and key.provider == TPM and _loads(key, _Question(pin)):
            # OpenSSL's provider for TPMs takes any PIN and tries it now.
            raise _pinProblem(key, errorWords(error)) from None
        raise TokenFailed(
            "token-failed",
            f"expected the key {key.name} to sign, found that it does not: {errorWords(error)}",
        ) from None
    return loaded


def _loadElsewhere(key: TokenKey) -> None:
    """Find out in another process whether the key can be loaded."""
    wanted = {**asdict(key), "pem": key.pem.decode("latin-1"), "path": sys.path}
    try:
        # No module comes from the working directory (-P), and a session of its own has no
        # terminal to ask for a PIN on.
        ran = subprocess.run(  # noqa: S603 - it is this program
            [sys.executable, "-P", "-c", _ELSEWHERE],
            input=json.dumps(wanted),
            stdout=subprocess.PIPE,
            text=True,
            timeout=_ELSEWHERE_SECONDS,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TokenFailed(
            "token-unavailable",
            f"expected the token of {key.name} to answer, found that it has not within "
            f"{_ELSEWHERE_SECONDS:.0f} s",
        ) from None
    try:
        answered = json.loads(ran.stdout)
    except ValueError:
        raise TokenFailed(
            "token-unavailable",
            f"expected the token of {key.name} to answer, found that a process that asked it "
            f"has ended with the status {ran.returncode}; what it said is in the agent's log",
        ) from None
    if answered:
        kind = TokenFailed if answered["temporary"] else KeyUnusable
        raise kind(answered["code"], answered["reason"])


def _loadsElsewhere(key: TokenKey, error: HandshakeError) -> bool:
    """Say whether another process can load a key that cannot be loaded here."""
    if error.code in (PIN_REFUSED, LOCKED):
        # It would count as another wrong one.
        return False
    try:
        _loadElsewhere(key)
    except HandshakeError:
        return False
    return True


def _notLoaded(key: TokenKey, error: crypto.Error, *, asked: bool) -> HandshakeError:
    """Find out why a key was not loaded: OpenSSL itself mostly says C{unsupported}."""
    if not _isLoaded(key.provider):
        return KeyUnusable(
            "token-provider",
            f"expected OpenSSL to have its provider {key.provider} for the key {key.name}, "
            f"found {_configured(key.provider)}; {_DOCS}",
        )
    # That is what OpenSSL says when nobody says anything.
    words = errorWords(error).replace("unsupported", "no reason given")
    if asked:
        # Without an answer nothing is tried; and who has taken the PIN does not ask again.
        question = _Question(b"")
        if not _loads(key, question) and question.asked:
            return _pinProblem(key, words)
    if key.provider == TPM:
        expected, found = "a TPM that takes the key", f"that it does not ({words})"
    else:
        expected = "a token with the key"
        found = "the token without it" if asked else f"no such token ({words})"
    return TokenFailed("token-unavailable", f"expected {expected} {key.name}, found {found}")


def _loads(key: TokenKey, question: _Question) -> bool:
    """Say whether a key can be loaded now."""
    try:
        crypto.load_privatekey(crypto.FILETYPE_PEM, key.pem, question)
    except crypto.Error:
        return False
    return True


def _pinProblem(key: TokenKey, words: str) -> KeyUnusable:
    """Say what is wrong with the PIN."""
    if key.pin is None:
        return KeyUnusable(
            LOCKED,
            f"expected a PIN for {key.name}, which its token asks for, found none: name its "
            "file in token_pin",
        )
    return KeyUnusable(
        PIN_REFUSED,
        f"expected the PIN for {key.name} in {key.pin}, found one that the token refuses "
        f"({words}); it is not tried again before that file has changed, because tokens lock "
        "themselves after some wrong ones",
    )


class _Question:
    """
    What is called when a passphrase is asked for.

    @ivar asked: whether it was.
    """

    def __init__(self, answer: bytes) -> None:
        self.asked = False
        self._answer = answer

    def __call__(self, _rwflag: bool) -> bytes:  # noqa: FBT001 - it is called so
        self.asked = True
        return self._answer


def _isLoaded(provider: str) -> bool:
    """Say whether a provider's module is in this process."""
    with open("/proc/self/maps") as maps:
        return any(line.rstrip().endswith(f"/{provider}.so") for line in maps)


def _configured(provider: str) -> str:
    """Say what may be wrong about OpenSSL's configuration, and what to do."""
    directory = SSL.OpenSSL_version(SSL.SSLEAY_DIR).decode().partition('"')[2].rstrip('"')
    path = os.environ.get("OPENSSL_CONF") or os.path.join(directory, "openssl.cnf")
    try:
        with open(path, errors="replace") as file:
            text = file.read()
    except OSError as error:
        return f"no configuration at {path} ({error.strerror}); set OPENSSL_CONF to one with it"
    named = re.search(rf"^[^#\n]*\b{provider}\b", text, re.MULTILINE)
    if named is None and ".include" not in text:
        return f"that {path} does not name it; activate it there"
    reached = "its TPM" if provider == TPM else "its module"
    return f"that {path} names it, but that it has not started; see whether {reached} is there"


def answer(wanted: Mapping[str, str]) -> None:
    """
    Load a key and say on standard output what came of it; ends the process.

    @param wanted: the attributes of a L{TokenKey}.
    """
    coredumps.forbid()
    key = TokenKey(**{**wanted, "pem": wanted["pem"].encode("latin-1")})  # type: ignore[arg-type]
    answered: dict[str, object] = {}
    try:
        loadHere(key)
    except HandshakeError as error:
        temporary = isinstance(error, TokenFailed)
        answered = {"code": error.code, "reason": error.reason, "temporary": temporary}
    sys.stdout.write(json.dumps(answered))
    sys.stdout.flush()
    # Some providers crash when OpenSSL takes its leave of them.
    os._exit(0)
