"""The SQL that attaches and detaches a table, made of templates: one file to be reviewed."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from shlex import quote
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from refresher.domain.attachment import Table, VideoMapping, name_of, triggers_of

#: What an application's columns without a time zone are taken for.
ZONE: Final = "UTC"
FUNCTION: Final = re.compile(
    r"CREATE OR REPLACE FUNCTION (refresher\.\w+)\(.*?\$refresher\$(.*?)\$refresher\$", re.DOTALL
)
#: The functions of an attachment that are called by name.
CALLABLES: Final = ("apply", "carry")


def attach_script(
    mapping: VideoMapping, videos: Table, accounts: Table | None, version: str
) -> str:
    """Attaches the table; idempotent, for one transaction. The mapping has no obstacles."""
    name = name_of(videos)
    return _drawn(
        "videos.sql",
        name=name,
        version=version,
        command=command_of(mapping),
        mapping=json.dumps(mapping.told(), ensure_ascii=False),
        carries=mapping.carries,
        where=f"({mapping.where})" if mapping.where else None,
        callables=[f"attached_{name}_{each}" for each in CALLABLES],
        **_of_videos(mapping, videos),
        **_of_accounts(mapping, videos, accounts),
    )


def bodies(script: str) -> Mapping[str, str]:
    """The functions that a script makes, by name, with their bodies."""
    return dict(FUNCTION.findall(script))


def count_script(mapping: VideoMapping, videos: Table, accounts: Table | None) -> str:
    """Counts what the table holds, in one row."""
    return _drawn(
        "count.sql",
        where=f"({mapping.where})" if mapping.where else None,
        **_of_videos(mapping, videos),
        **_of_accounts(mapping, videos, accounts),
    )


def detach_script(name: str, tables: Sequence[str], *, last: bool) -> str:
    """Takes back what `attach_script` made, but for the videos. `last`: no other one carries.

    `tables` are the videos' and, where there is one, the accounts', as SQL writes their names.
    """
    on_videos = triggers_of(name, joined=False)
    on_accounts = triggers_of(name, joined=True)[len(on_videos) :]
    dropped = zip((on_videos, on_accounts), tables, strict=False)
    return _drawn(
        "detach.sql",
        name=name,
        last=last,
        triggers=[(trigger, table) for triggers, table in dropped for trigger in triggers],
    )


def command_of(mapping: VideoMapping) -> str:
    """The command line that declares the mapping."""
    options = (
        f"--{name.replace('_', '-')} {_word(value)}" for name, value in mapping.told().items()
    )
    return f"refresher attach {' '.join(options)}"


def _word(value: str) -> str:
    """As a shell reads it. Always on one line, as it also becomes a comment."""
    return quote(" ".join(value.split()))


def _of_videos(mapping: VideoMapping, videos: Table) -> dict[str, Any]:
    columns = videos.columns
    video_id, account = columns[mapping.video_id], columns[mapping.account]
    cover = columns[mapping.cover] if mapping.cover else None
    expires = columns[mapping.expires] if mapping.expires else None
    told = [f"r.{account.quoted}::text AS account", f"r.{video_id.quoted}::text AS video_id"]
    told += [f"r.{each.quoted}" for each in (cover, expires) if each]
    return {
        "table": videos.quoted,
        "video_id": video_id.quoted,
        "video_id_type": video_id.type,
        "video_id_is_number": video_id.type in {"int8", "numeric"},
        "account": account.quoted,
        "cover": cover.quoted if cover else None,
        "expires": expires.quoted if expires else None,
        # To the second, as URLs say it: columns of less precision would round it up.
        "expires_written": _at_zone("date_trunc('second', f.cover_expires_at)", expires),
        "expires_read": _at_zone(f"r.{expires.quoted}", expires) if expires else None,
        "told_columns": ", ".join(told),
    }


def _at_zone(expression: str, column: Any) -> str:
    if column is None or column.type == "timestamptz":
        return expression
    return f"({expression} AT TIME ZONE '{ZONE}')"


def _of_accounts(mapping: VideoMapping, videos: Table, accounts: Table | None) -> dict[str, Any]:
    if accounts is None:
        return {"join": False, "open_id_type": videos.columns[mapping.account].type}
    key, open_id = accounts.columns[mapping.account_key], accounts.columns[str(mapping.open_id)]
    return {
        "join": True,
        "account_table": accounts.quoted,
        "account_key": key.quoted,
        "account_key_type": key.type,
        "account_open_id": open_id.quoted,
        "open_id_type": open_id.type,
    }


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("refresher.postgres.attaching"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - SQL is no HTML: names are quoted by the server
        keep_trailing_newline=True,
        trim_blocks=False,
    )
    environment.filters["literal"] = _literal
    return environment


def _drawn(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)
