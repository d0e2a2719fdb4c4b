"""Opens HEIC images with pi-heif, which the extra `heif` installs."""

from io import BytesIO

from PIL import ImageFile

from schemas.errors import RecordError


def open_heif(file: BytesIO, name: str) -> ImageFile.ImageFile:
    """Opens the primary image of a HEIC. libheif turns it as the container says; EXIF must not turn it again.

    Raises:
        RecordError: pi-heif is not installed. The failure is not permanent.
    """
    try:
        import pi_heif
    except ImportError:
        hint = "HEIC images need pi-heif. Run `pip install 'capt[heif]'`"
        raise RecordError("decode", "unsupported", hint, permanent=False) from None
    pi_heif.options.DECODE_THREADS = 1  # as for AVIF
    pi_heif.options.THUMBNAILS = pi_heif.options.DEPTH_IMAGES = pi_heif.options.AUX_IMAGES = False
    image: ImageFile.ImageFile = pi_heif.HeifImageFile(file, name)
    for metadata in ("exif", "xmp"):
        image.info.pop(metadata, None)
    return image
