"""Which indexes an attachment needs, and whether those of a table serve."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from refresher.domain.attachment import Condition, Index, Table, Tables, TokenMapping, VideoMapping

#: Access methods by which rows of a value are found.
LOOKUPS: Final = ("btree", "hash")


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
    if index.where is None or (condition and index.where == condition.shown):
        return True
    # Rows without an account or a video ID are never asked for.
    return index.where in {f"({table.columns[name].quoted} IS NOT NULL)" for name in wanted}


def _pinned(table: Table, condition: Condition | None) -> set[str | None]:
    """Columns that have one value in all rows of the condition, as in `provider = 'tiktok'`."""
    shown = (condition and condition.shown) or ""
    if " OR " in shown or "NOT " in shown:
        return set()
    return {
        name
        for name, column in table.columns.items()
        if re.search(rf"\({re.escape(column.quoted)}\)?(::[\w ]+)? = '", shown)
    }


def _none(
    table: Table, columns: Sequence[str], condition: Condition | None, *, unique: bool
) -> str:
    named = ", ".join(table.columns[column].quoted for column in columns)
    kind = "UNIQUE INDEX" if unique else "INDEX"
    what = "a unique index over" if unique else "an index that begins with"
    concurrently = "" if table.kind == "p" else " CONCURRENTLY"
    return (
        f"{table.shown}: expected {what} {named}, not none: CREATE {kind}{concurrently} ON "
        f"{table.quoted} ({_with_keys(table, columns) if unique else named})"
        f"{_for_rows(condition) if unique else ''}"
    )


def _with_keys(table: Table, columns: Sequence[str]) -> str:
    """The columns, and those that a unique index of a partitioned table must name."""
    keys = [key for key in table.partition_keys if key and key not in columns]
    return ", ".join(table.columns[column].quoted for column in (*columns, *keys))


def _for_rows(condition: Condition | None) -> str:
    return f" WHERE {condition.shown}" if condition and condition.shown else ""
