"""
The files that session tags are defined in: YAML goes in, filters and tags come
out, and everything that is wrong with them.

Each document of a file may have C{filters} and C{tags}.  What hides a mistake from
tlshd is refused here: a key that does not belong to a filter's type, a type without
its key, an empty list, a name that is there twice, and whatever makes something
else of YAML than what is to be read there.  tlshd drops the rest of such a file, or
only what is wrong, and goes on.

A tag may name a filter of any file.  For tlshd it has to be read before.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import yaml

from ktlsagent.config.keyfile import quote
from ktlsagent.config.values import Wrong, suggest
from ktlsagent.errors import Mistake
from ktlsagent.peers.tagfilters import FILTER_TYPES, Test

Filters = Mapping[str, Sequence[Test]]
"""By a filter's name the tests that a certificate has to pass."""

Tags = Mapping[str, Mapping[str, bool]]
"""By a tag's name the filters that it looks at, and what each has to say."""

_NAME: Final = re.compile("[A-Za-z0-9_-]{1,255}")
_NEGATION: Final = "not "
_KINDS: Final = {"scalar": "text", "sequence": "a list", "mapping": "keys with values"}
_SPELLINGS: Final = {
    "scalar": "write it behind the colon or the hyphen",
    "sequence": "write each element on a line of its own, behind a hyphen",
    "mapping": "write each key on a line of its own, with a colon behind it",
}
_NO_YAML: Final = (yaml.YAMLError, ValueError, OverflowError, RecursionError)
"""What PyYAML raises for a text that is no YAML, or nested too deep."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """
    Finds the structure of YAML, and makes no objects of it.

    @ivar indirections: the lines with anchors, aliases and types.
    """

    def __init__(self, text: str) -> None:
        self.indirections: list[int] = []
        super().__init__(text)

    def get_event(self) -> Any:  # noqa: ANN401 - PyYAML has no types
        """See C{yaml.parser.Parser}."""
        event = super().get_event()
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            self.indirections.append(event.start_mark.line + 1)
        return event

    def nodes(self) -> Iterator[Any]:
        """Go through the documents."""
        while self.check_node():
            yield self.get_node()


@dataclass(frozen=True, slots=True)
class _Node:
    """
    A part of a file.

    @ivar file: the file's path.
    @ivar line: the number of the line that it begins on.
    @ivar path: the keys that lead to it.
    @ivar content: what is there: a C{yaml.Node}.
    @ivar mistakes: gets what is wrong with it.
    """

    file: str
    line: int
    path: str
    content: Any
    mistakes: list[Mistake]

    def wrong(self, expected: str, found: str, advice: str) -> None:
        """Note what is wrong."""
        mistake = Mistake("", self.path, expected, found, self.line, advice, self.file)
        self.mistakes.append(mistake)

    def at(self, content: Any) -> _Node:  # noqa: ANN401 - as above
        """Make a node of a part of this one that has no key."""
        return replace(self, line=content.start_mark.line + 1, content=content)

    def text(self) -> str | None:
        """Get a text."""
        text: str | None = self._value("scalar")
        return text

    def single(self) -> dict[str, _Node]:
        """Get a text in the shape of a list."""
        text = self.text()
        return {} if text is None else {text: self}

    def elements(self) -> dict[str, _Node]:
        """Get a list of texts, of which there is at least one and each once."""
        found: dict[str, _Node] = {}
        contents = self._value("sequence")
        if contents == []:
            self.wrong("at least one element", "an empty list", "add one")
        for node in map(self.at, contents or ()):
            text = node.text()
            if text is not None and found.setdefault(text, node) is not node:
                node.wrong("each element once", f"{quote(text)} again", "remove one of the two")
        return found

    def members(self, known: Collection[str] = ()) -> dict[str, _Node] | None:
        """Get values by their keys, which are known, or else names, and there once."""
        contents = [] if self._isNothing() else self._value("mapping")
        if contents is None:
            return None
        found: dict[str, _Node] = {}
        for keyContent, content in contents:
            key = self.at(keyContent)
            name = key.text()
            if name is None:
                continue
            # The place of a value is that of its key: it may begin on a later line.
            node = replace(key, path=f"{self.path}.{name}".strip("."), content=content)
            if known and name not in known:
                key.wrong("a key that is known", quote(name), suggest(name, known))
            elif not _NAME.fullmatch(name):
                key.wrong("a name of 1 to 255 of A-Z a-z 0-9 _ -", quote(name), "choose another")
            elif found.setdefault(name, node) is not node:
                first = f"it again, first on line {found[name].line}"
                node.wrong("each key once", first, "remove or rename one of the two")
        return found

    def _isNothing(self) -> bool:
        return self.content.id == "scalar" and not self.content.value

    def _value(self, kind: str) -> Any:  # noqa: ANN401 - a text, or a list
        if self.content.id == kind:
            return self.content.value
        found = "nothing" if self._isNothing() else _KINDS[self.content.id]
        self.wrong(_KINDS[kind], found, _SPELLINGS[kind])
        return None


class Definitions:
    """
    What is defined in one file after another.

    @ivar mistakes: what is wrong with them.
    """

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self._filters: dict[str, Sequence[Test]] = {}
        self._tags: dict[str, Mapping[str, bool]] = {}
        self._places: dict[str, _Node] = {}
        self._references: list[tuple[str, _Node]] = []
        self._whole = True

    def unreadable(self, mistakes: Sequence[Mistake]) -> None:
        """
        Note why nobody knows what is in a file.

        @param mistakes: the reasons.
        """
        self.mistakes += mistakes
        self._whole = False

    def read(self, file: str, text: str) -> None:
        """
        Read a file.

        @param file: its path.
        @param text: what is in it.
        """
        for document in self._documents(file, text):
            sections = document.members(("filters", "tags")) or {}
            for name, node in self._named(sections.get("filters")):
                self._filters[name] = list(_tests(node))
            for name, node in self._named(sections.get("tags")):
                self._tags[name] = self._conditions(node)

    def resolved(self) -> tuple[Filters, Tags]:
        """
        Give what is defined, when all files are read: now the filters that tags
        name have to be there.

        @return: filters and tags, to be used only if there are no mistakes.
        """
        for name, node in self._references:
            # A filter that is missing may be in what could not be read.
            if self._whole and name not in self._filters:
                known = suggest(name, self._filters) if self._filters else "define it"
                node.wrong("a filter that is defined", quote(name), known)
        return self._filters, self._tags

    def _documents(self, file: str, text: str) -> list[_Node]:
        """Find the structure of a file: none if it is not all that it looks like."""
        try:
            loader = _Loader(text)
            contents = list(loader.nodes())
        except _NO_YAML as error:
            self.unreadable([_notYAML(file, text, error)])
            return []
        if loader.indirections:
            found = "an anchor (&), an alias (*) or a type (!)"
            advice = "put text that begins with one of these characters into quotes"
            self.unreadable(
                [
                    Mistake("", "", "plain YAML", found, line, advice, file)
                    for line in loader.indirections
                ]
            )
            return []
        return [
            _Node(file, content.start_mark.line + 1, "", content, self.mistakes)
            for content in contents
        ]

    def _named(self, section: _Node | None) -> Iterator[tuple[str, _Node]]:
        """Go through what a section defines and no other file does."""
        for name, node in ((section and section.members()) or {}).items():
            first = self._places.setdefault(node.path, node)
            if first is node:
                yield name, node
            else:
                found = f"it again, first in {first.file}, line {first.line}"
                node.wrong("each name once in all files", found, "rename one of the two")

    def _conditions(self, tag: _Node) -> Mapping[str, bool]:
        """Read a tag: the filters that it looks at, and what each has to say."""
        conditions: dict[str, bool] = {}
        members = tag.members(("filter",))
        if members is None:
            return conditions
        if "filter" not in members:
            tag.wrong("the key filter", "no such key", "list the filters that have to match")
            return conditions
        for text, node in members["filter"].elements().items():
            name = text.removeprefix(_NEGATION)
            if not _NAME.fullmatch(name):
                advice = "put one blank between not and the name"
                node.wrong("the name of a filter, or not and a name", quote(text), advice)
            elif name in conditions:
                node.wrong("each filter once", f"{quote(name)} again", "remove one of the two")
            else:
                conditions[name] = not text.startswith(_NEGATION)
                self._references.append((name, node))
        return conditions


def _tests(node: _Node) -> Iterator[Test]:
    """Read a filter: the tests that a certificate has to pass."""
    members = node.members(("type", "pattern", "purpose"))
    if members is None:
        return
    kind = members.pop("type").text() if "type" in members else ""
    if kind not in FILTER_TYPES:
        if kind is not None:
            found = quote(kind) if kind else "none"
            node.wrong("a type that is known", found, suggest(kind, FILTER_TYPES))
        return
    filterType = FILTER_TYPES[kind]
    wanted = filterType.key or "no other key"
    for key in sorted(members.keys() - {filterType.key}):
        members[key].wrong(f"{wanted} beside the type {kind}", key, "remove it")
    texts = {"": node}
    if filterType.key:
        if filterType.key not in members:
            node.wrong(f"{wanted} beside the type {kind}", "no such key", "add it")
            return
        parameter = members[filterType.key]
        texts = parameter.elements() if filterType.key == "purpose" else parameter.single()
    for text, place in texts.items():
        try:
            yield filterType.read(text)
        except Wrong as wrong:
            place.wrong(*wrong.words)


def _notYAML(file: str, text: str, error: Exception) -> Mistake:
    """Put into words what PyYAML does not like."""
    line = 0
    found = "something that cannot be read, or too many levels"
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        found = f"the character U+{error.character:04X}"
    elif isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        line = error.problem_mark.line + 1
        found = f"something else ({error.context or 'there'}: {error.problem})"
    advice = "indent by blanks, and put text with special characters into quotes"
    return Mistake("", "", "YAML", found, line, advice, file)
