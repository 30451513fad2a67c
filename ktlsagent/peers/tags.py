"""
Session tags: names for kinds of peers, given by what their certificates say.

They are defined in YAML, as for tlshd, in files in one directory.  Its files work
here unchanged, with what hides a mistake refused (L{ktlsagent.peers.tagfiles} says what).
What is different when tags are given:

  - A peer without a certificate has no tags.  For tlshd a tag of nothing but
    negated filters matches it.
  - A filter that cannot be evaluated, because the certificate cannot be read, says
    neither yes nor no, and nor does a tag that needs it, whether it is negated or
    not: the tag is not given, and whoever denies it has to deny the peer.  For
    tlshd such a filter counts as one that does not match, so that its negation does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ktlsagent.errors import ConfigError, Mistake
from ktlsagent.peers.presented import Presented
from ktlsagent.safefiles import SAFE, readFile

if TYPE_CHECKING:
    from ktlsagent.peers.tagfiles import Filters, Tags
    from ktlsagent.peers.tagfilters import Test

_SUFFIXES: Final = (".yml", ".yaml")


@dataclass(frozen=True, slots=True)
class TagSet:
    """
    All tags that are defined.  Without arguments: none.

    @ivar files: the paths of the files that define them.
    """

    files: tuple[str, ...] = ()
    _filters: Filters = field(default_factory=dict, repr=False)
    _tags: Tags = field(default_factory=dict, repr=False)

    @property
    def names(self) -> frozenset[str]:
        """The names of all tags."""
        return frozenset(self._tags)

    def verdicts(self, peer: Presented) -> Mapping[str, bool | None]:
        """
        Say of each tag whether a peer gets it.

        @param peer: the peer, whatever may be in its certificate.
        @return: the verdicts by the tags' names; C{None} where nobody can tell.
            Without a certificate there are none.
        """
        if peer.certificate is None:
            return {}
        filters = {
            name: _together(_ask(test, peer) for test in tests)
            for name, tests in self._filters.items()
        }
        return {
            name: _together(
                None if filters[used] is None else filters[used] is wanted
                for used, wanted in conditions.items()
            )
            for name, conditions in self._tags.items()
        }

    def of(self, peer: Presented) -> tuple[str, ...]:
        """
        Say which tags a peer gets: those of which that is certain.

        @param peer: the peer.
        @return: the names of the tags, sorted.
        """
        return tuple(sorted(name for name, given in self.verdicts(peer).items() if given))


def _ask(test: Test, peer: Presented) -> bool | None:
    """Put a test to a peer; C{None} if it cannot say."""
    try:
        return test(peer)
    except Exception:  # noqa: BLE001 - no certificate may end the handshake of its peer
        return None


def _together(verdicts: Iterable[bool | None]) -> bool | None:
    """Say whether all verdicts are good.  One that is not decides, whatever cannot be told."""
    found = set(verdicts)
    return False if False in found else None if None in found else True


def loadTags(directory: str) -> TagSet:
    """
    Read all files of a directory that end in C{.yml} or C{.yaml}, in the order of
    their names.  Hidden ones, in which editors keep their notes, are passed over.

    @param directory: the directory; if there is none, there are no tags.
    @return: the tags.
    @raise ConfigError: if anything is wrong with any file; it holds all mistakes.
    """
    paths = _find(directory)
    if not paths:
        return TagSet()
    # YAML takes 1 MB, and most agents have no tags.
    from ktlsagent.peers.tagfiles import Definitions  # noqa: PLC0415

    definitions = Definitions()
    files = []
    for path in paths:
        try:
            definitions.read(path, _read(path))
        except ConfigError as error:
            definitions.unreadable(error.mistakes)
        files.append(path)
    filters, tags = definitions.resolved()
    if definitions.mistakes:
        raise ConfigError(
            sorted(definitions.mistakes, key=lambda mistake: (mistake.file, mistake.line))
        )
    return TagSet(tuple(files), filters, tags)


def _find(directory: str) -> list[str]:
    """Find the files in a directory, in order."""
    try:
        names = os.listdir(directory)
    except OSError as error:
        # A link that leads nowhere is no absence, nor is what may not be looked at.
        if isinstance(error, FileNotFoundError) and not os.path.lexists(directory):
            return []
        expected = "a directory that can be read"
        advice = "name another one, or let the agent read it"
        raise ConfigError(
            [Mistake("", "", expected, _words(error), advice=advice, file=directory)]
        ) from error
    return [
        os.path.join(directory, name)
        for name in sorted(names)
        if name.endswith(_SUFFIXES) and not name.startswith(".")
    ]


def _read(path: str) -> str:
    """Read a file in UTF-8."""
    expected, line = "a file that can be read", 0
    advice = "move away what is no file of tags"
    try:
        content = readFile(path)
        if content.exposure is None:
            return content.data.decode()
        expected, found, advice = SAFE, content.exposure.found, content.exposure.advice
    except UnicodeDecodeError as error:
        expected, found = "text in UTF-8", f"the byte 0x{error.object[error.start]:02x}"
        line = error.object.count(b"\n", 0, error.start) + 1
        advice = "save the file in UTF-8"
    except OSError as error:
        found = _words(error)
    raise ConfigError([Mistake("", "", expected, found, line, advice, path)])


def _words(error: OSError) -> str:
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]
