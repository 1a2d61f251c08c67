import io
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin

from vgg16_transfer.images import pictures
from vgg16_transfer.images.pictures import MIN_SIDE, PictureError, decode, to_square

from .conftest import noise
from .conftest import picture as noise_picture

SIZE = (24, 20)


def encode(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> np.ndarray:
    picture = decode(content)
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def colour(content: bytes) -> tuple[int, ...]:
    """The colour of the pixel at the top left."""
    return tuple(pixels(content)[0, 0])


def reason(content: bytes) -> str:
    with pytest.raises(PictureError) as raised:
        decode(content)
    return str(raised.value)


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(b"\0\0\0\0"), b"IEND": b""}
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_zero_bytes() -> None:
    assert reason(b"") == "is empty"


def test_a_page_is_no_picture_and_its_beginning_is_shown() -> None:
    assert reason(b"<!DOCTYPE html><html>gone") == "is no picture: it begins with b'<!DOCTYPE ht'"


@pytest.mark.parametrize("content", [b"\0", noise(0, 1000), b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_bytes_that_are_no_picture(content: bytes) -> None:
    assert reason(content).startswith("is no picture")


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ((20_000, 10_000), "unfolds to more than 50 megapixels"),
        ((10_000, 10_000), "unfolds to 100 megapixels, more than 50"),
        ((65_000, 1), "measures 65000 x 1 pixels, less than 16 on a side"),
    ],
)
def test_a_bomb_is_refused_by_what_its_header_promises(
    size: tuple[int, int], sentence: str
) -> None:
    assert reason(png_that_claims(*size)) == sentence


def test_a_header_that_promises_little_more_than_there_is_makes_a_damaged_picture() -> None:
    assert reason(png_that_claims(20, 20)).startswith("is damaged: ")


@pytest.mark.parametrize("size", [(1, 1), (MIN_SIDE - 1, 100), (100, MIN_SIDE - 1)])
def test_a_picture_without_room_for_anything_is_too_small(size: tuple[int, int]) -> None:
    sentence = f"measures {size[0]} x {size[1]} pixels, less than {MIN_SIDE} on a side"
    assert reason(encode(Image.new("RGB", size))) == sentence


def test_the_smallest_picture_is_read() -> None:
    assert pixels(encode(Image.new("RGB", (MIN_SIDE, MIN_SIDE)))).shape == (MIN_SIDE, MIN_SIDE, 3)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_pixels_come_as_they_were_stored(kind: str) -> None:
    original = Image.open(io.BytesIO(noise_picture(0)))
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(pixels(encode(original, kind, **options)), np.asarray(original))


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = [Image.new("RGB", SIZE, name) for name in ("red", "lime", "blue")]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(content)).n_frames == 3
    assert colour(content) == (255, 0, 0)


def test_a_cmyk_jpeg() -> None:
    content = encode(Image.new("CMYK", SIZE, (0, 255, 255, 0)), "JPEG", quality=100)
    assert Image.open(io.BytesIO(content)).mode == "CMYK"
    np.testing.assert_allclose(colour(content), (255, 0, 0), atol=3)


@pytest.mark.parametrize("mode", ["1", "L"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_is_three_times_the_same(mode: str, kind: str) -> None:
    assert colour(encode(Image.new(mode, SIZE, 255), kind)) == (255, 255, 255)


def test_a_grey_jpeg() -> None:
    assert colour(encode(Image.new("L", SIZE, 77), "JPEG")) == (77, 77, 77)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65_535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE[::-1])
    content = encode(Image.fromarray(ramp), kind)
    assert Image.open(io.BytesIO(content)).mode.startswith("I")
    np.testing.assert_allclose(pixels(content)[..., 0], ramp / 257, atol=1)


RAMP = np.tile(np.linspace(0, 1, 64), (20, 1))


def tiff(values: np.ndarray, **tags: int) -> bytes:
    """A TIFF of one channel."""
    known = {"max_sample": 281, "photometric": 262}
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info[known[name]] = value
    return encode(Image.fromarray(values), "TIFF", tiffinfo=info)


def png_of_16_bits(values: np.ndarray) -> bytes:
    """An RGB PNG with two bytes per colour, which Pillow can't write."""
    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("white", [1, 255, 65_535])
def test_fractions_whose_white_is_not_known_are_left_out_with_their_range(white: int) -> None:
    message = reason(tiff((RAMP * white).astype(np.float32)))
    assert message.startswith(f"holds fractions, from 0 to {white}, and does not say which of them")
    assert message.endswith("; save it with 8 or 16 bits")


@pytest.mark.parametrize("white", [1, 255, 1000])
def test_fractions_whose_white_is_named_become_what_a_person_sees(white: int) -> None:
    decoded = pixels(tiff((RAMP * white).astype(np.float32), max_sample=white))[..., 0]
    np.testing.assert_allclose(decoded, RAMP * 255, atol=1)


@pytest.mark.parametrize("white", [255, 1023, 4095, 16_383, 65_535])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_deep_grey_of_any_depth_becomes_what_a_person_sees(white: int, dtype: Any) -> None:
    decoded = pixels(tiff((RAMP * white).astype(dtype)))[..., 0]
    np.testing.assert_allclose(decoded, RAMP * 255, atol=1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_of_8_bits_in_16_is_as_bright_as_in_8(kind: str) -> None:
    content = encode(Image.fromarray(np.full((20, 24), 77, np.uint16)), kind)
    assert colour(content) == (77, 77, 77)


def test_the_white_that_a_tiff_names_is_white() -> None:
    assert colour(tiff(np.full((20, 24), 500, np.uint16), max_sample=1000)) == (128, 128, 128)


def test_deep_grey_whose_zero_is_white_is_turned_round() -> None:
    decoded = pixels(tiff((RAMP * 4095).astype(np.uint16), photometric=0))[..., 0]
    np.testing.assert_allclose(decoded, 255 - RAMP * 255, atol=1)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-0.5, "from -0.5 to"),
        (np.nan, "from nan to nan"),
        (np.inf, "to inf"),
        (70_000, "to 70000"),
    ],
)
def test_values_that_are_no_brightness_are_a_reason_with_their_range(value, said: str) -> None:
    values = RAMP.astype(np.float32).copy()
    values[3, 4] = value
    message = reason(tiff(values))
    assert message.startswith("holds values that are no brightness: ")
    assert said in message


def test_whole_numbers_below_zero_are_no_brightness() -> None:
    assert "from -3 to 9" in reason(tiff(np.array([[-3, 9]] * 20, np.int32).repeat(10, axis=1)))


@pytest.mark.parametrize("value", [1, 2])
def test_what_would_come_out_black_is_left_out_with_its_range(value: int) -> None:
    assert reason(tiff(np.full((20, 24), value, np.uint16))).startswith(
        "would be almost black: its"
    )


def test_a_deep_picture_that_is_all_black_is_black() -> None:
    assert colour(tiff(np.zeros((20, 24), np.uint16))) == (0, 0, 0)


@pytest.mark.parametrize("white", [255, 1023, 4095])
def test_colours_of_fewer_bits_in_16_are_not_turned_black(white: int) -> None:
    ramp = np.dstack([RAMP * white] * 3)
    assert reason(png_of_16_bits(ramp)).startswith("would be black, or almost: of its 16 bits,")


def test_what_is_transparent_in_16_bits_of_grey_is_white() -> None:
    values = (RAMP * 65_535).astype(np.uint16)
    content = encode(Image.fromarray(values), "PNG", transparency=0)
    assert Image.open(io.BytesIO(content)).info["transparency"] == 0
    decoded = pixels(content)[..., 0]
    assert decoded[0, 0] == 255
    np.testing.assert_allclose(decoded[:, 1:], RAMP[:, 1:] * 255, atol=1)


def test_colours_of_16_bits_are_scaled() -> None:
    decoded = pixels(png_of_16_bits(np.dstack([RAMP * 65_535] * 3)))
    np.testing.assert_allclose(decoded[..., 1], RAMP * 255, atol=1)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF", "JPEG2000", "TGA", "PPM", "ICO", "PCX", "QOI"])
def test_many_formats_are_read_whatever_their_ending(kind: str) -> None:
    content = encode(Image.new("RGB", (32, 32), (200, 40, 30)), kind)
    np.testing.assert_allclose(colour(content), (200, 40, 30), atol=4)


def test_no_program_is_started_for_a_drawing() -> None:
    assert reason(encode(Image.new("RGB", SIZE), "EPS")).startswith("is no picture: it begins with")


def test_lab_becomes_the_colour_that_it_is() -> None:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    picture = ImageCms.applyTransform(Image.new("RGB", SIZE, (200, 40, 30)), to_lab)
    np.testing.assert_allclose(colour(encode(picture, "TIFF")), (200, 40, 30), atol=6)


@pytest.mark.parametrize("mode", ["YCbCr", "CMYK", "P", "LA", "PA", "RGBX", "RGBA"])
def test_a_tiff_of_any_mode_keeps_its_colours(mode: str) -> None:
    try:
        content = encode(Image.new("RGB", SIZE, (102, 102, 102)).convert(mode), "TIFF")
    except (OSError, ValueError) as error:
        pytest.skip(f"Pillow writes no such TIFF: {error}")
    np.testing.assert_allclose(colour(content), (102, 102, 102), atol=2)


def test_reasons_are_counted_without_what_differs_from_picture_to_picture() -> None:
    kinds = []
    for content in (b"<html>", b"<body>", encode(Image.new("RGB", (3, 40)))):
        with pytest.raises(PictureError) as raised:
            decode(content)
        kinds.append(raised.value.kind)
    assert kinds == ["is no picture"] * 2 + ["measures less than 16 pixels on a side"]


def test_transparent_pixels_of_rgba_are_white() -> None:
    picture = Image.new("RGBA", SIZE, (255, 0, 0, 255))
    picture.putpixel((0, 0), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 128))
    decoded = pixels(encode(picture))
    assert tuple(decoded[0, 0]) == (255, 255, 255)
    np.testing.assert_allclose(decoded[0, 1], 127, atol=1)
    assert tuple(decoded[1, 1]) == (255, 0, 0)


def test_transparent_pixels_of_grey_are_white() -> None:
    picture = Image.new("LA", SIZE, (50, 255))
    picture.putpixel((0, 0), (0, 0))
    decoded = pixels(encode(picture))
    assert tuple(decoded[0, 0]) == (255, 255, 255)
    assert tuple(decoded[1, 1]) == (50, 50, 50)


@pytest.mark.parametrize(
    ("kind", "transparency"), [("PNG", 0), ("PNG", b"\x00\xff"), ("GIF", 0)], ids=str
)
def test_transparent_pixels_of_a_palette_are_white(kind: str, transparency: int | bytes) -> None:
    picture = Image.new("P", SIZE, 1)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.putpixel((0, 0), 0)
    decoded = pixels(encode(picture, kind, transparency=transparency))
    assert tuple(decoded[0, 0]) == (255, 255, 255)
    assert tuple(decoded[1, 1]) == (255, 0, 0)


def test_the_transparent_colour_of_an_rgb_png_is_white() -> None:
    content = encode(Image.new("RGB", SIZE, (1, 2, 3)), transparency=(1, 2, 3))
    assert colour(content) == (255, 255, 255)


@pytest.mark.parametrize(
    ("orientation", "row", "column"),
    [
        (1, 0, 0),
        (2, 0, -1),
        (3, -1, -1),
        (4, -1, 0),
        (5, 0, 0),
        (6, 0, -1),
        (7, -1, -1),
        (8, -1, 0),
    ],
)
def test_pictures_are_turned_as_the_camera_says(orientation: int, row: int, column: int) -> None:
    picture = Image.new("L", (40, 32))
    picture.paste(255, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = pixels(encode(picture, "JPEG", exif=exif, quality=100))
    assert decoded.shape[:2] == ((32, 40) if orientation < 5 else (40, 32))
    bright = {corner: decoded[corner][0] > 200 for corner in [(0, 0), (0, -1), (-1, 0), (-1, -1)]}
    assert [corner for corner, is_bright in bright.items() if is_bright] == [(row, column)]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_picture_that_is_cut_off_is_no_picture(kind: str, part: float) -> None:
    content = encode(Image.open(io.BytesIO(noise_picture(0, side=64))), kind)
    assert reason(content[: int(len(content) * part)])


def test_a_jpeg_that_is_cut_off_is_damaged() -> None:
    content = encode(Image.open(io.BytesIO(noise_picture(0, side=64))), "JPEG")
    assert reason(content[:-200]).startswith("is damaged: ")


def test_what_pillow_warns_of_is_no_reason_to_leave_a_picture_out() -> None:
    content = encode(Image.new("RGB", SIZE, "red"), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09")
    with pytest.warns(UserWarning, match="EXIF"):
        Image.open(io.BytesIO(content)).getexif()
    np.testing.assert_allclose(colour(content), (254, 0, 0), atol=3)


def test_threads_that_decode_at_once_leave_the_warnings_as_they_were(monkeypatch) -> None:
    second_is_in, first_is_out = threading.Event(), threading.Event()
    plain = pictures._rgb_on_white

    def overlapping(picture: Image.Image) -> Image.Image:
        if picture.width == 20:
            assert second_is_in.wait(60)
        else:
            second_is_in.set()
            assert first_is_out.wait(60)
        return plain(picture)

    monkeypatch.setattr(pictures, "_rgb_on_white", overlapping)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(decode, noise_picture(0, side=20))
        second = pool.submit(decode, noise_picture(0, side=21))
        first.result()
        first_is_out.set()
        second.result()
    assert list(warnings.filters) == before


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("size", [(100, 40), (40, 100), (33, 33), (500, 16)])
@pytest.mark.parametrize("side", [32, 224])
def test_any_picture_becomes_a_square(resize, size: tuple[int, int], side: int) -> None:
    square = to_square(Image.new("RGB", size, "red"), side, resize)
    assert square.shape == (side, side, 3)
    assert square.dtype == np.uint8
    assert np.unique(square.reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


def stripes(width: int, height: int) -> Image.Image:
    """Red, lime and blue side by side, as wide as each other."""
    row = np.repeat(np.uint8([[255, 0, 0], [0, 255, 0], [0, 0, 255]]), width // 3, axis=0)
    return Image.fromarray(np.tile(row, (height, 1, 1)))


def test_squashing_keeps_everything() -> None:
    row = to_square(stripes(120, 40), 40, "squash")[20]
    assert [tuple(row[x]) for x in (3, 20, 37)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


@pytest.mark.parametrize("turned", [False, True])
def test_cropping_keeps_the_centre(turned: bool) -> None:
    picture = stripes(120, 40).transpose(Image.Transpose.ROTATE_90) if turned else stripes(120, 40)
    square = to_square(picture, 40, "crop")
    assert np.unique(square[2:-2, 2:-2].reshape(-1, 3), axis=0).tolist() == [[0, 255, 0]]


def test_fine_detail_is_averaged_when_scaled_down() -> None:
    chequered = np.indices((400, 400)).sum(axis=0) % 2 * 255
    picture = Image.fromarray(chequered.astype(np.uint8)).convert("RGB")
    np.testing.assert_allclose(to_square(picture, 40, "squash")[5:-5, 5:-5], 127.5, atol=3)


def test_no_picture_starts_a_program(monkeypatch) -> None:
    """Pillow would hand an EPS file to Ghostscript, whatever its name."""

    def started(*_: object, **__: object) -> None:
        pytest.fail("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n"
    assert reason(content).startswith("is no picture: it begins with b'%!PS-Adobe")


def test_no_more_pixels_are_decoded_at_the_same_time_than_one_picture_may_have() -> None:
    budget = pictures._Budget(100)
    inside, most = 0, 0
    lock = threading.Lock()

    def decode(pixels: int) -> None:
        nonlocal inside, most
        with budget.spent(pixels):
            with lock:
                inside += pixels
                most = max(most, inside)
            time.sleep(0.002)
            with lock:
                inside -= pixels

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [60, 50, 40, 100, 1, 99] * 5))
    assert most <= 100
    assert inside == 0


MEMORY = """
import io, resource, sys
import numpy as np
from PIL import Image
from vgg16_transfer.images.pictures import decode
content = open(sys.argv[1], "rb").read()
decode(open(sys.argv[2], "rb").read())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode(content)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000)
"""


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "I;16", "CMYK"])
def test_the_largest_picture_needs_less_than_500_megabytes(tmp_path, mode: str) -> None:
    for name, size in (("large", (7071, 7071)), ("small", (20, 20))):
        kind = "TIFF" if mode in {"I;16", "CMYK"} else "PNG"
        colour = 40_000 if mode == "I;16" else None
        picture = Image.new(mode, size, colour) if colour else Image.new(mode, size)
        options = {"compression": "tiff_lzw"} if kind == "TIFF" else {"compress_level": 1}
        if mode == "P":
            options["transparency"] = 0
        picture.save(tmp_path / name, kind, **options)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "large"), str(tmp_path / "small")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 500
