"""The delivery of webhooks to a receiver over a socket: at least once, in order for each account."""

import asyncio
import json
import re
import signal
import ssl
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from refresher.domain.webhooks import Target
from refresher.events import FORECAST_AT_RISK
from refresher.postgres.outbox import read_outbox, switch_on, take
from refresher.postgres.stored import must_say
from refresher.postgres.tokens import consents_ending
from refresher.webhooks import delivery
from refresher.webhooks.delivery import AT_ONCE, LEASE, Delivery, tidy
from refresher.webhooks.receiver import opened
from tests.conftest import PATIENCE_SECONDS, eventually, free_port
from tests.receiver import OTHER_SECRET, SECRET, THIRD_SECRET, receiving
from tests.test_tokens import authorize

#: Where a test waits for an answer that comes too late. Elsewhere a slow machine has time.
SOON_SECONDS = 1.0


@pytest.fixture
async def receiver():
    async with receiving() as receiver:
        yield receiver


class Clock:
    """A monotonic clock that a test moves."""

    now = 0.0

    def __call__(self):
        return self.now


@asynccontextmanager
async def delivering(pool, target, clock=monotonic, timeout_seconds=PATIENCE_SECONDS):
    async with opened(target, AT_ONCE, timeout_seconds) as receiver:
        yield Delivery(pool, receiver, lambda: 0.5, clock)


@pytest.fixture
async def changes(pool):
    """Make accounts with these names, and park and free each of them in turn; all are told."""
    await switch_on(pool)

    async def make(*names, times=1):
        await pool.executemany(
            "INSERT INTO refresher.accounts (open_id) VALUES ($1)", [(name,) for name in names]
        )
        for number in range(times):
            state = "active" if number % 2 else "needs_scope"
            await pool.execute("UPDATE refresher.accounts SET state = $1", state)

    return make


async def pass_time(pool, **span):
    """What waits in the outbox is due so much sooner."""
    await pool.execute(
        "UPDATE refresher.outbox SET next_attempt_at = next_attempt_at - $1::interval",
        timedelta(**span),
    )


async def waiting(pool):
    return (await read_outbox(pool)).waiting


async def delivered(pool, delivery, span=None):
    """Deliver until nothing is left, passing hours between the turns; what was logged."""
    with capture_logs() as logs:
        for _ in range(60):
            await delivery.deliver()
            if not await waiting(pool):
                return logs
            await pass_time(pool, **(span or {"minutes": 20}))
    pytest.fail("something is left in the outbox")


def heard(receiver, open_id):
    """The types an account's webhooks had, in the order in which they came first."""
    return [attempt.type for attempt in receiver.taken if attempt.open_id == open_id]


# --- What comes ---


async def test_a_webhook_is_signed_and_names_its_change(pool, receiver, changes):
    """The library finds the signature good; headers and body are as the standard says."""
    await changes("ana")
    async with delivering(pool, receiver.target()) as delivery:
        (entry,) = await delivered(pool, delivery)
    (attempt,) = receiver.attempts
    told = attempt.verified()
    assert told["type"] == "account.parked"
    assert told["timestamp"].endswith("+00:00")
    assert told["data"]["open_id"] == "ana"
    assert told["data"]["state"] == "needs_scope"
    assert attempt.headers["Content-Type"] == "application/json"
    assert (entry["event"], entry["webhook_id"]) == ("webhook.delivered", attempt.webhook_id)


async def test_each_of_several_secrets_signs(pool, receiver, changes):
    """So receivers may go over to the new one when they like."""
    await changes("ana")
    async with delivering(pool, receiver.target(SECRET, OTHER_SECRET)) as delivery:
        await delivered(pool, delivery)
    (attempt,) = receiver.attempts
    assert attempt.verified(SECRET) == attempt.verified(OTHER_SECRET)
    with pytest.raises(Exception, match="No matching signature"):
        attempt.verified(THIRD_SECRET)


async def test_a_url_keeps_its_secrets(pool, receiver, changes):
    """User, password and query are sent as they stand, and nothing of them is logged."""
    await changes("ana")
    seen = []

    async def take_note(request):
        seen.append((request.headers["Authorization"], request.raw_path))
        return web.Response(status=500)

    application = web.Application()
    application.router.add_post("/{tail:.*}", take_note)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port := free_port()).start()
    url = f"http://ana:pass-word@127.0.0.1:{port}/a%2Fb?key=a%2Fb%20c"
    target = Target(url, [SECRET])
    async with delivering(pool, target) as delivery:
        with capture_logs() as logs:
            await delivery.deliver()
        assert delivery.origin == f"http://127.0.0.1:{port}"
    await runner.cleanup()
    assert seen == [("Basic YW5hOnBhc3Mtd29yZA==", "/a%2Fb?key=a%2Fb%20c")]
    assert "pass-word" not in str(logs)
    assert "key" not in str(logs)
    assert "pass-word" not in repr(target)


# --- What goes wrong ---


async def test_nothing_is_lost_and_nothing_overtakes(pool, receiver, changes):
    """A receiver that is down for an hour, answers late twice and once with 500.

    Each change comes at least once, signed, with the same ID each time, in order for each account.
    """
    names = [f"account-{number}" for number in range(12)]
    await changes(*names, times=4)
    receiver.answer = 503  # for the first hour
    async with delivering(pool, receiver.target(), timeout_seconds=SOON_SECONDS) as delivery:
        for _ in range(4):
            await delivery.deliver()
            await pass_time(pool, minutes=15)
        assert await waiting(pool) == 48
        receiver.answer = 204
        receiver.will_answer("account-1", "late", 500, "late")
        await delivered(pool, delivery)
    assert len(receiver.taken) == 48
    for name in names:
        assert heard(receiver, name) == ["account.parked", "account.recovered"] * 2
    for attempt in receiver.attempts:
        assert attempt.verified()
    again = [attempt.webhook_id for attempt in receiver.attempts if attempt.open_id == "account-1"]
    assert len(again) > len(set(again)) == 4
    # What came again came before the account's next one.
    assert again == sorted(again, key=again.index)
    bodies = {attempt.webhook_id: attempt.body for attempt in receiver.attempts}
    assert all(bodies[attempt.webhook_id] == attempt.body for attempt in receiver.attempts)


async def test_an_account_that_is_refused_holds_up_no_other(pool, receiver, changes):
    """Its later webhooks wait behind the first one; those of others come."""
    await changes("ana", "ben", times=4)
    receiver.will_answer("ana", *[400] * 20)
    async with delivering(pool, receiver.target()) as delivery:
        for _ in range(6):
            await delivery.deliver()
    assert heard(receiver, "ben") == ["account.parked", "account.recovered"] * 2
    assert heard(receiver, "ana") == ["account.parked"]
    assert await waiting(pool) == 4


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (500, 500, "HTTP 500"),
        (
            web.Response(status=302, headers={"Location": "/elsewhere"}),
            302,
            "HTTP 302: redirects are not followed",
        ),
        ("late", 0, "no answer within 1 s"),
    ],
    ids=["error", "redirect", "late"],
)
async def test_a_failure_says_why_and_when_next(pool, receiver, changes, answer, status, reason):
    """With the status, 0 if no answer came."""
    await changes("ana")
    receiver.will_answer("ana", answer)
    seconds = SOON_SECONDS if answer == "late" else PATIENCE_SECONDS
    async with delivering(pool, receiver.target(), timeout_seconds=seconds) as delivery:
        with capture_logs() as logs:
            await delivery.deliver()
            await delivery.deliver()  # too early for it
    (failed,) = logs
    assert (failed["event"], failed["log_level"]) == ("webhook.failed", "warning")
    assert (failed["http_status"], failed["reason"]) == (status, reason)
    assert (failed["open_id"], failed["attempts"]) == ("ana", 1)
    assert failed["retry_in_seconds"] == 5
    assert len(receiver.attempts) == 1


async def test_a_receiver_that_is_not_there(pool, receiver, changes):
    """Its host is named nowhere in the reason: the event of the start has it."""
    await changes("ana")
    target = Target(f"http://127.0.0.1:{free_port()}/a?key=1", [SECRET])
    async with delivering(pool, target) as delivery:
        with capture_logs() as logs:
            await delivery.deliver()
    assert logs[0]["reason"].startswith("no connection: Connect call failed")


def certificate(folder):
    """A key and a certificate for localhost that nobody has signed but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    text = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + signed.public_bytes(pem)
    file = folder / "certificate.pem"
    file.write_bytes(text)
    return file


async def test_a_certificate_that_nobody_trusts(pool, receiver, changes, tmp_path):
    """Nothing is sent; the reason says what is wrong with it."""
    await changes("ana")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate(tmp_path))
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port := free_port(), ssl=tls)
    async with server:
        target = Target(f"https://127.0.0.1:{port}/", [SECRET])
        async with delivering(pool, target) as delivery:
            with capture_logs() as logs:
                await delivery.deliver()
    (failed,) = logs
    assert (failed["event"], failed["http_status"]) == ("webhook.failed", 0)
    assert "certificate verify failed" in failed["reason"]


async def test_a_receiver_that_speaks_no_http(pool, changes):
    """It is put off as any other failure."""
    await changes("ana")

    async def babble(_reader, writer):
        writer.write(b"220 smtp\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", port := free_port())
    async with server:
        target = Target(f"http://127.0.0.1:{port}/", [SECRET])
        async with delivering(pool, target) as delivery:
            with capture_logs() as logs:
                await delivery.deliver()
    (failed,) = logs
    assert (failed["event"], failed["http_status"]) == ("webhook.failed", 0)
    assert failed["reason"].startswith("no answer: ")


async def test_a_wait_that_is_asked_for_is_kept(pool, receiver, changes):
    """`Retry-After` counts where it is longer than our own wait."""
    await changes("ana")
    receiver.answer = web.Response(status=429, headers={"Retry-After": "600"})
    async with delivering(pool, receiver.target()) as delivery:
        with capture_logs() as logs:
            await delivery.deliver()
    assert logs[0]["retry_in_seconds"] == 600


async def test_waits_grow_to_an_hour_and_end_after_a_day(pool, receiver, changes):
    """Then it is given up with an event, and stands in nobody's way."""
    await changes("ana", times=2)
    receiver.answer = 500
    async with delivering(pool, receiver.target()) as delivery:
        with capture_logs() as logs:
            for _ in range(24):
                await delivery.deliver()
                await pass_time(pool, hours=1)
            assert await waiting(pool) == 2
        waits = [entry["retry_in_seconds"] for entry in logs]
        assert waits[:6] == [5, 30, 120, 600, 1800, 3600]
        assert set(waits[6:]) == {3600}
        await pool.execute(
            "UPDATE refresher.outbox SET changed_at = now() - interval '24 hours'"
            " WHERE type = 'account.parked'"
        )
        receiver.answer = 200
        with capture_logs() as logs:
            await delivery.deliver()
            await tidy(pool, on=True)
    assert [(entry["event"], entry["type"]) for entry in logs] == [
        ("webhook.delivered", "account.recovered"),
        ("webhook.abandoned", "account.parked"),
    ]
    assert logs[1]["attempts"] == 24
    assert await waiting(pool) == 0


async def test_a_receiver_that_is_gone_is_left_alone(pool, receiver, changes):
    """After a 410 nothing is sent for six hours or until a restart; it is said once."""
    await changes(*"abcdefgh", times=2)
    receiver.answer = 410
    clock = Clock()
    async with delivering(pool, receiver.target(), clock) as delivery:
        with capture_logs() as logs:
            await delivery.deliver()
            asked = len(receiver.attempts)
            await pass_time(pool, hours=3)
            clock.now += 6 * 3600 - 1
            await delivery.deliver()
        assert len(receiver.attempts) == asked
        (disabled,) = [entry for entry in logs if entry["event"] == "webhooks.disabled"]
        assert disabled["retry_in_seconds"] == 6 * 3600
        assert disabled["base_url"] == delivery.origin
        receiver.answer = 200
        clock.now += 1
        await delivered(pool, delivery)
    assert len(receiver.taken) == 16


# --- Several replicas, crashes, stops ---


async def test_two_replicas_share_the_work(pool, receiver, changes):
    """Each webhook is sent once, and the order holds."""
    names = [f"account-{number}" for number in range(20)]
    await changes(*names, times=4)
    async with (
        delivering(pool, receiver.target()) as one,
        delivering(pool, receiver.target()) as other,
    ):
        for _ in range(20):
            await asyncio.gather(one.deliver(), other.deliver())
    assert await waiting(pool) == 0
    assert len(receiver.attempts) == 80
    for name in names:
        assert heard(receiver, name) == ["account.parked", "account.recovered"] * 2


async def test_what_others_have_taken_since_is_not_put_off(pool, receiver, changes):
    """A sender that was frozen changes nothing when it wakes; what it has delivered is delivered."""
    await changes("ana")
    (frozen,) = await take(pool, 1, LEASE)
    await pass_time(pool, minutes=2)
    await take(pool, 1, LEASE)
    due = await pool.fetchval("SELECT next_attempt_at FROM refresher.outbox")
    await delivery.put_off(pool, frozen, timedelta(hours=1))
    assert await pool.fetchval("SELECT next_attempt_at FROM refresher.outbox") == due
    await delivery.end(pool, frozen)
    assert await waiting(pool) == 0


def settings(receiver):
    return {"webhook_url": receiver.url, "webhook_secret": f"{SECRET}, {OTHER_SECRET}"}


async def test_a_daemon_tells_the_application(serve, start, pool, receiver):
    """TikTok refuses an account's credential; the application stores new tokens.

    What the daemon finds at its first start is told, too: a consent that ends soon.
    """
    world = await serve()
    await authorize(world, "ana", 1)
    await pool.execute("UPDATE refresher.accounts SET access_token = 'act.bad', refresh_token = ''")
    await authorize(world, "ben", 0, consent=86_400 * 13)
    daemon = await start(world, **settings(receiver))
    assert (await daemon.until_event("webhooks.enabled"))["base_url"] == receiver.url[:-6]
    await daemon.until_event("webhook.delivered", 2)
    world.emulator.add_account("ana", "act.new")
    await pool.execute(
        "UPDATE refresher.accounts SET access_token = 'act.new' WHERE open_id = 'ana'"
    )
    await daemon.until_event("webhook.delivered", 3)
    assert await daemon.stopped() == 0
    assert heard(receiver, "ben") == ["consent.ending"]
    assert heard(receiver, "ana") == ["account.parked", "account.recovered"]
    (parked, _) = (
        attempt.verified(OTHER_SECRET) for attempt in receiver.taken if attempt.open_id == "ana"
    )
    (event,) = daemon.events("account.parked")
    assert (parked["data"]["state"], parked["data"]["reason"]) == (event["state"], event["reason"])


@pytest.mark.long
async def test_a_daemon_that_is_killed_leaves_its_webhook_to_the_next(
    serve, start, pool, receiver, changes
):
    """In the middle of a delivery: it comes again, with the same ID and body."""
    world = await serve()
    await changes("ana", times=2)
    receiver.hanging = True
    daemon = await start(world, **settings(receiver))

    async def asked():
        return receiver.attempts

    await eventually(asked, "an attempt")
    assert await daemon.stopped(signal.SIGKILL) == -signal.SIGKILL
    assert await waiting(pool) == 2
    receiver.hanging = False
    await pass_time(pool, minutes=1)  # the lease of the dead one
    daemon = await start(world, **settings(receiver))
    await daemon.until_event("webhook.delivered", 2)
    assert await daemon.stopped() == 0
    first, again, last = receiver.attempts
    assert (first.webhook_id, first.body) == (again.webhook_id, again.body)
    assert [first.type, last.type] == ["account.parked", "account.recovered"]


async def test_a_receiver_that_hangs_stops_nothing(serve, start, pool, receiver, changes):
    """Covers are refreshed meanwhile, and the daemon stops at once."""
    world = await serve()
    await changes(*"abcdefghijklmnopqrst")
    receiver.hanging = True
    daemon = await start(world, **settings(receiver))

    async def all_asked():
        return len(receiver.attempts) >= AT_ONCE

    await eventually(all_asked, "as many attempts as there may be at once")
    for name in ("x", "y", "z"):
        await world.add_account(name, videos=30)
    await world.until_valid(90)
    begun = monotonic()
    assert await daemon.stopped() == 0
    assert monotonic() - begun < 10  # below the time-out of an attempt
    assert not daemon.events("loop.failed")
    assert len(receiver.attempts) == AT_ONCE
    assert await waiting(pool) == 20


# --- webhooks test ---


async def test_a_test_that_is_taken(refresher, receiver):
    """Exit 0, and what came back; it needs no database."""
    code, out, err = await refresher(
        "webhooks", "test", url="postgresql://nobody@127.0.0.1:1/x", **settings(receiver)
    )
    assert (code, err) == (0, "")
    assert out.startswith(f"delivered to {receiver.url[:-6]}: HTTP 204 after ")
    (attempt,) = receiver.attempts
    told = attempt.verified()
    assert (told["type"], told["data"]) == ("webhooks.test", {})


async def test_a_test_that_is_refused(refresher, receiver):
    """Exit 2, and one line with what the receiver says, without its control characters."""
    receiver.answer = web.Response(status=401, text="bad\nsignature\x1b")
    code, out, err = await refresher("webhooks", "test", **settings(receiver))
    assert (code, out) == (2, "")
    assert err == f"refresher: {receiver.url[:-6]}: HTTP 401 bad\ufffdsignature\ufffd\n"


async def test_a_test_without_a_receiver(refresher):
    """Exit 2 where nobody listens; the path, which may be secret, is not said."""
    code, out, err = await refresher(
        "webhooks",
        "test",
        webhook_url=f"http://127.0.0.1:{free_port()}/pass-word-of-the-tests",
        webhook_secret=SECRET,
    )
    assert (code, out) == (2, "")
    assert "no connection" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "secret", "complaint"),
    [
        (None, SECRET, "REFRESHER_WEBHOOK_URL is not set: expected http://host/path"),
        ("http://h/pass-word", None, "REFRESHER_WEBHOOK_SECRET is not set: expected whsec_"),
        ("ftp://h/pass-word", SECRET, "REFRESHER_WEBHOOK_URL: expected http://host/path"),
        ("http://h/", "pass-word", "REFRESHER_WEBHOOK_SECRET: expected whsec_ and 24 to 64 bytes"),
    ],
)
async def test_a_test_with_wrong_settings(refresher, url, secret, complaint):
    """Exit 2, one line that shows no secret; `run` says the same."""
    given = {"webhook_url": url, "webhook_secret": secret}
    given = {name: value for name, value in given.items() if value}
    for command in (("webhooks", "test"), ("run",))[: 1 if url is None else 2]:
        code, out, err = await refresher(*command, **given)
        assert (code, out) == (2, "")
        assert err.startswith(f"refresher: {complaint}")
        assert err.count("\n") == 1
        assert "pass-word" not in err


# --- docs/webhooks.md ---

PAGE = (Path(__file__).parents[1] / "docs" / "webhooks.md").read_text()


def block(language):
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return text


async def test_the_receiver_of_the_page_takes_what_is_signed(refresher, tmp_path):
    """With the same secret, and only so; it prints each change once."""
    port = free_port()
    program = tmp_path / "receiver.py"
    program.write_text(block("python").replace("8091", str(port)))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        program,
        env={"REFRESHER_WEBHOOK_SECRET": SECRET},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await eventually(partial(answers, port), "a receiver")
        url = f"http://127.0.0.1:{port}/"
        for secret, expected in ((OTHER_SECRET, 2), (f"{OTHER_SECRET},{SECRET}", 0)):
            code, _, _ = await refresher("webhooks", "test", webhook_url=url, webhook_secret=secret)
            assert code == expected
    finally:
        process.kill()
        out, _ = await process.communicate()
    assert out == b"webhooks.test {}\n"


async def answers(port):
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_the_samples_of_the_page_are_as_what_comes(pool, receiver, changes):
    """One of each type that the table names, with the same fields."""
    samples = [json.loads(text) for text in re.split(r"\n(?=\{\"type\")", block("json"))]
    listed = re.findall(r"^\| `(\w+\.\w+)` \|", PAGE, re.MULTILINE)
    assert [sample["type"] for sample in samples] == listed
    await changes("ana", times=2)
    for days in (13, -1, 365):
        await pool.execute(
            "UPDATE refresher.accounts SET refresh_token = 'rft.' || $1,"
            " refresh_token_expires_at = now() + make_interval(days => $1::text::integer),"
            " tokens_generation = tokens_generation + CASE WHEN $1 = '-1' THEN 1 ELSE 0 END",
            str(days),
        )
        await consents_ending(pool)
    (risk,) = (sample["data"] for sample in samples if sample["type"] == "forecast.at_risk")
    assert set(risk) == set(FORECAST_AT_RISK.fields)
    await must_say(pool, risk, again_after=timedelta(0))
    await must_say(pool, None, again_after=timedelta(0))
    async with delivering(pool, receiver.target()) as delivery:
        await delivered(pool, delivery)
    came = {attempt.type: shape(attempt.told) for attempt in receiver.attempts}
    assert came == {
        sample["type"]: shape(sample) for sample in samples if sample["type"] != "webhooks.test"
    }


def shape(told):
    """Its fields, and those of its data."""
    return set(told), set(told["data"])
