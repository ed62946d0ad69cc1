"""What an answer means for each video that was asked for."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.due import (
    DuePolicy,
    account_spread,
    due_after_refresh,
    wait_after_miss,
)
from refresher.domain.model import ChunkWrite, OpenId, Video, VideoId, Write
from refresher.domain.reconcile import put_aside, reconcile
from tests.conftest import one_by_one

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
POLICY = DuePolicy(lead=HOUR, spread=HOUR / 2, fallback_ttl=6 * HOUR, missing_limit=3)
ANA = OpenId("ana")
ID = VideoId("7400000000000000001")


def video(video_id=ID, *, due=True, stored=HOUR, misses=0, missing=False):
    expires_at = None if stored is None else (NOW + stored).timestamp()
    return Video(video_id, due, expires_at, misses, missing)


def url(life):
    return f"https://example.com/a~b:c.jpeg?x-expires={int((NOW + life).timestamp())}&s=%2F"


def outcome(asked, answer):
    """The counts and the one write, if any, for one video."""
    result = reconcile(POLICY, ANA, [asked], answer, NOW)
    counts = (result.refreshed, result.unchanged, result.missing, len(result.rejections))
    names = [
        name
        for name, count in zip(
            ("refreshed", "unchanged", "missing", "rejected"), counts, strict=True
        )
        if count
    ]
    assert len(result.writes) <= 1
    return names, next(iter(result.writes), None)


@pytest.mark.parametrize(
    "asked",
    [
        video(),
        video(stored=None),
        video(stored=-HOUR),
        video(due=False),
        video(misses=4, missing=True),
        video(misses=2),
    ],
    ids=["due", "new", "dead", "top-up", "was-missing", "was-unchanged"],
)
def test_a_later_expiry_is_stored(asked):
    """A cover that outlives the stored one is written, and all misses are forgotten."""
    due_at = due_after_refresh(POLICY, account_spread(ANA), NOW, NOW + 24 * HOUR)
    write = Write([ID], due_at, NOW + 24 * HOUR, [url(24 * HOUR)])
    assert outcome(asked, {ID: url(24 * HOUR)}) == (["refreshed"], write)


def test_a_cover_of_a_host_whose_lead_has_grown_is_due_earlier():
    """By so much; those of other hosts in the same answer are not."""
    other, life = VideoId("7400000000000000002"), 24 * HOUR
    answer = {ID: url(life), other: url(life).replace("example.com", "example.net")}
    grown = {"example.net": HOUR.total_seconds()}
    result = reconcile(POLICY, ANA, [video(), video(other)], answer, NOW, grown=grown)
    usual = due_after_refresh(POLICY, account_spread(ANA), NOW, NOW + life)
    assert [(write.video_ids, write.due_at) for write in result.writes] == [
        ([ID], usual),
        ([other], usual - HOUR),
    ]


@pytest.mark.parametrize("life", [HOUR, HOUR / 2], ids=["the-same", "earlier"])
def test_an_expiry_that_is_not_later_changes_only_the_due_time(life):
    """The stored cover stays, and the video waits instead of being asked for at once."""
    unchanged = Write([ID], NOW + MINUTE, misses=1)
    assert outcome(video(), {ID: url(life)}) == (["unchanged"], unchanged)


def test_a_rejected_cover_changes_only_the_due_time():
    """An answer that cannot be stored is named with its reason and asked for again later."""
    result = reconcile(POLICY, ANA, [video(misses=1)], {ID: None}, NOW)
    assert result.rejections == [(ID, "no URL")]
    assert result.writes == [Write([ID], NOW + 6 * MINUTE, misses=2)]


@pytest.mark.parametrize(
    ("misses", "wait", "gone"),
    [(0, MINUTE, False), (1, 6 * MINUTE, False), (2, 36 * MINUTE, True), (5, 3 * 24 * HOUR, True)],
)
def test_a_missing_video_is_gone_at_the_limit(misses, wait, gone):
    """Each miss in a row is waited for longer; at the limit the video is gone."""
    asked = video(misses=misses, missing=misses > 0)
    write = Write([ID], NOW + wait, misses=misses + 1, missing=True, gone=gone)
    assert outcome(asked, {}) == (["missing"], write)


def test_misses_of_another_kind_do_not_add_up():
    """A video that was unchanged twice and is missing now is missing for the first time."""
    missing = Write([ID], NOW + MINUTE, misses=1, missing=True)
    assert outcome(video(misses=2), {}) == (["missing"], missing)
    back = Write([ID], NOW + MINUTE, misses=1)
    assert outcome(video(misses=5, missing=True), {ID: url(HOUR)}) == (["unchanged"], back)


@pytest.mark.parametrize(
    ("asked", "answer", "name"),
    [
        (video(due=False), {ID: url(HOUR)}, "unchanged"),
        (video(due=False), {ID: "nonsense"}, "rejected"),
        (video(due=False, misses=2, missing=True), {}, "missing"),
    ],
    ids=["unchanged", "rejected", "missing"],
)
def test_a_top_up_without_news_writes_nothing(asked, answer, name):
    """Asked before it was due and nothing new: counted, but neither a miss nor a write."""
    assert outcome(asked, answer) == ([name], None)


def test_a_top_up_that_turns_out_missing_is_written():
    """A change is a change, even where it was found early."""
    missing = Write([ID], NOW + MINUTE, misses=1, missing=True)
    assert outcome(video(due=False), {}) == (["missing"], missing)


def test_a_video_nobody_asked_for_is_ignored():
    """An answer may hold what it likes: only what was asked for is written."""
    result = reconcile(POLICY, ANA, [], {ID: url(24 * HOUR)}, NOW)
    assert result == reconcile(POLICY, ANA, [], {}, NOW)


ids = st.sampled_from([VideoId(str(number)) for number in range(30)])
spans = st.timedeltas(min_value=-2 * HOUR, max_value=48 * HOUR)
videos = st.builds(
    video,
    ids,
    due=st.booleans(),
    stored=st.none() | spans,
    misses=st.integers(0, 9),
    missing=st.booleans(),
)
covers = st.one_of(spans.map(url), st.none(), st.text(), st.just("https://example.com/no-expiry"))


@given(
    asked=st.lists(videos, unique_by=lambda asked: asked.video_id, max_size=20),
    answer=st.dictionaries(ids, covers),
)
def test_every_answer_is_accounted_for(asked, answer):
    """Each asked ID counts once; a write is for an asked ID, later due, and never shortens."""
    result = reconcile(POLICY, ANA, asked, answer, NOW)
    counts = result.refreshed, result.unchanged, result.missing, len(result.rejections)
    assert sum(counts) == len(asked)
    assert result.missing == len([video for video in asked if video.video_id not in answer])
    stored = {video.video_id: video.cover_expires_at for video in asked}
    writes = one_by_one(result.writes)
    written = [write.video_ids[0] for write in writes]
    assert len(written) == len(set(written))
    for write, video_id in zip(writes, written, strict=True):
        before, expires_at = stored[video_id], write.cover_expires_at
        assert write.due_at > NOW
        assert expires_at is None or before is None or expires_at.timestamp() > before
        assert expires_at is None or write.urls == [answer[video_id]]
    assert len([write for write in writes if write.urls]) == result.refreshed


@given(
    asked=st.lists(
        st.builds(video, ids, stored=st.none() | st.sampled_from([HOUR, 3 * HOUR])),
        unique_by=lambda asked: asked.video_id,
        max_size=20,
    ),
    lives=st.dictionaries(ids, st.sampled_from([HOUR, 2 * HOUR, 6 * HOUR, 24 * HOUR])),
    unnamed=st.sets(ids),
)
def test_covers_that_die_together_are_one_write(asked, lives, unnamed):
    """One for each expiry, as the first of it was asked for; whoever brings none is by itself.

    Those whose URLs name no expiry die with those that name the same one as the fallback.
    """
    lives |= dict.fromkeys(unnamed, POLICY.fallback_ttl)
    answer = {
        video_id: f"https://example.com/{video_id}"
        if video_id in unnamed
        else f"{url(life)}&{video_id}"
        for video_id, life in lives.items()
    }
    together, others = {}, []
    for video in asked:
        expires_at = NOW + lives.get(video.video_id, -HOUR)
        if expires_at.timestamp() > (video.cover_expires_at or NOW.timestamp()):
            together.setdefault(expires_at, []).append(video.video_id)
        else:
            others.append([video.video_id])
    writes = reconcile(POLICY, ANA, asked, answer, NOW).writes
    assert [write for write in writes if write.cover_expires_at] == [
        Write(
            alike,
            due_after_refresh(POLICY, account_spread(ANA), NOW, expires_at),
            expires_at,
            [answer[video_id] for video_id in alike],
        )
        for expires_at, alike in together.items()
    ]
    assert [write.video_ids for write in writes if not write.cover_expires_at] == others
    assert not any(write.urls for write in writes if not write.cover_expires_at)


def test_no_write_shows_a_url():
    """The repr of a write, and of what holds it, has no URL in it, so no signature."""
    result = reconcile(POLICY, ANA, [video()], {ID: url(24 * HOUR)}, NOW)
    (write,) = result.writes
    assert write.urls == [url(24 * HOUR)]
    assert repr(write) == (
        f"Write(video_ids={[ID]}, due_at={write.due_at!r}, cover_expires_at={NOW + 24 * HOUR!r},"
        " misses=0, missing=False, gone=False, refusal=None)"
    )
    assert repr(write) in repr(result)
    assert repr(write) in repr(ChunkWrite(ANA, 1, [write]))


def test_a_refused_chunk_is_taken_apart():
    """Its due videos wait, each for a time of its own, so that they meet others next time."""
    asked = [video(VideoId(str(n)), misses=n % 3) for n in range(20)]
    result = put_aside(POLICY, asked, "invalid_params", NOW)
    assert [reason for _, reason in result.rejections] == ["invalid_params"] * 20
    assert [write.video_ids for write in result.writes] == [[video.video_id] for video in asked]
    assert [write.misses for write in result.writes] == [n % 3 + 1 for n in range(20)]
    assert len({write.due_at for write in result.writes}) == 20
    for write in result.writes:
        wait = wait_after_miss(write.misses, present=True)
        assert wait / 2 <= write.due_at - NOW <= wait
        assert (write.cover_expires_at, write.urls) == (None, [])


def test_a_top_up_in_a_refused_chunk_is_not_held_against_it():
    """It was not due, and is not moved."""
    result = put_aside(POLICY, [video(due=False)], "invalid_params", NOW)
    assert result.writes == []
