"""Pictures on disk: PNG by pygame, the same bytes for the same pixels."""

import io
import os

import numpy as np
from numpy.typing import NDArray

PICTURE_LIMIT = 64 * 2**20  # bytes; bounded before it is read


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Content of a PNG file of pixels uint8 [rows, columns, 3]."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    import pygame

    assert pixels.ndim == 3, f"expected rows, columns, 3: {pixels.shape}"
    assert pixels.dtype == np.uint8, f"expected uint8, found {pixels.dtype}"
    size = (pixels.shape[1], pixels.shape[0])
    surface = pygame.image.frombytes(np.ascontiguousarray(pixels).tobytes(), size, "RGB")
    content = io.BytesIO()
    pygame.image.save(surface, content, ".png")
    return content.getvalue()
