"""Tells image files from others by their suffix, and files without a known suffix by their first bytes.

The lists of suffixes stand here, so that a folder has the same images on every machine.
"""

import re
from pathlib import PurePosixPath

from features.images.decode import has_image_signature
from features.references import ListedFile, Reference
from schemas.errors import RecordError

# Formats that capt does not decode are images too: their files fail, and are not left out.
_IMAGE = re.compile(
    r"\.(jpe?g|jpe|jfif|p?jpeg|pjp|jif|mpo|a?png|webp|gif|bmp|dib|tiff?|svgz?|hei[cf]|hif|avifs?|jp2|j2k|jp[cfmx]|jxl"
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
    """Tells by its suffix whether a file is an image.

    Args:
        name: Name of the file.

    Returns:
        Whether it is; None if the suffix is missing or not known.
    """
    suffix = PurePosixPath(name).suffix
    return True if _IMAGE.fullmatch(suffix) else False if _OTHER.fullmatch(suffix) else None


def starts_as_image(reference: Reference) -> bool:
    """Tells by its first bytes whether a file is an image.

    Args:
        reference: The file.

    Returns:
        Whether it begins as a format that capt decodes. A file that cannot be read counts as an image, so that it fails
        for its reason and is not left out.
    """
    try:
        return has_image_signature(reference.read_start(_START_BYTES))
    except RecordError:
        return True


def is_image(found: ListedFile) -> bool:
    """Tells by its suffix, or else by its first bytes, whether a file is an image."""
    told = is_image_name(found.name)
    return starts_as_image(found.reference) if told is None else told
