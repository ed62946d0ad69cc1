"""What the control endpoint takes, and the one line for what it does not."""

import re
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from refresher.emulator.options import DEFAULT_SCOPE

LONGEST_VALUE: Final = 100
#: How a complaint of msgspec ends that knows the place.
PLACE: Final = re.compile(r"(.*) - at `\$\.?(.+)`", re.DOTALL)

Kind = TypeVar("Kind")
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Token = Annotated[str, Meta(pattern=r"^[!-~]+\Z")]
Life = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]


class Refused(Exception):
    """The request cannot be carried out; the message is the whole answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NewAccount(msgspec.Struct, forbid_unknown_fields=True):
    """A user who authorizes the app. Tokens that are left out are made up."""

    access_token: Token | UnsetType = UNSET
    #: Lives until revoked without it.
    access_token_expires_in: Life | None = None
    #: Null: there is none.
    refresh_token: Token | UnsetType | None = UNSET
    refresh_token_expires_in: Life | None = None
    scope: str = DEFAULT_SCOPE
    #: In addition to those that a known account has.
    videos: list[Name] = []


class NewRefusal(msgspec.Struct, forbid_unknown_fields=True):
    code: Name
    http_status: Annotated[int, Meta(ge=200, le=599)] = 403


class AccountChange(msgspec.Struct, forbid_unknown_fields=True):
    """What becomes of a user. Only what is named changes."""

    access_token: Literal["revoked"] | UnsetType = UNSET
    refresh_token: Literal["revoked"] | UnsetType = UNSET
    #: Both.
    consent: Literal["revoked"] | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    #: Null ends it.
    refusal: NewRefusal | UnsetType | None = UNSET


def checked(kind: type[Kind], document: object) -> Kind:
    """The document as that kind; raises `Refused` with one line that names the value."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise Refused(422, complaint(str(error), document)) from None


def complaint(said: str, document: object) -> str:
    """What msgspec says, with the value beside the place."""
    match = PLACE.fullmatch(said)
    if match is None:
        return said
    what, place = match.groups()
    value: Any = document
    for step in re.findall(r"\w+", place):
        value = value[int(step)] if isinstance(value, list) else value[step]
    return f"{place}: {what[:1].lower()}{what[1:]}: {shown(value)}"


def shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
