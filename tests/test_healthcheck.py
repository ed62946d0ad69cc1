"""`healthcheck`, as the health check of a container calls it."""

from tests.conftest import free_port


async def test_a_daemon_that_lives_and_is_ready(refresher, start, serve):
    """Exit 0 with its answer, on whatever address it listens; not ready without a schema: 1."""
    port = free_port()
    daemon = await start(await serve(), http_listen=f"127.0.0.1:{port}")
    await daemon.until_event("daemon.started")
    for listen in (f"127.0.0.1:{port}", f"0.0.0.0:{port}"):
        assert await refresher("healthcheck", http_listen=listen) == (0, "ok\n", "")
        assert await refresher("healthcheck", "--ready", http_listen=listen) == (0, "ok\n", "")


async def test_a_daemon_that_waits_for_its_database_lives_but_is_not_ready(refresher, start):
    """Exit 1, and one line that says what is missing."""
    port = free_port()
    away = "postgresql://u@127.0.0.1:9/d"
    daemon = await start(http_listen=f"127.0.0.1:{port}", database_url=away)
    await daemon.until_event("database.lost")
    listen = f"127.0.0.1:{port}"
    assert await refresher("healthcheck", http_listen=listen) == (0, "ok\n", "")
    code, out, err = await refresher("healthcheck", "--ready", http_listen=listen)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"/readyz at {listen}: database: " in err


async def test_nobody_answers(refresher):
    """Exit 1 with the address; without the setting exit 2 that names it."""
    listen = f"127.0.0.1:{free_port()}"
    code, _, err = await refresher("healthcheck", http_listen=listen)
    assert (code, err) == (1, f"refresher: /livez at {listen}: Connection refused\n")
    code, _, err = await refresher("healthcheck")
    assert (code, err.count("\n")) == (2, 1)
    assert "REFRESHER_HTTP_LISTEN is not set" in err
