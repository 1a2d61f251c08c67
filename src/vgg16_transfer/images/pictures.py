"""Decodes the bytes of a file to pixels, and decides which files are usable pictures."""

from __future__ import annotations

import io
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pillow_heif import register_heif_opener

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

register_heif_opener()  # for HEIC; Pillow itself reads AVIF

FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "HEIF", "AVIF", "JPEG2000", "PPM", "ICO"),
    *("BLP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "ICNS", "MCIDAS", "MSP"),
    *("PCX", "PIXAR", "PSD", "QOI", "SGI", "SUN", "XBM", "XPM", "XVTHUMB"),
    *("PCD", "IM", "IMT", "TGA", "SPIDER"),  # last: these have no clear signature
)
"""Formats that Pillow decodes without other programs, and HEIF, in the order of the attempts.

EPS is not included, because Pillow starts Ghostscript for it. WMF, BUFR, GRIB, HDF5 and MPEG are
not included, because Pillow recognises them but can't decode them.
"""

MIN_SIDE = 16
"""Pixels: a smaller picture shows nothing that can be recognised, even if it is enlarged."""

MAX_PIXELS = 50_000_000
"""Pixels of the largest picture, and of all that are decoded at the same time. They need 350 MB."""

_BOMB = f"unfolds to more than {MAX_PIXELS / 1e6:.0f} megapixels"
_TAG_PHOTOMETRIC = 262
_TAG_MAX = 281
_DEPTHS = (8, 10, 12, 14, 16)
_STRIP = 1_000_000  # pixels
_BLACK = 16  # of 255: in a picture without a brighter pixel, nothing can be recognised
_DEEP_BLACK = 64  # of 255: a 16-bit picture with less uses only 14 bits or fewer


class PictureError(InputError):
    """Bytes that are not a usable picture; the message is the reason.

    Attributes:
        kind: The reason without details of the picture, used for counting.
    """

    def __init__(self, reason: str, kind: str | None = None) -> None:
        self.kind = kind or reason.partition(": ")[0]
        super().__init__(reason)


def decode(content: bytes) -> Image.Image:
    """Decodes a picture to upright RGB, as a person sees it.

    Only the first frame is used. Transparent pixels become white. Values of more than 8 bits are
    scaled to 8 bits: see :func:`_to_8_bits`.

    Args:
        content: Bytes of a whole file in one of ``FORMATS``.

    Raises:
        PictureError: The file is empty, not a picture, damaged, too small or too large, or its
            values can't be used as brightness.
    """
    if not content:
        raise PictureError("is empty")
    try:
        # The size is checked before decoding; Pillow only warns above its limit.
        with _silence, Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            _check_size(*picture.size)
            with _budget.spent(picture.width * picture.height):
                return _rgb_on_white(picture)
    except Image.DecompressionBombError:
        raise PictureError(_BOMB) from None
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(f"is no picture: it begins with {content[:12]!r}") from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged bytes
        raise PictureError(f"is damaged: {error}") from None


def to_square(
    picture: Image.Image, size: int, resize: Literal["squash", "crop"]
) -> npt.NDArray[np.uint8]:
    """Scales an RGB picture to the square that the network takes.

    Args:
        picture: RGB picture of any size.
        size: Side of the result in pixels.
        resize: ``squash`` ignores the aspect ratio; ``crop`` scales the short side to ``size`` and
            keeps the centre of the long side.

    Returns:
        Shape (size, size, 3), RGB, 0 to 255; bilinear with antialiasing.
    """
    resample = Image.Resampling.BILINEAR
    if resize == "crop":
        square = ImageOps.fit(picture, (size, size), method=resample)
    else:
        square = picture.resize((size, size), resample)
    return np.asarray(square, dtype=np.uint8)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"unfolds to {width * height / 1e6:.0f} megapixels, more than {MAX_PIXELS / 1e6:.0f}",
            _BOMB,
        )
    if min(width, height) < MIN_SIDE:
        raise PictureError(
            f"measures {width} x {height} pixels, less than {MIN_SIDE} on a side",
            f"measures less than {MIN_SIDE} pixels on a side",
        )


def _rgb_on_white(picture: Image.Image) -> Image.Image:
    tags = getattr(picture, "tag_v2", {})
    # Pillow keeps only the upper 8 of 16 bits per colour.
    had_16_bits = ";16" in str(getattr(picture, "tile", ""))
    picture.load()
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode == "F" or picture.mode.startswith("I"):
        picture = _to_8_bits(picture, tags)
    elif had_16_bits:
        brightest = max(high for _, high in _extrema(picture.convert("RGB")))
        if brightest < _DEEP_BLACK:
            raise PictureError(
                f"would be black, or almost: of its 16 bits, the upper 8 reach {brightest} of 255; "
                "save it with 8 bits, or scale its values to 65535",
                "would be black, or almost: of its 16 bits, the upper 8 are nearly unused",
            )
    if picture.has_transparency_data:
        return _in_strips(picture, _on_white)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _on_white(strip: Image.Image) -> Image.Image:
    strip = strip.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB")


def _in_strips(
    picture: Image.Image, function: Callable[[Image.Image], Image.Image], mode: str = "RGB"
) -> Image.Image:
    """Applies a function to strips of a picture, so that its copies of it stay small."""
    result = Image.new(mode, picture.size)
    for top, strip in _strips(picture):
        result.paste(function(strip), (0, top))
    return result


def _strips(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, _STRIP // picture.width)
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(top + rows, picture.height)))


def _to_8_bits(picture: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Scales grey values of more than 8 bits, or with fractions, to 0 to 255.

    A TIFF may record the value of white (MaxSampleValue). Otherwise, for whole numbers, white is
    the largest value of 8, 10, 12, 14 or 16 bits, whichever fits the picture. For fractions, white
    is not known.

    Raises:
        PictureError: A value is negative, infinite, not a number or more than 65535. Or white is
            not known, or the result would be almost black.
    """
    strips = (_values(strip) for _, strip in _strips(picture))
    ends = np.array([(values.min(), values.max()) for values in strips])
    low, high = float(ends.min()), float(ends.max())
    if not np.isfinite([low, high]).all() or low < 0 or high >= 1 << _DEPTHS[-1]:
        raise PictureError(
            f"holds values that are no brightness: from {low:g} to {high:g}, not within 0 to 65535"
        )
    tag = tags.get(_TAG_MAX)
    recorded = float(max(tag)) if isinstance(tag, tuple) else float(tag or 0)
    fits = [float((1 << depth) - 1) for depth in _DEPTHS if high < 1 << depth]
    is_recorded = 0 < recorded < 1 << _DEPTHS[-1] and high <= recorded
    white = recorded if is_recorded else fits[0]
    if picture.mode == "F" and not is_recorded:
        raise PictureError(
            f"holds fractions, from {low:g} to {high:g}, and does not say which of them is white; "
            "save it with 8 or 16 bits",
            "holds fractions, and does not say which of them is white; save it with 8 or 16 bits",
        )
    transparent = picture.info.get("transparency")
    brightest = 0.0

    def scale(strip: Image.Image) -> Image.Image:
        nonlocal brightest
        values = _values(strip)
        scaled = values * (255 / white)
        if tags.get(_TAG_PHOTOMETRIC) == 0:  # white is zero; Pillow handles this only up to 8 bits
            scaled = 255 - scaled
        if isinstance(transparent, int):  # the grey value that a PNG declares transparent
            scaled[values == transparent] = 255
        brightest = max(brightest, float(scaled.max()))
        return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))

    result = _in_strips(picture, scale, "L")
    if high > 0 and brightest < _BLACK:
        raise PictureError(f"would be almost black: its values reach from {low:g} to {high:g}")
    return result


def _values(picture: Image.Image) -> npt.NDArray[np.float64]:
    return np.asarray(picture, dtype=np.float64)


def _extrema(picture: Image.Image) -> tuple[tuple[int, int], ...]:
    return cast("tuple[tuple[int, int], ...]", picture.getextrema())


class _Budget:
    """Lets threads decode pictures at the same time while these have so many pixels together."""

    def __init__(self, pixels: int) -> None:
        self._left = pixels
        self._changed = threading.Condition()

    @contextmanager
    def spent(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: pixels <= self._left)
            self._left -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._left += pixels
                self._changed.notify_all()


class _Silence:
    """Context manager that ignores warnings while any thread is inside.

    ``warnings.catch_warnings`` alone does not work with threads: the last thread to leave restores
    the filters that the first one has set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.__exit__(None, None, None)


_silence = _Silence()
_budget = _Budget(MAX_PIXELS)
