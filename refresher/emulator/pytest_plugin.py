"""The pytest fixture `tiktok_emulator`; docs/testing.md says how to use it.

pytest imports this module wherever the package is installed. So it imports nothing before a test
asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from refresher.emulator.testing import TikTokEmulator


@pytest.fixture(scope="session")
def _tiktok_emulator_thread() -> Iterator[AbstractEventLoop]:
    from refresher.emulator.testing import serving_thread  # noqa: PLC0415 - see above

    with serving_thread() as loop:
        yield loop


@pytest.fixture
def tiktok_emulator(_tiktok_emulator_thread: AbstractEventLoop) -> Iterator[TikTokEmulator]:
    """An emulated TikTok of this test alone, with nothing in it, at a free port."""
    from refresher.emulator.testing import emulated  # noqa: PLC0415 - see above

    with emulated(_tiktok_emulator_thread) as emulator:
        yield emulator
