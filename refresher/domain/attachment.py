"""Tables of an application that are attached: what is declared, and what stands in the way."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, ClassVar, Final, Literal

#: Characters of a name, so that the longest trigger's name still fits into PostgreSQL's 63.
NAME_LENGTH: Final = 36
#: A cover's URL is signed and long: of real answers up to 600 characters.
COVER_LENGTH: Final = 1024
#: Types that hold an open_id or a URL; a video's ID; and a key that leads to an account.
TEXTS: Final = ("text", "varchar", "bpchar")
IDS: Final = (*TEXTS, "int8", "numeric")
KEYS: Final = (*IDS, "int2", "int4", "uuid")
TIMES: Final = ("timestamptz", "timestamp")
#: Also as seconds since 1970.
MOMENTS: Final = (*TIMES, "int4", "int8")
WHOLE_NUMBERS: Final = ("int2", "int4", "int8")


@dataclass(frozen=True, slots=True)
class VideoMapping:
    """Where an application keeps its videos, as `refresher attach` was told."""

    table: str
    video_id: str
    #: Holds the open_id; with `account_table`, what leads to it.
    account: str
    account_table: str | None = None
    account_key: str = "id"
    open_id: str | None = None
    #: A condition over the columns of `table`, in SQL; other rows are left alone.
    where: str | None = None
    #: The same for `account_table`.
    account_where: str | None = None
    cover: str | None = None
    expires: str | None = None

    #: What a row is, and what is said of an unusable one.
    one: ClassVar = "video"
    unusable: ClassVar = "left out: expected IDs of 1 to 20 characters"

    @property
    def kind(self) -> Literal["videos"]:
        return "videos"

    @property
    def afterwards(self) -> str:
        """Where the covers are."""
        columns = [name for name in (self.cover, self.expires) if name]
        if columns:
            return f"the daemon writes covers into {' and '.join(columns)}"
        return "the covers are in refresher.videos"

    @property
    def carries(self) -> bool:
        """Whether covers are written into the application's own columns."""
        return self.cover is not None

    def told(self) -> Mapping[str, str]:
        """What is stored of it, and printed."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class TokenMapping:
    """Where an application keeps its users' tokens, as `refresher attach` was told."""

    table: str
    open_id: str
    access_token: str
    access_token_expires: str | None = None
    refresh_token: str | None = None
    refresh_token_expires: str | None = None
    scope: str | None = None
    where: str | None = None
    #: Who renews the tokens: the daemon (`managed`), or the application.
    holder: Literal["managed", "external"] = "managed"

    one: ClassVar = "account"
    unusable: ClassVar = (
        "have access tokens that do not begin with act.: what your application encrypts cannot be "
        "used"
    )

    @property
    def kind(self) -> Literal["tokens"]:
        return "tokens"

    @property
    def afterwards(self) -> str:
        """Who holds the tokens."""
        if self.holder == "managed":
            return (
                "the daemon renews them from now on: your application must not; it gets a living "
                "access token from refresher.access_token(open_id)"
            )
        return "your application renews them, as REFRESHER_TOKEN_MANAGEMENT is external"

    @property
    def carries(self) -> bool:
        return False

    @property
    def account_table(self) -> None:
        return None

    def told(self) -> Mapping[str, str]:
        """What is stored of it, and printed."""
        return {name: value for name, value in asdict(self).items() if value is not None}


AnyMapping = VideoMapping | TokenMapping


def mapping_of(kind: str, told: Mapping[str, Any]) -> AnyMapping:
    """The mapping that was stored."""
    return TokenMapping(**told) if kind == "tokens" else VideoMapping(**told)


@dataclass(frozen=True, slots=True)
class Column:
    """A column, as the catalogue has it."""

    #: As SQL writes its name.
    quoted: str
    type: str
    #: The type as psql shows it.
    shown: str
    #: Characters that fit; None: no bound.
    length: int | None
    generated: bool
    may_write: bool


@dataclass(frozen=True, slots=True)
class Index:
    name: str
    unique: bool
    partial: bool
    #: None stands for an expression.
    columns: Sequence[str | None]


@dataclass(frozen=True, slots=True)
class Trigger:
    #: The function, with its schema where it is not in the search path.
    calls: str
    enabled: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table, as the catalogue has it, and what the role may do with it."""

    schema: str
    name: str
    quoted: str
    #: Of pg_class: `r` is a table, `p` a partitioned one.
    kind: str
    may_use: bool
    may_trigger: bool
    may_read: bool
    #: Row-level security hides rows from the role.
    restricted: bool
    columns: Mapping[str, Column]
    indexes: Sequence[Index]
    triggers: Mapping[str, Trigger]

    @property
    def shown(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of a mapping; None where there is none of that name."""

    table: Table | None
    accounts: Table | None = None


def name_of(table: Table) -> str:
    """The name of a table's attachment: begins the names of its functions and triggers."""
    whole = table.name if table.schema == "public" else f"{table.schema}_{table.name}"
    plain = re.sub(r"[^a-z0-9_]", "_", whole.lower())
    if plain == whole and len(plain) <= NAME_LENGTH and not plain[0].isdigit():
        return plain
    digest = sha256(table.quoted.encode()).hexdigest()[:6]
    return f"t_{plain[: NAME_LENGTH - 9]}_{digest}"


def triggers_of(name: str, *, joined: bool) -> Sequence[str]:
    """The triggers of an attachment on the application's tables."""
    prefixes = [f"refresher_{name}", *([f"refresher_{name}_account"] if joined else [])]
    return [
        f"{prefix}_{what}"
        for prefix in prefixes
        for what in ("inserted", "updated", "deleted", "truncated")
    ]


def obstacles(mapping: AnyMapping, tables: Tables) -> Iterator[str]:
    """What keeps the mapping from being attached, the most basic first; none: nothing does."""
    table, accounts = tables.table, tables.accounts
    missing = [*_no_table("--table", mapping.table, table)]
    if mapping.account_table is not None:
        missing += _no_table("--account-table", mapping.account_table, accounts)
    if missing or table is None:
        yield from missing
        return
    if isinstance(mapping, TokenMapping):
        yield from _token_obstacles(mapping, table)
    else:
        yield from _video_obstacles(mapping, table, accounts)


def _token_obstacles(mapping: TokenMapping, table: Table) -> Iterator[str]:
    wrong = [*_wrong_token_columns(mapping, table)]
    if wrong:
        yield from wrong
        return
    yield from _lacking_rights(table)
    named = {mapping.open_id}
    if not any(
        _is_unique(index, named, table, wider=bool(mapping.where)) for index in table.indexes
    ):
        yield _no_index(table, (mapping.open_id,), unique=True)


def _wrong_token_columns(mapping: TokenMapping, table: Table) -> Iterator[str]:
    yield from _wrong_column("--open-id", mapping.open_id, table, TEXTS)
    yield from _wrong_column("--access-token", mapping.access_token, table, TEXTS)
    for option, name, types in (
        ("--access-token-expires", mapping.access_token_expires, MOMENTS),
        ("--refresh-token", mapping.refresh_token, TEXTS),
        ("--refresh-token-expires", mapping.refresh_token_expires, MOMENTS),
        ("--scope", mapping.scope, TEXTS),
    ):
        if name is not None:
            yield from _wrong_column(option, name, table, types)
    if mapping.holder == "managed" and mapping.refresh_token is None:
        yield "--refresh-token: expected a column: the daemon renews the tokens with it"


def _video_obstacles(mapping: VideoMapping, videos: Table, accounts: Table | None) -> Iterator[str]:
    wrong = [*_wrong_columns(mapping, videos, accounts)]
    if wrong:
        yield from wrong
        return
    for table in filter(None, (videos, accounts)):
        yield from _lacking_rights(table)
    yield from _unwritable(mapping, videos)
    yield from _unfit_indexes(mapping, videos, accounts)


def costly_indexes(mapping: AnyMapping, table: Table) -> Iterator[str]:
    """Indexes by which each new cover costs more. The figures: docs/decisions/0001."""
    if isinstance(mapping, TokenMapping):
        return
    written = {mapping.cover, mapping.expires} - {None}
    for index in table.indexes:
        if covered := sorted(written.intersection(index.columns), key=str):
            yield (
                f"index {index.name} covers {', '.join(map(str, covered))}: each new cover is "
                "written to every index of the table (measured: 0.56 of the rows a second, 2 to 3 "
                "times the WAL); drop it if you can"
            )


def _no_table(option: str, name: str, table: Table | None) -> Iterator[str]:
    if table is None:
        yield f"{option}: expected a table, not {name!r}: there is none of this name"
    elif table.kind not in {"r", "p"}:
        yield f"{option}: expected a table, not {name!r}, which is something else, such as a view"
    elif not table.may_use or not table.may_read:
        right = "SELECT on the table" if table.may_use else f"USAGE on schema {table.schema}"
        yield f"{option}: the role may not read {table.shown}: it needs {right}"


def _wrong_columns(mapping: VideoMapping, videos: Table, accounts: Table | None) -> Iterator[str]:
    keys = KEYS if accounts else TEXTS
    yield from _wrong_column("--video-id", mapping.video_id, videos, IDS)
    yield from _wrong_column("--account", mapping.account, videos, keys)
    if mapping.cover is not None:
        yield from _wrong_column("--cover", mapping.cover, videos, TEXTS)
    if mapping.expires is not None:
        yield from _wrong_column("--expires", mapping.expires, videos, TIMES)
    if accounts is not None:
        yield from _wrong_column("--account-key", mapping.account_key, accounts, KEYS)
        yield from _wrong_column("--open-id", str(mapping.open_id), accounts, TEXTS)
        yield from _unlike(mapping, videos, accounts)


def _wrong_column(option: str, name: str, table: Table, types: Sequence[str]) -> Iterator[str]:
    column = table.columns.get(name)
    if column is None:
        has = ", ".join(sorted(table.columns))
        yield f"{option}: expected a column of {table.shown}, not {name!r}; it has {has}"
    elif column.type not in types:
        expected = ", ".join(types)
        yield f"{option}: expected a type of {expected}, not {table.shown}.{name}: {column.shown}"


def _unlike(mapping: VideoMapping, videos: Table, accounts: Table) -> Iterator[str]:
    """The two ends of the join."""
    account = videos.columns.get(mapping.account)
    key = accounts.columns.get(mapping.account_key)
    if account and key and _family(account.type) != _family(key.type):
        yield (
            f"--account: expected the type of {accounts.shown}.{mapping.account_key} "
            f"({key.shown}), not {videos.shown}.{mapping.account}: {account.shown}"
        )


def _family(type_name: str) -> str:
    for family in (TEXTS, WHOLE_NUMBERS):
        if type_name in family:
            return family[-1]
    return type_name


def _lacking_rights(table: Table) -> Iterator[str]:
    if not table.may_trigger:
        yield f"{table.shown}: the role may not create triggers: it needs TRIGGER on the table"
    if table.restricted:
        yield (
            f"{table.shown}: row-level security hides rows from the role: attach as its owner, or "
            "as a role with BYPASSRLS"
        )


def _unwritable(mapping: VideoMapping, videos: Table) -> Iterator[str]:
    for option, name in (("--cover", mapping.cover), ("--expires", mapping.expires)):
        column = videos.columns.get(name) if name else None
        if column is None:
            continue
        if column.generated:
            yield f"{option}: {videos.shown}.{name} is generated: nothing can be written to it"
        elif not column.may_write:
            yield f"{option}: the role may not write {videos.shown}.{name}: it needs UPDATE on it"
        elif column.length is not None and column.length < COVER_LENGTH:
            yield (
                f"{option}: {videos.shown}.{name} is {column.shown}, and covers are longer: ALTER "
                f"TABLE {videos.quoted} ALTER {column.quoted} TYPE text"
            )


def _unfit_indexes(mapping: VideoMapping, videos: Table, accounts: Table | None) -> Iterator[str]:
    account, video_id = mapping.account, mapping.video_id
    if not any(_is_unique(index, {account, video_id}, videos) for index in videos.indexes):
        yield _no_index(videos, (account, video_id), unique=True)
    elif not any(index.columns[:1] == [account] for index in videos.indexes):
        yield _no_index(videos, (account,))
    if accounts is None:
        return
    key, open_id = mapping.account_key, str(mapping.open_id)
    # With a condition only the rows can say whether one is left of each key.
    if mapping.account_where is None:
        if not any(_is_unique(index, {key}, accounts) for index in accounts.indexes):
            yield _no_index(accounts, (key,), unique=True)
    elif not any(index.columns[:1] == [key] for index in accounts.indexes):
        yield _no_index(accounts, (key,))
    if not any(open_id in index.columns for index in accounts.indexes):
        yield _no_index(accounts, (open_id,))


def _is_unique(index: Index, wanted: set[str], table: Table, *, wider: bool = False) -> bool:
    """Whether the index tells rows apart by these columns.

    The keys of a partitioned table name its partition key, too. `wider`: a condition picks one of
    the rows that have the same, of an index such as (provider, account).
    """
    columns = set(index.columns)
    inside = columns <= wanted or ((wider or table.kind == "p") and bool(columns & wanted))
    return index.unique and inside


def _no_index(table: Table, columns: Sequence[str], *, unique: bool = False) -> str:
    named = ", ".join(table.columns[column].quoted for column in columns)
    kind = "UNIQUE INDEX" if unique else "INDEX"
    what = "a unique index over" if unique else "an index that begins with"
    concurrently = "" if table.kind == "p" else " CONCURRENTLY"
    return (
        f"{table.shown}: expected {what} {named}, not none: "
        f"CREATE {kind}{concurrently} ON {table.quoted} ({named})"
    )
