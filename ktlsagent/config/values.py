"""
How the values in a configuration are read: an entry goes in, a value comes out,
or a L{ConfigError} with all that is wrong with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Final, TypeVar

from ktlsagent.config.keyfile import Entry, quote, splitList, unescape, wholeNumber
from ktlsagent.errors import ConfigError

Value = TypeVar("Value")

REMOVE: Final = "remove the line or put # before it to have the default"
"""What to do about an empty value."""


class Wrong(Exception):
    """
    What is wrong with one string.

    @ivar words: what was expected, what was found, and what to do.
    """

    def __init__(self, expected: str, found: str, advice: str) -> None:
        self.words = expected, found, advice


def suggest(word: str, known: Collection[str], aliases: Mapping[str, str] | None = None) -> str:
    """
    Say which of the known names was probably meant, or list them all.

    @param word: what was written.
    @param known: the names.
    @param aliases: other names, in lower case, for some of them.
    @return: advice.
    """
    meant = {name.casefold(): name for name in known} | dict(aliases or {})
    close = get_close_matches(word.casefold(), meant, n=1)
    return f"did you mean {meant[close[0]]}?" if close else f"known are {', '.join(known)}"


def readOne(entry: Entry, read: Callable[[str], Value]) -> Value:
    """
    Read a value that is one string.

    @param entry: the entry.
    @param read: turns a string into a value or raises L{Wrong}.
    @return: the value.
    @raise ConfigError: if it is wrong.
    """
    try:
        return read(unescape(entry))
    except Wrong as wrong:
        raise ConfigError([entry.mistake(*wrong.words)]) from None


def readList(
    entry: Entry,
    read: Callable[[str], Value],
    cut: Callable[[Entry], list[str]] = splitList,
    nothing: str = "",
    show: Callable[[str], str] = quote,
) -> tuple[Value, ...]:
    """
    Read a value that is a list: of at least one element, each of them once.

    @param entry: the entry.
    @param read: turns an element into a value or raises L{Wrong}.
    @param cut: cuts the value into its elements.
    @param nothing: a word that alone stands for the empty list, if there is one.
    @param show: makes an element fit to be seen.
    @return: the values.
    @raise ConfigError: if any are wrong.
    """
    pieces = cut(entry)
    if nothing and pieces == [nothing]:
        return ()
    values = []
    wrong = []
    if "" in pieces:
        wrong.append(("something before each ;", "nothing", "remove the ; that is too many"))
    elif not pieces:
        wrong.append(("at least one element", "nothing", REMOVE))
    for piece, times in Counter(filter(None, pieces)).items():
        if times > 1:
            found = f"{show(piece)} {times} times"
            wrong.append(("each element once", found, "remove all but the first"))
        try:
            values.append(read(piece))
        except Wrong as error:
            wrong.append(error.words)
    if wrong:
        raise ConfigError([entry.mistake(*words) for words in wrong])
    return tuple(values)


def readNames(
    entry: Entry,
    known: Collection[str] = (),
    aliases: Mapping[str, str] | None = None,
    mark: str = "",
) -> tuple[str, ...]:
    """
    Read a list of names.

    @param entry: the entry.
    @param known: the names that may be in it; none means any.
    @param aliases: other names, in lower case, under which they are known.
    @param mark: what may be before a name, if anything.
    @return: the names with their marks, at least one.
    @raise ConfigError: if there is none, or an unknown one, or one twice.
    """

    def read(name: str) -> str:
        bare = name.removeprefix(mark)
        if known and bare not in known:
            expected = f"names of {entry.key} that are known, with ; between them"
            raise Wrong(expected, quote(name), suggest(bare, known, aliases))
        return name

    return readList(entry, read)


def readKeyrings(entry: Entry) -> tuple[str, ...]:
    """
    Read a list of names that may be empty, as tlshd has it.

    @param entry: the entry.
    @return: the names.
    @raise ConfigError: if one is there twice or empty.
    """
    return readNames(entry) if splitList(entry) else ()


def readChoice(entry: Entry, choices: Mapping[str, Value]) -> Value:
    """
    Read one of some words.

    @param entry: the entry.
    @param choices: what each word stands for.
    @return: what this one stands for.
    @raise ConfigError: if it is none of them.
    """
    return readOne(entry, lambda word: _choice(word, choices))


def readChoices(entry: Entry, choices: Mapping[str, Value], nothing: str = "") -> tuple[Value, ...]:
    """
    Read a list of some words.

    @param entry: the entry.
    @param choices: what each word stands for.
    @param nothing: a word that alone stands for the empty list, if there is one.
    @return: what these stand for.
    @raise ConfigError: if there is none, or one is unknown or there twice.
    """
    return readList(entry, lambda word: _choice(word, choices), nothing=nothing)


def readNumber(entry: Entry, least: int, most: int, advice: str) -> int:
    """
    Read a number.

    @param entry: the entry.
    @param least: the least that it may be.
    @param most: the most that it may be.
    @param advice: what to do about another number.
    @return: the number.
    @raise ConfigError: if it is none, or another.
    """
    number = wholeNumber(entry)
    if least <= number <= most:
        return number
    raise ConfigError([entry.mistake(f"a number from {least} to {most}", str(number), advice)])


def readBound(entry: Entry) -> int | None:
    """
    Read how many there may be of something.

    @param entry: the entry.
    @return: the number; L{None} if the value is C{auto}.
    @raise ConfigError: if it is neither.
    """
    if entry.value == "auto":
        return None
    return readNumber(entry, 1, 65536, "with auto it is derived from the machine")


def _choice(word: str, choices: Mapping[str, Value]) -> Value:
    if word not in choices:
        raise Wrong(
            " or ".join(choices), quote(word) if word else "nothing", suggest(word, choices)
        )
    return choices[word]
