"""Bytes → pixels: the one place that decides what counts as a readable picture."""

from __future__ import annotations

import io
import threading
import warnings
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pillow_heif import register_heif_opener

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

register_heif_opener()  # Pillow reads AVIF by itself, HEIC through this

FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "HEIF", "AVIF", "JPEG2000", "PPM", "ICO"),
    *("BLP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "ICNS", "MCIDAS", "MSP"),
    *("PCX", "PIXAR", "PSD", "QOI", "SGI", "SUN", "XBM", "XPM", "XVTHUMB"),
    *("PCD", "IM", "IMT", "TGA", "SPIDER"),  # last: these have no clear beginning
)
"""What Pillow reads by itself, and HEIF, in the order in which they are tried.

Not EPS, which it would start Ghostscript for, nor WMF, BUFR, GRIB, HDF5 and MPEG, which it only
recognises.
"""

MIN_SIDE = 16
"""Pixels: below this there is nothing to recognise, whatever it is scaled to."""

MAX_PIXELS = 89_478_485
"""Pillow's own bound on what a picture may unfold to in memory (256 MiB of RGB)."""


_BOMB = f"unfolds to more than {MAX_PIXELS / 1e6:.0f} megapixels"
_TAG_PHOTOMETRIC = 262
_TAG_MAX = 281
_DEPTHS = (8, 10, 12, 14, 16)
_BLACK = 16  # of 255: nobody recognises anything in a picture without a brighter pixel
_DEEP_BLACK = 64  # of 255: in 16 bits, so little brightness means 14 bits or fewer in fact


class PictureError(InputError):
    """Bytes that are no usable picture; the message is the reason.

    Attributes:
        kind: The reason without what differs from picture to picture.
    """

    def __init__(self, reason: str, kind: str | None = None) -> None:
        self.kind = kind or reason.partition(": ")[0]
        super().__init__(reason)


def decode(content: bytes) -> Image.Image:
    """Reads a picture as upright RGB, as a person sees it.

    Of several frames the first; transparency on white. Values of more than 8 bits are scaled to 8:
    see :func:`_deep`.

    Args:
        content: A whole file in one of ``FORMATS``.

    Raises:
        PictureError: The file is empty, no picture, damaged, too small, a decompression bomb, or
            holds values that are no brightness.
    """
    if not content:
        raise PictureError("is empty")
    try:
        # Our own bound is checked before a pixel is decoded; Pillow would warn, then fail.
        with _silence, Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            _refuse_size(*picture.size)
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
    """Scales an RGB picture to what the network takes.

    Args:
        picture: RGB, of any size.
        size: Side of the result, in pixels.
        resize: ``squash`` ignores the aspect ratio; ``crop`` scales the short side and cuts the
            centre out of the long one.

    Returns:
        Shape (size, size, 3), RGB, 0 to 255; bilinear with antialiasing.
    """
    resample = Image.Resampling.BILINEAR
    if resize == "crop":
        square = ImageOps.fit(picture, (size, size), method=resample)
    else:
        square = picture.resize((size, size), resample)
    return np.asarray(square, dtype=np.uint8)


def _refuse_size(width: int, height: int) -> None:
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
    had_16_bits = ";16" in str(
        getattr(picture, "tile", "")
    )  # of each colour, of which Pillow keeps the upper 8
    picture.load()
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode == "F" or picture.mode.startswith("I"):
        picture = _deep(picture, tags)
    elif had_16_bits:
        brightest = max(high for _, high in _extrema(picture.convert("RGB")))
        if brightest < _DEEP_BLACK:
            raise PictureError(
                f"would be black, or almost: of its 16 bits, the upper 8 reach {brightest} of 255; "
                "save it with 8 bits, or scale its values to 65535",
                "would be black, or almost: of its 16 bits, the upper 8 are nearly unused",
            )
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _deep(picture: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """Scales grey values of more than 8 bits, or with a fraction, to 0 to 255.

    Unless a TIFF says which value is white (MaxSampleValue), the values themselves tell, if they
    are whole numbers: the most that 8, 10, 12, 14 or 16 bits hold. Of fractions nothing does.

    Raises:
        PictureError: A value is negative, infinite or no number, or more than 65535; white is not
            known; or the result would be almost black.
    """
    values = np.asarray(picture, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all() or low < 0 or high >= 1 << _DEPTHS[-1]:
        raise PictureError(
            f"holds values that are no brightness: from {low:g} to {high:g}, not within 0 to 65535"
        )
    said = tags.get(_TAG_MAX)
    said = float(max(said)) if isinstance(said, tuple) else float(said or 0)
    fits = [float((1 << depth) - 1) for depth in _DEPTHS if high < 1 << depth]
    named = 0 < said < 1 << _DEPTHS[-1] and high <= said
    white = said if named else fits[0]
    if picture.mode == "F" and not named:
        raise PictureError(
            f"holds fractions, from {low:g} to {high:g}, and does not say which of them is white; "
            "save it with 8 or 16 bits",
            "holds fractions, and does not say which of them is white; save it with 8 or 16 bits",
        )
    scaled = values * (255 / white)
    if tags.get(_TAG_PHOTOMETRIC) == 0:  # white is zero, which Pillow heeds up to 8 bits
        scaled = 255 - scaled
    hidden = picture.info.get("transparency")
    if isinstance(hidden, int):  # the value of a PNG that is transparent, and so white
        scaled[values == hidden] = 255
    if high > 0 and scaled.max() < _BLACK:
        raise PictureError(f"would be almost black: its values reach from {low:g} to {high:g}")
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))


def _extrema(picture: Image.Image) -> tuple[tuple[int, int], ...]:
    return cast("tuple[tuple[int, int], ...]", picture.getextrema())


class _Silence:
    """Ignores warnings while any thread is inside.

    ``warnings.catch_warnings`` by itself is no good to threads: the last to leave would restore
    what the first had set.
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
