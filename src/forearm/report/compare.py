"""A picture for people: original, armed, and the difference made visible, one row a photo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from forearm.images.codec import Pixels

GAIN = 16  # the difference is shown this many times as large, around grey
HEADER = 34
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))  # from no change to the largest: dark to light


@dataclass(frozen=True, slots=True)
class Pair:
    """One photo before and after, of equal shape (`h w 3` or `h w 1`, uint8), and the words beneath."""

    before: Pixels
    after: Pixels
    caption: str


def difference(before: Pixels, after: Pixels, gain: int = GAIN) -> Pixels:
    """Mid-grey where nothing changed; each level of change is shown as `gain` levels. Computed in integers, clipped to 0..255."""
    change = after.astype(np.int16) - before.astype(np.int16)
    return np.clip(128 + gain * change, 0, 255).astype(np.uint8)


def heat_map(before: Pixels, after: Pixels, edge: int = 320) -> Image.Image:
    """Where a picture changed: the largest change over its channels, dark for none and light for the picture's own largest.

    Shrunk to `edge` pixels at the longer edge by taking means, so that fine patterns show as their average; never enlarged.
    """
    change = np.abs(after.astype(np.int16) - before.astype(np.int16)).max(2)
    share = change / max(1, int(change.max()))
    stops = np.linspace(0.0, 1.0, len(HEAT))
    colours = np.stack([np.interp(share, stops, [stop[channel] for stop in HEAT]) for channel in range(3)], 2)
    picture = Image.fromarray(colours.round().astype(np.uint8))
    picture.thumbnail((edge, edge), Image.Resampling.BOX)
    return picture


def before_after(pairs: Sequence[Pair], width: int = 380) -> Image.Image:
    """Three columns of `width` pixels: before, after, difference. Before and after are shown to the same scale."""
    font = ImageFont.load_default(size=16)
    rows = [_row(pair, width, font) for pair in pairs]
    sheet = Image.new("RGB", (rows[0].width, HEADER + sum(row.height for row in rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(("before", "after", f"difference x {GAIN}")):
        draw.text((column * (width + 8) + 4, 8), title, fill="black", font=font)
    top = HEADER
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(pair: Pair, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    panes = [_pane(pixels, width) for pixels in (pair.before, pair.after, difference(pair.before, pair.after))]
    row = Image.new("RGB", (3 * width + 16, panes[0].height + 30), "white")
    for column, pane in enumerate(panes):
        row.paste(pane, (column * (width + 8), 0))
    ImageDraw.Draw(row).text((4, panes[0].height + 4), pair.caption, fill="black", font=font)
    return row


def _pane(pixels: Pixels, width: int) -> Image.Image:
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).convert("RGB")
    return picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
