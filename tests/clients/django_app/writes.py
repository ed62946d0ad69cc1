"""The application at work: reads a line with what it does next, and prints when it is done.

Argument: video IDs by open_id, as JSON. Those of a user are all known to TikTok; the application
begins with the first ten of each.
"""

import json
import sys
from contextlib import suppress
from itertools import islice

import site_settings  # noqa: F401 - configures Django
from clips.models import Clip, SocialAccount, User
from django.db import transaction
from django.utils import timezone

IDS = {name: iter(ids) for name, ids in json.loads(sys.argv[1]).items()}
held = []  # rows as they were read at first, before any cover came


class UndoneError(Exception):
    """Rolls a transaction back."""


def undo():
    raise UndoneError


def user_of(name):
    return User.objects.get(name=name)


def new_clips(name, count):
    user = user_of(name)
    return [Clip(user=user, tiktok_id=video_id) for video_id in islice(IDS[name], count)]


def sign_up():
    for name in IDS:
        with transaction.atomic():
            user = User.objects.create(name=name)
            token = {"access_token": f"act.{name}", "access_token_expires": None}
            SocialAccount.objects.create(user=user, provider="tiktok", uid=name, **token)
            SocialAccount.objects.create(user=user, provider="google", uid=f"{name}-there")
        Clip.objects.bulk_create(new_clips(name, 10))
    held.extend(Clip.objects.order_by("id"))


def save_stale_rows():
    for clip in held:
        clip.title = "saved whole"
        clip.save()


def save():
    for clip in Clip.objects.filter(user__name="ann")[:3]:
        clip.title = "fresh"
        clip.save()
    for clip in Clip.objects.filter(user__name="bob")[:3]:
        clip.title, clip.cover = "one column", "never written"
        clip.save(update_fields=["title"])
    for account in SocialAccount.objects.all():
        account.save()


def bulk():
    Clip.objects.bulk_create([*new_clips("ann", 3), *new_clips("bob", 3)], batch_size=2)
    again = [Clip(user=each.user, tiktok_id=each.tiktok_id, title="again") for each in held[:4]]
    Clip.objects.bulk_create(again, ignore_conflicts=True)
    upsert = {"unique_fields": ["user", "tiktok_id"], "update_fields": ["title", "cover"]}
    Clip.objects.bulk_create([*again, *new_clips("ann", 2)], update_conflicts=True, **upsert)
    clips = list(Clip.objects.order_by("id")[:12])
    for clip in clips:
        clip.cover, clip.cover_expires = "https://old.example/", timezone.now()
    Clip.objects.bulk_update(clips, ["cover", "cover_expires"], batch_size=5)


def update():
    live = Clip.objects.filter(deleted_at=None)
    some = list(live.filter(user__name="bob").order_by("id").values_list("id", flat=True)[:4])
    Clip.objects.filter(id__in=some).update(deleted_at=timezone.now())
    Clip.objects.filter(id__in=some[:2]).update(deleted_at=None, cover="")
    # To another user of TikTok, and another video.
    one, other = new_clips("carl", 2)
    moved = live.filter(user__name="ann").order_by("id")[0]
    moved.user, moved.tiktok_id = one.user, one.tiktok_id
    moved.save()
    Clip.objects.filter(id=moved.id).update(tiktok_id=other.tiktok_id)


def nest():
    kept, undone, lost = new_clips("ann", 3)
    with transaction.atomic():
        kept.save()
        with suppress(UndoneError), transaction.atomic():
            undone.save()
            Clip.objects.filter(user__name="ann").delete()
            undo()
        Clip.objects.filter(id=kept.id).update(title="kept")
    with suppress(UndoneError), transaction.atomic():
        lost.save()
        User.objects.filter(name="bob").delete()
        undo()


def hold():
    """Holds rows locked until the next line."""
    with transaction.atomic():
        rows = Clip.objects.select_for_update(of=("self",)).filter(user__name="carl")
        clips = list(rows.order_by("id"))
        Clip.objects.bulk_create(new_clips("carl", 1))
        say("holding", len(clips))
        sys.stdin.readline()
        for clip in clips:
            clip.title = "held"
            clip.save()


def get_or_create():
    (new,) = new_clips("bob", 1)
    for _ in range(2):
        Clip.objects.get_or_create(user=new.user, tiktok_id=new.tiktok_id)
    (newer,) = new_clips("bob", 1)
    for title in ("made", "updated"):
        fields = {"title": title, "cover": ""}
        Clip.objects.update_or_create(user=newer.user, tiktok_id=newer.tiktok_id, defaults=fields)


def delete():
    first, *others = Clip.objects.filter(user__name="ann").order_by("id")
    first.delete()
    Clip.objects.filter(id__in=[each.id for each in others[:3]]).delete()
    user_of("carl").delete()  # with all that refers to it


STEPS = {
    each.__name__: each
    for each in (
        *(sign_up, save_stale_rows, save, bulk, update, nest, hold, get_or_create, delete),
    )
}


def say(*words):
    print(json.dumps(words), flush=True)


for line in sys.stdin:
    STEPS[line.strip()]()
    say(line.strip())
