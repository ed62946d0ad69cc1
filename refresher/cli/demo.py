"""`demo` and `emulator`."""

from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from refresher.cli.options import whole
from refresher.cli.output import Misuse, print_table

DEMO_WORDS: Final = """\
A PostgreSQL of its own, an emulated TikTok whose covers live 60 seconds, and the daemon, with 20
accounts of 60 videos. A few videos are missing upstream and the token of sample-account-20 is dead,
both on purpose. The first covers come at once; from 40 seconds on they are kept alive. Ctrl-C ends
it.
"""


def demo(
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Stop by itself after so many seconds.")
    ] = None,
) -> None:
    """Embedded PostgreSQL, emulator, sample data and the daemon; nothing to configure.

    Example: refresher demo --seconds 90
    """
    import uvloop
    from rich.table import Table

    from refresher import logs
    from refresher.demo import run_demo
    from refresher.embedded import installed
    from refresher.upkeep import chunk_fill

    try:
        installed()
    except ModuleNotFoundError as error:
        raise Misuse(f"{error.name} is missing: pip install '.[demo]'") from None
    print(DEMO_WORDS, flush=True)
    logs.configure(log_format="console", level="info")
    summary, tally = uvloop.run(run_demo(seconds))
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
    print_table(table)


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
    covers_die_early: Annotated[
        int, typer.Option(min=0, help="Seconds before their expiry that covers are refused.")
    ] = 0,
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
    control: Annotated[
        bool, typer.Option("--control", help="Also serve /_control, docs/emulator.md.")
    ] = False,
) -> None:
    """Serve the TikTok emulator: TikTok's endpoints that matter here, and the covers themselves.

    Example: refresher emulator --port 8090 --cover-ttl 60
    """
    from refresher.demo import SAMPLE_ACCOUNTS, SAMPLE_VIDEOS, filling, serve_emulator
    from refresher.emulator.control import Control
    from refresher.emulator.options import EmulatorOptions
    from refresher.emulator.server import Emulator

    try:
        options = EmulatorOptions(
            cover_ttl="hourly" if cover_ttl == "hourly" else whole("--cover-ttl", cover_ttl),
            covers_die_early_seconds=covers_die_early,
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
        # Typer has checked each option: only the sum of the shares can be too high.
        raise Misuse(f"--...-share: {error}") from None
    world = Emulator(options)
    fill = filling(world, accounts_file or SAMPLE_ACCOUNTS, videos_file or SAMPLE_VIDEOS)
    fill()
    routes = Control(world, refill=fill).routes() if control else ()
    serving = serve_emulator(world, host, port, lambda url: print(url, flush=True), routes)
    _serve(serving, host, port)


def _serve(serving: Coroutine[Any, Any, None], host: str, port: int) -> None:
    import uvloop

    try:
        uvloop.run(serving)
    except UnicodeError:
        raise Misuse(f"--host: expected a name or an address, not {host!r}") from None
    except OSError as error:
        raise Misuse(f"--host, --port: {host}:{port}: {error.strerror}") from None


def _rotation(value: str) -> Literal["strict", "lenient"]:
    if value not in {"strict", "lenient"}:
        raise Misuse(f"--refresh-token-rotation: expected strict or lenient, not {value!r}")
    return "strict" if value == "strict" else "lenient"


def _fate(value: str) -> Literal["live", "die"]:
    if value not in {"live", "die"}:
        raise Misuse(f"--old-access-tokens: expected live or die, not {value!r}")
    return "live" if value == "live" else "die"
