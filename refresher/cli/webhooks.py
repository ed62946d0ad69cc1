"""`webhooks test`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from refresher.cli.output import Misuse, printable

if TYPE_CHECKING:
    from refresher.domain.webhooks import Answer, Target

webhooks = typer.Typer(help="What is told to your application.")


@webhooks.command("test")
def send_test() -> None:
    """Send one webhook, of type webhooks.test, and say what came back: exit 0 if it was taken.

    Example: refresher webhooks test
    """
    import asyncio
    from time import monotonic

    from refresher.settings import SettingsError, read_settings

    target = read_settings().webhook_target
    if target is None:
        raise SettingsError(
            "REFRESHER_WEBHOOK_URL is not set: expected http://host/path or https://host/path"
        )
    begun = monotonic()
    answer = asyncio.run(_sent(target))
    told = f"{target.origin}: {answer.reason}"
    if not answer.is_delivered:
        raise Misuse(printable(f"{told} {answer.detail}").rstrip())
    print(f"delivered to {told} after {monotonic() - begun:.1f} s")


async def _sent(target: Target) -> Answer:
    from datetime import UTC, datetime
    from uuid import uuid4

    from refresher.domain.webhooks import Webhook
    from refresher.webhooks.receiver import opened

    now = datetime.now(UTC)
    webhook = Webhook(str(uuid4()), "webhooks.test", None, now, {})
    async with opened(target, 1) as receiver:
        return await receiver.send(webhook, now)
