"""
tlshd's configuration file, with our own sections in it, turned into one frozen
value: text goes in, an L{AgentConfig} comes out, or all the mistakes at once.

tlshd's files work here unchanged; sections of its old versions, which it passes over
today, are passed over here as well, with a notice.  What is stricter hides an
operator's mistake from tlshd: other unknown sections, and unknown keys, a key that is
there twice (GLib takes the last), a number that is none (tlshd takes 0), a path that is
relative, and a legacy file that cannot be read (tlshd goes on to the next).

What a named file holds is not looked at here: L{ktlsagent.credentials.loading} does that.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ktlsagent.config.keyfile import (
    Entry,
    decodeKeyFile,
    parseKeyFile,
    quote,
    requireNoComment,
    wholeNumber,
)
from ktlsagent.config.keys import PROFILE_KEYS, ROLE_KEYS, SUITE_KEYS, Key
from ktlsagent.config.places import readPath
from ktlsagent.config.profiles import Section, assemble, defaultSection
from ktlsagent.config.values import readBound, readKeyrings, suggest
from ktlsagent.errors import ConfigError, Mistake
from ktlsagent.profiles import Profile
from ktlsagent.protocols.session import Role
from ktlsagent.safefiles import SAFE, readFile

SEARCH_ORDER: Final = ("/etc/tlshd.conf", "/etc/tlshd/config")
"""Where tlshd looks for its configuration: the first that exists is used."""

DEFAULT_PROFILES: Final = assemble([], {role: Section(defaultSection(role)) for role in Role}, {})[
    0
]
"""The profiles of a configuration without any: what tlshd does, for each role."""

TAG_DIRECTORY: Final = "/etc/tlshd/tags.d"
"""Where tlshd has the definitions of its session tags."""

_PROFILE: Final = re.compile(r"profile\.[A-Za-z0-9._-]{1,32}")


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """
    Everything that can be configured.  Without arguments: the defaults.

    @ivar path: the file it was read from; L{None} if there was none.
    @ivar profiles: the profiles in the order of the file, each for one role; the
        last two, whose names are C{authenticate.client} and
        C{authenticate.server}, are always there and match everything.
    @ivar keyrings: names or serials of further kernel keyrings.
    @ivar debugLevel: 0 for one line per handshake, more for debug lines.
    @ivar notices: sentences about keys that are understood but have no effect,
        each with what is done instead; to be logged once.
    @ivar tagDirectory: where the definitions of the session tags are.
    @ivar mostHandshakes: how many handshakes may be in progress at once;
        L{None} for as many as the machine can afford.
    @ivar mostPerPeer: how many of them with one peer; L{None} for a quarter.
    @ivar workers: how many processes serve requests; C{None} for as many as there
        are processors.
    """

    path: str | None = None
    profiles: tuple[Profile, ...] = DEFAULT_PROFILES
    keyrings: tuple[str, ...] = ()
    debugLevel: int = 0
    notices: tuple[str, ...] = ()
    tagDirectory: str = TAG_DIRECTORY
    mostHandshakes: int | None = None
    mostPerPeer: int | None = None
    workers: int | None = None


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
    @raise ConfigError: if the file cannot be read, if others than root and we could
        have written it, or if it has mistakes.
    """
    path = findConfig(searchOrder) if path is None else path
    if path is None:
        return AgentConfig()
    try:
        content = readFile(path)
        text = decodeKeyFile(content.data)
    except (OSError, ValueError) as error:
        # ValueError is what a path with a NUL in it gets.
        found = getattr(error, "strerror", None) or str(error)
        expected = f"a readable configuration file at {path!r}"
        advice = "create the file or name another one; it may be empty"
        mistake = Mistake("", "", expected, found[:1].lower() + found[1:], advice=advice)
        raise ConfigError([mistake]) from error
    exposure = content.exposure
    if exposure is not None:
        raise ConfigError([Mistake("", "", SAFE, exposure.found, advice=exposure.advice)])
    return parseConfig(text, path)


def parseConfig(text: str, path: str | None) -> AgentConfig:
    """
    Turn the text of a configuration file into a configuration.

    @param text: the whole file.
    @param path: where it comes from, only to be remembered.
    @return: the configuration.
    @raise ConfigError: if there is any mistake; it holds all of them, but keys
        that contradict each other are only looked for where all can be read.
    """
    lines, mistakes = parseKeyFile(text)
    notices: list[str] = []
    sections = _sections(lines, mistakes, notices)
    _read(sections.values(), mistakes, notices)
    values = {name: section.values for name, section in sections.items()}
    wrong = {mistake.section for mistake in mistakes}
    config = AgentConfig(
        path=path,
        keyrings=values["authenticate"].get("keyrings", ()),
        debugLevel=values["debug"].get("loglevel", 0),
        notices=tuple(notices),
        tagDirectory=values["ktlsagent"].get("tags_directory", TAG_DIRECTORY),
        mostHandshakes=values["ktlsagent"].get("max_handshakes"),
        mostPerPeer=values["ktlsagent"].get("max_per_peer"),
        workers=values["ktlsagent"].get("workers"),
    )
    if not wrong & _INHERITED:
        profiles, contradictions = assemble(
            [section for name, section in sections.items() if name not in {*_SECTIONS, *wrong}],
            {role: sections[defaultSection(role)] for role in Role},
            values["ktlsagent"],
        )
        config = replace(config, profiles=profiles)
        mistakes += contradictions
    if mistakes:
        raise ConfigError(sorted(mistakes, key=lambda mistake: mistake.line))
    return config


def _sections(
    lines: Iterable[Entry], mistakes: list[Mistake], notices: list[str]
) -> dict[str, Section]:
    """Put what is known into its sections; the rest are mistakes, or notices if they are old."""
    sections = {name: Section(name) for name in _SECTIONS}
    for entry in lines:
        if entry.section in _LEGACY:
            notices += _legacy(entry)
            continue
        if (entry.section, entry.key) in _DANE:
            notices += _withoutDANE(entry, mistakes)
            continue
        keys = _keysOf(entry.section)
        if entry.key not in keys and (entry.key or not keys):
            mistakes += _stranger(entry)
            continue
        section = sections.setdefault(entry.section, Section(entry.section, entry.line))
        first = section.entries.setdefault(entry.key, entry) if entry.key else entry
        if first is not entry:
            found = f"it again, first on line {first.line}"
            mistakes.append(entry.mistake("each key once", found, "remove one of the two"))
    return sections


def _read(sections: Iterable[Section], mistakes: list[Mistake], notices: list[str]) -> None:
    """Read the values; of those without effect there are notices."""
    broken = {(mistake.section, mistake.key) for mistake in mistakes}
    for section in sections:
        keys = _keysOf(section.name)
        for name, entry in section.entries.items():
            key = keys[name]
            try:
                requireNoComment(entry)
                section.values[name] = value = key.read(entry)
            except ConfigError as error:
                mistakes += error.mistakes
            else:
                if key.notice and value:
                    where = f"line {entry.line}: [{section.name}] {name}"
                    notices.append(f"{where} has no effect: {key.notice}")
                elif key.remark and (remark := key.remark(value)):
                    notices.append(f"line {entry.line}: [{section.name}] {name}: {remark}")
            alone = key.needs and key.needs not in section.entries
            if alone and (section.name, key.needs) not in broken:
                advice = f"add {key.needs} or remove {name}"
                mistakes.append(entry.mistake(f"{key.needs} beside it", f"{name} alone", advice))


def _keysOf(section: str) -> Mapping[str, Key]:
    """Say which keys a section may have; none if it is not known."""
    return PROFILE_KEYS if _PROFILE.fullmatch(section) else _SECTIONS.get(section, {})


def _legacy(entry: Entry) -> Iterable[str]:
    """Say that something of an old version of tlshd has no effect, and what to write today."""
    today = _LEGACY[entry.section].get(entry.key)
    advice = f"now write {today}" if today else "remove it"
    yield (
        f"line {entry.line}: [{entry.section}] {entry.key}".rstrip()
        + f" has no effect, as with tlshd since its version 0.11: {advice}"
    )


def _withoutDANE(entry: Entry, mistakes: list[Mistake]) -> Iterable[str]:
    """Take tlshd's key for certificates in DNS, as long as it asks for nothing."""
    if entry.value == "off":
        return [f"line {entry.line}: [{entry.section}] dane has no effect: {_NO_DNS}"]
    advice = f"remove the line: {_NO_DNS}; keys can be pinned by spki_pins"
    mistakes.append(
        entry.mistake("off, which is all that there is here", quote(entry.value), advice)
    )
    return []


def _stranger(entry: Entry) -> Iterable[Mistake]:
    """Say what is wrong with a header, or with a key that is not in the table."""
    known = {**_SECTIONS, "profile.NAME": PROFILE_KEYS}
    homes = [f"[{section}]" for section, keys in known.items() if entry.key in keys]
    home = f"it belongs in {' or '.join(homes)}" if homes else ""
    keys = _keysOf(entry.section)
    if not entry.key and not keys:
        header = f"[{entry.section}]"
        advice = suggest(header, [f"[{section}]" for section in known])
        if entry.section.partition(".")[0] == "profile":
            advice = "the NAME in [profile.NAME] has 1 to 32 letters, digits, -, _ and ."
        yield Mistake("", "", "a section that is known", quote(header), entry.line, advice)
    elif entry.key and not entry.section:
        advice = home or "write the section's name in brackets above it"
        yield entry.mistake("a [section] before the first key", "no section yet", advice)
    elif entry.key and keys:
        advice = home or suggest(entry.key, keys)
        yield entry.mistake("a key that is known", "an unknown one", advice)
    # Else it is a key below an unknown header, whose mistake says all.


_SECTIONS: Final[Mapping[str, Mapping[str, Key]]] = {
    "debug": {
        "loglevel": Key(wholeNumber),
        "tls": Key(wholeNumber, notice="the reason of a failure is in the log at every level"),
        "nl": Key(wholeNumber, notice="what the kernel refuses is in the log at every level"),
        "delay_done": Key(wholeNumber, notice="the kernel is answered at once"),
    },
    "authenticate": {"keyrings": Key(readKeyrings)},
    "authenticate.client": ROLE_KEYS,
    "authenticate.server": ROLE_KEYS,
    "ktlsagent": {
        **SUITE_KEYS,
        "tags_directory": Key(readPath),
        "max_handshakes": Key(readBound),
        "max_per_peer": Key(readBound),
        "workers": Key(readBound),
    },
}

# Where profiles have values from that they do not have themselves.
_INHERITED: Final = {*map(defaultSection, Role), "ktlsagent"}

# tlshd's key for certificates in DNS (RFC 6698).
_DANE: Final = {(defaultSection(role), "dane") for role in Role}
_NO_DNS: Final = "nothing is looked up in DNS"

# What tlshd read before 0.11 and passes over today, and what to write instead; with ""
# the section itself.
_LEGACY: Final[Mapping[str, Mapping[str, str]]] = {
    "main": {
        "": "[authenticate] and [debug]",
        "debug": "loglevel in [debug]",
        "libdebug": "tls in [debug]",
        "tlsdebug": "tls in [debug]",
        "nl_debug": "nl in [debug]",
        "keyrings": "keyrings in [authenticate]",
    },
    "authentication": {"": "[authenticate]", "keyrings": "keyrings in [authenticate]"},
}
