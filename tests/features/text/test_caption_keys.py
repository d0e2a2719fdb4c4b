import hashlib
import json
import random

from hypothesis import given
from hypothesis import strategies as st

from features.text.caption_keys import (
    CaptionsDigest,
    compute_caption_digest,
    compute_caption_key,
    identify_built_vocabulary,
)


def digest(pairs):
    result = CaptionsDigest()
    for key, text in pairs:
        result.add(compute_caption_digest(key, text))
    return result


def test_a_key_is_the_sha256_of_the_canonical_json_of_its_three_parts():
    expected = hashlib.sha256(json.dumps(["coco", "9", "a\u00e9"], ensure_ascii=False, separators=(",", ":")).encode())
    assert compute_caption_key("coco", "9", "a\u00e9") == expected.digest()


def test_keys_depend_on_the_boundaries_of_the_parts():
    assert (
        len(
            {
                compute_caption_key("a", "b", "cd"),
                compute_caption_key("a", "bc", "d"),
                compute_caption_key("ab", "", "cd"),
            }
        )
        == 3
    )


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.text(st.characters(codec="utf-8"))), max_size=8))
def test_order_and_grouping_do_not_change_the_digest(pairs):
    shuffled = random.Random(1).sample(pairs, len(pairs))
    parts = digest(shuffled[:3])
    parts.merge(digest(shuffled[3:]))
    assert parts.hexdigest() == digest(pairs).hexdigest()
    assert len(parts) == len(pairs)


def test_the_digest_is_the_sha256_of_the_sorted_digests_of_the_captions():
    pairs = [(bytes([n]) * 32, f"caption {n}") for n in range(44)]
    rows = sorted(hashlib.sha256(key + text.encode()).digest() for key, text in pairs)
    assert digest(pairs).hexdigest() == hashlib.sha256(b"".join(rows)).hexdigest()


def test_the_digest_changes_with_a_text_with_a_key_and_with_a_repetition():
    key, other = compute_caption_key("d", "1", "1"), compute_caption_key("d", "1", "2")
    sets = [[(key, "a")], [(key, "b")], [(other, "a")], [(key, "a"), (key, "a")], []]
    assert len({digest(pairs).hexdigest() for pairs in sets}) == len(sets)


def test_a_digest_can_be_read_while_more_is_added():
    growing = digest([(bytes(32), "a")])
    before = growing.hexdigest()
    growing.add(compute_caption_digest(bytes(32), "b"))
    assert growing.hexdigest() != before


def test_a_built_vocabulary_is_identified_by_its_training_captions():
    train = digest([(bytes(32), "a")])
    assert identify_built_vocabulary(train) == f"train:{train.hexdigest()}"
