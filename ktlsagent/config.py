r"""
tlshd's configuration file, with our own section in it, turned into one frozen
value: text goes in, an L{AgentConfig} comes out, or all the mistakes at once.

The format is that of GLib's key files, because tlshd reads it with GLib and its
files must work here unchanged.  What is stricter hides an operator's mistake from
tlshd: unknown sections and keys, a key that is there twice (GLib takes the last),
a number that is none (tlshd takes 0), a path that is relative, and a legacy file
that cannot be read (tlshd goes on to the next).  What is laxer: blanks at the end
of a line are dropped, where GLib keeps them as part of the path, and so are those
around the names in a list.  A blank at the end that is meant is written C{\s}.

What a named file holds is not looked at here: L{ktlsagent.credentials} does that.
"""

from __future__ import annotations

import os.path
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from ktlsagent.errors import ConfigError, Mistake

SEARCH_ORDER: Final = ("/etc/tlshd.conf", "/etc/tlshd/config")
"""Where tlshd looks for its configuration: the first that exists is used."""

SUITES: Final = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
)
"""The cipher suites that kTLS can run, by their IANA names, in default order."""

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
    @ivar keyrings: names of further kernel keyrings.
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
    suites: tuple[str, ...] = SUITES
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
    Read and check the configuration.  This opens the configuration file and no
    other.

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
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        # ValueError is what a path with a NUL in it gets.
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            [
                Mistake(
                    section="",
                    key="",
                    expected=f"a readable configuration file at {path!r}",
                    found=reason[:1].lower() + reason[1:],
                    advice="create the file or name another one; it may be empty",
                )
            ]
        ) from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            [
                Mistake(
                    section="",
                    key="",
                    expected="text in UTF-8",
                    found=f"the byte 0x{data[error.start]:02x}",
                    line=data.count(b"\n", 0, error.start) + 1,
                    advice="save the file in UTF-8",
                )
            ]
        ) from None
    return parseConfig(text, path)


def parseConfig(text: str, path: str | None) -> AgentConfig:
    """
    Turn the text of a configuration file into a configuration.

    @param text: the whole file.
    @param path: where it comes from, only to be remembered.
    @return: the configuration.
    @raise ConfigError: if there is any mistake; it holds all of them.
    """
    draft = _Draft()
    draft.scan(text)
    config = AgentConfig(
        path=path,
        client=draft.role("authenticate.client"),
        server=draft.role("authenticate.server"),
        keyrings=draft.keyrings(),
        suites=draft.names("suites", SUITES, SUITES, {}),
        groups=draft.names("groups", DEFAULT_GROUPS, GROUPS, _GROUP_ALIASES),
        debugLevel=draft.debugLevel(),
        notices=draft.sortedNotices(),
    )
    if draft.mistakes:
        raise ConfigError(sorted(draft.mistakes, key=lambda mistake: mistake.line))
    return config


_TRUSTSTORE: Final = "x509.truststore"
_CRL: Final = "x509.crl"
_CERTIFICATE: Final = "x509.certificate"
_PRIVATE_KEY: Final = "x509.private_key"
_PQ_CERTIFICATE: Final = "x509.pq.certificate"
_PQ_PRIVATE_KEY: Final = "x509.pq.private_key"

_ROLE_KEYS: Final = (
    _TRUSTSTORE,
    _CRL,
    _CERTIFICATE,
    _PRIVATE_KEY,
    _PQ_CERTIFICATE,
    _PQ_PRIVATE_KEY,
)

_SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "debug": ("loglevel", "tls", "nl", "delay_done"),
    "authenticate": ("keyrings",),
    "authenticate.client": _ROLE_KEYS,
    "authenticate.server": _ROLE_KEYS,
    "ktlsagent": ("suites", "groups"),
}

# What tlshd read before 0.11, and the section and key that replaced it.
_LEGACY: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "main": {
        "debug": ("debug", "loglevel"),
        "libdebug": ("debug", "tls"),
        "tlsdebug": ("debug", "tls"),
        "nl_debug": ("debug", "nl"),
        "keyrings": ("authenticate", "keyrings"),
    },
    "authentication": {"keyrings": ("authenticate", "keyrings")},
}

# Other names under which operators know the groups, only for advice.
_GROUP_ALIASES: Final = {
    "secp256r1": "P-256",
    "prime256v1": "P-256",
    "secp384r1": "P-384",
    "secp521r1": "P-521",
    "curve25519": "X25519",
    "mlkem768": "X25519MLKEM768",
}

_ESCAPES: Final = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_BLANKS: Final = " \t\r\v\f"
_HEADER: Final = re.compile(r"\[([^\[\]]+)\]")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_LONGEST_NAME: Final = 32


@dataclass(frozen=True, slots=True)
class _Entry:
    """One C{key=value} line; the value still has its escapes."""

    section: str
    key: str
    value: str
    line: int


class _BadEscapeError(ValueError):
    """A backslash that does not begin an escape; the argument is what follows it."""


def _split(value: str, *, separator: str) -> list[str]:
    """
    Replace a value's escapes and cut it at the separators that have none.

    @param separator: one character, or the empty string to cut nowhere.
    @raise _BadEscapeError: if a backslash is followed by something else.  GLib
        refuses these too.
    """
    pieces: list[list[str]] = [[]]
    characters = iter(value)
    for character in characters:
        if character == separator:
            pieces.append([])
        elif character != "\\":
            pieces[-1].append(character)
        else:
            escaped = next(characters, "")
            if escaped in _ESCAPES:
                pieces[-1].append(_ESCAPES[escaped])
            elif escaped and escaped == separator:
                pieces[-1].append(escaped)
            else:
                raise _BadEscapeError(escaped)
    return ["".join(piece) for piece in pieces]


def _quoteStranger(text: str) -> str:
    """
    Show text that should not be in the file.  It may be anything, a pasted key
    too, and ends in a log: long text is described, not quoted.
    """
    if len(text) > _LONGEST_NAME:
        return f"{len(text)} characters that begin with {text[:4]!r}"
    return repr(text)


def _quoteValue(value: str) -> str:
    """Show a value.  A URL may have a PIN in it: only its scheme is shown."""
    url = _URL.match(value)
    return f"a URL of the scheme {url[1]!r}" if url else repr(value)


def _suggest(word: str, candidates: Iterable[str], aliases: dict[str, str] | None = None) -> str:
    """Say which of the candidates was probably meant, or list them all."""
    candidates = tuple(candidates)
    meant = {candidate.casefold(): candidate for candidate in candidates} | (aliases or {})
    close = get_close_matches(word.casefold(), meant, n=1)
    if close:
        return f"did you mean {meant[close[0]]}?"
    return f"known are {', '.join(candidates)}"


class _Draft:
    """
    A configuration in the making: the lines found so far and the mistakes.

    A value with a mistake is replaced by something harmless, so that the rest
    is checked too; L{parseConfig} never lets it out.

    @ivar mistakes: what is wrong so far, in no order.
    """

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._notices: list[tuple[int, str]] = []

    # -- lines ---------------------------------------------------------------

    def scan(self, text: str) -> None:
        """Sort the lines of a file into entries and mistakes."""
        # The section of the lines to come: "" before the first header, None if
        # the header was wrong.  Keys below a wrong header are passed over, they
        # would only repeat its mistake.
        section: str | None = ""
        pasted = False
        for number, rawLine in enumerate(text.split("\n"), 1):
            line = rawLine.strip(_BLANKS)
            if pasted:
                pasted = "-----END " not in line
            elif not line or line.startswith("#"):
                pass
            elif "-----BEGIN " in line:
                # Nothing of a key that was pasted into the file may be quoted.
                self._pastedPEM(section or "", number)
                pasted = "-----END " not in line
            elif line.startswith("["):
                section = self._header(line, number)
            else:
                self._keyValue(section, line, number)

    def _pastedPEM(self, section: str, number: int) -> None:
        self.mistakes.append(
            Mistake(
                section=section,
                key="",
                expected="the path of a file",
                found="PEM text",
                line=number,
                advice="put it into a file of its own and give the path of that; if it is"
                " a private key, whoever could read this file has seen it",
            )
        )

    def _header(self, line: str, number: int) -> str | None:
        """
        Read a section's header.

        @return: its name, or L{None} if the keys below it are to be ignored.
        """
        header = _HEADER.fullmatch(line)
        if header is None or not header[1].isprintable():
            self.mistakes.append(
                Mistake(
                    section="",
                    key="",
                    expected="a section's name in brackets and nothing else on the line",
                    found=_quoteStranger(line),
                    line=number,
                    advice="write it like [authenticate.client]",
                )
            )
            return None
        name = header[1]
        if name in _SECTIONS:
            return name
        legacy = _LEGACY.get(name)
        replacements = sorted({f"[{section}]" for section, _ in (legacy or {}).values()})
        self.mistakes.append(
            Mistake(
                section="",
                key="",
                expected="a section that is known",
                found=_quoteStranger(line),
                line=number,
                advice=f"old versions of tlshd read it; now write {' and '.join(replacements)}"
                if legacy
                else _suggest(f"[{name}]", (f"[{section}]" for section in _SECTIONS)),
            )
        )
        return name if legacy else None

    def _keyValue(self, section: str | None, line: str, number: int) -> None:
        """Read a line that is neither blank nor a comment nor a header."""
        key, equals, value = line.partition("=")
        key = key.rstrip(_BLANKS)
        if not (equals and key and key.isprintable() and len(key) <= _LONGEST_NAME):
            self.mistakes.append(
                Mistake(
                    section=section or "",
                    key="",
                    expected="key=value, a [section] or a comment",
                    found=_quoteStranger(line),
                    line=number,
                    advice="begin a comment with #; a value cannot go on in the next line",
                )
            )
        elif section == "":
            self.mistakes.append(
                Mistake(
                    section="",
                    key=key,
                    expected="a [section] before the first key",
                    found="no section yet",
                    line=number,
                    advice=self._homesOf(key) or "write the section's name in brackets above it",
                )
            )
        elif section in _LEGACY:
            self._legacyKey(section, key, number)
        elif section is not None:
            self._knownSection(_Entry(section, key, value.lstrip(_BLANKS), number))

    def _legacyKey(self, section: str, key: str, number: int) -> None:
        """Say what a key in a legacy section is called today."""
        replacement = _LEGACY[section].get(key)
        if replacement is None:
            # The mistake of the section's header says all there is to say.
            return
        self.mistakes.append(
            Mistake(
                section=section,
                key=key,
                expected="a key that is known",
                found="a key of old versions of tlshd",
                line=number,
                advice=f"now write {replacement[1]} in [{replacement[0]}]",
            )
        )

    def _knownSection(self, entry: _Entry) -> None:
        """Keep an entry, unless there is no such key or it is there twice."""
        place = (entry.section, entry.key)
        keys = _SECTIONS[entry.section]
        if entry.key not in keys:
            self._wrong(
                entry,
                expected="a key that is known",
                found="an unknown one",
                advice=self._homesOf(entry.key) or _suggest(entry.key, keys),
            )
        elif place in self._entries:
            self._wrong(
                entry,
                expected="each key once",
                found=f"it again, first on line {self._entries[place].line}",
                advice="remove one of the two",
            )
        else:
            self._entries[place] = entry

    @staticmethod
    def _homesOf(key: str) -> str:
        """Say in which sections a key belongs; empty if in none."""
        homes = [f"[{section}]" for section, keys in _SECTIONS.items() if key in keys]
        return f"it belongs in {' or '.join(homes)}" if homes else ""

    # -- values --------------------------------------------------------------

    def role(self, section: str) -> RoleConfig:
        """Read one of the two sections that name files."""
        role = RoleConfig(
            truststore=self._path(section, _TRUSTSTORE),
            crl=self._path(section, _CRL),
            certificate=self._path(section, _CERTIFICATE),
            privateKey=self._path(section, _PRIVATE_KEY),
        )
        for present, missing in (
            (_CERTIFICATE, _PRIVATE_KEY),
            (_PRIVATE_KEY, _CERTIFICATE),
        ):
            entry = self._entries.get((section, present))
            if entry is not None and (section, missing) not in self._entries:
                self._wrong(
                    entry,
                    expected=f"{missing} beside it",
                    found=f"{present} alone",
                    advice=f"add {missing} or remove {present}",
                )
        instead = (
            f"only {_CERTIFICATE} and {_PRIVATE_KEY} are used"
            if (section, _CERTIFICATE) in self._entries
            else f"without {_CERTIFICATE} and {_PRIVATE_KEY}, which are used instead and"
            " missing here, this role has no certificate"
        )
        for key in (_PQ_CERTIFICATE, _PQ_PRIVATE_KEY):
            if self._path(section, key) is not None:
                self._noEffect(self._entries[section, key], instead)
        return role

    def keyrings(self) -> tuple[str, ...]:
        """Read the list of keyrings, which may be empty."""
        entry = self._entries.get(("authenticate", "keyrings"))
        names = (self._list(entry) if entry else None) or ()
        if entry and names:
            self._noEffect(
                entry,
                "no keyring is linked at start, each handshake uses the keys and the"
                " keyring that the kernel names in its request",
            )
        return names

    def names(
        self,
        key: str,
        default: tuple[str, ...],
        known: tuple[str, ...],
        aliases: dict[str, str],
    ) -> tuple[str, ...]:
        """Read one of our lists of names that TLS defines."""
        entry = self._entries.get(("ktlsagent", key))
        if entry is None:
            return default
        names = self._list(entry)
        if names is None:
            return default
        if not names:
            self._wrong(
                entry,
                expected="at least one name",
                found="nothing",
                advice="remove the line to have the default",
            )
        for name in names:
            if name not in known:
                self._wrong(
                    entry,
                    expected=f"names of {key} that are known, with ; between them",
                    found=_quoteStranger(name),
                    advice=_suggest(name, known, aliases),
                )
        return names

    def debugLevel(self) -> int:
        """Read the section of numbers; only one of them does anything here."""
        for key, instead in (
            ("tls", "the reason of a failure is in the log at every level"),
            ("nl", "what the kernel refuses is in the log at every level"),
            ("delay_done", "the kernel is answered at once"),
        ):
            if self._number("debug", key):
                self._noEffect(self._entries["debug", key], instead)
        return self._number("debug", "loglevel")

    def sortedNotices(self) -> tuple[str, ...]:
        """Give the notices in the order of the file."""
        return tuple(notice for _, notice in sorted(self._notices))

    def _number(self, section: str, key: str) -> int:
        entry = self._entries.get((section, key))
        if entry is None:
            return 0
        if _NUMBER.fullmatch(entry.value) is None:
            self._wrong(
                entry,
                expected="a whole number, 0 or more, of at most 9 digits",
                found=_quoteStranger(entry.value),
                advice="write only digits; a comment needs a line of its own",
            )
            return 0
        return int(entry.value)

    def _path(self, section: str, key: str) -> str | None:
        """Read a path; L{None} if there is none or it is none."""
        entry = self._entries.get((section, key))
        pieces = self._pieces(entry, separator="") if entry else None
        if entry is None or pieces is None:
            return None
        path = pieces[0]
        if path.startswith("/") and path.isprintable():
            return path
        if _URL.match(path) and key == _PQ_PRIVATE_KEY:
            # tlshd takes it, and it has no effect here: no reason to refuse.
            return path
        if not path:
            advice = "remove the line or put # before it to have the default"
        elif not path.isprintable():
            advice = "remove the characters that cannot be seen"
        elif _URL.match(path):
            advice = "keys in a token cannot be used yet, put a PEM file in its place"
        else:
            advice = "write the path from / on, without quotes"
        self._wrong(
            entry,
            expected="an absolute path",
            found=_quoteValue(path) if path else "nothing",
            advice=advice,
        )
        return None

    def _list(self, entry: _Entry) -> tuple[str, ...] | None:
        """
        Read a list of names, each of which may be there once.

        @return: the names; L{None} if there are none because of a mistake.
        """
        unstripped = self._pieces(entry, separator=";")
        if unstripped is None:
            return None
        pieces = [piece.strip(_BLANKS) for piece in unstripped]
        # GLib ends a list with a separator, people leave it out.
        if not pieces[-1]:
            pieces.pop()
        if "" in pieces:
            self._wrong(
                entry,
                expected="a name before each ;",
                found="nothing",
                advice="remove the ; that is too many",
            )
        count = Counter(piece for piece in pieces if piece)
        for name, times in count.items():
            if times > 1:
                self._wrong(
                    entry,
                    expected="each name once",
                    found=f"{_quoteStranger(name)} {times} times",
                    advice="remove all but the first",
                )
        return None if "" in pieces and not count else tuple(count)

    def _pieces(self, entry: _Entry, *, separator: str) -> list[str] | None:
        """Replace the escapes of a value; L{None} if one of them is wrong."""
        try:
            return _split(entry.value, separator=separator)
        except _BadEscapeError as error:
            self._wrong(
                entry,
                expected=f"after a backslash one of {' '.join([*_ESCAPES, separator]).rstrip()}",
                found=f"{str(error)!r}" if str(error) else "the end of the line",
                advice="write a backslash that is meant as such twice",
            )
            return None

    # -- what is said about them ---------------------------------------------

    def _wrong(self, entry: _Entry, *, expected: str, found: str, advice: str) -> None:
        self.mistakes.append(
            Mistake(
                section=entry.section,
                key=entry.key,
                expected=expected,
                found=found,
                line=entry.line,
                advice=advice,
            )
        )

    def _noEffect(self, entry: _Entry, instead: str) -> None:
        self._notices.append(
            (
                entry.line,
                f"line {entry.line}: [{entry.section}] {entry.key} has no effect yet: {instead}",
            )
        )
