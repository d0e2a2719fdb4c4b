"""Declares the options that several modules share."""

from typing import Annotated

from schemas.options.base import Argument, Option, option

NUM_SHARDS = option(
    None,
    "Number of shards: a power of two, at most 65536. [default: the smallest number for which a shard has at "
    "most about 128 MiB]",
    "N",
)
DRY_RUN = option(False, "Report what the command would do. The store is not changed.")
CaptchaImages = Annotated[
    tuple[str, ...],
    Option("Directory or archive (.zip, .tar) with a0.png, a1.png, ...; local, s3:// or gs://. Repeatable.", "PATH"),
]
StoreArgument = Annotated[str, Argument("Store: a local directory, or an s3:// or gs:// URI.", "STORE")]
CAPTION_TABLE = option(
    None, "Caption table, by fingerprint or the beginning of one. [default: the only table that fits]", "FINGERPRINT"
)
