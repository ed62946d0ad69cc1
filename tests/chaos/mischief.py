"""Each kind of fault as a context manager: it begins on entry and ends on exit."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Literal

import asyncpg

from refresher.postgres.failures import DRIVER_ERRORS
from tests.chaos.application import Application
from tests.chaos.plan import Fault
from tests.chaos.replicas import Replica
from tests.chaos.world import World

#: Within this time some replica mostly asks for a token.
ASKING_SECONDS = 5.0

#: How far a wall clock is set back or ahead, in seconds.
STEPS = (-600, 600, 365 * 86_400)

Break = Callable[[World, Application, Fault], AbstractAsyncContextManager[None]]


async def inflict(world: World, application: Application, fault: Fault) -> None:
    """Do the fault, wait as long as it lasts, undo it."""
    async with BREAKS[fault.kind](world, application, fault):
        await asyncio.sleep(fault.lasts)


# --- Processes ---


@asynccontextmanager
async def killed(world: World, _: Application, fault: Fault) -> AsyncIterator[None]:
    replica = _replica(world, fault)
    if not replica.steady:
        yield
        return
    await replica.kill()
    yield
    await replica.start()


@asynccontextmanager
async def stopped(world: World, _: Application, fault: Fault) -> AsyncIterator[None]:
    replica = _replica(world, fault)
    if not replica.steady:
        yield
        return
    entry = replica.stop()
    yield
    replica.go_on(entry)


@asynccontextmanager
async def swallowed(world: World, _: Application, fault: Fault) -> AsyncIterator[None]:
    replica = _replica(world, fault)
    if not replica.steady:
        yield
        return
    async with swallowed_asking(world, replica, fault):
        yield


@asynccontextmanager
async def swallowed_asking(world: World, replica: Replica, _: Fault) -> AsyncIterator[None]:
    """Its machine is gone, or the network to it."""
    world.proxies[world.replicas.index(replica)].swallow()
    await replica.kill()
    yield
    await replica.start()


@asynccontextmanager
async def terminated(world: World, _: Application, fault: Fault) -> AsyncIterator[None]:
    replica = _replica(world, fault)
    if not replica.steady:
        yield
        return
    await replica.terminate()
    yield
    await replica.start()


@asynccontextmanager
async def while_asking(
    act: Callable[[World, Replica, Fault], AbstractAsyncContextManager[None]],
    world: World,
    _: Application,
    fault: Fault,
) -> AsyncIterator[None]:
    """Act on the next steady replica that asks for a token, before its answer arrives."""
    asking: asyncio.Future[Replica] = asyncio.get_running_loop().create_future()

    def on_request(port: int) -> None:
        if not asking.done() and world.ports[port].steady:
            asking.set_result(world.ports[port])

    world.emulator.on_token_request = on_request
    try:
        replica = await asyncio.wait_for(asking, ASKING_SECONDS)
    except TimeoutError:
        yield
        return
    async with act(world, replica, fault):
        yield


@asynccontextmanager
async def killed_asking(_: World, replica: Replica, __: Fault) -> AsyncIterator[None]:
    await replica.kill()
    yield
    await replica.start()


@asynccontextmanager
async def stopped_asking(_: World, replica: Replica, __: Fault) -> AsyncIterator[None]:
    entry = replica.stop()
    yield
    replica.go_on(entry)


@asynccontextmanager
async def frozen_asking(world: World, replica: Replica, __: Fault) -> AsyncIterator[None]:
    proxy = world.proxies[world.replicas.index(replica)]
    with world.journal.during("frozen", replica.name):
        proxy.freeze()
        yield
        proxy.thaw()


@asynccontextmanager
async def away_asking(world: World, _: Replica, fault: Fault) -> AsyncIterator[None]:
    async with away_for(world, fault):
        yield


# --- The database ---


@asynccontextmanager
async def restarted(
    mode: Literal["fast", "immediate"], world: World, _: Application, __: Fault
) -> AsyncIterator[None]:
    async with world.serving:
        with world.journal.during("away", "database"):
            await asyncio.to_thread(world.server.restart, mode)
    yield


@asynccontextmanager
async def away(world: World, _: Application, fault: Fault) -> AsyncIterator[None]:
    async with away_for(world, fault):
        yield


@asynccontextmanager
async def away_for(world: World, fault: Fault) -> AsyncIterator[None]:
    mode = "fast" if fault.amount < 1 / 2 else "immediate"
    async with world.serving:
        with world.journal.during("away", "database"):
            await asyncio.to_thread(world.server.stop, mode)
            with world.journal.during("gone", "database"):
                yield
            await asyncio.to_thread(world.server.start)


@asynccontextmanager
async def backends_terminated(world: World, _: Application, fault: Fault) -> AsyncIterator[None]:
    world.journal.note("away", "database")
    await world.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'refresher' AND random() < $1",
        fault.amount,
    )
    yield


@asynccontextmanager
async def cut(world: World, _: Application, fault: Fault) -> AsyncIterator[None]:
    world.journal.note("cut", _replica(world, fault).name)
    world.proxies[_number(fault)].cut()
    yield


@asynccontextmanager
async def frozen(world: World, _: Application, fault: Fault) -> AsyncIterator[None]:
    async with frozen_asking(world, _replica(world, fault), fault):
        yield


@asynccontextmanager
async def refused(world: World, _: Application, fault: Fault) -> AsyncIterator[None]:
    """New connections are refused, and open ones are reset."""
    proxy = world.proxies[_number(fault)]
    with world.journal.during("refused", _replica(world, fault).name):
        await proxy.refuse()
        proxy.cut()
        yield
        await proxy.accept()


@asynccontextmanager
async def slow(world: World, _: Application, fault: Fault) -> AsyncIterator[None]:
    proxy = world.proxies[_number(fault)]
    with world.journal.during("slow", _replica(world, fault).name):
        proxy.slow(fault.amount)
        yield
        proxy.slow(0)


@asynccontextmanager
async def locked(world: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    """A long transaction of the application locks an account and its videos."""
    open_id = application.account(_number(fault))
    with suppress(TimeoutError, *DRIVER_ERRORS):
        connection = await asyncpg.connect(world.server.url, timeout=5)
        try:
            async with asyncio.timeout(fault.lasts + 5):
                await connection.execute("BEGIN")
                for table in ("accounts", "videos"):
                    await connection.execute(
                        f"SELECT FROM refresher.{table} WHERE open_id = $1 FOR UPDATE", open_id
                    )
                await asyncio.sleep(fault.lasts)
        finally:
            connection.terminate()
    yield


@asynccontextmanager
async def trigger_waits(
    world: World, application: Application, fault: Fault
) -> AsyncIterator[None]:
    """A long transaction locks the row that the application's trigger writes."""
    open_id = application.account(_number(fault))
    with suppress(TimeoutError, *DRIVER_ERRORS):
        connection = await asyncpg.connect(world.server.url, timeout=5)
        try:
            async with asyncio.timeout(fault.lasts + 5):
                await connection.execute("BEGIN")
                await connection.execute(
                    "SELECT FROM chaos.carried WHERE open_id = $1 FOR UPDATE", open_id
                )
                await asyncio.sleep(fault.lasts)
        finally:
            connection.terminate()
    yield


# --- The wall clock ---


@asynccontextmanager
async def clock_stepped(world: World, _: Application, fault: Fault) -> AsyncIterator[None]:
    """Set the clock ten minutes back or ahead, or a year ahead. Then set it right."""
    replica = _replica(world, fault)
    replica.step_clock(STEPS[int(fault.amount * len(STEPS)) % len(STEPS)])
    yield
    replica.step_clock(0)


# --- The API ---


@asynccontextmanager
async def disturbed(share: str, world: World, _: Application, fault: Fault) -> AsyncIterator[None]:
    with world.journal.during(fault.kind, "upstream"):
        world.emulator.disturb(fault.kind, **{share: fault.amount})
        yield
        world.emulator.settle(fault.kind)


@asynccontextmanager
async def down(
    mode: Literal["failed", "hang", "cut"], world: World, _: Application, fault: Fault
) -> AsyncIterator[None]:
    with world.journal.during(fault.kind, "upstream"):
        world.emulator.down = mode
        yield
        world.emulator.down = None


@asynccontextmanager
async def shortened(world: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    """New covers die sooner than stored ones. New videos make the daemon ask for both."""
    with world.journal.during(fault.kind, "upstream"):
        world.emulator.shortened_seconds = int(fault.amount)
        for open_id in application.accounts:
            await application.add_videos(open_id, 1)
        yield
        world.emulator.shortened_seconds = 0


# --- Accounts and their videos ---


@asynccontextmanager
async def access_revoked(
    world: World, application: Application, fault: Fault
) -> AsyncIterator[None]:
    open_id = application.account(_number(fault))
    world.journal.note("access_revoked", open_id)
    world.emulator.revoke_access_token(open_id)
    yield


@asynccontextmanager
async def consent_revoked(
    world: World, application: Application, fault: Fault
) -> AsyncIterator[None]:
    """The refresh token dies; in half of the cases the access tokens, too."""
    open_id = application.account(_number(fault))
    world.journal.note("consent_revoked", open_id)
    world.emulator.revoke_refresh_token(open_id)
    if fault.choice < 1 / 2:
        world.emulator.revoke_access_token(open_id)
    yield


@asynccontextmanager
async def restricted(world: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    """Every request for this account fails, and only for this one."""
    open_id = application.account(_number(fault))
    with world.journal.during("restricted", open_id):
        world.emulator.restricted[open_id] = int(fault.amount * 4) % 4
        yield
        del world.emulator.restricted[open_id]


@asynccontextmanager
async def old_tokens_saved(_: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    await application.save_old_tokens(application.account(_number(fault)))
    yield


@asynccontextmanager
async def scope_revoked(
    world: World, application: Application, fault: Fault
) -> AsyncIterator[None]:
    """The user takes `video.list` back, and later gives it again by a new authorization."""
    open_id = application.account(_number(fault))
    world.journal.note("scope_revoked", open_id)
    world.emulator.set_scope(open_id, "user.info.basic")
    yield
    await application.authorize_again(open_id)


@asynccontextmanager
async def authorized_anew(_: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    await application.authorize_again(application.account(_number(fault)))
    yield


@asynccontextmanager
async def account_added(_: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    await application.add_account(1 + int(fault.choice * 30))
    yield


@asynccontextmanager
async def account_deleted(_: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    """Delete the account, and add another one of the same size."""
    open_id = application.account(_number(fault))
    videos = len(application.videos[open_id])
    await application.delete_account(open_id)
    await application.add_account(videos)
    yield


@asynccontextmanager
async def poisoned(world: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    """One or two videos for which TikTok refuses the whole request."""
    open_id = application.account(_number(fault))
    ids = application.choose(open_id, 1 + (fault.amount > 2 / 3), fault.choice)
    for video_id in ids:
        world.emulator.refuse_video(video_id)
    yield
    for video_id in ids:
        world.emulator.accept_video(video_id)


@asynccontextmanager
async def unpublished(world: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    """TikTok does not know the videos for a while. Their rows stay."""
    open_id = application.account(_number(fault))
    ids = application.choose(open_id, 1 + int(fault.amount * 3), fault.choice)
    for video_id in ids:
        world.emulator.remove_video(open_id, video_id)
    yield
    for video_id in ids:
        world.emulator.add_video(open_id, video_id)


@asynccontextmanager
async def republished(world: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    """TikTok does not know the videos for a while. The application deletes and inserts their rows."""
    open_id = application.account(_number(fault))
    ids = application.choose(open_id, 1 + int(fault.amount * 3), fault.choice)
    async with unpublished(world, application, fault):
        await application.delete(open_id, ids)
        yield
    await application.insert(open_id, ids)


@asynccontextmanager
async def inserted(_: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    open_id = application.account(_number(fault))
    await application.add_videos(open_id, 1 + int(fault.amount * 20))
    yield


@asynccontextmanager
async def deleted(_: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    open_id = application.account(_number(fault))
    number = int(fault.amount * len(application.videos[open_id]))
    await application.delete(open_id, application.choose(open_id, number, fault.choice))
    yield


@asynccontextmanager
async def bogus(_: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    """Add rows of videos that never existed."""
    open_id = application.account(_number(fault))
    await application.add_videos(open_id, 1 + int(fault.amount * 3), exist=False)
    yield


@asynccontextmanager
async def emptied(_: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    open_id = application.account(_number(fault))
    number = 1 + int(fault.amount * len(application.videos[open_id]))
    await application.empty_videos(open_id, application.choose(open_id, number, fault.choice))
    yield


@asynccontextmanager
async def saved_stale(_: World, application: Application, fault: Fault) -> AsyncIterator[None]:
    """Read rows, and later save all their columns as they were."""
    open_id = application.account(_number(fault))
    rows = await application.read_videos(open_id)
    yield
    await application.save_videos(open_id, rows)


def _replica(world: World, fault: Fault) -> Replica:
    return world.replicas[_number(fault)]


def _number(fault: Fault) -> int:
    assert fault.target is not None
    return fault.target


BREAKS: dict[str, Break] = {
    "process.killed": killed,
    "process.stopped": stopped,
    "process.terminated": terminated,
    "process.swallowed": swallowed,
    "process.swallowed_asking": partial(while_asking, swallowed_asking),
    "process.killed_asking": partial(while_asking, killed_asking),
    "process.stopped_asking": partial(while_asking, stopped_asking),
    "database.frozen_asking": partial(while_asking, frozen_asking),
    "database.away_asking": partial(while_asking, away_asking),
    "database.restarted_fast": partial(restarted, "fast"),
    "database.restarted_immediate": partial(restarted, "immediate"),
    "database.away": away,
    "database.terminated": backends_terminated,
    "database.cut": cut,
    "database.frozen": frozen,
    "database.refused": refused,
    "database.slow": slow,
    "database.locked": locked,
    "database.trigger_waits": trigger_waits,
    "upstream.throttled": partial(disturbed, "throttled_share"),
    "upstream.failed": partial(disturbed, "failed_share"),
    "upstream.malformed": partial(disturbed, "malformed_share"),
    "upstream.slow": partial(disturbed, "slow_share"),
    "upstream.shortened": shortened,
    "upstream.silent": partial(disturbed, "timeout_share"),
    "upstream.down_failed": partial(down, "failed"),
    "upstream.down_hang": partial(down, "hang"),
    "upstream.down_cut": partial(down, "cut"),
    "token.failed": partial(disturbed, "token_failed_share"),
    "token.silent": partial(disturbed, "token_timeout_share"),
    "token.cut": partial(disturbed, "token_cut_share"),
    "token.malformed": partial(disturbed, "token_malformed_share"),
    "account.restricted": restricted,
    "account.access_revoked": access_revoked,
    "account.consent_revoked": consent_revoked,
    "account.scope_revoked": scope_revoked,
    "account.authorized_anew": authorized_anew,
    "account.old_tokens_saved": old_tokens_saved,
    "account.added": account_added,
    "account.deleted": account_deleted,
    "video.poisoned": poisoned,
    "video.unpublished": unpublished,
    "video.republished": republished,
    "video.inserted": inserted,
    "video.deleted": deleted,
    "video.bogus": bogus,
    "video.emptied": emptied,
    "video.saved_stale": saved_stale,
    "clock.stepped": clock_stepped,
}
