"""The commands: the only place that prints or picks exit codes."""

import asyncio
import json
import re
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

import typer
import uvloop
from pydantic import ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from refresher import app as composition
from refresher import logs
from refresher.app import chunk_fill, due_policy
from refresher.csv_files import (
    ACCOUNT_COLUMNS,
    ACCOUNT_NEEDS,
    VIDEO_COLUMNS,
    VIDEO_NEEDS,
    BadFileError,
    Doubts,
    VideoRow,
    count_lines,
    named,
    read_accounts,
    read_videos,
)
from refresher.domain.due import account_share, due_after_refresh
from refresher.domain.errors import DatabaseUnavailable, TokenUnreadable
from refresher.domain.expiry import LONGEST_LIFE_SECONDS
from refresher.domain.fleet import Fleet
from refresher.domain.model import OpenId
from refresher.domain.standing import standing_line
from refresher.events import DAEMON_FAILED
from refresher.postgres import imports, status
from refresher.postgres.database import (
    ROWS_REFUSED,
    SCHEMA_REVISION,
    Pool,
    SchemaNotMigratedError,
    check_migrated,
    connected,
    first_line,
    ignored_parameters,
)
from refresher.postgres.fleet import read_fleet
from refresher.postgres.role import check_role
from refresher.postgres.sealing import Sealer, rotate_all
from refresher.settings import (
    HIGHEST_LIMIT,
    YEAR_SECONDS,
    Settings,
    SettingsError,
    expected,
    read_settings,
    split_keys,
)
from refresher.simulation import report
from refresher.simulation.fleet import sizes, steady_fleet
from refresher.simulation.forecast import Forecast, forecast
from refresher.simulation.plan import DAY_SECONDS, SHORTEST_TTL, Plan, Ttl

T = TypeVar("T")

EXIT_INCOMPLETE: Final = 1
EXIT_USAGE: Final = 2

#: What the operator can put right: one line, no traceback.
OPERATOR_ERRORS: Final = (
    SettingsError,
    BadFileError,
    DatabaseUnavailable,
    SchemaNotMigratedError,
    TokenUnreadable,
    OSError,
)

#: A complaint names the variable of a secret, or its file: what follows is a sentence of ours or of
#: the operating system, not its value.
COMPLAINT: Final = re.compile(r"(\b(?i:refresher)_[A-Za-z_]+: )(?=expected |[A-Z][a-z/]+ [a-z])")

#: An open_id may begin with a hyphen, as an option does.
TAKES_HYPHENS: Final = {"ignore_unknown_options": True}

DEMO_WORDS: Final = """\
A PostgreSQL of its own, an emulated TikTok whose covers live 60 seconds, and the daemon, with 20
accounts of 60 videos. A few videos are missing upstream and the token of sample-account-20 is dead,
both on purpose. The first covers come at once; from 40 seconds on they are kept alive. Ctrl-C ends
it.
"""

app = typer.Typer(
    name="refresher",
    help="Keeps every stored TikTok cover alive.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
accounts = typer.Typer(help="The accounts whose videos are kept alive.")
videos = typer.Typer(help="The videos whose covers are kept alive.")
tokens = typer.Typer(help="The tokens in the database.")
app.add_typer(accounts, name="accounts")
app.add_typer(videos, name="videos")
app.add_typer(tokens, name="tokens")


def main() -> None:
    """The console script."""
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:
        _fail(_misuse(error))
    except BadFileError as error:
        for complaint in error.complaints:
            _say(complaint)
        sys.exit(EXIT_USAGE)
    except DatabaseUnavailable as error:
        _fail(f"database: {error}")
    except OPERATOR_ERRORS as error:
        _fail(str(error))
    except ROWS_REFUSED as error:
        reason = first_line(error)
        _fail(f"database: {reason} (a trigger or constraint of yours on schema refresher?)")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        # Its text may quote a row of the database, so it passes the redaction; no traceback does.
        _say(f"unexpected {type(error).__name__}: {error}")
        sys.exit(EXIT_INCOMPLETE)
    sys.exit(code)


def _misuse(error: typer.TyperException) -> str:
    """Of a bad value the option and what was expected; of all else what Typer says."""
    cause = error.__cause__
    if (
        isinstance(error, typer.BadParameter)
        and isinstance(cause, ValidationError)
        and error.param is not None
    ):
        found = cause.errors()[0]
        return f"{error.param.opts[0]}: {expected(found)}, not {found['input']!r}"
    return f"{error.format_message().strip().rstrip('.')}; see refresher --help"


def _fail(message: str) -> NoReturn:
    _say(message)
    sys.exit(EXIT_USAGE)


def _say(message: str) -> None:
    names_and_texts = COMPLAINT.split(message)
    names_and_texts[::2] = map(logs.redacted_text, names_and_texts[::2])
    print(f"refresher: {' '.join(''.join(names_and_texts).split())}", file=sys.stderr)


@app.command()
def run() -> None:
    """The daemon. SIGTERM or SIGINT: finish what is in flight, give leases back, exit."""
    settings = _settings()
    logs.configure(log_format=settings.log_format, level=settings.log_level)
    try:
        uvloop.run(composition.run(settings))
    except OPERATOR_ERRORS:
        raise
    except Exception as error:
        logs.emit(DAEMON_FAILED, exc_info=error)
        raise typer.Exit(EXIT_INCOMPLETE) from None


@app.command()
def once() -> None:
    """Everything due now, then exit: 0 when every due video was answered, else 1."""
    settings = _settings()
    _say_ignored(_database_url(settings))
    logs.configure(log_format=settings.log_format, level="warning")
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("due videos", total=None)

        def on_progress(answered: int, due: int) -> None:
            progress.update(task, completed=answered, total=due)

        left = uvloop.run(composition.once(settings, on_progress))
    if left:
        _say(
            f"{left} due videos could not be answered: their accounts are parked, in back-off, "
            "stopped by a lock or sealed with an unknown key, see refresher accounts list and the "
            "log"
        )
        raise typer.Exit(EXIT_INCOMPLETE)


@app.command()
def migrate(
    video_partitions: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=1024,
            help="Also partition videos by the hash of open_id: for good, and with nobody reading"
            " or writing accounts and videos meanwhile.",
        ),
    ] = None,
) -> None:
    """Bring the database to the current schema; safe to run from several places at once."""
    from refresher.postgres.migrate import migrate as migrate_database
    from refresher.postgres.partitioning import PartitioningRefusedError, partition_videos

    database_url = _database_url(_settings())
    _say_ignored(database_url)
    migrated = uvloop.run(migrate_database(database_url))
    if video_partitions is None:
        print(f"migrated to revision {SCHEMA_REVISION}" if migrated else "nothing to migrate")
        return
    try:
        rows = uvloop.run(partition_videos(database_url, video_partitions))
    except PartitioningRefusedError as error:
        _fail(str(error))
    if rows is None:
        print(f"already in {video_partitions} partitions")
    else:
        print(f"{rows:,} videos in {video_partitions} partitions")


@app.command()
def demo(
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Stop by itself after so many seconds.")
    ] = None,
) -> None:
    """Embedded PostgreSQL, emulator, sample data and the daemon; nothing to configure."""
    from refresher.demo import run_demo

    print(DEMO_WORDS, flush=True)
    logs.configure(log_format="console", level="info")
    try:
        summary, tally = uvloop.run(run_demo(seconds))
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is missing: install cover-refresher[demo]")
    table = Table("videos", "valid", "expired", "missing", "requests", "chunk fill", "throttled")
    table.add_row(
        f"{summary.videos:,}",
        f"{summary.valid:,}",
        f"{summary.expired:,}",
        f"{summary.missing:,}",
        f"{tally.requests:,}",
        f"{chunk_fill(tally) or 0:.1%}",
        f"{tally.throttled:,}",
    )
    Console().print(table)


@app.command()
def emulator(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8090,
    accounts_file: Annotated[
        Path | None, typer.Option("--accounts", help="CSV as for accounts import; else samples.")
    ] = None,
    videos_file: Annotated[
        Path | None, typer.Option("--videos", help="CSV as for videos import; else samples.")
    ] = None,
    cover_ttl: Annotated[
        str, typer.Option(help="Seconds a cover lives, or hourly: to the full hour + 24 h.")
    ] = "21600",
    access_token_ttl: Annotated[int, typer.Option(min=1, help="Seconds.")] = 7200,
    refresh_token_rotation: Annotated[
        str, typer.Option(help="strict: the old refresh token dies at once; lenient: it lives on.")
    ] = "strict",  # noqa: S107 - a mode, not a password
    old_access_tokens: Annotated[
        str, typer.Option(help="live: until they expire; die: when the pair is renewed.")
    ] = "live",
    rate_limit_per_token: Annotated[int, typer.Option(min=0, help="In any 60 s; 0: none.")] = 600,
    rate_limit_per_app: Annotated[int, typer.Option(min=0, help="In any 60 s; 0: none.")] = 0,
    retry_after: Annotated[
        int | None, typer.Option(min=0, help="Seconds told with a 429; else not told.")
    ] = None,
    latency: Annotated[float, typer.Option(min=0, help="Seconds before each answer.")] = 0,
    slow_share: Annotated[float, typer.Option(min=0, max=1, help="Share answered late.")] = 0,
    slow_seconds: Annotated[float, typer.Option(min=0, help="How much later.")] = 5,
    throttled_share: Annotated[float, typer.Option(min=0, max=1, help="Share of 429.")] = 0,
    failed_share: Annotated[float, typer.Option(min=0, max=1, help="Share of 5xx.")] = 0,
    timeout_share: Annotated[float, typer.Option(min=0, max=1, help="Share never answered.")] = 0,
    malformed_share: Annotated[float, typer.Option(min=0, max=1, help="Share of bad bodies.")] = 0,
    token_failed_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of token requests: errors, nothing renewed.")
    ] = 0,
    token_timeout_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of token requests: renewed, never answered.")
    ] = 0,
    token_cut_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of token requests: renewed, connection cut.")
    ] = 0,
    token_malformed_share: Annotated[
        float, typer.Option(min=0, max=1, help="Of token requests: renewed, half a body.")
    ] = 0,
    missing_share: Annotated[float, typer.Option(min=0, max=1, help="Share of IDs unknown.")] = 0,
    client_key: Annotated[
        str | None, typer.Option(help="The app's key; without one any is accepted.")
    ] = None,
    client_secret: Annotated[
        str | None, typer.Option(help="The app's secret; without one any is accepted.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the faults.")] = 0,
) -> None:
    """Serve the TikTok emulator: the query and token endpoints, and the covers themselves."""
    from refresher.demo import SAMPLE_ACCOUNTS, SAMPLE_VIDEOS, populate, serve_emulator
    from refresher.emulator.options import EmulatorOptions
    from refresher.emulator.server import Emulator

    try:
        options = EmulatorOptions(
            cover_ttl="hourly" if cover_ttl == "hourly" else _whole("--cover-ttl", cover_ttl),
            access_token_ttl_seconds=access_token_ttl,
            refresh_token_rotation=_rotation(refresh_token_rotation),
            old_access_tokens=_fate(old_access_tokens),
            rate_limit_per_token=rate_limit_per_token,
            rate_limit_per_app=rate_limit_per_app,
            retry_after_seconds=retry_after,
            latency_seconds=latency,
            slow_share=slow_share,
            slow_seconds=slow_seconds,
            throttled_share=throttled_share,
            failed_share=failed_share,
            timeout_share=timeout_share,
            malformed_share=malformed_share,
            token_failed_share=token_failed_share,
            token_timeout_share=token_timeout_share,
            token_cut_share=token_cut_share,
            token_malformed_share=token_malformed_share,
            missing_share=missing_share,
            client_key=client_key,
            client_secret=client_secret,
            seed=seed,
        )
    except ValueError as error:
        # Each option is within its own bounds: these are shares that come to more than all.
        _fail(f"--...-share: {error}")
    world = Emulator(options)
    populate(world, accounts_file or SAMPLE_ACCOUNTS, videos_file or SAMPLE_VIDEOS)
    serving = serve_emulator(world, host, port, on_start=lambda url: print(url, flush=True))
    _serve(serving, host, port)


def _serve(serving: Coroutine[Any, Any, None], host: str, port: int) -> None:
    try:
        uvloop.run(serving)
    except UnicodeError:
        _fail(f"--host: expected a name or an address, not {host!r}")
    except OSError as error:
        _fail(f"--host, --port: {host}:{port}: {error.strerror}")


@app.command()
def simulate(
    videos_made: Annotated[
        int | None, typer.Option("--videos", min=1, help="Of a fleet that is made up.")
    ] = None,
    accounts_made: Annotated[
        int | None, typer.Option("--accounts", min=1, help="Of very unequal size.")
    ] = None,
    from_database: Annotated[
        bool, typer.Option("--from-database", help="The fleet as it is stored.")
    ] = False,
    ttl: Annotated[
        str, typer.Option(help="Seconds a cover lives, or hourly: to the full hour + 24 h.")
    ] = "hourly",
    days: Annotated[float, typer.Option(min=0.001, max=366)] = 7,
    limit: Annotated[
        int | None,
        typer.Option(min=0, max=HIGHEST_LIMIT, help="Per token in any 60 s, 0: none; else as set."),
    ] = None,
    app_limit: Annotated[
        int | None,
        typer.Option(min=0, max=HIGHEST_LIMIT, help="For all tokens together; else as set."),
    ] = None,
    lead: Annotated[
        float | None, typer.Option(min=0, max=YEAR_SECONDS, help="Seconds; else as set.")
    ] = None,
    spread: Annotated[
        float | None, typer.Option(min=0, max=YEAR_SECONDS, help="Seconds; else as set.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the fleet that is made up.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw it, too; extra plot.")
    ] = None,
) -> None:
    """How many covers a quota keeps alive: the daemon's decisions under a virtual clock."""
    fleet_of = _fleet_source(videos_made, accounts_made, seed, stored=from_database)
    draw = _drawing(plot)
    settings = _settings_to_simulate(
        stored=from_database,
        rate_limit_per_token=limit,
        rate_limit_per_app=app_limit,
        lead_seconds=lead,
        spread_seconds=spread,
    )
    plan = _plan(settings, ttl, days)
    with Console(stderr=True).status("simulating"):
        told = forecast(fleet_of(settings, plan), plan)
    draw(told, plan)
    if as_json:
        print(json.dumps(report.facts(told, plan, None if from_database else seed), indent=2))
        return
    lines = list(report.lines(told, plan))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print(f"{name:{width}}  {text}")


def _fleet_source(
    videos_made: int | None, accounts_made: int | None, seed: int, *, stored: bool
) -> Callable[[Settings, Plan], Fleet]:
    if stored and videos_made is accounts_made is None:
        return _stored_fleet
    if stored or videos_made is None or accounts_made is None:
        _fail("expected --videos and --accounts, or --from-database alone")

    def made(_: Settings, plan: Plan) -> Fleet:
        try:
            counts = sizes(videos_made, accounts_made)
        except ValueError as error:
            _fail(f"--videos: {error}")
        return steady_fleet(counts, plan, seed)

    return made


def _stored_fleet(settings: Settings, _: Plan) -> Fleet:
    fleet = _with_database(settings, read_fleet)
    if not fleet.videos:
        _fail("no active account has a video: nothing to simulate")
    return fleet


def _drawing(file: Path | None) -> Callable[[Forecast, Plan], None]:
    """What draws into the file; what is wrong with it is found before the long work."""
    if file is None:
        return lambda _forecast, _plan: None
    if file.suffix != ".png" or file.is_dir() or not file.parent.is_dir():
        _fail(f"--plot: expected FILE.png in a folder that exists, not {str(file)!r}")
    try:
        from refresher.simulation.plot import draw
    except ModuleNotFoundError:
        _fail("--plot: matplotlib is missing: pip install '.[plot]'")
    return lambda told, plan: draw(told, plan, file)


def _settings_to_simulate(*, stored: bool, **given: float | None) -> Settings:
    overrides: dict[str, object] = {
        name: value for name, value in given.items() if value is not None
    }
    if not stored:
        # Only the daemon needs one: nothing connects to it.
        overrides["database_url"] = "postgresql:///"
    return read_settings(**overrides)


def _plan(settings: Settings, ttl: str, days: float) -> Plan:
    lives: Ttl = "hourly" if ttl == "hourly" else _whole("--ttl", ttl, SHORTEST_TTL)
    return Plan(
        policy=due_policy(settings),
        ttl=lives,
        seconds=days * DAY_SECONDS,
        limit_per_token=settings.rate_limit_per_token,
        limit_per_app=settings.rate_limit_per_app,
        poll_seconds=settings.poll_seconds,
        chunk_budget=2 * settings.concurrency,
    )


def _whole(option: str, value: str, least: int = 1) -> int:
    most = int(LONGEST_LIFE_SECONDS)
    if not value.isdecimal() or not least <= int(value) <= most:
        _fail(f"{option}: expected hourly or seconds, {least} to {most}, not {value!r}")
    return int(value)


def _rotation(value: str) -> Literal["strict", "lenient"]:
    if value not in {"strict", "lenient"}:
        _fail(f"--refresh-token-rotation: expected strict or lenient, not {value!r}")
    return "strict" if value == "strict" else "lenient"


def _fate(value: str) -> Literal["live", "die"]:
    if value not in {"live", "die"}:
        _fail(f"--old-access-tokens: expected live or die, not {value!r}")
    return "live" if value == "live" else "die"


@app.command("status")
def show_status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Freshness, backlog, accounts by state, quota use, and who holds leases just now."""
    from refresher.postgres.partitioning import count_partitions

    settings = _settings()

    async def read(pool: Pool) -> dict[str, Any]:
        summary = await status.read_summary(pool)
        quota = await status.read_quota(pool)
        partitions = await count_partitions(pool)
        return {
            **asdict(summary),
            "isolated_accounts": await status.count_isolated(pool),
            "quota": {
                "since": quota.since.isoformat(),
                "requests": quota.requests,
                "busiest_account_requests": quota.busiest,
                "limit_per_account_and_minute": settings.rate_limit_per_token,
            },
            "replicas": dict(await status.read_replicas(pool)),
            **({} if partitions is None else {"video_partitions": partitions}),
        }

    facts = _with_database(settings, read)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        _print_facts(facts)


def _print_facts(facts: dict[str, Any]) -> None:
    quota, reachable = facts["quota"], facts["valid"] + facts["expired"] + facts["uncovered"]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("freshness", f"{facts['valid'] / reachable:.2%}" if reachable else "no covers")
    for name in ("videos", "valid", "expired", "uncovered", "missing", "unreachable", "due"):
        table.add_row(name, f"{facts[name]:,}")
    table.add_row("oldest overdue", f"{facts['oldest_overdue_seconds']:,} s")
    for state, count in facts["accounts"].items():
        table.add_row(f"accounts {state}", f"{count:,}")
    table.add_row("accounts isolated", f"{facts['isolated_accounts']:,}")
    table.add_row(
        "quota",
        f"{quota['requests']:,} requests since {quota['since']}, "
        f"{quota['busiest_account_requests']:,} by the busiest account",
    )
    for replica, leases in (facts["replicas"] or {"": 0}).items():
        table.add_row("leases now", f"{leases:,} {replica}")
    if "video_partitions" in facts:
        table.add_row("video partitions", f"{facts['video_partitions']:,}")
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def _file(columns: Sequence[str], needed: Sequence[str]) -> Any:
    optional = ", ".join(column for column in columns if column not in needed)
    return typer.Argument(
        metavar="FILE",
        help=f"CSV with the columns {', '.join(needed)} and, where they are known, {optional};"
        " - reads standard input.",
    )


DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check all of it, say what would be done, write nothing.")
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse what is only warned of: other columns, IDs that look rounded."
    ),
]


def _doubts(*, strict: bool) -> Doubts:
    return Doubts(strict, lambda doubt: _say(f"warning: {doubt}"))


@accounts.command("import")
def import_accounts(
    file: Annotated[Path, _file(ACCOUNT_COLUMNS, ACCOUNT_NEEDS)],
    dry_run: DryRun = False,
    strict: Strict = False,
) -> None:
    """Add accounts, or re-authorize known ones, from a CSV file; all or nothing."""
    sealer = _sealer(_settings())

    async def read(pool: Pool) -> None:
        rows = read_accounts(file, doubts=_doubts(strict=strict))
        imported = await imports.import_accounts(pool, rows, sealer, dry_run=dry_run)
        older = imported.rows - imported.stored - imported.used_up
        left = f", {older} left alone: the stored tokens are newer" if older else ""
        if imported.used_up:
            left += f", {imported.used_up} left alone: their refresh tokens are used up"
        would = " would be" if dry_run else ""
        print(f"{imported.stored} accounts{would} added or re-authorized{left}")

    _import(file, read)


@accounts.command("list")
def list_accounts() -> None:
    """All accounts with state, videos and next wake-up."""
    table = Table(
        "open_id",
        "state",
        "reason",
        "since",
        "videos",
        "valid",
        "wakes at",
        box=None,
        pad_edge=False,
    )
    for account in _with_database(_settings(), status.list_accounts):
        table.add_row(
            account.open_id,
            account.state,
            account.isolated_reason or account.state_reason or "",
            _short(account.isolated_since or account.state_since),
            f"{account.videos:,}",
            f"{account.valid:,}",
            _short(account.wake_at),
        )
    # Piped into a file or another program, no line may be folded to the width of a terminal.
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


@accounts.command(context_settings=TAKES_HYPHENS)
def pause(open_id: str) -> None:
    """Stop working an account until it is resumed."""
    _set_state(_settings(), open_id, "paused", "paused by the operator")


@accounts.command(context_settings=TAKES_HYPHENS)
def resume(open_id: str) -> None:
    """Work an account again, and end its back-off."""
    _set_state(_settings(), open_id, "active", None)


@videos.command("import")
def import_videos(
    file: Annotated[Path, _file(VIDEO_COLUMNS, VIDEO_NEEDS)],
    dry_run: DryRun = False,
    strict: Strict = False,
) -> None:
    """Add videos of known accounts from a CSV file; all or nothing."""
    policy = due_policy(_settings())
    lines = count_lines(file)

    async def read(pool: Pool) -> None:
        now = await status.read_now(pool)

        def due_at(row: VideoRow) -> datetime | None:
            if row.cover_expires_at is None or row.cover_expires_at <= now:
                return None
            share = account_share(OpenId(row.open_id))
            return due_after_refresh(policy, share, now, row.cover_expires_at)

        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task(named(file), total=lines)
            rows = read_videos(
                file,
                now,
                lambda done: progress.update(task, completed=done),
                doubts=_doubts(strict=strict),
            )
            imported = await imports.import_videos(pool, rows, due_at, dry_run=dry_run)
        known = imported.rows - imported.stored
        would = " would be" if dry_run else ""
        print(f"{imported.stored} videos{would} added, {known} were known already")

    _import(file, read)


@tokens.command()
def rotate() -> None:
    """Encrypt every stored token with the first key of REFRESHER_TOKEN_KEYS; may be repeated."""
    settings = _settings()
    sealer = _sealer(settings)
    if not sealer.seals:
        raise SettingsError("REFRESHER_TOKEN_KEYS is not set: expected the key to encrypt with")
    rotated = _with_database(settings, lambda pool: rotate_all(pool, sealer))
    print(f"{rotated} accounts encrypted with the first key")


WIDE: Final = 1000


def _short(moment: datetime | None) -> str:
    return moment.isoformat(sep=" ", timespec="seconds") if moment else ""


def _import(file: Path, read: Callable[[Pool], Coroutine[Any, Any, None]]) -> None:
    try:
        _with_database(_settings(), read)
    except imports.ImportRefusedError as error:
        complaints = (f"{named(file)}:{line}: {told}" for line, told in error.complaints)
        raise BadFileError(*complaints, more=error.more) from None
    except imports.NothingToImportError:
        raise BadFileError(f"{named(file)}: expected rows below the header") from None


def _set_state(settings: Settings, open_id: str, state: str, reason: str | None) -> None:
    standing = _with_database(settings, lambda pool: status.set_state(pool, open_id, state, reason))
    if standing is None:
        hint = "; of options tells refresher accounts --help" if open_id.startswith("-") else ""
        _fail(f"open_id: expected a known account, not {open_id!r}{hint}")
    print(standing_line(open_id, standing, managed=settings.refreshes_tokens))


def _settings() -> Settings:
    return read_settings()


def _sealer(settings: Settings) -> Sealer:
    return Sealer(split_keys(settings.token_keys))


def _database_url(settings: Settings) -> str:
    return settings.database_url.get_secret_value()


def _say_ignored(database_url: str) -> None:
    if ignored := ignored_parameters(database_url):
        names = ", ".join(ignored)
        _say(f"REFRESHER_DATABASE_URL: left out: {names}; docs/connection-strings.md says why")


def _with_database(settings: Settings, unit: Callable[[Pool], Coroutine[Any, Any, T]]) -> T:
    async def with_pool() -> T:
        async with connected(_database_url(settings), application_name="refresher-cli") as pool:
            await check_migrated(pool)
            await check_role(pool)
            return await unit(pool)

    _say_ignored(_database_url(settings))
    return asyncio.run(with_pool())
