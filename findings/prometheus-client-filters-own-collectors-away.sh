#!/usr/bin/env bash
# A scrape that asks for some metrics by name gets none of a collector of one's own, and a good status.
#
# Library: prometheus-client 0.26.0, its handler for aiohttp, aiohttp 3.14.5.
# Documentation: "Restricted registry" says that name[] limits a scrape to the metrics named; "Custom collectors" says that
#   `describe` is usually not needed. One would think that both hold together.
# Surprise: with a registry of one's own, which calls nothing at registration, name[] finds only what `describe` named. A
#   collector without it is left out: status 200, an empty body, no word. Beside a direct Gauge only that one is answered. The
#   option support_collectors_without_names, documented for collectors without metrics, has them looked through.
# The refresher: sets that option, so that `params: {'name[]': […]}` of a scrape gets what it names.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet prometheus-client==0.26.0 aiohttp==3.14.5

cat > "$work/scrape.py" <<'PY'
import asyncio
import sys
from importlib.metadata import version

from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.aiohttp import make_aiohttp_handler
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class Queue(Collector):
    def collect(self):
        yield GaugeMetricFamily("queue_length", "Of a queue elsewhere.", 7)


async def scraped(names, **options):
    registry = CollectorRegistry(**options)
    registry.register(Queue())
    Gauge("workers", "Made directly.", registry=registry).set(3)
    app = web.Application()
    app.router.add_get("/metrics", make_aiohttp_handler(registry))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with (
        ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics", params=[("name[]", name) for name in names]) as answer,
    ):
        lines = (await answer.text()).splitlines()
    await runner.cleanup()
    return answer.status, sorted(line for line in lines if not line.startswith("#"))


async def main():
    print("versions:", *(f"{name} {version(name)}" for name in ("prometheus-client", "aiohttp")))
    both = ["queue_length 7.0", "workers 3.0"]
    cases = {
        "all": (await scraped([]), both, both),
        "queue_length": (await scraped(["queue_length"]), both[:1], []),
        "both": (await scraped(["queue_length", "workers"]), both, both[1:]),
        "both, with the option": (
            await scraped(["queue_length", "workers"], support_collectors_without_names=True), both, both,
        ),
    }
    for name, (seen, expected, _) in cases.items():
        print(f"{name}: expected {(200, expected)}, seen {seen}")
    sys.exit(any(seen != (200, found) for seen, _, found in cases.values()) and 'changed: see "seen"')


asyncio.run(main())
PY
"$work/venv/bin/python" "$work/scrape.py"
echo 'as found'
