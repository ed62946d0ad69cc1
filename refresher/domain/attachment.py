"""Tables of an application that are attached: what is declared, and what stands in the way."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, ClassVar, Final, Literal

#: Characters of a name, so that the longest trigger's name still fits into PostgreSQL's 63.
NAME_LENGTH: Final = 36
DIGEST_LENGTH: Final = 6
#: Names that need no digest.
PLAIN: Final = re.compile(rf"[a-z_][a-z0-9_]{{0,{NAME_LENGTH - 1}}}")
#: Plain names that look like what we make: of a table with digest; of the triggers on an account
#: table, `refresher_clips_account_inserted`.
MADE: Final = re.compile(rf"_account$|^t_.*_[0-9a-f]{{{DIGEST_LENGTH}}}$")
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

    #: What a row is, what was done with those that came, and what is said of an unusable one.
    one: ClassVar = "video"
    taken: ClassVar = "added"
    #: Options that name a column of the table.
    columns: ClassVar = ("video_id", "account", "cover", "expires")
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
        return "the covers are in our table videos"

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
    taken: ClassVar = "added or re-authorized"
    columns: ClassVar = (
        "open_id",
        "access_token",
        "access_token_expires",
        "refresh_token",
        "refresh_token_expires",
        "scope",
    )
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

    @property
    def account_where(self) -> None:
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
    #: Generated when it is read: in a trigger's rows it is NULL.
    virtual: bool
    #: Text in another order than the database's.
    collated: bool
    may_write: bool


@dataclass(frozen=True, slots=True)
class Index:
    name: str
    #: The access method.
    method: str
    unique: bool
    #: Of a partial one the condition, as the server writes it; None: all rows are in it.
    where: str | None
    #: None stands for an expression.
    columns: Sequence[str | None]
    #: Columns, also of its condition and expressions, whose change is an entry more: no HOT.
    written: Sequence[str]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition over the rows of a table, and how the server reads it."""

    given: str
    #: As the server writes it; None: it is wrong.
    shown: str | None
    #: Why it cannot be used; None: it can.
    wrong: str | None = None


@dataclass(frozen=True, slots=True)
class Trigger:
    #: The function; ours always with their schema.
    calls: str
    enabled: bool
    #: As the server writes it.
    definition: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table, as the catalogue has it, and what the role may do with it."""

    schema: str
    #: That of this cell.
    our_schema: str
    name: str
    quoted: str
    #: Of pg_class: `r` is a table, `p` a partitioned one.
    kind: str
    is_temporary: bool
    #: A partition, or another child in the sense of INHERITS.
    is_child: bool
    may_use: bool
    may_trigger: bool
    #: Functions in our schema.
    may_make: bool
    may_read: bool
    #: Row-level security hides rows from the role.
    restricted: bool
    owner: str
    #: The role that asks: the functions will be its own.
    role: str
    role_is_superuser: bool
    #: What a partitioned table is divided by; None stands for an expression.
    partition_keys: Sequence[str | None]
    columns: Mapping[str, Column]
    indexes: Sequence[Index]
    triggers: Mapping[str, Trigger]
    #: Columns, as SQL writes them, that the table's foreign keys to itself change in other rows.
    own_keys: Sequence[str]

    @property
    def shown(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def may_tell_by_row(self) -> bool:
        """Whether the server lets a trigger for each row see all rows of the statement."""
        return self.kind == "r" and not self.is_child


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of a mapping; None where there is none of that name."""

    table: Table | None
    accounts: Table | None = None
    #: Of `--where` and `--account-where`; None where there is none.
    where: Condition | None = None
    account_where: Condition | None = None
    #: Why the columns for covers would take none; None: nothing says so.
    cover_refusal: str | None = None


def name_of(table: Table) -> str:
    """The name of a table's attachment: begins the names of its functions and triggers.

    Names of no two tables make the same function or trigger: all but plain ones of schema public
    end with a digest.
    """
    if table.schema == "public" and PLAIN.fullmatch(table.name) and not MADE.search(table.name):
        return table.name
    whole = table.name if table.schema == "public" else f"{table.schema}_{table.name}"
    plain = re.sub(r"[^a-z0-9_]", "_", whole.lower())
    digest = sha256(table.quoted.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"t_{plain[: NAME_LENGTH - DIGEST_LENGTH - 3]}_{digest}"


def names(condition: str, column: str) -> bool:
    """Whether a condition may name a column; a word of a text in it may be no column."""
    word = re.escape(column.replace('"', '""'))
    return bool(re.search(rf"(?<![\w$]){word}(?![\w$])", condition, re.IGNORECASE))


def triggers_of(name: str, *, joined: bool) -> Sequence[str]:
    """The triggers of an attachment on the application's tables."""
    prefixes = [f"refresher_{name}", *([f"refresher_{name}_account"] if joined else [])]
    return [
        f"{prefix}_{what}"
        for prefix in prefixes
        for what in ("inserted", "updated", "deleted", "truncated")
    ]
