"""Sends a webhook, signed as Standard Webhooks say."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from http import HTTPStatus
from typing import Final

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from standardwebhooks import Webhook as Signer
from yarl import URL

from refresher.domain.webhooks import Answer, Target, Webhook

#: The standard advises 15 to 30.
TIMEOUT_SECONDS: Final = 15.0
#: Read of a refusal, to show it; of a good answer nothing is read.
DETAIL_BYTES: Final = 1024
DETAIL_LETTERS: Final = 200


class Receiver:
    """The program at the webhook URL."""

    def __init__(self, session: ClientSession, target: Target, timeout_seconds: float) -> None:
        self._session = session
        # As it stands: else a part that is signed or quoted would be sent otherwise.
        self._url = URL(target.url, encoded=True)
        self._signers = [Signer(secret) for secret in target.secrets]
        self._timeout_seconds = timeout_seconds
        self.origin: Final = target.origin

    async def send(self, webhook: Webhook, sent_at: datetime) -> Answer:
        """One attempt, of which `sent_at` (in UTC) tells the time. Raises nothing of its own."""
        try:
            return await self._post(webhook.body, self._headers(webhook, sent_at))
        except TimeoutError:
            return Answer(0, f"no answer within {self._timeout_seconds:g} s")
        except ClientConnectorCertificateError as error:
            return Answer(0, f"no connection: {error.certificate_error}")
        except ClientConnectorError as error:
            return Answer(0, f"no connection: {error.os_error.strerror or error.os_error}")
        except (ClientError, OSError) as error:
            return Answer(0, f"no answer: {type(error).__name__}")

    def _headers(self, webhook: Webhook, sent_at: datetime) -> Mapping[str, str]:
        signatures = [
            signer.sign(webhook.webhook_id, sent_at, webhook.body) for signer in self._signers
        ]
        return {
            "Content-Type": "application/json",
            "webhook-id": webhook.webhook_id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    async def _post(self, body: str, headers: Mapping[str, str]) -> Answer:
        async with self._session.post(
            self._url,
            data=body.encode(),
            headers=headers,
            timeout=ClientTimeout(self._timeout_seconds),
            allow_redirects=False,  # the standard: a redirect is a failure
        ) as response:
            answer = Answer(response.status, f"HTTP {response.status}")
            return answer if answer.is_delivered else await _refusal(response)


async def _refusal(response: ClientResponse) -> Answer:
    body = b""
    with suppress(ClientError, OSError):  # also a time-out: its status says enough
        body = await response.content.read(DETAIL_BYTES)
    return Answer(
        response.status,
        _meaning(response.status),
        body.decode(errors="replace")[:DETAIL_LETTERS],
        _seconds(response.headers.get("Retry-After", "")),
    )


def _meaning(status: int) -> str:
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return f"HTTP {status}: redirects are not followed"
    return f"HTTP {status}"


def _seconds(told: str) -> float | None:
    """The wait that a header asks for, where it is told in seconds."""
    return float(told) if told.isdecimal() and told.isascii() else None


@asynccontextmanager
async def opened(
    target: Target, connections: int, timeout_seconds: float = TIMEOUT_SECONDS
) -> AsyncIterator[Receiver]:
    """A receiver over a session of its own, with so many connections at most."""
    async with ClientSession(
        connector=TCPConnector(limit=connections),
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,  # little is read, and a broken encoding must not hide a status
    ) as session:
        yield Receiver(session, target, timeout_seconds)
