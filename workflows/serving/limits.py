"""Defines the limits of a server: sizes, queues and time-outs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServingLimits:
    """Limits of one server. Memory is bounded by `max_held_bytes`, `max_pixels` and the batches of each model."""

    max_images: int = 16  # per request
    max_body_bytes: int = 32 << 20
    max_held_bytes: int = 256 << 20  # of the bodies and downloads of all requests
    max_pixels: int = 50_000_000  # per image; a model decodes two images at once
    max_batch_images: int = 32
    batch_wait_seconds: float = 0.004  # for further requests, while a batch is not full
    max_waiting_images: int = 256  # per model
    max_downloads: int = 8  # at once
    header_seconds: int = 30  # until the next request of a connection begins
    body_seconds: float = 30.0
    download_seconds: float = 20.0
    prediction_seconds: float = 60.0
    shutdown_seconds: float = 90.0
    champion_seconds: float = 5.0  # between two looks for new champions
