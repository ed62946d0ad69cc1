"""The operator's settings: read once, checked at start, passed in."""

import base64
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from refresher.domain.connection_string import EXPECTED_URL, read_connection_string
from refresher.domain.credentials import AppCredentials
from refresher.domain.due import DuePolicy
from refresher.domain.limits import HIGHEST_LIMIT, YEAR_SECONDS
from refresher.domain.pacing import Pace, lease_seconds
from refresher.domain.schema_name import EXPECTED_NAME, USUAL_SCHEMA, is_schema_name
from refresher.domain.webhooks import Target
from refresher.setting_files import BadSettingFileError, Found, read_env_file, read_secrets

PREFIX: Final = "REFRESHER_"
HTTP_URL: Final = re.compile(
    r"https?://[\w-]+(\.[\w-]+)*(:\d+)?(/[\w./~-]*)?|https?://\[[\da-f:]+\](:\d+)?/?"
)
#: Stricter than Fernet itself, which ignores characters that are not base64.
FERNET_KEY: Final = re.compile(r"[A-Za-z0-9_-]{43}=")
#: It may hold a user, a password and a query: receivers give out such URLs.
WEBHOOK_URL: Final = re.compile(r"https?://(?![/?])[!\"$-~]+")
WEBHOOK_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what all of them begin with
#: The standard's.
WEBHOOK_SECRET_BYTES: Final = range(24, 65)
ENV_FILE: Final = Path(".env")
SECRETS_FOLDER: Final = Path("/run/secrets")
#: Names the folder in which systemd puts a service's credentials.
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"


class SettingsError(Exception):
    """A setting that is missing or wrong; the message is one line and holds no secret."""


def _postgresql_url(value: SecretStr) -> SecretStr:
    read_connection_string(value.get_secret_value(), {})
    return value


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = HTTP_URL.fullmatch(value) and (parts.port or 1) and parts.hostname
    except ValueError:
        usable = None
    if not usable:
        raise ValueError("expected http://host or https://host")
    return value.rstrip("/")


def _listen(value: str) -> str:
    host, _, port = value.rpartition(":")
    with suppress(UnicodeError):  # as the socket would encode it
        if host.encode("idna") and port.isdecimal() and 0 <= int(port) <= LAST_PORT:
            return value
    raise ValueError("expected host:port")


def _schema_name(value: str) -> str:
    if not is_schema_name(value):
        raise ValueError(EXPECTED_NAME)
    return value


def _credential(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().splitlines()) > 1:
        raise ValueError("expected one line")
    return value


def _fernet_keys(value: SecretStr) -> SecretStr:
    if not all(FERNET_KEY.fullmatch(key) for key in split_keys(value)):
        raise ValueError(
            "expected Fernet keys, 32 bytes each in URL-safe base64, separated by commas"
        )
    return value


def _webhook_url(value: SecretStr) -> SecretStr:
    given = value.get_secret_value()
    try:
        parts = urlsplit(given)
        usable = WEBHOOK_URL.fullmatch(given) and (parts.port or 1) and parts.hostname
        (parts.hostname or "").encode("idna")  # as the socket would encode it
    except ValueError:
        usable = None
    if not usable:
        raise ValueError("expected http://host/path or https://host/path, in ASCII")
    return value


def _webhook_secrets(value: SecretStr) -> SecretStr:
    secrets = split_keys(value)
    if not secrets or not all(map(_is_webhook_secret, secrets)):
        raise ValueError(
            "expected whsec_ and 24 to 64 bytes in base64, several such secrets separated by commas"
        )
    return value


def _is_webhook_secret(secret: str) -> bool:
    """Stricter than the library, which drops characters that are not base64."""
    text = secret.removeprefix(WEBHOOK_SECRET_PREFIX)
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        return False
    is_whole = text != secret and base64.b64encode(key).decode() == text
    return is_whole and len(key) in WEBHOOK_SECRET_BYTES


def split_keys(value: SecretStr | None) -> list[str]:
    """The keys of a comma-separated list, in its order."""
    keys = value.get_secret_value().split(",") if value else []
    return [key.strip() for key in keys if key.strip()]


SECRETS: Final = {
    "database_url",
    "token_keys",
    "tiktok_client_key",
    "tiktok_client_secret",
    "webhook_url",
    "webhook_secret",
}
LAST_PORT: Final = 65535
Limit = Annotated[int, Field(ge=0, le=HIGHEST_LIMIT)]
Seconds = Annotated[float, Field(gt=0, le=YEAR_SECONDS)]
SecondsOrZero = Annotated[float, Field(ge=0, le=YEAR_SECONDS)]

#: Our words by the type of pydantic's error: its own speak of inputs and parsing.
EXPECTED: Final = {
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "greater_than": "more than {gt:.10g}",
    "greater_than_equal": "{ge:.10g} or more",
    "less_than_equal": "{le:.10g} or less",
    "bool_parsing": "true or false",
    "literal_error": "{expected}",
    "string_unicode": "text in UTF-8",
}


class Settings(BaseSettings):
    """Environment variables `REFRESHER_*`, then `.env`, then files of secrets.

    The files lie in the folder of systemd's credentials or in /run/secrets.
    `read_settings` makes one.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    database_url: Annotated[SecretStr, AfterValidator(_postgresql_url)]
    tiktok_base_url: Annotated[str, AfterValidator(_http_url)] = "https://open.tiktokapis.com"
    tiktok_client_key: Annotated[SecretStr, AfterValidator(_credential)] | None = None
    tiktok_client_secret: Annotated[SecretStr, AfterValidator(_credential)] | None = None
    token_management: Literal["managed", "external"] = "managed"  # noqa: S105 - a mode
    token_keys: Annotated[SecretStr, AfterValidator(_fernet_keys)] | None = None
    rate_limit_per_token: Limit = 600
    rate_limit_per_app: Limit = 0
    lead_seconds: SecondsOrZero = 3600
    spread_seconds: SecondsOrZero = 1800
    fallback_ttl_seconds: Seconds = 21600
    poll_seconds: Seconds = 5
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 64
    request_timeout_seconds: Seconds = 10
    lease_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60
    shutdown_grace_seconds: SecondsOrZero = 20
    missing_limit: Annotated[int, Field(ge=1, le=1000)] = 5
    notify_covers: bool = False
    http_listen: Annotated[str, AfterValidator(_listen)] | None = None
    webhook_url: Annotated[SecretStr, AfterValidator(_webhook_url)] | None = None
    webhook_secret: Annotated[SecretStr, AfterValidator(_webhook_secrets)] | None = None
    log_format: Literal["json", "console", "auto"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    probes_per_hour: Annotated[int, Field(ge=0, le=3600)] = 6
    #: Not `schema`, which the base class has.
    schema_name: Annotated[
        str, AfterValidator(_schema_name), Field(validation_alias="REFRESHER_SCHEMA")
    ] = USUAL_SCHEMA

    #: Names with our prefix that no setting has, with the place in a file.
    _ignored: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="before")
    @classmethod
    def _empty_counts_as_unset(cls, values: dict[str, object]) -> dict[str, object]:
        return {name: value for name, value in values.items() if value != ""}

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> "Settings":
        if (self.tiktok_client_key is None) != (self.tiktok_client_secret is None):
            raise ValueError(
                f"{PREFIX}TIKTOK_CLIENT_KEY, {PREFIX}TIKTOK_CLIENT_SECRET: expected both or neither"
                " of the two"
            )
        return self

    @model_validator(mode="after")
    def _webhooks_are_signed(self) -> "Settings":
        if self.webhook_url and not self.webhook_secret:
            raise ValueError(
                f"{PREFIX}WEBHOOK_SECRET is not set: expected whsec_ and 24 to 64 bytes in base64,"
                f" as {PREFIX}WEBHOOK_URL is set"
            )
        return self

    @property
    def pace(self) -> Pace:
        """How fast requests may be sent, for the daemon and for the simulator alike."""
        return Pace(
            limit_per_token=self.rate_limit_per_token,
            limit_per_app=self.rate_limit_per_app,
            lease_seconds=lease_seconds(self.lease_seconds, self.request_timeout_seconds),
        )

    @property
    def due_policy(self) -> DuePolicy:
        """When a cover is asked for again."""
        return DuePolicy(
            lead=timedelta(seconds=self.lead_seconds),
            spread=timedelta(seconds=self.spread_seconds),
            fallback_ttl=timedelta(seconds=self.fallback_ttl_seconds),
            missing_limit=self.missing_limit,
        )

    @property
    def app_credentials(self) -> AppCredentials | None:
        """Client key and secret; None if they are not set."""
        key, secret = self.tiktok_client_key, self.tiktok_client_secret
        if key is None or secret is None:
            return None
        return AppCredentials(key.get_secret_value(), secret.get_secret_value())

    @property
    def webhook_target(self) -> Target | None:
        """Where webhooks go; None: nowhere."""
        if self.webhook_url is None:
            return None
        return Target(self.webhook_url.get_secret_value(), split_keys(self.webhook_secret))

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names with our prefix that no setting has, in any of the sources."""
        return self._ignored

    @property
    def renews_tokens(self) -> bool:
        """Whether we are to renew access tokens, and have the app credentials for it."""
        return self._is_managed and self.tiktok_client_key is not None

    @property
    def lacks_credentials(self) -> bool:
        """Whether we are to renew access tokens, and have no app credentials for it."""
        return self._is_managed and self.tiktok_client_key is None

    @property
    def _is_managed(self) -> bool:
        return self.token_management == "managed"  # noqa: S105 - a mode


def _key(field: str) -> str:
    """The name by which the class takes the value of a field."""
    return str(Settings.model_fields[field].validation_alias or field)


#: Of each variable, the name by which the class takes its value.
VARIABLES: Final = {
    _key(name) if _key(name) != name else PREFIX + name.upper(): _key(name)
    for name in Settings.model_fields
}


def read_settings(**overrides: object) -> Settings:
    """The settings in force; `overrides` come first.

    Raises `SettingsError`, which names the variable, what was expected and what was given.
    """
    files = _read_files()
    given: dict[str, Any] = {}
    for found in reversed(files):  # the last one wins
        given |= _fields(found)
    given |= EnvSettingsSource(Settings)()
    given |= {_key(name): value for name, value in overrides.items()}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(map(_complaint, error.errors()))) from None
    settings._ignored = _unknown(*files)  # noqa: SLF001 - nobody else may set it
    return settings


def unknown_names() -> tuple[str, ...]:
    """What `Settings.ignored` would be, also where another setting is missing or wrong.

    If a file cannot be read, those of the environment alone.
    """
    try:
        return _unknown(*_read_files())
    except SettingsError:
        return _unknown()


def _read_files() -> list[Found]:
    """`.env` and the folders of secrets, in the order in which they count.

    Raises `SettingsError`.
    """
    credentials = os.environ.get(CREDENTIALS_VARIABLE)
    folders = [*([Path(credentials)] if credentials else []), SECRETS_FOLDER]
    try:
        return [
            read_env_file(ENV_FILE, _is_known, PREFIX),
            *(read_secrets(folder, _is_known, PREFIX) for folder in folders),
        ]
    except BadSettingFileError as error:
        raise SettingsError(str(error)) from None


def _unknown(*files: Found) -> tuple[str, ...]:
    return (*unknown_variables(os.environ), *(name for found in files for name in found.unknown))


def _fields(found: Found) -> dict[str, Any]:
    """Values by field, without empty ones."""
    return {VARIABLES[name.upper()]: value for name, value in found.values.items() if value}


def _is_known(variable: str) -> bool:
    return variable.upper() in VARIABLES


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """Variables with our prefix that no setting reads: mistyped, or of another version."""
    return sorted(
        name for name in environment if name.upper().startswith(PREFIX) and not _is_known(name)
    )


def _complaint(item: Mapping[str, Any]) -> str:
    field = str(item["loc"][0]) if item["loc"] else None
    if field is None:
        return expected(item)  # of several settings, which it names
    name = field if field in VARIABLES else PREFIX + field.upper()
    if item["type"] == "missing":
        return f"{name} is not set: {EXPECTED_URL}"
    if field == "database_url" and item["type"] == "value_error":
        return f"{name}: {expected(item)}"  # the error says what is wrong
    given = "the value given" if field in SECRETS else repr(item["input"])
    return f"{name}: {expected(item)}, not {given}"


def expected(item: Mapping[str, Any]) -> str:
    """What was expected, by one of pydantic's errors."""
    if words := EXPECTED.get(item["type"]):
        return f"expected {words.format(**item.get('ctx', {}))}"
    return str(item["msg"]).removeprefix("Value error, ")
