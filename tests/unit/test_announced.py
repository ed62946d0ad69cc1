"""What applications that listen are told of changed covers."""

import json

from hypothesis import given
from hypothesis import strategies as st

from refresher.domain.announced import MOST_BYTES, payloads

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(TEXTS, st.lists(TEXTS.map(lambda text: text[:20]), max_size=300))
def test_each_video_is_told_once_and_in_order(open_id, video_ids):
    """In payloads that PostgreSQL takes."""
    told = list(payloads(open_id, video_ids))
    assert all(len(text.encode()) <= MOST_BYTES for text in told)
    assert all(json.loads(text)["open_id"] == open_id for text in told)
    assert [one for text in told for one in json.loads(text)["video_ids"]] == video_ids


def test_few_payloads_tell_many_videos():
    """Each is filled up to its last byte but one ID."""
    ids = [str(7_000_000_000_000_000_000 + number) for number in range(1_000)]
    sizes = [len(text) for text in payloads("ana", ids)]
    assert len(sizes) == 3
    assert min(sizes[:-1]) > MOST_BYTES - 23


def test_an_account_too_long_to_be_told_of_is_left_out():
    """Nothing of it is announced, and nothing breaks."""
    assert list(payloads("a" * MOST_BYTES, ["1", "2"])) == []
