"""Which indexes an attachment needs, and whether those of a table serve."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from refresher.domain.attachment import Condition, Index, Table, Tables, TokenMapping, VideoMapping

#: Access methods by which rows of a value are found.
LOOKUPS: Final = ("btree", "hash")
#: A constant, as the server writes it.
VALUE: Final = r"(?:'(?:[^']|'')*'::[\w .\"]+|\d+)"


def lacking_indexes(mapping: VideoMapping | TokenMapping, tables: Tables) -> Iterator[str]:
    """What to create, one line each; none: all are there. The columns exist."""
    assert tables.table is not None  # noqa: S101 - an obstacle
    if isinstance(mapping, TokenMapping):
        yield from _lacking(tables.table, tables.where, unique=[mapping.open_id])
        return
    account, video_id = mapping.account, mapping.video_id
    yield from _lacking(tables.table, tables.where, unique=[account, video_id], leading=[account])
    if tables.accounts is not None:
        key, open_id = mapping.account_key, str(mapping.open_id)
        # With a condition only the rows can say whether one is left of each key.
        unique = [key] if tables.account_where is None else []
        leading = [open_id] if unique else [key, open_id]
        yield from _lacking(tables.accounts, tables.account_where, unique=unique, leading=leading)


def _lacking(
    table: Table,
    condition: Condition | None,
    *,
    unique: Sequence[str],
    leading: Sequence[str] = (),
) -> Iterator[str]:
    if unique and not any(_tells_apart(i, unique, table, condition) for i in table.indexes):
        yield _none(table, unique, condition, unique=True)
        return
    for column in leading:
        if not any(_leads_to(index, column, table, condition) for index in table.indexes):
            yield _none(table, [column], condition, unique=False)


def _tells_apart(
    index: Index, wanted: Sequence[str], table: Table, condition: Condition | None
) -> bool:
    """Whether no two rows that are attached can have the same in these columns.

    A unique index of a partitioned table names the keys of its partitions, too.
    """
    if not index.unique or not _serves(index, wanted, table, condition):
        return False
    others = set(index.columns) - set(wanted) - _pinned(table, condition)
    if not others:
        return bool(set(index.columns) & set(wanted))
    keys = set(table.partition_keys) - {None}
    return others <= keys and set(wanted) <= set(index.columns)


def _leads_to(index: Index, column: str, table: Table, condition: Condition | None) -> bool:
    """Whether rows of a value of the column are found by the index."""
    if column not in index.columns or not _serves(index, [column], table, condition):
        return False
    before = set(index.columns[: index.columns.index(column)])
    return before <= _pinned(table, condition)


def _serves(index: Index, wanted: Sequence[str], table: Table, condition: Condition | None) -> bool:
    """Whether all rows that are attached are in the index, and are found by it."""
    if index.method not in LOOKUPS:
        return False
    if index.where is None or index.where in _parts(condition):
        return True
    # Rows without an account or a video ID are never asked for.
    return index.where in {f"({table.columns[name].quoted} IS NOT NULL)" for name in wanted}


def _pinned(table: Table, condition: Condition | None) -> set[str | None]:
    """Columns that have one value in all rows of the condition, as in `provider = 'tiktok'`."""
    parts = _parts(condition)
    return {
        name
        for name, column in table.columns.items()
        if any(_is_one_value(column.quoted, part) for part in parts)
    }


def _is_one_value(column: str, part: str) -> bool:
    cast = r"\)?(?:::[\w .\"]+)?"
    return bool(re.fullmatch(rf"\({{1,2}}{re.escape(column)}{cast} = {VALUE}\)", part))


def _parts(condition: Condition | None) -> Sequence[str]:
    """The condition, and those that must all be true for it to be, as the server writes them."""
    shown = (condition and condition.shown) or ""
    if not (shown.startswith("(") and shown.endswith(")")):
        return [shown]
    parts, start, depth, quote = [shown], 1, 0, ""
    for place, character in enumerate(shown):
        if quote:
            quote = "" if character == quote else quote
        elif character in {"'", '"'}:
            quote = character
        elif depth == 1 and shown.startswith(" AND ", place):
            parts.append(shown[start:place])
            start = place + len(" AND ")
        else:
            depth += {"(": 1, ")": -1}.get(character, 0)
    return [*parts, shown[start:-1]]


def _none(
    table: Table, columns: Sequence[str], condition: Condition | None, *, unique: bool
) -> str:
    named = ", ".join(table.columns[column].quoted for column in columns)
    kind = "UNIQUE INDEX" if unique else "INDEX"
    what = "a unique index over" if unique else "an index that begins with"
    concurrently = "" if table.kind == "p" else " CONCURRENTLY"
    missed = _of_some_rows(table, columns) if unique and condition is None else ""
    return (
        f"{table.shown}: expected {what} {named}{missed}, not none: CREATE {kind}{concurrently} ON "
        f"{table.quoted} ({_with_keys(table, columns) if unique else named})"
        f"{_for_rows(condition) if unique else ''}"
    )


def _of_some_rows(table: Table, columns: Sequence[str]) -> str:
    """What is said of an index that would do, were it not for its condition."""
    for index in table.indexes:
        if index.unique and index.where and set(index.columns) == set(columns):
            return f" of all rows (is --where missing? {index.name} has those WHERE {index.where})"
    return ""


def _with_keys(table: Table, columns: Sequence[str]) -> str:
    """The columns, and those that a unique index of a partitioned table must name."""
    keys = [key for key in table.partition_keys if key and key not in columns]
    return ", ".join(table.columns[column].quoted for column in (*columns, *keys))


def _for_rows(condition: Condition | None) -> str:
    return f" WHERE {condition.shown}" if condition and condition.shown else ""
