"""Reads the images of a request, in bounded memory: a form, raw bytes, or the URL in a JSON object.

Bodies and downloads of all requests together hold a bounded number of bytes, which `HeldBytes` counts.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from features.inputs.image_urls import DownloadLimits, download, is_image_url
from schemas.errors import RecordError
from schemas.secrets import strip_user
from workflows.serving.limits import ServingLimits
from workflows.serving.responses import RequestError, overloaded
from workflows.serving.served_tasks import RequestImage

FIELD = "image"  # of a form
_RAW_NAME = "image"  # in the results of raw bytes
_HOW = "Send a form with the field image, the bytes of an image, or a JSON object with the key url."
_MAX_JSON_BYTES = 1 << 16
# A client that is told too early that its body is too large sees a broken connection. So most of the rest is read.
_MAX_DISCARDED_BODIES = 4


class HeldBytes:
    """Counts the bytes that requests hold, up to a maximum."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0

    @asynccontextmanager
    async def count(self) -> AsyncIterator["HeldBytesOfRequest"]:
        """Counts the bytes of one request, until the end of the context."""
        request = HeldBytesOfRequest(self)
        try:
            yield request
        finally:
            self._held -= request.bytes

    def add(self, count: int) -> None:
        if self._held + count > self._most:
            raise overloaded("The server holds as many images as it can.")
        self._held += count


class HeldBytesOfRequest:
    """Counts the bytes that one request holds."""

    def __init__(self, all_requests: HeldBytes) -> None:
        self._all, self.bytes = all_requests, 0

    def add(self, count: int) -> None:
        """Adds bytes; RequestError if the requests hold too many."""
        self._all.add(count)
        self.bytes += count


class ImageReader:
    """Reads the images of requests.

    Args:
        limits: Sizes, numbers and time-outs.
        allow_private: Whether URLs may resolve to addresses outside the public internet.
    """

    def __init__(self, limits: ServingLimits, *, allow_private: bool) -> None:
        self._limits = limits
        self._held = HeldBytes(limits.max_held_bytes)
        self._downloads = CapacityLimiter(limits.max_downloads)
        seconds = limits.download_seconds
        self._download_limits = DownloadLimits(
            max_bytes=limits.max_body_bytes,
            connect_seconds=seconds / 2,
            read_seconds=seconds / 2,
            total_seconds=seconds,
            retries=0,
            allow_private=allow_private,
        )

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[list[RequestImage]]:
        """Reads the images of a request, at least one; their memory is counted until the end of the context.

        Raises:
            RequestError: The body is too large or too slow, has no image, or is of an unknown type.
        """
        async with self._held.count() as held:
            try:
                async with asyncio.timeout(self._limits.body_seconds):
                    found = await self._parse(request, held)
            except TimeoutError:
                message = f"The body has not arrived within {self._limits.body_seconds:g} seconds. Try again."
                raise RequestError(408, "timeout", message, {"Connection": "close"}) from None
            yield [await self._download(found, held)] if isinstance(found, str) else found

    async def _parse(self, request: Request, held: HeldBytesOfRequest) -> list[RequestImage] | str:
        """Returns the images of a body, or the URL of one."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = self._receive(request, held)
        if kind == "multipart/form-data":
            return await self._parse_form(request, body)
        if kind == "application/json":
            return _parse_url(b"".join([chunk async for chunk in body]))
        if kind.startswith("image/") or kind == "application/octet-stream":
            data = b"".join([chunk async for chunk in body])
            if not data:
                raise RequestError(400, "no_image", f"The body is empty. {_HOW}")
            return [RequestImage(_RAW_NAME, data)]
        message = f"The content type {kind!r} is not supported. {_HOW}" if kind else f"The body has no type. {_HOW}"
        raise RequestError(415, "unsupported_media_type", message, {"Connection": "close"})

    async def _receive(self, request: Request, held: HeldBytesOfRequest) -> AsyncGenerator[bytes, None]:
        """Yields the chunks of a body within the limits."""
        most, received = self._limits.max_body_bytes, 0
        declared = request.headers.get("content-length", "0")
        is_too_large = int(declared) > most if declared.isdecimal() and len(declared) < 20 else True
        if not is_too_large or int(declared[:20]) <= _MAX_DISCARDED_BODIES * most:
            async for chunk in request.stream():
                received += len(chunk)
                is_too_large = is_too_large or received > most
                if received > _MAX_DISCARDED_BODIES * most:
                    break
                if chunk and not is_too_large:
                    held.add(len(chunk))
                    yield chunk
        if is_too_large:
            message = f"The body has more than {most:,} bytes. Send smaller or fewer images."
            raise RequestError(413, "body_too_large", message, {"Connection": "close"})

    async def _parse_form(self, request: Request, body: AsyncGenerator[bytes, None]) -> list[RequestImage]:
        parser = _FormInMemory(request.headers, body, max_files=self._limits.max_images, max_fields=0)
        # An image is read from memory, never from a temporary file.
        parser.spool_max_size = self._limits.max_body_bytes + 1
        try:
            form = await parser.parse()
        except MultiPartException as error:
            await _discard(body)
            if parser.has_too_many_files:
                message = f"The form has more than {self._limits.max_images} images. Send them in several requests."
                raise RequestError(413, "too_many_images", message, {"Connection": "close"}) from None
            message = f"The form cannot be read: {error.message.rstrip('.')}. It has files in the field image only."
            raise RequestError(400, "no_image", message, {"Connection": "close"}) from None
        except (LookupError, UnicodeError):
            message = "The form cannot be read: its names are not in the character set that its type states."
            raise RequestError(400, "no_image", f"{message} Use UTF-8.", {"Connection": "close"}) from None
        images = []
        for name, value in form.multi_items():
            if name != FIELD or not isinstance(value, UploadFile):
                raise RequestError(400, "no_image", f"The form field {name!r} is not known. {_HOW}")
            images.append(RequestImage(value.filename or _RAW_NAME, await value.read()))
            await value.close()
        if not images:
            raise RequestError(400, "no_image", f"The form has no image. {_HOW}")
        return images

    async def _download(self, url: str, held: HeldBytesOfRequest) -> RequestImage:
        if self._downloads.available_tokens == 0:
            raise overloaded("Too many images are being downloaded.")
        try:
            data = await to_thread.run_sync(partial(download, url, self._download_limits), limiter=self._downloads)
        except RecordError as error:
            return RequestImage(strip_user(url), error)
        held.add(len(data))
        return RequestImage(strip_user(url), data)


async def _discard(body: AsyncGenerator[bytes, None]) -> None:
    """Reads the rest of a body, so that its client sees the answer."""
    with contextlib.suppress(RequestError):
        async for _ in body:
            pass


class _FormInMemory(MultiPartParser):
    @property
    def has_too_many_files(self) -> bool:
        return self._current_files > self.max_files


def _parse_url(body: bytes) -> str:
    if len(body) > _MAX_JSON_BYTES:
        raise RequestError(413, "body_too_large", f"The JSON object has more than {_MAX_JSON_BYTES:,} bytes.")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "no_image", f"The body is not JSON. {_HOW}") from None
    url = given.get("url") if isinstance(given, dict) and given.keys() == {"url"} else None
    if not isinstance(url, str) or not is_image_url(url):
        message = 'The JSON object is not of the form {"url": "https://…"}.'
        raise RequestError(400, "no_image", f"{message} {_HOW}")
    return url
