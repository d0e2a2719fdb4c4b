"""Recognizes image files by their suffix, and files without a known suffix by their first bytes.

The suffixes are listed here, so that a directory has the same images on every machine.
"""

import re
from pathlib import PurePosixPath

from features.images.decode import has_image_signature
from features.inputs import FileReference, ListedFile
from schemas.errors import RecordError

# Also formats that capt does not decode: such files fail instead of being ignored.
_IMAGE = re.compile(
    r"\.(jpe?g|jpe|jfif|p?jpeg|pjp|jif|mpo|a?png|webp|gif|bmp|dib|tiff?|svgz?|hei[cf]|hif|avifs?|jp2|j2[ck]|jp[cfmx]|jxl"
    r"|jxr|wdp|hdp|ico|cur|psd|xcf|djvu|p[bgpna]m|pcx|tga|icb|vda|vst|exr|hdr|sgi|rgba?|ras|x[bp]m|xwd|ief|wbmp|dds"
    r"|qoi|dng|cr[23w]|nef|nrw|arw|srf|sr2|srw|orf|raf|rw2|pef|x3f|erf)",
    re.IGNORECASE,
)
_OTHER = re.compile(
    r"\.(txt|text|md|rst|log|jsonl?|ndjson|csv|tsv|tab|xml|html?|ya?ml|toml|ini|cfg|conf|eng|token|cls|sh|py|ipynb|pdf"
    r"|docx?|xlsx?|pptx?|zip|tar|tgz|gz|bz2|xz|zst|7z|rar|npy|npz|h5|hdf5|mat|pkl|pth?|sqlite|parquet|arrow|feather"
    r"|tfrecord|lmdb|mp[34]|m4[av]|wav|flac|ogg|mov|avi|mkv|webm|mpe?g|md5|sha1|sha256)",
    re.IGNORECASE,
)
_START_BYTES = 32


def is_image_name(name: str) -> bool | None:
    """Returns whether a file is an image by its suffix; None if the suffix is missing or unknown."""
    suffix = PurePosixPath(name).suffix
    return True if _IMAGE.fullmatch(suffix) else False if _OTHER.fullmatch(suffix) else None


def starts_as_image(reference: FileReference) -> bool:
    """Returns whether a file starts as a format that capt decodes; True if it cannot be read, so that it fails."""
    try:
        return has_image_signature(reference.read_start(_START_BYTES))
    except RecordError:
        return True


def is_image(file: ListedFile) -> bool:
    """Returns whether a file is an image, by its suffix or else by its first bytes."""
    by_name = is_image_name(file.name)
    return starts_as_image(file.reference) if by_name is None else by_name
