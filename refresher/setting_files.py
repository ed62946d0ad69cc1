"""Settings in files: `.env`, and a folder of secrets with a file for each.

`docker compose` reads the same `.env`, and a value must not mean something else there. So a value
means what it means to compose, or it is refused. No message shows a value.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final


class BadSettingFileError(Exception):
    """A file of settings, or a line of one, that cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a source of settings holds."""

    #: By the variable's name in capitals.
    values: Mapping[str, str]
    #: Names with our prefix that no setting has, with their places.
    unknown: tuple[str, ...] = ()


#: One assignment, which may span several lines inside quotes, or a line without one. After a
#: backslash, a quote does not end the value.
ASSIGNMENT: Final = re.compile(
    r"""
    [^\S\n]* (?:export[^\S\n]+)? (?P<name>[\w.-]+) [^\S\n]* [=:] (?P<blank>[^\S\n]*)
    (?: '(?P<single>(?:[^'\\]|\\.)*)' (?P<after_single>[^\n]*)
      | "(?P<double>(?:[^"\\]|\\.)*)" (?P<after_double>[^\n]*)
      | (?P<bare>[^\n]*) )
    (?:\n|\Z)
    | (?P<other>[^\n]*) (?:\n|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
QUOTED: Final = "single quotes around the value, as in NAME='...'"


def read_env_file(file: Path, known: Callable[[str], bool], prefix: str) -> Found:
    """The variables of a `.env` that begin with the prefix, in capitals or not.

    Lines of other programs are not checked. A missing file counts as empty. Raises
    `BadSettingFileError`.
    """
    try:
        if not file.exists():
            return Found({})
        if file.is_dir():
            return Found({}, (f"{file} (a folder)",))
        text = _text(file)
    except OSError as error:
        raise BadSettingFileError(f"{file}: {error.strerror}") from None
    values, unknown = {}, []
    for line, name, value in _assignments(file, text.replace("\r\n", "\n"), prefix):
        if known(name.upper()):
            values[name.upper()] = value
        else:
            unknown.append(f"{name} ({file}:{line})")
    return Found(values, tuple(unknown))


def _assignments(file: Path, text: str, prefix: str) -> Iterator[tuple[int, str, str]]:
    ours = re.compile(rf"^[^\S\n]*(?:export[^\S\n]+)?{prefix}\w*", re.IGNORECASE | re.MULTILINE)
    for found in ASSIGNMENT.finditer(text):
        line = f"{file}:{text.count(chr(10), 0, found.start()) + 1}"
        if ours.search(found["single"] or found["double"] or ""):
            raise BadSettingFileError(f"{line}: expected a closing quote in the same line")
        mine = ours.match(found[0])
        if mine is None:
            continue
        if found["other"] is None:
            name = found["name"]
            try:
                yield int(line.rpartition(":")[2]), name, _value(found)
            except ValueError as error:
                raise BadSettingFileError(f"{line}: {name}: expected {error}") from None
        else:  # in compose, a name alone passes a variable on; nobody passes us one
            raise BadSettingFileError(f"{line}: {mine[0].split()[-1]}: expected NAME=value")


def _value(found: re.Match[str]) -> str:
    """The value that is assigned. Raises ValueError, which says what is expected."""
    after = (found["after_single"] or found["after_double"] or "").strip()
    if after and not after.startswith("#"):
        raise ValueError("nothing but a comment after the closing quote")
    if found["single"] is not None:
        return found["single"].replace(r"\'", "'")
    if found["double"] is not None:
        return _unescaped(found["double"])
    value = found["bare"].partition(" #")[0].rstrip()
    if value[:1] in {"'", '"'}:
        raise ValueError(f"a closing {value[0]}")
    if (found["blank"] and value.startswith("#")) or "$" in value or "\r" in value:
        # Compose takes such a # for a value, where others see a comment. It replaces what follows
        # a $. And it does not know lines that end in CR alone.
        raise ValueError(QUOTED)
    return value


def _unescaped(text: str) -> str:
    escapes = ESCAPE.findall(text)
    if "$" in ESCAPE.sub("", text) or any(escape not in ESCAPES for escape in escapes):
        raise ValueError(QUOTED)
    return ESCAPE.sub(lambda escape: ESCAPES[escape[1]], text)


def read_secrets(folder: Path, known: Callable[[str], bool], prefix: str) -> Found:
    """The files of a folder that are named like a variable, in capitals or not.

    White space around a value is removed, so is the newline at its end. A missing folder counts as
    empty. Raises `BadSettingFileError`.
    """
    values, unknown = {}, []
    try:
        files = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise BadSettingFileError(f"{folder}: {error.strerror}") from None
    for file in files:
        name = file.name.upper()
        if known(name):
            values[name] = _secret(file)
        elif name.startswith(prefix):
            unknown.append(str(file))
    return Found(values, tuple(unknown))


def _secret(file: Path) -> str:
    try:
        mode = file.stat().st_mode
        if not S_ISREG(mode):
            what = "a folder" if S_ISDIR(mode) else "something else"
            raise BadSettingFileError(f"{file}: expected a file, not {what}")
        return _text(file).strip()
    except OSError as error:
        raise BadSettingFileError(f"{file}: {error.strerror}") from None


def _text(file: Path) -> str:
    """The text of a file, without a byte order mark."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadSettingFileError(f"{file}: expected text in UTF-8") from None
    if "\0" in text:
        raise BadSettingFileError(f"{file}: expected text in UTF-8, without NUL")
    return text
