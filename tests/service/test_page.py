"""The web page in a real browser, headless: what a user sees, types and downloads. Needs Chromium and Playwright."""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forearm.images.codec import decode
from forearm.jobs.single import protect_bytes
from forearm.report.compare import difference
from tests.images.corpus import FILES
from tests.jobs.armourers import Fake
from tests.jobs.photos import paint
from tests.service.live import Live, serving

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
KEY = "0123456789abcdef"


class Ten(Fake):
    """A fake that names a backbone whose classes the page can offer."""

    def settings(self, height: int, width: int) -> dict[str, str | int | float]:
        return super().settings(height, width) | {"backbone": "photo_backbone"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(Ten()) as service:
        yield service


@pytest.fixture
def page(browser: Any, live: Live) -> Iterator[Any]:
    """The page, opened. Whatever it asked of other places or logged as an error fails the test."""
    context = browser.new_context(viewport={"width": 1000, "height": 800}, accept_downloads=True)
    page = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" and "Failed to load" not in said.text else None)
    page.goto(live.address)
    page.locator("#about").wait_for()
    yield page
    context.close()
    assert [url for url in asked if not url.startswith((live.address, f"blob:{live.address}"))] == []
    assert errors == []


def armed(page: Any, count: int) -> None:
    """Wait until so many photos are armed."""
    page.get_by_text(f"{count} of {count}", exact=True).wait_for(timeout=30_000)


def saved_by(page: Any, press: Any) -> tuple[str, bytes]:
    """The name and bytes of the download that `press` starts."""
    with page.expect_download() as waiting:
        press()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_photos_are_armed_shown_and_downloaded(page: Any, tmp_path: Path) -> None:
    sources = [paint(tmp_path / "beach.png", 1), paint(tmp_path / "tree.jpg", 2, 300, 400)]
    page.set_input_files("#files", [str(source) for source in sources])
    armed(page, 2)
    beach, tree = page.get_by_role("article", name="beach.png"), page.get_by_role("article", name="tree.jpg")
    assert "ship (25 % sure, by the labeller)" in beach.locator(".state").inner_text()
    assert "unsure" in beach.locator(".state").inner_text()
    for word in ("Size 32 \u00d7 24", "PSNR 50.0 dB", "SSIM 0.990", "Largest change 1/255", "+0.5 \u2192 +1.5"):
        assert word in " ".join(beach.locator(".quality").inner_text().split())
    assert "after JPEG" in tree.locator(".quality").inner_text()
    name, data = saved_by(page, lambda: beach.get_by_role("link", name="Download beach-armed.png").click())
    assert name == "beach-armed.png"
    assert data == protect_bytes(sources[0].read_bytes(), Ten())[0]
    name, data = saved_by(page, lambda: page.get_by_role("button", name="Download all").click())
    assert name == "armed.zip"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["beach-armed.png", "tree-armed.jpg"]
        assert archive.read("tree-armed.jpg") == protect_bytes(sources[1].read_bytes(), Ten())[0]


def test_the_views_are_of_real_size_and_the_difference_is_exact(page: Any, tmp_path: Path) -> None:
    source = paint(tmp_path / "wide.png", 3, 90, 700)
    page.set_input_files("#files", str(source))
    armed(page, 1)
    photo = page.get_by_role("article")
    before, after = photo.get_by_alt_text("wide.png before arming"), photo.get_by_alt_text("wide.png after arming")
    assert (before.is_visible(), after.is_visible()) == (False, True)
    photo.get_by_label("before").check()
    assert (before.is_visible(), after.is_visible()) == (True, False)
    assert before.bounding_box()["width"] == 700
    photo.get_by_label("difference, 16 times").check()
    canvas = photo.get_by_role("img", name="What arming changed in wide.png")
    shown = None
    for _ in range(50):
        shown = canvas.evaluate("c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)")
        if len(shown) == 90 * 700 * 4 and any(shown):
            break
        page.wait_for_timeout(100)
    assert canvas.bounding_box()["width"] == 700
    pixels = decode(source).pixels
    wanted = difference(pixels, decode(protect_bytes(source.read_bytes(), Ten())[0]).pixels)
    assert np.array_equal(np.array(shown, np.uint8).reshape(90, 700, 4)[..., :3], wanted)
    photo.get_by_label("side by side").check()
    assert all(element.is_visible() for element in (before, after, canvas))
    page.set_viewport_size({"width": 500, "height": 800})
    photo.get_by_label("before").check()
    assert before.bounding_box()["width"] == 700
    photo.get_by_label("real size").uncheck()
    assert before.bounding_box()["width"] < 500
    assert page.evaluate("document.documentElement.scrollWidth") <= 500


def test_dropped_files_and_wrong_ones(page: Any) -> None:
    drop = """bytes => {
        const box = new DataTransfer();
        for (const [name, data] of Object.entries(bytes)) box.items.add(new File([new Uint8Array(data)], name));
        document.dispatchEvent(new DragEvent("drop", { dataTransfer: box, bubbles: true }));
    }"""
    page.evaluate(drop, {"a.gif": list(FILES["refuse_gif.gif"]()), "b.png": list(FILES["pass_1x1.png"]())})
    page.get_by_text("1 of 2", exact=True).wait_for()
    bad = page.get_by_role("article", name="a.gif")
    assert "a GIF" in bad.locator(".state").inner_text()
    assert not bad.locator(".result").is_visible()
    assert page.get_by_role("article", name="b.png").locator(".result").is_visible()
    page.get_by_role("button", name="Clear the list").click()
    assert page.get_by_role("article").count() == 0


def test_the_keyboard_is_enough(page: Any, tmp_path: Path) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    assert page.evaluate("getComputedStyle(document.querySelector('#files + label')).outlineStyle") == "solid"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(str(paint(tmp_path / "a.png", 1, 400, 500)))
    armed(page, 1)
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("e => { const a = document.activeElement; return a.id || a.className || a.value || a.tagName; }"))
        if page.evaluate("document.activeElement.value") == "after":
            page.keyboard.press("ArrowRight")
            assert page.evaluate("document.activeElement.value") == "difference"
    assert reached == ["all", "clear", "after", "on", "window", "save", "7", "BUTTON", "SUMMARY"]


def test_what_a_screen_reader_is_told(page: Any, tmp_path: Path) -> None:
    news = page.get_by_role("status")
    page.set_input_files("#files", str(paint(tmp_path / "a.png", 1)))
    armed(page, 1)
    assert news.inner_text() == "a.png: armed as ship. The labeller is unsure: look at the label"
    assert page.locator("html").get_attribute("lang") == "en"
    nameless = """() => Array.from(document.querySelectorAll("input, select, button, a, canvas, progress, [tabindex]"))
        .filter((e) => e.checkVisibility() && !(e.labels?.length || e.ariaLabel || e.textContent.trim())).map((e) => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    assert page.evaluate("Array.from(document.querySelectorAll('article img')).every((e) => e.alt)")
    assert page.get_by_role("heading").all_inner_texts() == ["forearm", "a.png"]
    assert page.get_by_role("article", name="a.png").get_attribute("aria-busy") == "false"


def test_a_wrong_label_is_put_right(page: Any, tmp_path: Path) -> None:
    source = paint(tmp_path / "a.png", 1)
    page.set_input_files("#files", str(source))
    armed(page, 1)
    photo = page.get_by_role("article")
    photo.get_by_label("Label of a.png").select_option(label="church")
    photo.get_by_role("button", name="Arm with this label").click()
    photo.get_by_text("as you said").wait_for()
    _, data = saved_by(page, lambda: photo.get_by_role("link").click())
    assert data == protect_bytes(source.read_bytes(), Ten(), label="4")[0]


def test_a_key_is_asked_for(browser: Any, tmp_path: Path) -> None:
    with serving(Ten(), api_key=KEY) as service:
        page = browser.new_page()
        page.goto(service.address)
        page.get_by_label("API key").wait_for()
        assert page.evaluate("document.activeElement.id") == "key-text"
        page.set_input_files("#files", str(paint(tmp_path / "a.png", 1)))
        page.get_by_text("needs the API key").wait_for()
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        armed(page, 1)
        assert not page.locator("#key").is_visible()
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(browser: Any, live: Live, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(live.address)
    red = int(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0]"))
    assert (red > 200) == (scheme == "light")
    page.close()


def luminance(colour: str) -> float:
    """Of '#rrggbb', as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_contrast() -> None:
    style = (resources.files("forearm.service") / "page" / "page.css").read_text()
    themes = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)]
    assert len(themes) == 2
    for theme in themes:
        for text in ("ink", "soft", "bad", "warn", "accent"):
            assert min(contrast(theme[text], theme[ground]) for ground in ("paper", "sheet")) >= 4.5, text
        assert contrast(theme["accent"], theme["on-accent"]) >= 4.5
        assert min(contrast(theme["line"], theme[ground]) for ground in ("paper", "sheet")) >= 3.0
    assert contrast("#777777", "#ffffff") < 4.5


def test_the_page_asks_nothing_of_elsewhere() -> None:
    for file in (resources.files("forearm.service") / "page").iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"(?m)(^|\s)//.*$", "", text), file.name
        assert text.isascii()
