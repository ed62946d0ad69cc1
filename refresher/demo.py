"""`refresher demo` and `refresher emulator`: the emulator with sample data, and the whole demo."""

import asyncio
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Final

from aiohttp.web import RouteDef

from refresher import app as composition
from refresher.assembly import App, assembled, replica_name
from refresher.csv_files.complaints import BadFileError
from refresher.csv_files.rows import AccountRow, read_accounts, read_videos
from refresher.embedded import folder_for_servers, served
from refresher.emulator.options import DEFAULT_SCOPE, EmulatorOptions
from refresher.emulator.server import Emulator
from refresher.flow.work import Tally
from refresher.postgres.database import Pool
from refresher.postgres.imports import import_accounts, import_videos
from refresher.postgres.migrate import migrate
from refresher.postgres.status import Summary, read_now, read_summary
from refresher.settings import read_settings

SAMPLE: Final = Path(str(files("refresher"))) / "sample"
SAMPLE_ACCOUNTS: Final = SAMPLE / "accounts.csv"
SAMPLE_VIDEOS: Final = SAMPLE / "videos.csv"

#: Covers live a minute, so that one can watch how they are kept alive.
DEMO_WORLD: Final = EmulatorOptions(cover_ttl=60, missing_share=0.02, latency_seconds=0.05)
DEMO_SUMMARY_SECONDS: Final = 10.0


def populate(emulator: Emulator, accounts_file: Path, videos_file: Path) -> None:
    """Add the accounts and videos of two import files. Raises `BadFileError`."""
    filling(emulator, accounts_file, videos_file)()


def filling(emulator: Emulator, accounts_file: Path, videos_file: Path) -> Callable[[], None]:
    """Reads two import files, and adds what is in them each time. Raises `BadFileError` at once."""
    accounts = list(read_accounts(accounts_file))
    known = {account.open_id for account in accounts}
    videos = []
    for video in read_videos(videos_file, datetime.now(UTC)):
        if video.open_id not in known:
            raise BadFileError(
                f"{videos_file}:{video.line}: open_id: expected an account of "
                f"{accounts_file.name}, not {video.open_id!r}"
            )
        videos.append((video.open_id, video.video_id))

    def fill() -> None:
        for account in accounts:
            _add_account(emulator, account)
        for open_id, video_id in videos:
            emulator.add_video(open_id, video_id)

    return fill


def _add_account(emulator: Emulator, account: AccountRow) -> None:
    emulator.add_account(
        account.open_id,
        account.access_token,
        access_token_expires_at=_unix_time(account.access_token_expires_at),
        refresh_token=account.refresh_token,
        refresh_token_expires_at=_unix_time(account.refresh_token_expires_at),
        scope=account.scope or DEFAULT_SCOPE,
    )


def _unix_time(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


async def serve_emulator(
    emulator: Emulator,
    host: str,
    port: int,
    on_start: Callable[[str], None],
    routes: Iterable[RouteDef] = (),
) -> None:
    """Serve until SIGTERM or SIGINT; `on_start` hears the base URL. OSError: port taken."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with emulator.serving(host, port, routes) as base_url:
        on_start(base_url)
        await stop.wait()


async def run_demo(seconds: float | None) -> tuple[Summary, Tally]:
    """Run the whole system on sample data until SIGTERM, SIGINT or so many seconds.

    Returns its state at the end. Its folder is deleted.
    """
    emulator = Emulator(DEMO_WORLD)
    populate(emulator, SAMPLE_ACCOUNTS, SAMPLE_VIDEOS)
    with temporary_postgres() as database_url:
        await migrate(database_url)
        async with emulator.serving() as base_url:
            settings = read_settings(database_url=database_url, tiktok_base_url=base_url)
            async with assembled(settings, replica_name()) as app:
                await _import_sample(app.pool)
                return await _work(app, seconds)


async def _work(app: App, seconds: float | None) -> tuple[Summary, Tally]:
    composition.stop_on_signals(app)
    if seconds is not None:
        asyncio.get_running_loop().call_later(seconds, app.stop.set)
    await composition.work(app, summary_seconds=DEMO_SUMMARY_SECONDS)
    return await read_summary(app.pool), app.refresher.tally


async def _import_sample(pool: Pool) -> None:
    await import_accounts(pool, read_accounts(SAMPLE_ACCOUNTS))
    now = await read_now(pool)
    await import_videos(pool, read_videos(SAMPLE_VIDEOS, now), due_at=lambda _: None)


@contextmanager
def temporary_postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of our own, which is deleted afterwards."""
    with folder_for_servers() as folder, served(folder / "data") as url:
        yield url
