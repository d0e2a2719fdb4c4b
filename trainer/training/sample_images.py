"""Checks the image files of `sample_images` before training begins."""

from collections.abc import Sequence

from features.images.decode import open_image
from features.inputs import FileReference
from schemas.errors import RecordError, UsageError, to_record_error


def check_sample_images(paths: Sequence[str]) -> None:
    """Raises UsageError if an image file cannot be read or decoded."""
    for path in paths:
        stage = "read"
        try:
            data = FileReference.from_location(path).read()
            stage = "decode"
            open_image(data)
        except Exception as error:
            raise unusable_image(path, to_record_error(stage, error)) from None


def unusable_image(path: str, error: RecordError) -> UsageError:
    """Returns the error for an image file that cannot be captioned."""
    hint = "Choose an image file, or remove it from sample_images."
    return UsageError(f"the image cannot be captioned: {error}", location=f"sample_images: {path}", hint=hint)
