"""Encoded images of every kind, written by hand, and what the formats' specifications say that they show."""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

GRAY, COLOR, PALETTE, GRAY_ALPHA, COLOR_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GRAY: 1, COLOR: 3, PALETTE: 1, GRAY_ALPHA: 2, COLOR_ALPHA: 4}
KINDS = [
    (color, depth)
    for color, depths in {
        GRAY: (1, 2, 4, 8, 16),
        COLOR: (8, 16),
        PALETTE: (1, 2, 4, 8),
        GRAY_ALPHA: (8, 16),
        COLOR_ALPHA: (8, 16),
    }.items()
    for depth in depths
]
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # Adam7

_ANY_KIND = st.sampled_from(KINDS)
_ANY_SIDE = st.integers(1, 11)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Drawn:
    """A PNG that was drawn: its samples, and what else decides how it looks."""

    color: int
    depth: int
    samples: NDArray[np.int64]
    palette: tuple[tuple[int, int, int], ...] = ()
    transparency: tuple[int, ...] = ()
    interlaced: bool = False

    def encoded(self) -> bytes:
        """Returns the PNG."""
        return png(self.header(), *self.chunks())

    def header(self) -> bytes:
        """Returns the body of the header."""
        height, width = self.samples.shape[:2]
        return struct.pack(">IIBBBBB", width, height, self.depth, self.color, 0, 0, self.interlaced)

    def chunks(self) -> list[tuple[bytes, bytes]]:
        """Returns the other chunks: kinds and bodies."""
        palette = [(b"PLTE", bytes(sum(self.palette, ())))] if self.palette else []
        pack = ">%dB" if self.color == PALETTE else ">%dH"
        values = self.transparency
        transparency = [(b"tRNS", struct.pack(pack % len(values), *values))] if values else []
        return [*palette, *transparency, (b"IDAT", zlib.compress(self._rows()))]

    def _rows(self) -> bytes:
        passes = _PASSES if self.interlaced else ((0, 0, 1, 1),)
        parts = [self.samples[y::down, x::right] for y, x, down, right in passes]
        return b"".join(b"\0" + self._packed(row) for part in parts if part.size for row in part)

    def _packed(self, row: NDArray[np.int64]) -> bytes:
        if self.depth >= 8:
            return row.astype(f">u{self.depth // 8}").tobytes()
        bits = (row.ravel()[:, None] >> np.arange(self.depth)[::-1]) & 1
        return np.packbits(bits.astype(np.uint8)).tobytes()

    def shown(self) -> Pixels:
        """Returns the pixels on white: samples keep their high byte, and smaller ones are scaled to white at 255."""
        if self.color == PALETTE:
            colors = np.zeros((256, 4), np.int64)
            colors[:, 3] = 255
            colors[: len(self.palette), :3] = self.palette
            colors[: len(self.transparency), 3] = self.transparency
            rgba = colors[self.samples[..., 0]]
            return on_white(rgba[..., :3], rgba[..., 3:])
        white = (1 << self.depth) - 1
        eight = self.samples >> 8 if self.depth == 16 else self.samples * 255 // white
        if self.color in (GRAY_ALPHA, COLOR_ALPHA):
            return on_white(eight[..., :-1], eight[..., -1:])
        alpha = np.full((*eight.shape[:2], 1), 255)
        if self.transparency:
            is_key = (self.samples == np.array(self.transparency) % (white + 1)).all(axis=-1, keepdims=True)
            alpha = np.where(is_key, 0, 255)
        return on_white(eight, alpha)


def on_white(color: NDArray[np.int64], alpha: NDArray[np.int64]) -> Pixels:
    """Returns RGB of samples on white paper, to the nearest level."""
    shown = (color * alpha + 255 * (255 - alpha) + 127) // 255
    return np.broadcast_to(shown, (*shown.shape[:2], 3)).astype(np.uint8)


def chunk(kind: bytes, body: bytes, damage: int = 0) -> bytes:
    """Returns a chunk of a PNG, with a wrong checksum if `damage` is not 0."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ damage)


def png(header: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Returns a PNG of a header and chunks."""
    parts = (chunk(b"IHDR", header), *(chunk(*one) for one in chunks), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@st.composite
def pngs(
    draw: st.DrawFn,
    kinds: st.SearchStrategy[tuple[int, int]] = _ANY_KIND,
    sides: st.SearchStrategy[int] = _ANY_SIDE,
) -> Drawn:
    """Draws PNGs of every colour type, depth, palette, transparency and interlacing."""
    color, depth = draw(kinds)
    width, height = draw(sides), draw(sides)
    generator = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    few = draw(st.booleans())  # samples with a few values hit a transparent colour often
    most = (1 << depth) - 1
    values = generator.integers(0, most + 1, 4) if few else None
    shape = (height, width, CHANNELS[color])
    samples = generator.choice(values, shape) if values is not None else generator.integers(0, most + 1, shape)
    palette = [tuple(generator.integers(0, 256, 3).tolist()) for _ in range(draw(st.integers(1, most + 1)))]
    transparency: list[int] = []
    if color == PALETTE:
        transparency = generator.integers(0, 256, draw(st.integers(0, len(palette)))).tolist()
    elif color in (GRAY, COLOR) and draw(st.booleans()):
        row, column = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        transparency = samples[row, column].tolist()
        if draw(st.booleans()):  # of a 16-bit sample the low byte counts too
            transparency[0] ^= 1
        if depth < 16 and draw(st.booleans()):  # bits above the depth do not count
            transparency[-1] |= 1 << depth
    return Drawn(
        color,
        depth,
        samples,
        tuple(palette) if color == PALETTE else (),
        tuple(transparency),
        draw(st.booleans()),
    )


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    """Returns an image as Pillow writes it."""
    data = BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


@st.composite
def jpegs(draw: st.DrawFn, sides: st.SearchStrategy[int] = _ANY_SIDE) -> bytes:
    """Draws JPEGs of every subsampling: colour, gray and CMYK, progressive or not, with every orientation."""
    width, height = draw(sides), draw(sides)
    generator = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    mode = draw(st.sampled_from(["RGB", "L", "CMYK"]))
    channels = {"RGB": 3, "L": 1, "CMYK": 4}[mode]
    coarse = generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, channels), dtype=np.uint8)
    image = Image.fromarray(coarse[..., 0] if mode == "L" else coarse, mode).resize((width, height))
    exif = Image.Exif()
    if orientation := draw(st.integers(0, 9)):
        exif[274] = orientation
    options: dict[str, Any] = {"subsampling": draw(st.integers(0, 2))} if mode == "RGB" else {}
    if restart := draw(st.integers(0, 3)):
        options["restart_marker_blocks"] = restart
    if mode == "RGB" and options["subsampling"] == 0 and draw(st.booleans()):
        options["keep_rgb"] = True
    data = encode(
        image, "JPEG", quality=draw(st.integers(5, 100)), progressive=draw(st.booleans()), exif=exif, **options
    )
    adobe = data.find(b"\xff\xee")
    if mode != "CMYK" or adobe < 0:
        return data
    marks = {
        "CMYK": data,
        "YCCK": data[: adobe + 15] + b"\2" + data[adobe + 16 :],
        "no marker": data[:adobe] + data[adobe + 16 :],
    }
    return marks[draw(st.sampled_from(sorted(marks)))]
