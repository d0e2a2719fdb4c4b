"""Captions: the key of one, and the digest of many."""

import hashlib
from json.encoder import encode_basestring

import numpy as np

from schemas.tables import KEY_BYTES


def compute_caption_key(dataset: str, image_id: str, caption_id: str) -> bytes:
    """The 32-byte key of a caption: SHA-256 of the canonical JSON of `[dataset, image_id, caption_id]`.

    Changing this changes the order of the rows and the digest of every text table.
    """
    # What `schemas.table_config.canonical_json` gives, several times as fast.
    names = ",".join(map(encode_basestring, (dataset, image_id, caption_id)))
    return hashlib.sha256(f"[{names}]".encode()).digest()


def compute_caption_digest(key: bytes, caption: str) -> bytes:
    """The 32-byte digest of a caption: SHA-256 of its key and its text, before any standardizing, in UTF-8."""
    return hashlib.sha256(key + caption.encode()).digest()


class CaptionsDigest:
    """The digest of a set of captions, the same in whatever order and in however many parts they come.

    It is the SHA-256 of the captions' `caption_digest`s, sorted. Only 32 bytes a caption are held. Parts that were
    digested apart are brought together by `merge`. A caption that is added twice counts twice.
    """

    def __init__(self) -> None:
        self._digests = bytearray()

    def __len__(self) -> int:
        return len(self._digests) // KEY_BYTES

    def add(self, digests: bytes) -> None:
        """Take captions in by their `caption_digest`s, one after the other."""
        self._digests += digests

    def merge(self, other: "CaptionsDigest") -> None:
        """Take in all captions of another digest."""
        self._digests += other._digests

    def hexdigest(self) -> str:
        """The digest of what was added so far, 64 hexadecimal digits."""
        rows = np.frombuffer(bytes(self._digests), dtype=f"S{KEY_BYTES}")
        return hashlib.sha256(np.sort(rows).tobytes()).hexdigest()


def identify_built_vocabulary(train: CaptionsDigest) -> str:
    """`CaptionTableConfig.vocabulary` of a vocabulary that is learned from these train captions: `train:HEX`."""
    return f"train:{train.hexdigest()}"
