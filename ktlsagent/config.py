"""
tlshd's configuration file, with our own section in it, turned into one frozen
value: text goes in, an L{AgentConfig} comes out, or all the mistakes at once.

tlshd's files work here unchanged.  What is stricter hides an operator's mistake
from tlshd: unknown sections and keys, a key that is there twice (GLib takes the
last), a number that is none (tlshd takes 0), a path that is relative, and a legacy
file that cannot be read (tlshd goes on to the next).

What a named file holds is not looked at here: L{ktlsagent.credentials} does that.
"""

from __future__ import annotations

import os.path
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Final

from ktlsagent.errors import ConfigError, Mistake
from ktlsagent.keyfile import Entry, parseKeyFile, quote, splitList, unescape, wholeNumber
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES

SEARCH_ORDER: Final = ("/etc/tlshd.conf", "/etc/tlshd/config")
"""Where tlshd looks for its configuration: the first that exists is used."""

DEFAULT_GROUPS: Final = ("X25519MLKEM768", "X25519", "P-256", "P-384")
"""The groups offered unless the configuration says otherwise, best first."""

GROUPS: Final = (*DEFAULT_GROUPS, "SecP256r1MLKEM768", "SecP384r1MLKEM1024", "P-521", "X448")
"""The key exchange groups that may be configured, by OpenSSL's names."""


@dataclass(frozen=True, slots=True)
class RoleConfig:
    """
    The files that one role, client or server, works with.

    Every path is absolute and not empty; whether there is such a file is not
    known yet.  C{certificate} and C{privateKey} are both there or both missing.

    @ivar truststore: PEM file of trust anchors; L{None} means the system's.
    @ivar crl: PEM file of revocation lists; L{None} means no such check.
    @ivar certificate: PEM file of the role's own chain, leaf first.
    @ivar privateKey: PEM file of the key to the leaf.
    """

    truststore: str | None = None
    crl: str | None = None
    certificate: str | None = None
    privateKey: str | None = None


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """
    Everything that can be configured.  Without arguments: the defaults.

    @ivar path: the file it was read from; L{None} if there was none.
    @ivar client: the files for handshakes in which this machine is the client.
    @ivar server: the files for handshakes in which this machine is the server.
    @ivar keyrings: names or serials of further kernel keyrings.
    @ivar suites: IANA names of the suites to use, best first; never empty.
    @ivar groups: OpenSSL's names of the groups to use, best first; never empty.
    @ivar debugLevel: 0 for one line per handshake, more for debug lines.
    @ivar notices: sentences about keys that are understood but have no effect
        yet, each with what is done instead; to be logged once.
    """

    path: str | None = None
    client: RoleConfig = RoleConfig()
    server: RoleConfig = RoleConfig()
    keyrings: tuple[str, ...] = ()
    suites: tuple[str, ...] = tuple(CIPHER_SUITES)
    groups: tuple[str, ...] = DEFAULT_GROUPS
    debugLevel: int = 0
    notices: tuple[str, ...] = ()


def findConfig(searchOrder: Sequence[str] = SEARCH_ORDER) -> str | None:
    """
    Find the configuration file that applies if none is named.

    The first name that exists decides, even if the file turns out to be
    unreadable or a dangling link: going on to the next would run the agent with
    settings that nobody chose.

    @param searchOrder: absolute paths, the preferred one first.
    @return: the path of the file, or L{None} if there is none at all.
    """
    return next((path for path in searchOrder if os.path.lexists(path)), None)


def loadConfig(path: str | None, searchOrder: Sequence[str] = SEARCH_ORDER) -> AgentConfig:
    """
    Read and check the configuration; no other file is opened.

    @param path: the file that the operator named; L{None} to use what
        L{findConfig} finds, or the defaults if it finds nothing.
    @param searchOrder: where to look if no file is named.
    @return: the configuration.
    @raise ConfigError: if the file cannot be read or has mistakes.
    """
    path = findConfig(searchOrder) if path is None else path
    if path is None:
        return AgentConfig()
    try:
        text = Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        found = f"the byte 0x{error.object[error.start]:02x}"
        line = error.object.count(b"\n", 0, error.start) + 1
        mistake = Mistake("", "", "text in UTF-8", found, line, "save the file in UTF-8")
        raise ConfigError([mistake]) from None
    except (OSError, ValueError) as error:
        # ValueError is what a path with a NUL in it gets.
        found = getattr(error, "strerror", None) or str(error)
        expected = f"a readable configuration file at {path!r}"
        advice = "create the file or name another one; it may be empty"
        mistake = Mistake("", "", expected, found[:1].lower() + found[1:], advice=advice)
        raise ConfigError([mistake]) from error
    return parseConfig(text, path)


def parseConfig(text: str, path: str | None) -> AgentConfig:
    """
    Turn the text of a configuration file into a configuration.

    @param text: the whole file.
    @param path: where it comes from, only to be remembered.
    @return: the configuration.
    @raise ConfigError: if there is any mistake; it holds all of them.
    """
    lines, mistakes = parseKeyFile(text)
    entries = _known(lines, mistakes)
    fields: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    notices = []
    for entry in entries.values():
        key = _SECTIONS[entry.section][entry.key]
        try:
            value = key.read(entry)
        except ConfigError as error:
            mistakes += error.mistakes
        else:
            if key.field:
                fields[entry.section][key.field] = value
            if key.notice and value:
                where = f"line {entry.line}: [{entry.section}] {entry.key}"
                notices.append(f"{where} has no effect yet: {key.notice}")
        if key.needs and (entry.section, key.needs) not in entries:
            advice = f"add {key.needs} or remove {entry.key}"
            mistakes.append(entry.mistake(f"{key.needs} beside it", f"{entry.key} alone", advice))
    if mistakes:
        raise ConfigError(sorted(mistakes, key=lambda mistake: mistake.line))
    return AgentConfig(
        path=path,
        client=RoleConfig(**fields["authenticate.client"]),
        server=RoleConfig(**fields["authenticate.server"]),
        notices=tuple(notices),
        **fields["authenticate"],
        **fields["ktlsagent"],
        **fields["debug"],
    )


def _known(lines: Iterable[Entry], mistakes: list[Mistake]) -> dict[tuple[str, str], Entry]:
    """Keep what is in the table, by section and key; the rest are mistakes."""
    entries: dict[tuple[str, str], Entry] = {}
    for entry in lines:
        if entry.key not in _SECTIONS.get(entry.section, {}):
            mistakes += _stranger(entry)
            continue
        first = entries.setdefault((entry.section, entry.key), entry)
        if first is not entry:
            found = f"it again, first on line {first.line}"
            mistakes.append(entry.mistake("each key once", found, "remove one of the two"))
    return entries


def _stranger(entry: Entry) -> Iterable[Mistake]:
    """Say what is wrong with a header, or with a key that is not in the table."""
    homes = [f"[{section}]" for section, keys in _SECTIONS.items() if entry.key in keys]
    home = f"it belongs in {' or '.join(homes)}" if homes else ""
    legacy = _LEGACY.get((entry.section, entry.key))
    if not entry.key and entry.section not in _SECTIONS:
        header = f"[{entry.section}]"
        advice = _suggest(header, [f"[{section}]" for section in _SECTIONS])
        if legacy:
            advice = f"old versions of tlshd read it; now write {legacy}"
        yield Mistake("", "", "a section that is known", quote(header), entry.line, advice)
    elif entry.key and not entry.section:
        advice = home or "write the section's name in brackets above it"
        yield entry.mistake("a [section] before the first key", "no section yet", advice)
    elif entry.key and legacy:
        found = "a key of old versions of tlshd"
        yield entry.mistake("a key that is known", found, f"now write {legacy}")
    elif entry.key and entry.section in _SECTIONS:
        advice = home or _suggest(entry.key, _SECTIONS[entry.section])
        yield entry.mistake("a key that is known", "an unknown one", advice)
    # Else it is a key below an unknown header, whose mistake says all.


def _suggest(word: str, known: Collection[str], aliases: Mapping[str, str] | None = None) -> str:
    """Say which of the known names was probably meant, or list them all."""
    meant = {name.casefold(): name for name in known} | dict(aliases or {})
    close = get_close_matches(word.casefold(), meant, n=1)
    return f"did you mean {meant[close[0]]}?" if close else f"known are {', '.join(known)}"


def _path(entry: Entry, *, urlAllowed: bool = False) -> str:
    path = unescape(entry)
    url = re.match("([A-Za-z][A-Za-z0-9+.-]*):", path)
    if (path.startswith("/") and path.isprintable()) or (url and urlAllowed):
        return path
    # There may be a PIN in a URL.
    found = f"a URL of the scheme {url[1]!r}" if url else quote(path) if path else "nothing"
    if not path:
        advice = "remove the line or put # before it to have the default"
    elif not path.isprintable():
        advice = "remove the characters that cannot be seen"
    elif url:
        advice = "keys in a token cannot be used yet, put a PEM file in its place"
    else:
        advice = "write the path from / on, without quotes"
    raise ConfigError([entry.mistake("an absolute path", found, advice)])


def _names(
    entry: Entry, known: Collection[str] = (), aliases: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Read a list: of names that are known, at least one, or else of any names."""
    pieces = splitList(entry)
    count = Counter(piece for piece in pieces if piece)
    wrong = []
    if "" in pieces:
        wrong.append(("a name before each ;", "nothing", "remove the ; that is too many"))
    elif known and not pieces:
        wrong.append(("at least one name", "nothing", "remove the line to have the default"))
    for name, times in count.items():
        if times > 1:
            found = f"{quote(name)} {times} times"
            wrong.append(("each name once", found, "remove all but the first"))
        if known and name not in known:
            expected = f"names of {entry.key} that are known, with ; between them"
            wrong.append((expected, quote(name), _suggest(name, known, aliases)))
    if wrong:
        raise ConfigError([entry.mistake(*words) for words in wrong])
    return tuple(count)


@dataclass(frozen=True, slots=True)
class _Key:
    """
    What is done with a key.

    @ivar read: turns its entry into a value or raises L{ConfigError}.
    @ivar field: the field of the configuration that the value is for, if any.
    @ivar notice: what is done instead, if the value has no effect.
    @ivar needs: a key without which it cannot be in its section.
    """

    read: Callable[[Entry], object]
    field: str = ""
    notice: str = ""
    needs: str = ""


_PQ_NOTICE: Final = (
    "only x509.certificate and x509.private_key are used, and without them this role has no"
    " certificate"
)

_ROLE: Final = {
    "x509.truststore": _Key(_path, "truststore"),
    "x509.crl": _Key(_path, "crl"),
    "x509.certificate": _Key(_path, "certificate", needs="x509.private_key"),
    "x509.private_key": _Key(_path, "privateKey", needs="x509.certificate"),
    "x509.pq.certificate": _Key(_path, notice=_PQ_NOTICE),
    # tlshd takes a URL here, and it has no effect: no reason to refuse it.
    "x509.pq.private_key": _Key(partial(_path, urlAllowed=True), notice=_PQ_NOTICE),
}

# Other names under which operators know the groups, only for advice.
_GROUP_ALIASES: Final = {
    "secp256r1": "P-256",
    "prime256v1": "P-256",
    "secp384r1": "P-384",
    "secp521r1": "P-521",
}

_SECTIONS: Final[dict[str, dict[str, _Key]]] = {
    "debug": {
        "loglevel": _Key(wholeNumber, "debugLevel"),
        "tls": _Key(wholeNumber, notice="the reason of a failure is in the log at every level"),
        "nl": _Key(wholeNumber, notice="what the kernel refuses is in the log at every level"),
        "delay_done": _Key(wholeNumber, notice="the kernel is answered at once"),
    },
    "authenticate": {
        "keyrings": _Key(_names, "keyrings"),
    },
    "authenticate.client": _ROLE,
    "authenticate.server": _ROLE,
    "ktlsagent": {
        "suites": _Key(partial(_names, known=CIPHER_SUITES), "suites"),
        "groups": _Key(partial(_names, known=GROUPS, aliases=_GROUP_ALIASES), "groups"),
    },
}

# What tlshd read before 0.11, and what to write today; with "" the section itself.
_LEGACY: Final = {
    ("main", ""): "[authenticate] and [debug]",
    ("main", "debug"): "loglevel in [debug]",
    ("main", "libdebug"): "tls in [debug]",
    ("main", "tlsdebug"): "tls in [debug]",
    ("main", "nl_debug"): "nl in [debug]",
    ("main", "keyrings"): "keyrings in [authenticate]",
    ("authentication", ""): "[authenticate]",
    ("authentication", "keyrings"): "keyrings in [authenticate]",
}
