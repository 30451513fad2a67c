"""
The files that the configuration names: each is read once, however many
profiles name it, and what is wrong with any of them is collected.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from ktlsagent.credentials.filekinds import OtherKind
from ktlsagent.errors import Mistake
from ktlsagent.safefiles import SAFE, Content, readFile

_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True, slots=True)
class Named:
    """
    Where a file is named.

    @ivar section: the section of the configuration, without brackets.
    @ivar key: the key.
    @ivar expected: what is expected of the file, in words.
    @ivar decides: whether who can change the file decides who may come in.  Then
        nobody else may be able to; else it is told.
    """

    section: str
    key: str
    expected: str
    decides: bool = True


class Files:
    """
    What is read of the file system.

    @ivar paths: the files and directories that were asked for.
    @ivar notices: what is odd about them, but no mistake; each sentence once.
    """

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.notices: list[str] = []
        self._contents: dict[str, Content | str] = {}
        self._parsed: dict[tuple[str, Callable[[bytes], object]], object] = {}
        self._mistakes: dict[tuple[str, str, str, str], list[str]] = {}

    @property
    def mistakes(self) -> Sequence[Mistake]:
        """What is wrong so far, each mistake once, with all sections that have it."""
        return [
            Mistake(", ".join(sections), key, expected, found, advice=advice)
            for (key, expected, found, advice), sections in self._mistakes.items()
        ]

    def notice(self, sentence: str) -> None:
        """
        Note something that is odd.

        @param sentence: what it is.
        """
        if sentence not in self.notices:
            self.notices.append(sentence)

    def mistake(self, named: Named, found: str, advice: str = "") -> None:
        """
        Note something that is wrong.

        @param named: where, and what was expected.
        @param found: what is there, in words.
        @param advice: what to do, in words.
        """
        sections = self._mistakes.setdefault((named.key, named.expected, found, advice), [])
        if named.section not in sections:
            sections.append(named.section)

    def absent(self, path: str) -> bool:
        """
        See whether there is nothing of some name; it is watched for all the same.

        @param path: an absolute path.
        @return: whether there is nothing.
        """
        self.paths.add(path)
        return not os.path.lexists(path)

    def read(self, named: Named, path: str, *, private: bool = False) -> bytes | None:
        """
        Read a file.

        @param named: where it is named.
        @param path: its absolute path.
        @param private: whether nobody but its owner may be able to read it.
        @return: its content, C{None} if there is something wrong with it.
        """
        self.paths.add(path)
        if path not in self._contents:
            self._contents[path] = _read(path)
        content = self._contents[path]
        if isinstance(content, str):
            self.mistake(named, f"{path}: {content}")
            return None
        if private and readableByOthers(content.status):
            self.mistake(
                Named(
                    named.section,
                    named.key,
                    "a file that only its owner, or root and one group, can read",
                ),
                f"{path} with mode {stat.S_IMODE(content.status.st_mode):04o}",
                _closed(path),
            )
        exposure = content.exposure
        if exposure is not None and named.decides:
            wanted = Named(named.section, named.key, SAFE)
            self.mistake(wanted, exposure.found, exposure.advice)
        elif exposure is not None:
            self.notice(
                f"{named.key}: others can exchange {path}: expected {SAFE}, found "
                f"{exposure.found}; {exposure.advice}"
            )
        return content.data

    def parsed(self, named: Named, path: str, parse: Callable[[bytes], _Parsed]) -> _Parsed | None:
        """
        Read and parse a file.

        @param named: where it is named.
        @param path: its absolute path.
        @param parse: turns its content into a value, or raises C{ValueError}
            with words for what it is instead; called once per file.
        @return: the value, C{None} if there is something wrong with the file.
        """
        data = self.read(named, path)
        if data is None:
            return None
        if (path, parse) not in self._parsed:
            try:
                self._parsed[path, parse] = parse(data)
            except ValueError as error:
                self._parsed[path, parse] = error
        value = self._parsed[path, parse]
        if isinstance(value, ValueError):
            advice = value.advice(path) if isinstance(value, OtherKind) else ""
            self.mistake(named, f"{value} in {path}", advice)
            return None
        return cast("_Parsed", value)

    def gather(
        self,
        named: Named,
        path: str,
        names: re.Pattern[str],
        parse: Callable[[bytes], Sequence[_Parsed]],
    ) -> Sequence[tuple[str, Sequence[_Parsed]]]:
        """
        Read a file, or all those of a directory that have the right names and
        are not hidden.  One broken file is enough to make a mistake; one with
        nothing but things of another kind may be there.

        @param named: where it is named.
        @param path: the absolute path of a file or a directory.
        @param names: what the names have to match in a directory.
        @param parse: as for L{parsed}; may find nothing.
        @return: what was found, by file and in the order of their names.
        """
        try:
            members = self._expand(path, names)
        except OSError as error:
            self.mistake(named, f"{path}: {error.strerror}")
            return ()
        contents = [(file, self.parsed(named, file, parse)) for file in members]
        if not any(content is None or content for _file, content in contents):
            self.mistake(named, f"none in {path}")
        return [(file, content) for file, content in contents if content]

    def _expand(self, path: str, names: re.Pattern[str]) -> Sequence[str]:
        """List the files that a path stands for, each once even if there are links to it."""
        if not os.path.isdir(path):
            return [path]
        self.paths.add(path)
        files: dict[str, str] = {}
        for name in sorted(os.listdir(path)):
            file = os.path.join(path, name)
            if not names.fullmatch(name) or name[0] == "." or os.path.isdir(file):
                continue
            if os.path.exists(file):
                files.setdefault(os.path.realpath(file), file)
            else:
                self.notice(f"{file} is a link to nothing, and is passed over")
        return list(files.values())


def _read(path: str) -> Content | str:
    """Read a file that is one, or say in words why that is not possible."""
    try:
        return readFile(path)
    except OSError as error:
        return error.strerror or str(error)


def _closed(path: str) -> str:
    """Say how a private key's file is closed to others."""
    try:
        readOnly = os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError:
        readOnly = 0
    if not readOnly:
        return f"chmod 0600 {path}"
    return (
        "its file system is read-only here: set the mode where the file comes from, in Kubernetes "
        "defaultMode: 0400 for the volume, without fsGroup"
    )


def readableByOthers(status: os.stat_result) -> bool:
    """
    Say whether a private key's file is open to more than its owner.  A group
    may read what root owns: that is how Debian's ssl-cert works.

    @param status: the file's status.
    @return: whether it is.
    """
    shared = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP
    if status.st_uid != 0:
        shared |= stat.S_IRGRP
    return bool(status.st_mode & shared)
