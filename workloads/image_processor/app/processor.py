# ruff: noqa: INP001  # a module of an image, no package here
"""image-processor: reads an image and writes it in another size, once for every request, as the classic watchdog starts it.

The image comes on standard input and leaves on standard output; the request's query says `width` and `height` in pixels (the image's own
where one is missing) and `format` (PNG unless said otherwise). What cannot be done ends the program with status 1 and one line on standard
error, which the watchdog makes the body of its answer 500.
"""

import os
import sys
from io import BytesIO
from urllib.parse import parse_qs

from PIL import Image, UnidentifiedImageError

# An image of more pixels than this is refused: a few bytes may claim to be gigabytes.
MOST_PIXELS = 4_000_000
FORMATS = ("PNG", "JPEG", "PPM")


class Refused(Exception):  # noqa: N818  # states what happened
    """What was asked cannot be done; says why."""


def main() -> int:
    """Answer one request."""
    try:
        made = resized(sys.stdin.buffer.read(), os.environ.get("Http_Query", ""))  # noqa: SIM112  # the watchdog's spelling
    except Refused as why:
        print(f"image-processor: {why}", file=sys.stderr)  # noqa: T201  # the watchdog reads it
        return 1
    sys.stdout.buffer.write(made)
    return 0


def resized(content: bytes, query: str) -> bytes:
    """Return an image in the size and the format that a query asks for; raises Refused."""
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    kind = asked.get("format", "PNG").upper()
    if kind not in FORMATS:
        raise Refused(f"format is {kind}, expected one of {', '.join(FORMATS)}")
    try:
        with Image.open(BytesIO(content)) as image:
            size = _length(asked, "width", image.width), _length(asked, "height", image.height)
            if max(size[0] * size[1], image.width * image.height) > MOST_PIXELS:
                raise Refused(f"{image.width} x {image.height} to {size[0]} x {size[1]}: more than {MOST_PIXELS} pixels")
            made = image.convert("RGB").resize(size)
    except (UnidentifiedImageError, OSError) as error:
        raise Refused(f"not an image: {' '.join(str(error).split()) or type(error).__name__}") from error
    out = BytesIO()
    made.save(out, format=kind)
    return out.getvalue()


def _length(asked: dict[str, str], name: str, otherwise: int) -> int:
    text = asked.get(name, str(otherwise))
    if not text.isascii() or not text.isdigit() or not int(text):
        raise Refused(f"{name} is {text!r}, expected a number of pixels")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
