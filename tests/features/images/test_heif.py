"""HEIC images are decoded with the extra `heif`, and fail with its name without it."""

import base64
import sys

import numpy as np
import pytest

from features.images.decode import has_image_signature, open_image
from schemas.errors import RecordError

# 64×32 pixels, blue (20, 40, 220) in the left half and red (200, 30, 60) in the right one. pillow-heif wrote the files,
# because pi-heif cannot write.
PLAIN = base64.b64decode(
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAX5tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9j"
    "AAAAAERAAAEAAQAAAAABogABAAAAAAAAAIMAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/mlw"
    "cnAAAADeaXBjbwAAAHdodmNDAQQIAAAAnjgAAAAAHvAA/P/4+AAADwNgAAEAF0ABDAH//wQIAAADAJ44AAADAAAeugJAYQABACpCAQEECAAA"
    "AwCeOAAAAwAAHpAEECCy3VyU1zcBDQYEAAADAGQAAAMABCBiAAEACEQBwXMYMAiQAAAAE2NvbHJuY2x4AAEADQAGgAAAABRpc3BlAAAAAAAA"
    "AEAAAABAAAAAKGNsYXAAAABAAAAAAQAAACAAAAABAAAAAAAAAAL////gAAAAAgAAABBwaXhpAAAAAAMICAgAAAAYaXBtYQAAAAAAAAABAAEF"
    "gQIDBYQAAACLbWRhdAAAAH8oAa8GOIkufC/5hx/1/9s2f//3iNqZ6v0Dkv//SOYzf9axqb/wE7Y+HSr/F005NnGQD7+dJeLFS4y5e3xy3j8A"
    "tbs4DpVF5Wuapf6A906xJKL2KHYJ4EeOubQ3z4tgMvBVAjbIj+rQo9Mg4sgbK88u8uu7l+iTCeO3d3/y4Av+"
)
# PLAIN with `irot`: a quarter turn counterclockwise.
TURNED = base64.b64decode(
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAYhtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9j"
    "AAAAAERAAAEAAQAAAAABrAABAAAAAAAAAIMAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAABCGlw"
    "cnAAAADnaXBjbwAAAHdodmNDAQQIAAAAnjgAAAAAHvAA/P/4+AAADwNgAAEAF0ABDAH//wQIAAADAJ44AAADAAAeugJAYQABACpCAQEECAAA"
    "AwCeOAAAAwAAHpAEECCy3VyU1zcBDQYEAAADAGQAAAMABCBiAAEACEQBwXMYMAiQAAAAE2NvbHJuY2x4AAEADQAGgAAAABRpc3BlAAAAAAAA"
    "AEAAAABAAAAAKGNsYXAAAABAAAAAAQAAACAAAAABAAAAAAAAAAL////gAAAAAgAAABBwaXhpAAAAAAMICAgAAAAJaXJvdAEAAAAZaXBtYQAA"
    "AAAAAAABAAEGgQIDBYSGAAAAi21kYXQAAAB/KAGvBjiJLnwv+Ycf9f/bNn//94jamer9A5L//0jmM3/Wsam/8BO2Ph0q/xdNOTZxkA+/nSXi"
    "xUuMuXt8ct4/ALW7OA6VReVrmqX+gPdOsSSi9ih2CeBHjrm0N8+LYDLwVQI2yI/q0KPTIOLIGyvPLvLru5fokwnjt3d/8uAL/g=="
)
# With the orientation 6 in EXIF only.
TURNED_BY_EXIF = base64.b64decode(
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAb9tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9j"
    "AAAAAERAAAIAAQAAAAAB4wABAAAAAAAAAIMAAgAAAAACZgABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAA"
    "ABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAAA/mlwcnAAAADeaXBjbwAAAHdodmNDAQQIAAAAnjgAAAAAHvAA/P/4+AAADwNg"
    "AAEAF0ABDAH//wQIAAADAJ44AAADAAAeugJAYQABACpCAQEECAAAAwCeOAAAAwAAHpAEECCy3VyU1zcBDQYEAAADAGQAAAMABCBiAAEACEQB"
    "wXMYMAiQAAAAE2NvbHJuY2x4AAEADQAGgAAAABRpc3BlAAAAAAAAAEAAAABAAAAAKGNsYXAAAABAAAAAAQAAACAAAAABAAAAAAAAAAL////g"
    "AAAAAgAAABBwaXhpAAAAAAMICAgAAAAYaXBtYQAAAAAAAAABAAEFgQIDBYQAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAK9tZGF0AAAA"
    "fygBrwY4iS58L/mHH/X/2zZ///eI2pnq/QOS//9I5jN/1rGpv/ATtj4dKv8XTTk2cZAPv50l4sVLjLl7fHLePwC1uzgOlUXla5ql/oD3TrEk"
    "ovYodgngR465tDfPi2Ay8FUCNsiP6tCj0yDiyBsrzy7y67uX6JMJ47d3f/LgC/4AAAAGRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAA"
    "AAA="
)
# With a transparent right half.
TRANSPARENT = base64.b64decode(
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAmxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9j"
    "AAAAAERAAAIAAQAAAAACkAABAAAAAAAAAIMAAgAAAAADEwABAAAAAAAAALYAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAA"
    "ABVpbmZlAgAAAAACAABodmMxAAAAAA5waXRtAAAAAAABAAABq2lwcnAAAAGDaXBjbwAAAHdodmNDAQQIAAAAnjgAAAAAHvAA/P/4+AAADwNg"
    "AAEAF0ABDAH//wQIAAADAJ44AAADAAAeugJAYQABACpCAQEECAAAAwCeOAAAAwAAHpAEECCy3VyU1zcBDQYEAAADAGQAAAMABCBiAAEACEQB"
    "wXMYMAiQAAAAE2NvbHJuY2x4AAEADQAGgAAAABRpc3BlAAAAAAAAAEAAAABAAAAAKGNsYXAAAABAAAAAAQAAACAAAAABAAAAAAAAAAL////g"
    "AAAAAgAAABBwaXhpAAAAAAMICAgAAABwaHZjQwEECAAAAJ/4AAAAAB7wAPz8+PgAAA8DYAABABdAAQwB//8ECAAAAwCf+AAAAwAAHroCQGEA"
    "AQAlQgEBBAgAAAMAn/gAAAMAAB7AggQWW6uSmubAgAAADIAAAAMAhGIAAQAGRAHBc8CJAAAADnBpeGkAAAAAAQgAAAAnYXV4QwAAAAB1cm46"
    "bXBlZzpoZXZjOjIwMTU6YXV4aWQ6MQAAAAAgaXBtYQAAAAAAAAACAAEFgQIDBYQAAgWGAweIhAAAABppcmVmAAAAAAAAAA5hdXhsAAIAAQAB"
    "AAABQW1kYXQAAAB/KAGvBjiJLnwv+Ycf9f/bNn//94jamer9A5L//0jmM3/Wsam/8BO2Ph0q/xdNOTZxkA+/nSXixUuMuXt8ct4/ALW7OA6V"
    "ReVrmqX+gPdOsSSi9ih2CeBHjrm0N8+LYDLwVQI2yI/q0KPTIOLIGyvPLvLru5fokwnjt3d/8uAL/gAAALIoAa4McLULy3/g5f5Nl/6l6459"
    "3eQDYVrefThh93l+//uz/fkDZFME//1NqtftBSsP2T2wv+Oo/30H7O/5BcOoTuPF0pu2BiO2q66tK1gVf/RnkdOuYwX3WVYRn4YjfczOM/+e"
    "7AZdVLoOOoys2vwDw+2VsIF5Bd/oiY1CYgp9ASXjTaJ7JXxwC3K9tpsErdDAo3flhzqjqTwnGmnWWWVgh/JVv19yPuI7N0K/z/fzQSI4"
)
# Followed by a white image of 16×16 pixels.
TWO_IMAGES = base64.b64decode(
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAkxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9j"
    "AAAAAERAAAIAAQAAAAACcAABAAAAAAAAAIMAAgAAAAAC8wABAAAAAAAAAC4AAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAA"
    "ABVpbmZlAgAAAAACAABodmMxAAAAAA5waXRtAAAAAAABAAABpWlwcnAAAAF9aXBjbwAAAHdodmNDAQQIAAAAnjgAAAAAHvAA/P/4+AAADwNg"
    "AAEAF0ABDAH//wQIAAADAJ44AAADAAAeugJAYQABACpCAQEECAAAAwCeOAAAAwAAHpAEECCy3VyU1zcBDQYEAAADAGQAAAMABCBiAAEACEQB"
    "wXMYMAiQAAAAE2NvbHJuY2x4AAEADQAGgAAAABRpc3BlAAAAAAAAAEAAAABAAAAAKGNsYXAAAABAAAAAAQAAACAAAAABAAAAAAAAAAL////g"
    "AAAAAgAAABBwaXhpAAAAAAMICAgAAAB3aHZjQwEECAAAAJ44AAAAAB7wAPz/+PgAAA8DYAABABdAAQwB//8ECAAAAwCeOAAAAwAAHroCQGEA"
    "AQAqQgEBBAgAAAMAnjgAAAMAAB6QBBAgst1V01zcBDQYEAAAAwGQAAADABCAYgABAAhEAcFzGDAYkAAAAChjbGFwAAAAEAAAAAEAAAAQAAAA"
    "Af///9AAAAAC////0AAAAAIAAAAgaXBtYQAAAAAAAAACAAEFgQIDBYQAAgWGAgMFhwAAALltZGF0AAAAfygBrwY4iS58L/mHH/X/2zZ///eI"
    "2pnq/QOS//9I5jN/1rGpv/ATtj4dKv8XTTk2cZAPv50l4sVLjLl7fHLePwC1uzgOlUXla5ql/oD3TrEkovYodgngR465tDfPi2Ay8FUCNsiP"
    "6tCj0yDiyBsrzy7y67uX6JMJ47d3f/LgC/4AAAAqKAGvBjITHaCJvT9m/0rlvmAWEq96Y8fJabXme6BfetY27APIH3SeaD7L"
)
BLUE, RED, WHITE = (20, 40, 220), (200, 30, 60), (255, 255, 255)


def assert_pixels(data: bytes, size: tuple[int, int], first: tuple[int, ...], last: tuple[int, ...]) -> None:
    """Checks the size and two opposite corners of an image."""
    image = open_image(data)
    assert image.size == size
    for (x, y), wanted in (((2, 2), first), ((size[0] - 3, size[1] - 3), last)):
        np.testing.assert_allclose(image.getpixel((x, y)), wanted, atol=2)


def test_without_the_extra_the_failure_names_it_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    assert has_image_signature(PLAIN[:32])
    with pytest.raises(RecordError, match=r"capt\[heif\]") as caught:
        open_image(PLAIN)
    assert (caught.value.stage, caught.value.reason, caught.value.permanent) == ("decode", "unsupported", False)


def test_colors_are_decoded_and_transparent_pixels_show_white() -> None:
    pytest.importorskip("pi_heif")
    assert_pixels(PLAIN, (64, 32), BLUE, RED)
    assert_pixels(TRANSPARENT, (64, 32), BLUE, WHITE)


def test_only_the_container_turns_the_image() -> None:
    pytest.importorskip("pi_heif")
    assert_pixels(TURNED, (32, 64), RED, BLUE)
    assert_pixels(TURNED_BY_EXIF, (64, 32), BLUE, RED)


def test_only_the_primary_image_is_decoded() -> None:
    pytest.importorskip("pi_heif")
    assert_pixels(TWO_IMAGES, (64, 32), BLUE, RED)


@pytest.mark.parametrize("data", [PLAIN, TRANSPARENT, TWO_IMAGES], ids=["plain", "transparent", "two images"])
def test_an_incomplete_image_is_truncated(data: bytes) -> None:
    pytest.importorskip("pi_heif")
    for length in range(20, len(data), 7):
        with pytest.raises(RecordError) as caught:
            open_image(data[:length])
        assert caught.value.reason == "truncated", length


def test_an_image_above_the_limit_or_of_another_size_than_declared_is_refused() -> None:
    pytest.importorskip("pi_heif")
    at = PLAIN.index(b"ispe") + 8
    reasons = []
    declared = [PLAIN[:at] + side.to_bytes(4) * 2 + PLAIN[at + 8 :] for side in (20_000, 60_000)]
    for data, max_pixels in ((PLAIN, 64 * 32 - 1), (declared[0], 1 << 30), (declared[1], 1 << 30)):
        with pytest.raises(RecordError) as caught:
            open_image(data, max_pixels=max_pixels)
        reasons.append(caught.value.reason)
    assert reasons == ["too large", "corrupt", "corrupt"]
