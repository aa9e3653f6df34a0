"""A page that slides between a picture and its armed one, and a heat map for each file of a folder job."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from forearm.errors import InputError
from forearm.images.codec import Pixels, decode
from forearm.images.journal import Line, OutputError
from forearm.images.write import commit, stage
from forearm.report.compare import Pair, heat_map

PAGE = "before_after.html"
MOST = 24  # pictures on the page: both of each are inside, losslessly
EDGE = 512  # pixels of a picture's longer edge on the page

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Before and after arming</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1a1a1a; background: #fff }
figure { margin: 0 0 3rem; --at: 50% }
.both { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start }
.pair { position: relative; line-height: 0 }
.pair img { max-width: 100%; height: auto }
.pair img + img { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at)) }
.pair::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--at); border-left: 2px solid #fff; mix-blend-mode: difference }
.heat { max-width: 320px; height: auto }
label { display: block; margin: .5rem 0 }
input { width: min(32rem, 100%); display: block }
input:focus-visible { outline: 3px solid #1a5fb4; outline-offset: 4px }
</style>
<noscript><style>
.pair img + img { position: static; clip-path: none } .pair::after, label { display: none }
</style></noscript>
</head>
<body>
<h1>Before and after arming</h1>
"""

_TAIL = """<script>
const slide = input => input.closest("figure").style.setProperty("--at", input.value + "%")
document.querySelectorAll("input").forEach(input => { input.addEventListener("input", () => slide(input)); slide(input) })
</script>
</body>
</html>
"""


def slider_page(pairs: Sequence[Pair], note: str = "") -> str:
    """One HTML page for some pictures: before left of the handle, after right of it, the heat map beside them. ASCII, stands alone.

    The handle is a range input, moved by pointer or arrow keys; without scripts both pictures stand side by side. `note`: a sentence on top.
    """
    figures = [_figure(pair, number) for number, pair in enumerate(pairs)]
    said = f"<p>{_text(note)}</p>\n" if note else ""
    return _HEAD + said + "".join(figures) + _TAIL


def write_looks(folder: Path, lines: Iterable[Line], root: Path, *, in_place: bool = False) -> list[str]:
    """A heat map for each armed file in `folder` (its name and .png), and `before_after.html` with the first 24; what could not be drawn.

    lines: of the journal; `root`: its folder, where the armed files lie, or in place their originals. Lossy files are drawn as they decode.
    OutputError where `folder` cannot be written. Cost: both files of each line are decoded.
    """
    pairs: list[Pair] = []
    missing: list[str] = []
    armed = [line for line in lines if line.out is not None and line.source is not None]
    for line in armed:
        assert line.source is not None
        original, release = (root / line.file, Path(line.source)) if in_place else (Path(line.source), root / line.file)
        try:
            before, after = decode(original).pixels, decode(release).pixels
        except InputError as error:
            missing.append(f"{line.file}: no heat map ({error})")
            continue
        if before.shape != after.shape:
            missing.append(f"{line.file}: no heat map (the original has another size by now)")
            continue
        _write(folder / f"{line.file}.png", _png(heat_map(before, after)))
        if len(pairs) < MOST:
            pairs.append(Pair(_small(before), _small(after), _caption(line)))
    shown = f"The first {MOST} of {len(armed)} pictures." if len(armed) > MOST else f"{len(pairs)} pictures."
    _write(folder / PAGE, slider_page(pairs, shown).encode())
    return missing


def _caption(line: Line) -> str:
    quality = "unchanged" if line.psnr is None else f"PSNR {line.psnr:.1f} dB"
    budget = "" if line.eps is None else f", budget {line.eps}/255"
    return f"{line.file}: {line.name}, {quality}{budget}"


def _figure(pair: Pair, number: int) -> str:
    height, width = pair.before.shape[:2]
    before, after = (_data(_picture(pixels)) for pixels in (pair.before, pair.after))
    size = f'width="{width}" height="{height}"'
    caption = _text(pair.caption)
    return (
        f'<figure>\n<div class="both"><div class="pair"><img {size} alt="before: {caption}" src="{before}">'
        f'<img {size} alt="after: {caption}" src="{after}"></div>\n'
        f'<img class="heat" alt="where it changed: {caption}" src="{_data(heat_map(pair.before, pair.after))}"></div>\n'
        f'<label for="at{number}">before, left of the handle; after, right of it'
        f'<input id="at{number}" type="range" min="0" max="100" value="50"></label>\n'
        f"<figcaption>{caption}</figcaption>\n</figure>\n"
    )


def _small(pixels: Pixels) -> Pixels:
    """At most `EDGE` pixels an edge; a picture that fits keeps every pixel."""
    picture = _picture(pixels)
    picture.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    return np.asarray(picture).reshape(picture.height, picture.width, -1)


def _picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)


def _png(picture: Image.Image) -> bytes:
    held = io.BytesIO()
    picture.save(held, format="PNG")
    return held.getvalue()


def _data(picture: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(_png(picture)).decode()}"


def _text(text: str) -> str:
    """Text for HTML in ASCII: what a file may be called, control characters and broken encodings included, shows and does no more."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return html.escape(shown).encode("ascii", "xmlcharrefreplace").decode()


def _write(file: Path, content: bytes) -> None:
    try:
        commit(stage(file, content, 0o644), file)
    except OSError as error:
        raise OutputError(f"{file}: cannot be written ({error.strerror}); a folder that can, for example --heat-map maps/") from None
