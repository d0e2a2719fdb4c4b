"""A small file that decodes to many pixels takes memory in proportion to the picture, a few bytes per pixel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PROGRAM = """
import resource, struct, sys, zlib
from features.images.resize import Resizer
from features.images.decode import decode

side, depth, color = map(int, sys.argv[1:4])
extra, pixel = map(bytes.fromhex, sys.argv[4:])

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

packer = zlib.compressobj(9)
row = b"\\0" + pixel * side
data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
header = struct.pack(">IIBBBBB", side, side, depth, color, 0, 0, 0)
palette = chunk(b"PLTE", b"\\xff\\0\\0") if color == 3 else b""
png = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", header) + palette
png += (chunk(b"tRNS", extra) if extra else b"") + chunk(b"IDAT", data) + chunk(b"IEND", b"")
assert len(png) < 1_000_000
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(*decode(png, Resizer(height=8, width=8))[4, 4])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
BYTES_PER_PIXEL = 9
SPARE = 64 << 20
# Depth, colour type, tRNS, a pixel, and what it shows on white.
KINDS = {
    "a transparent palette": (8, 3, b"\x80", b"\0", "255 127 127"),
    "a transparent gray": (8, 0, b"\0\x07", b"\x07", "255 255 255"),
    "16 bits of transparent gray": (16, 0, b"\x07\x08", b"\x07\x08", "255 255 255"),
    "a transparent color": (8, 2, b"\0\1\0\2\0\3", b"\1\2\3", "255 255 255"),
    "an alpha channel": (8, 6, b"", b"\xff\0\0\x80", "255 127 127"),
}


def check(side: int, kind: str) -> None:
    depth, color, extra, pixel, shown = KINDS[kind]
    command = [sys.executable, "-c", PROGRAM, str(side), str(depth), str(color), extra.hex(), pixel.hex()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    pixels, peak = done.stdout.splitlines()
    assert pixels == shown
    assert int(peak) < BYTES_PER_PIXEL * side * side + SPARE


@pytest.mark.parametrize("kind", KINDS)
def test_a_transparent_picture_takes_a_few_bytes_per_pixel(kind: str) -> None:
    check(3000, kind)


@pytest.mark.slow
def test_a_transparent_palette_of_as_many_pixels_as_are_allowed_takes_a_few_bytes_per_pixel() -> None:
    check(13_300, "a transparent palette")


FILE_PROGRAM = """
import resource, sys
from pathlib import Path
from features.images.resize import Resizer
from features.images.decode import decode

data = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode(data, Resizer(height=8, width=8))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize(("name", "bytes_per_pixel"), [("a.avif", 15), ("a.jp2", 26)])
def test_avif_and_jpeg_2000_take_a_bounded_number_of_bytes_per_pixel(
    name: str, bytes_per_pixel: int, tmp_path: Path
) -> None:
    side = 3000
    options = {"speed": 10} if name == "a.avif" else {}
    Image.new("RGBA", (side, side), (9, 9, 200, 99)).save(tmp_path / name, **options)
    command = [sys.executable, "-c", FILE_PROGRAM, str(tmp_path / name)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) < bytes_per_pixel * side * side
