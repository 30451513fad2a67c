r"""
The syntax of GLib's key files, in which tlshd's configuration is written: text
goes in, entries and mistakes come out.

It is stricter than GLib's where that hides a mistake: a line that GLib passes over
is refused.  It is laxer with blanks: those at the end of a line are dropped, where
GLib keeps them as part of the value, and so are those around the names in a list.
A blank at the end that is meant is written C{\s}.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from ktlsagent.errors import ConfigError, Mistake

_BLANKS: Final = " \t\r\v\f"
_ESCAPES: Final = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_TOKEN: Final = re.compile(r"\\.?|;|[^\\;]+")
_PIN: Final = re.compile(r"pin-value\s*=", re.IGNORECASE)
_LONGEST_NAME: Final = 32
# A longer name may be anything, a pasted key too, and would end in a log.  A
# prefix, as in [profile.NAME], does not shorten what follows it.
_HEADER: Final = re.compile(rf"\[((?:[a-z]{{1,16}}\.)?[^\[\]]{{1,{_LONGEST_NAME}}})\]")


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One line that is neither blank nor a comment nor a mistake.

    @ivar section: the section it is in; empty before the first header.
    @ivar key: the key; empty if the line is the section's header.
    @ivar value: the value, which still has its escapes.
    @ivar line: the line's number.
    """

    section: str
    key: str
    value: str
    line: int

    def mistake(self, expected: str, found: str, advice: str) -> Mistake:
        """
        Describe what is wrong with this entry.

        @param expected: what would have been right, in words.
        @param found: what is there, in words.
        @param advice: what to do, in words.
        @return: the mistake, with section, key and line.
        """
        return Mistake(self.section, self.key, expected, found, self.line, advice)


def decodeKeyFile(data: bytes) -> str:
    """
    Decode a key file: UTF-8, with a byte order mark or without.  What a comment is
    written in does not matter.

    @param data: the whole file.
    @return: its text.
    @raise ConfigError: if anything else is in another encoding.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError([_otherEncoding(1, "UTF-16")])
    lines = []
    for number, line in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        comment = line.lstrip(_BLANKS.encode()).startswith(b"#")
        try:
            lines.append(line.decode(errors="replace" if comment else "strict"))
        except UnicodeDecodeError as error:
            raise ConfigError(
                [_otherEncoding(number, f"the byte 0x{line[error.start]:02x}")]
            ) from None
    return "\n".join(lines)


def parseKeyFile(text: str) -> tuple[list[Entry], list[Mistake]]:
    """
    Sort the lines of a key file into entries and mistakes.

    @param text: the whole file.
    @return: the entries, headers among them, and the mistakes, both in the order
        of the file.
    """
    entries: list[Entry] = []
    mistakes: list[Mistake] = []
    # None below a wrong header: keys there would only repeat its mistake.
    section: str | None = ""
    pasted = False
    for number, rawLine in enumerate(text.split("\n"), 1):
        line = rawLine.strip(_BLANKS)
        key, equals, value = (part.strip(_BLANKS) for part in line.partition("="))
        if pasted:
            pasted = "-----END " not in line
        elif not line or line.startswith("#"):
            pass
        elif "-----BEGIN " in line:
            name = key if equals and _isName(key) else ""
            mistakes.append(_pastedPEM(Entry(section or "", name, "", number)))
            pasted = "-----END " not in line
        elif line.startswith("["):
            header = _HEADER.fullmatch(line) if line.isprintable() else None
            section = header[1] if header else None
            if section is None:
                mistakes.append(_notHeader(line, number))
            else:
                entries.append(Entry(section, "", "", number))
        elif not (equals and _isName(key)):
            mistakes.append(_notKeyValue(Entry(section or "", "", line, number)))
        elif section is not None:
            entries.append(Entry(section, key, value, number))
    return entries, mistakes


def requireNoComment(entry: Entry) -> None:
    """
    Refuse a value with something behind it that looks like a comment: it would be a part
    of the value, and a rule to deny somebody, for instance, would be about nobody.

    @param entry: the entry.
    @raise ConfigError: if it has one.
    """
    value, comment, _ = re.split(r"((?:^|[ \t])#|$)", entry.value, maxsplit=1)
    if comment:
        mistake = entry.mistake(
            "a value without a comment behind it",
            f"one behind {quote(value.strip(_BLANKS))}",
            "put the comment on a line of its own; a blank before a # that is part of the value"
            " is written \\s",
        )
        raise ConfigError([mistake])


def unescape(entry: Entry) -> str:
    """
    Replace the escapes in a value that is one string.

    @param entry: the entry.
    @return: the string.
    @raise ConfigError: if a backslash does not begin an escape.  GLib refuses
        these too.
    """
    (piece,) = _pieces(entry, "")
    return piece


def splitList(entry: Entry) -> list[str]:
    r"""
    Cut a value that is a list at each C{;} that is not escaped as C{\;}.

    @param entry: the entry.
    @return: the pieces, without the blanks around them; some may be empty.
    @raise ConfigError: if a backslash does not begin an escape.
    """
    pieces = [piece.strip(_BLANKS) for piece in _pieces(entry, ";")]
    # GLib ends a list with a separator, people leave it out.
    return pieces if pieces[-1] else pieces[:-1]


def wholeNumber(entry: Entry) -> int:
    """
    Read a value that is a number.

    @param entry: the entry.
    @return: the number, 0 or more.
    @raise ConfigError: if it is anything else, for which tlshd takes 0.
    """
    if re.fullmatch("[0-9]{1,9}", entry.value):
        return int(entry.value)
    mistake = entry.mistake(
        "a whole number, 0 or more, of at most 9 digits",
        quote(entry.value),
        "write only digits; a comment needs a line of its own",
    )
    raise ConfigError([mistake])


def quote(text: str) -> str:
    """
    Show text that should not be in the file.  It may be anything, a pasted key
    too, and ends in a log: long text is described, not quoted, and so is a PIN.

    @param text: what is in the file.
    @return: how to call it.
    """
    if len(text) > _LONGEST_NAME or hasPIN(text):
        return f"{len(text)} characters that begin with {text[:4]!r}"
    return repr(text)


def hasPIN(text: str) -> bool:
    """
    Look for a PIN in a URI (C{pin-value}, RFC 7512, section 2.4), or in what
    should have been one.

    @param text: what is in the file.
    @return: whether there is one, however it is encoded.
    """
    # What decodes it is imported if there is anything to decode.
    return _PIN.search(unquote(text) if "%" in text else text) is not None


def _isName(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable()


def _pieces(entry: Entry, separator: str) -> list[str]:
    """Replace a value's escapes and cut it at separators that have none."""
    escapes = _ESCAPES | ({separator: separator} if separator else {})
    pieces = [""]
    for token in _TOKEN.findall(entry.value):
        if token == separator:
            pieces.append("")
        elif not token.startswith("\\"):
            pieces[-1] += token
        elif token[1:] in escapes:
            pieces[-1] += escapes[token[1:]]
        else:
            mistake = entry.mistake(
                f"after a backslash one of {' '.join(escapes)}",
                repr(token[1:]) if token[1:] else "the end of the line",
                "write a backslash that is meant as such twice",
            )
            raise ConfigError([mistake])
    return pieces


def _otherEncoding(line: int, found: str) -> Mistake:
    return Mistake("", "", "text in UTF-8", found, line, "save the file in UTF-8")


def _pastedPEM(entry: Entry) -> Mistake:
    # Nothing of a key that was pasted into the file may be quoted.
    return entry.mistake(
        "the path of a file",
        "PEM text",
        "put it into a file of its own and give the path of that; if it is a private key,"
        " whoever could read this file has seen it",
    )


def _notHeader(line: str, number: int) -> Mistake:
    return Entry("", "", "", number).mistake(
        "a section's name in brackets and nothing else on the line",
        quote(line),
        "write it like [authenticate.client]",
    )


def _notKeyValue(entry: Entry) -> Mistake:
    return entry.mistake(
        "key=value, a [section] or a comment",
        quote(entry.value),
        "begin a comment with #; a value cannot go on in the next line",
    )
