"""The model of docs/integrate/view.md, in an application that runs on Django."""

import json
import re

import pytest

from tests.clients.test_orms import Site, site  # noqa: F401 - a fixture
from tests.documented import FENCED, PAGES
from tests.test_attach import store_covers

pytestmark = pytest.mark.clients

#: As the page has it, over the tables that Django makes.
VIEW = """
CREATE VIEW clip_covers AS
SELECT c.id AS clip_id, v.cover_image_url AS url, v.cover_expires_at AS expires,
       v.cover_expires_at > now() IS TRUE AS alive
FROM clips_clip AS c JOIN clips_user AS u ON u.id = c.user_id
LEFT JOIN refresher.videos AS v ON v.open_id = u.name AND v.video_id = c.tiktok_id
"""
READ = """
import json
import re
from django.db import connection
from django.test.utils import CaptureQueriesContext
from clips.models import Clip, User
ann = User.objects.create(name="ann")
for tiktok_id in "12":
    Clip.objects.create(user=ann, tiktok_id=tiktok_id)
with CaptureQueriesContext(connection) as queries:
    clips = list(Clip.objects.select_related("cover").order_by("id"))
    told = [[clip.cover.url, clip.cover.alive] for clip in clips]
clips[0].title = "saved whole"
clips[0].save()
clips[1].delete()
print(json.dumps([told, len(queries), Clip.objects.count()]))
"""


async def test_the_model_reads_covers_in_one_query_and_writes_none(site: Site, pool):  # noqa: F811
    """A migration of it makes no table; clips are saved and deleted beside it as ever."""
    (model,) = (
        text
        for _, kind, text in FENCED.findall(PAGES["docs/integrate/view.md"])
        if kind == "python" and "django" in text
    )
    models = site.folder / "clips" / "models.py"
    without = re.sub(r"^ +cover\w* = .*\n", "", models.read_text(), flags=re.MULTILINE)
    models.write_text(without + model)  # the view is there in place of columns of its own
    await site.managed("makemigrations", "clips")
    await site.managed("migrate")
    await pool.execute("INSERT INTO refresher.accounts (open_id) VALUES ('ann')")
    await pool.execute("INSERT INTO refresher.videos (open_id, video_id) VALUES ('ann', '1')")
    await store_covers(pool)
    await pool.execute(VIEW)
    told, queries, left = json.loads((await site.managed("shell", "-c", READ)).splitlines()[-1])
    assert told == [
        [await pool.fetchval("SELECT cover_image_url FROM refresher.videos"), True],
        [None, False],
    ]
    assert (queries, left) == (1, 1)
