"""What a request asks for, and how it breaks the contract."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from aiohttp import hdrs, web

from refresher.emulator.grants import Grant
from refresher.tiktok.wire import MAX_VIDEO_IDS, QUERY_PATH, VIDEO_FIELDS


@dataclass(frozen=True, slots=True)
class Query:
    """One query request, as far as it could be read."""

    #: Whose token came with it; None for a token that nobody has.
    open_id: str | None
    method: str
    #: The fields asked for.
    fields: tuple[str, ...]
    video_ids: tuple[str, ...]
    #: What in the request broke the endpoint's contract.
    breach: str | None


class _Filters(msgspec.Struct, forbid_unknown_fields=True):
    video_ids: list[str]


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    filters: _Filters


_BODY_DECODER: Final = msgspec.json.Decoder(_Body)


def read_fields(values: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """The fields asked for and the breach, if any, from every `fields` in the query string.

    Not documented: what an unknown field or a second `fields` is answered with.
    """
    if len(values) != 1 or not values[0]:
        return (), f"expected one non-empty fields parameter, not {len(values)}"
    fields = tuple(values[0].split(","))
    unknown = next((name for name in fields if name not in VIDEO_FIELDS), None)
    return fields, None if unknown is None else f"there is no field {unknown!r}"


def read_body(body: bytes) -> tuple[tuple[str, ...], str | None]:
    """The video IDs asked for and the breach, if any.

    Not documented: that a wrong number of IDs, a duplicate or a foreign key is refused.
    """
    try:
        # Interned, because the record would otherwise hold a copy of an ID for every request.
        ids = tuple(map(sys.intern, _BODY_DECODER.decode(body).filters.video_ids))
    except (msgspec.DecodeError, UnicodeError) as error:
        return (), f"the body is not what is documented: {error}"
    if not 1 <= len(ids) <= MAX_VIDEO_IDS:
        return ids, f"expected 1 to {MAX_VIDEO_IDS} video_ids, not {len(ids)}"
    if len(set(ids)) < len(ids):
        return ids, "video_ids holds duplicates"
    return ids, None


def head_breach(request: web.Request) -> str | None:
    if request.path != QUERY_PATH:
        return f"the path is {request.path}, not {QUERY_PATH}"
    if request.method != hdrs.METH_POST:
        return f"the method is {request.method}, not POST"
    if not bearer(request):
        return "there is no Authorization header with a Bearer token"
    if request.content_type != "application/json":
        return f"the Content-Type is {request.content_type}, not application/json"
    return None


def bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token if scheme == "Bearer" else ""


def read_query(request: web.Request, body: bytes, grant: Grant | None) -> Query:
    fields, fields_breach = read_fields(request.query.getall("fields", ()))
    video_ids, body_breach = read_body(body)
    return Query(
        open_id=grant.account.open_id if grant else None,
        method=request.method,
        fields=fields,
        video_ids=video_ids,
        breach=head_breach(request) or fields_breach or body_breach,
    )


async def read_form(request: web.Request) -> dict[str, str]:
    """Empty where the request is no form."""
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    return {name: str(value) for name, value in (await request.post()).items()}
