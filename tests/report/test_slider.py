"""The heat map shows where a picture changed; the page slides between before and after, and stands alone."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forearm.images.journal import Line, OutputError
from forearm.report.compare import HEAT, Pair, heat_map
from forearm.report.slider import MOST, PAGE, slider_page, write_looks
from tests.jobs.photos import paint


def pair(caption: str = "a.png: church", channels: int = 3) -> Pair:
    before = np.random.default_rng(0).integers(10, 200, (20, 30, channels), dtype=np.uint8)
    after = before.copy()
    after[5:9, 10:20] += 4
    return Pair(before, after, caption)


class Reader(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_heat_is_where_the_change_is(channels: int) -> None:
    given = pair(channels=channels)
    map_ = np.asarray(heat_map(given.before, given.after))
    assert map_.shape == (20, 30, 3)
    changed = np.zeros((20, 30), dtype=bool)
    changed[5:9, 10:20] = True
    assert (map_[changed] == HEAT[-1]).all()
    assert (map_[~changed] == HEAT[0]).all()


def test_an_unchanged_picture_is_dark_and_a_large_one_shrinks() -> None:
    x = np.zeros((900, 600, 3), dtype=np.uint8)
    small = heat_map(x, x)
    assert small.size == (213, 320)
    assert set(small.get_flattened_data()) == {HEAT[0]}


def test_the_page_stands_alone_and_can_be_worked_by_keys() -> None:
    text = slider_page([pair(), pair("b.png: tench")], "2 pictures.")
    page = Reader(text)
    assert text.isascii()
    assert not re.search(r"https?:|url\(|@import|src=\"(?!data:image/png;base64,)", text)
    assert [attributes["src"][:22] for attributes in page.all("img") if attributes["src"]] == ["data:image/png;base64,"] * 6
    assert all(attributes["alt"] for attributes in page.all("img"))
    inputs, labels = page.all("input"), page.all("label")
    assert [attributes["type"] for attributes in inputs] == ["range"] * 2
    assert [attributes["for"] for attributes in labels] == [attributes["id"] for attributes in inputs]
    assert len({attributes["id"] for attributes in inputs}) == 2
    assert page.all("html")[0]["lang"] == "en"
    assert any("default-src 'none'" in (attributes.get("content") or "") for attributes in page.all("meta"))


def test_a_file_name_is_text_and_nothing_else() -> None:
    text = slider_page([pair('<script>alert(1)</script>"&\x1b\udcff\u00e9.png')], "<b>")
    page = Reader(text)
    assert len(page.all("script")) == 1
    assert not page.all("b")
    assert "&lt;script&gt;" in text
    assert "\\x1b\\udcff&#233;.png" in text


def album(root: Path, count: int = 2) -> list[Line]:
    lines = []
    for number in range(count):
        name = f"sub/{number}.png"
        before = np.asarray(Image.open(paint(root / "in" / name, number)))
        (root / "out/sub").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(before < 255, before + 1, before - 1).astype(np.uint8)).save(root / "out" / name)
        lines.append(Line(name, "0", "armed", source=str(root / "in" / name), out=name, name="church", psnr=48.1, eps=1))
    return lines


def test_each_file_gets_its_map_and_the_page_the_first(tmp_path: Path) -> None:
    lines = album(tmp_path, MOST + 1)
    assert write_looks(tmp_path / "maps", lines, tmp_path / "out") == []
    assert {path.relative_to(tmp_path / "maps").as_posix() for path in (tmp_path / "maps").rglob("*.*")} == {
        PAGE,
        *(f"sub/{number}.png.png" for number in range(MOST + 1)),
    }
    text = (tmp_path / "maps" / PAGE).read_text()
    assert len(Reader(text).all("figure")) == MOST
    assert f"The first {MOST} of {MOST + 1} pictures." in text
    assert "sub/0.png: church, PSNR 48.1 dB, budget 1/255" in text


def test_in_place_the_originals_lie_in_the_backup(tmp_path: Path) -> None:
    (line,) = album(tmp_path, 1)
    original, armed = tmp_path / "in/sub/0.png", tmp_path / "out/sub/0.png"
    write_looks(tmp_path / "maps", [line], tmp_path / "out")
    expected = (tmp_path / "maps" / PAGE).read_bytes()
    backup = original.read_bytes()
    original.write_bytes(armed.read_bytes())
    armed.write_bytes(backup)
    write_looks(tmp_path / "swapped", [line], tmp_path / "out", in_place=True)
    assert (tmp_path / "swapped" / PAGE).read_bytes() == expected


def test_an_original_that_is_gone_costs_its_map_alone(tmp_path: Path) -> None:
    lines = album(tmp_path, 3)
    (tmp_path / "in/sub/0.png").unlink()
    paint(tmp_path / "in/sub/1.png", 1, 9, 9)
    missing = write_looks(tmp_path / "maps", lines, tmp_path / "out")
    assert [why.partition(":")[0] for why in missing] == ["sub/0.png", "sub/1.png"]
    assert len(Reader((tmp_path / "maps" / PAGE).read_text()).all("figure")) == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text("")
    with pytest.raises(OutputError, match="--heat-map"):
        write_looks(tmp_path / "maps", album(tmp_path, 1), tmp_path / "out")
