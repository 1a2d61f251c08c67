"""Bytes → pixels: the one place that decides what counts as a readable picture."""

from __future__ import annotations

import io
import threading
import warnings
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"})
"""Endings of files that are taken for pictures, in lower case."""

MIN_SIDE = 16
"""Pixels: below this there is nothing to recognise, whatever it is scaled to."""

MAX_PIXELS = 89_478_485
"""Pillow's own bound on what a picture may unfold to in memory (256 MiB of RGB)."""


class PictureError(InputError):
    """Bytes that are no usable picture; the message is the reason."""


def decode(content: bytes) -> Image.Image:
    """Reads a picture as upright RGB: first frame, transparency on white, 16 bits scaled to 8.

    Args:
        content: A whole file of any format that Pillow reads.

    Raises:
        PictureError: The file is empty, no picture, damaged, too small, or a decompression bomb.
    """
    if not content:
        raise PictureError("is empty")
    try:
        # Our own bound is checked before a pixel is decoded; Pillow would warn, then fail.
        with _silence, Image.open(io.BytesIO(content)) as picture:
            _refuse_size(*picture.size)
            return _rgb_on_white(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError:
        raise PictureError(f"unfolds to more than {MAX_PIXELS / 1e6:.0f} megapixels") from None
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
            f"unfolds to {width * height / 1e6:.0f} megapixels, more than {MAX_PIXELS / 1e6:.0f}"
        )
    if min(width, height) < MIN_SIDE:
        raise PictureError(f"measures {width} x {height} pixels, less than {MIN_SIDE} on a side")


def _rgb_on_white(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion to 8 bits clips at 255 instead of scaling.
        wide = np.asarray(picture, dtype=np.float64)
        picture = Image.fromarray((wide / 257).clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


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
