"""The daemon as a process, over real HTTP and real PostgreSQL."""

from collections import Counter


async def test_new_videos_become_valid_with_the_least_requests(serve, start, pool):
    """5,000 new videos of 50 accounts: 250 requests, nothing more until something is due."""
    world = await serve()
    for number in range(50):
        await world.add_account(f"account-{number}", videos=100)
    daemon = await start(world)
    await world.until_valid(5000)
    await world.until_no_leases()
    assert 250 <= len(world.emulator.record) <= 255
    assert [arrival for arrival in world.emulator.record if arrival.breach] == []
    asked = Counter(video for arrival in world.emulator.record for video in arrival.video_ids)
    assert len(asked) == 5000
    sent = len(world.emulator.record)
    await daemon.until_event("account.refreshed")
    assert await daemon.stopped() == 0
    assert len(world.emulator.record) == sent
