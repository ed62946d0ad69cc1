"""The SQL that attaches and detaches a table, made of templates: one file to be reviewed."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from shlex import quote
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined

from refresher.domain.attachment import (
    WHOLE_NUMBERS,
    AnyMapping,
    Column,
    Table,
    Tables,
    TokenMapping,
    VideoMapping,
    name_of,
    names,
)
from refresher.postgres.naming import finished, named

TEMPLATES: Final = files("refresher.postgres.attaching") / "templates"
#: What an application's columns without a time zone are taken for.
ZONE: Final = "UTC"
NO_TEXT: Final = "NULL::text"
#: The functions of an attachment: the daemon calls the first four, triggers the others.
CALLABLES: Final = ("apply", "look_at", "carry", "next", "told", "account_told")
FUNCTION: Final = re.compile(
    r"CREATE OR REPLACE FUNCTION (\w+\.\w+)\(.*?\$refresher\$(.*?)\$refresher\$", re.DOTALL
)
TRIGGER: Final = re.compile(
    r"CREATE OR REPLACE TRIGGER (\w+)(\nAFTER .*?EXECUTE FUNCTION [\w.]+\(\));", re.DOTALL
)


def attach_script(mapping: AnyMapping, tables: Tables, version: str) -> str:
    """Attaches the table; idempotent, for one transaction. The mapping has no obstacles."""
    assert tables.table is not None  # noqa: S101 - an obstacle
    name = name_of(tables.table)
    return _drawn(
        tables.table.our_schema,
        f"{mapping.kind}.sql",
        name=name,
        version=version,
        command=command_of(mapping),
        mapping=json.dumps(mapping.told(), ensure_ascii=False),
        callables=[f"attached_{name}_{each}" for each in CALLABLES],
        **_columns(mapping, tables.table, tables.accounts),
    )


def count_script(mapping: AnyMapping, tables: Tables) -> str:
    """Counts what the table holds, in one row."""
    assert tables.table is not None  # noqa: S101 - an obstacle
    columns = _columns(mapping, tables.table, tables.accounts)
    name = name_of(tables.table)
    return _drawn(tables.table.our_schema, f"count_{mapping.kind}.sql", name=name, **columns)


def has_tokens_script(mapping: TokenMapping, table: Table) -> str:
    """Asks whether the table has tokens of an open_id, its parameter. KeyError without a column."""
    return _drawn(table.our_schema, "has_tokens.sql", **_of_tokens(mapping, table))


def detach_script(schema: str, name: str, triggers: Sequence[Sequence[str]]) -> str:
    """Takes back what `attach_script` made in our schema, but for the rows.

    `triggers` come with the table that each is on, as SQL writes their names.
    """
    return _drawn(schema, "detach.sql", name=name, triggers=triggers)


def bodies(script: str) -> Mapping[str, str]:
    """The functions that a script makes, by name, with their bodies."""
    return dict(FUNCTION.findall(script))


def trigger_definitions(script: str) -> Mapping[str, str]:
    """The triggers that a script makes, by name, with their definitions."""
    return dict(TRIGGER.findall(script))


def command_of(mapping: AnyMapping) -> str:
    """The command line that declares the mapping."""
    told = {name: value for name, value in mapping.told().items() if name != "holder"}
    options = (f"--{name.replace('_', '-')} {_word(value)}" for name, value in told.items())
    return f"refresher attach {' '.join(options)}"


def _word(value: str) -> str:
    """As a shell reads it. Always on one line, as it also becomes a comment."""
    return quote(" ".join(value.split()))


def _columns(mapping: AnyMapping, table: Table, accounts: Table | None) -> Mapping[str, Any]:
    """What the templates fill in: SQL."""
    if isinstance(mapping, TokenMapping):
        return _of_tokens(mapping, table)
    return _of_videos(mapping, table) | _of_accounts(mapping, table, accounts)


def _of_videos(mapping: VideoMapping, videos: Table) -> dict[str, Any]:
    columns = videos.columns
    video_id, account = columns[mapping.video_id], columns[mapping.account]
    cover = columns[mapping.cover] if mapping.cover else None
    expires = columns[mapping.expires] if mapping.expires else None
    covers = [each for each in (cover, expires) if each]
    told = [f"r.{account.quoted}::text AS key", f"r.{video_id.quoted}::text AS video_id"]
    told += [f"r.{each.quoted}" for each in covers]
    return {
        "table": videos.quoted,
        "where": _condition(mapping.where),
        "carries": mapping.carries,
        "video_id": video_id.quoted,
        "video_id_type": video_id.type,
        "video_id_is_number": video_id.type in {"int8", "numeric"},
        "account": account.quoted,
        "cover": cover.quoted if cover else None,
        "expires": expires.quoted if expires else None,
        # To the second, as URLs say it: columns of less precision would round it up.
        "expires_written": _at_zone("date_trunc('second', f.cover_expires_at)", expires),
        "expires_read": _moment(expires),
        "told_columns": ", ".join(told),
        "changed": _changed(videos, (account, video_id, *covers), mapping.where),
    }


def _of_accounts(mapping: VideoMapping, videos: Table, accounts: Table | None) -> dict[str, Any]:
    if accounts is None:
        return {"join": False, "open_id_type": videos.columns[mapping.account].type}
    key, open_id = accounts.columns[mapping.account_key], accounts.columns[str(mapping.open_id)]
    return {
        "join": True,
        "account_table": accounts.quoted,
        "account_where": _condition(mapping.account_where),
        "account_key": key.quoted,
        "account_key_type": key.type,
        "account_open_id": open_id.quoted,
        "account_changed": _changed(accounts, (key, open_id), mapping.account_where),
        "open_id_type": open_id.type,
    }


def _of_tokens(mapping: TokenMapping, table: Table) -> dict[str, Any]:
    columns, managed = table.columns, mapping.holder == "managed"
    open_id, access_token = columns[mapping.open_id], columns[mapping.access_token]
    refresh_token = columns[mapping.refresh_token] if mapping.refresh_token and managed else None
    expires = _column(table, mapping.access_token_expires)
    consent_ends = _column(table, mapping.refresh_token_expires) if managed else None
    scope = _column(table, mapping.scope)
    held = [each for each in (access_token, expires, refresh_token, consent_ends, scope) if each]
    told = [f"r.{open_id.quoted}::text AS key", *(f"r.{each.quoted}" for each in held)]
    return {
        "table": table.quoted,
        "where": _condition(mapping.where),
        "managed": managed,
        "open_id": open_id.quoted,
        "open_id_type": open_id.type,
        # In the order of our own tables, or the walk would go round in circles.
        "open_id_in_order": f'{open_id.quoted} COLLATE pg_catalog."default"'
        if open_id.collated
        else open_id.quoted,
        "access_token": access_token.quoted,
        "access_token_expires": _moment(expires),
        "refresh_token": f"nullif(r.{refresh_token.quoted}::text, '')"
        if refresh_token
        else NO_TEXT,
        "refresh_token_expires": _moment(consent_ends),
        "scope": f"r.{scope.quoted}::text" if scope else NO_TEXT,
        # What tells one authorization from another.
        "taken_by": (refresh_token or access_token).quoted,
        "told_columns": ", ".join(told),
        "changed": _changed(table, (open_id, *held), mapping.where),
    }


def _changed(table: Table, columns: Sequence[Column], where: str | None) -> Sequence[str] | None:
    """What is true of an updated row that is news; None: its table may have no such trigger.

    Of the columns that the condition may name, the stored bytes are compared: a type such as json
    has no equality.
    """
    named = [
        column
        for name, column in table.columns.items()
        if where and names(where, name) and column not in columns
    ]
    # What a foreign key of the table to itself changes are another statement's rows, in the midst
    # of those of the one around it: then no row may speak for others.
    changed_by_others = any(each.quoted in table.own_keys for each in (*columns, *named))
    if changed_by_others or not table.may_tell_by_row:
        return None
    return [
        *(f"OLD.{each.quoted} IS DISTINCT FROM NEW.{each.quoted}" for each in columns),
        *(f"record_image_ne(ROW(OLD.{each.quoted}), ROW(NEW.{each.quoted}))" for each in named),
    ]


def _column(table: Table, name: str | None) -> Column | None:
    return table.columns[name] if name else None


def _condition(where: str | None) -> str | None:
    return f"({where})" if where else None


def _moment(column: Column | None) -> str:
    """A column of a row, as a point in time."""
    if column is None:
        return "NULL::timestamptz"
    if column.type in WHOLE_NUMBERS:
        return f"to_timestamp(r.{column.quoted})"
    return _at_zone(f"r.{column.quoted}", column)


def _at_zone(expression: str, column: Column | None) -> str:
    if column is None or column.type == "timestamptz":
        return expression
    return f"({expression} AT TIME ZONE '{ZONE}')"


def _literal(text: str) -> str:
    quoted = "'" + text.replace("'", "''") + "'"
    # Of one meaning whatever standard_conforming_strings says.
    return "E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


@cache
def _environment(schema: str) -> Environment:
    """The templates for this schema of ours. What they are given is the application's."""

    def template(name: str) -> str:
        return named(TEMPLATES.joinpath(name).read_text(encoding="utf-8"), schema)

    environment = Environment(
        loader=FunctionLoader(template),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - SQL is no HTML: names are quoted by the server
        keep_trailing_newline=True,
        trim_blocks=False,
    )
    environment.filters["literal"] = _literal
    return environment


def _drawn(schema: str, template: str, **values: object) -> str:
    return finished(_environment(schema).get_template(template).render(values), schema)
