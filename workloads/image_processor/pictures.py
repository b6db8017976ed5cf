"""Pictures that can be told apart after they were resized: made and read without a library, in the plainest format there is."""

import re
from dataclasses import dataclass

# Binary PPM: a magic number, width, height and highest value, then three bytes a pixel.
_HEADER = re.compile(rb"P6\s+(\d+)\s+(\d+)\s+(\d+)\s")
HIGHEST = 255
# The four quarters of a test picture, as red, green and blue: no two alike, so that turning or mirroring it shows.
QUARTERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Picture:
    """An image as it was read; `quarters` are the colours in the middle of its quarters, row by row."""

    width: int
    height: int
    quarters: tuple[Colour, ...]


def quartered(width: int, height: int) -> bytes:
    """Return a picture of four quarters, each of one colour."""
    if width < 2 or height < 2 or width % 2 or height % 2:  # noqa: PLR2004  # halves
        raise ValueError(f"a picture of four equal quarters needs even sides, got {width} x {height}")
    rows = [
        b"".join(bytes(QUARTERS[2 * lower + right]) * (width // 2) for right in (0, 1)) * (height // 2)
        for lower in (0, 1)
    ]
    return f"P6 {width} {height} {HIGHEST}\n".encode() + b"".join(rows)


def read(content: bytes) -> Picture | None:
    """Return what a picture shows; None where the bytes are no whole picture."""
    header = _HEADER.match(content)
    if header is None:
        return None
    width, height, highest = (int(number) for number in header.groups())
    pixels = content[header.end():]
    if highest != HIGHEST or not width or not height or len(pixels) != 3 * width * height:
        return None

    def colour(across: float, down: float) -> Colour:
        at = 3 * (int(height * down) * width + int(width * across))
        red, green, blue = pixels[at:at + 3]
        return red, green, blue

    return Picture(width, height, tuple(colour(across, down) for down in (0.25, 0.75) for across in (0.25, 0.75)))
