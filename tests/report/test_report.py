"""The report as files: whole, honest, safe to open, the same for the same store, and made of a real audit's store."""

from __future__ import annotations

import builtins
import dataclasses
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

import forearm
from forearm.cli.app import app
from forearm.data import sets
from forearm.data.batches import Pictures
from forearm.errors import ArtifactError, InputError, SpecError
from forearm.evaluate.cell import Cell
from forearm.evaluate.chosen import Sources, choose
from forearm.evaluate.matrix import cells, matrix_from
from forearm.evaluate.store import Store
from forearm.images.journal import OutputError
from forearm.jobs.audit import audit
from forearm.models.classes import CIFAR10
from forearm.models.load import load_model
from forearm.report.again import matrix_text
from forearm.report.findings import benches
from forearm.report.pictures import gallery
from forearm.report.write import write_report
from tests.models.tiny import write_model
from tests.report.stores import SHA, cell, put, realistic, rows

VOID = {"meta", "img", "br", "rect", "line", "polygon", "polyline"}
LINKS = {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}


class Read(HTMLParser):
    """What a page holds: its tags with their attributes, text by tag, and what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.wrong += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        self.text += data


def complaints(text: str) -> list[str]:
    """What keeps a page from standing alone and being read by everybody."""
    read = Read(text)
    wrong = list(read.wrong)
    ids = Counter(attrs["id"] for _, attrs in read.tags if "id" in attrs)
    for tag, attrs in read.tags:
        where = f"<{tag} {attrs}>"[:120]
        for name in LINKS & set(attrs):
            target = str(attrs[name])
            if not (target.startswith("data:image/png;base64,") or (target[:1] == "#" and target[1:] in ids)):
                wrong.append(f"{where} loads something")
        if tag in ("script", "link", "iframe", "object", "base"):
            wrong.append(f"{where} is not allowed")
        if tag == "img" and not attrs.get("alt"):
            wrong.append(f"{where} has no alt")
        if tag == "svg" and not ("aria-label" in attrs or "aria-labelledby" in attrs or attrs.get("aria-hidden") == "true"):
            wrong.append(f"{where} has no name")
        if tag == "th" and "scope" not in attrs:
            wrong.append(f"{where} has no scope")
        if any(name.startswith("on") for name in attrs):
            wrong.append(f"{where} runs something")
    if text.count("<table") != text.count("<caption"):
        wrong.append("a table has no caption")
    if "@import" in text or re.search(r"url\(", text):
        wrong.append("the style loads something")
    return wrong + [f"the id {one} is there {times} times" for one, times in ids.items() if times > 1]


def serving(images: torch.Tensor, labels: torch.Tensor) -> Callable[..., Pictures]:
    """A stand-in for `sets.load`: the same pictures whatever is asked for."""

    def load(spec: str, split: str, folder: Path | None = None, *, first: int | None = None) -> Pictures:
        return Pictures(images, labels, CIFAR10).first(first)

    return load


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (80, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def data(images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "load", serving(images, torch.arange(80) % 10))


@pytest.fixture(scope="module")
def made(images: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "load", serving(images, torch.arange(80) % 10))
        chosen = choose("cifar10", "test", 60, "first")
    shift = np.random.default_rng(0).integers(-8, 9, chosen.pixels.shape)
    released: NDArray[np.uint8] = (chosen.pixels.astype(np.int16) + shift).clip(0, 255).astype(np.uint8)
    return realistic(tmp_path_factory.mktemp("made") / "runs", pixels=released, sha256=chosen.sha256).path


@pytest.fixture
def store(made: Path, tmp_path: Path, data: None) -> Path:
    return shutil.copytree(made, tmp_path / "runs")


def test_every_file_is_there_and_the_page_stands_alone(store: Path, tmp_path: Path) -> None:
    files = write_report(store, tmp_path / "out", command="forearm report runs/")
    names = [str(file.relative_to(tmp_path / "out")) for file in files]
    plots = ["plots/bench-1-worst.png", "plots/bench-1-curves.png"]
    assert names == ["report.html", "report.md", "table.csv", "rows.csv", "matrix.toml", *plots]
    text = files[0].read_text()
    assert complaints(text) == []
    assert all((tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG") for name in plots)
    said = Read(text).text
    for words in (
        "not attacked by anyone who knows it",
        "masked gradients",
        "Gradients are 0 on some pictures.",
        "forearm report runs/",
        "torch",
    ):
        assert words in said
    assert sum(tag == "img" for tag, _ in Read(text).tags) == 12
    (bench,) = benches(Store(store))
    for entry in bench.entries:
        assert f"<strong>{100 * entry.worst.accuracy.value:.1f}</strong>" in text
        assert f"**{100 * entry.worst.accuracy.value:.1f}**" in files[1].read_text()
    assert text.count('<td class="key"><strong>') == len(bench.entries)


@pytest.mark.parametrize(
    "wrong",
    [
        "<p><b></p>",
        '<img src="https://example.org/a.png" alt="a">',
        '<img src="data:image/png;base64,AA">',
        '<script src="#a"></script>',
        '<a href="#nowhere">x</a>',
        '<table><tr><th scope="col">a</th></tr></table>',
        "<table><caption>a</caption><tr><th>a</th></tr></table>",
        '<p onclick="x">a</p>',
        '<i id="a"></i><i id="a"></i>',
        "<style>a { background: url(b.png) }</style>",
        "<svg></svg>",
    ],
)
def test_a_page_that_does_not_is_seen(wrong: str) -> None:
    assert complaints(wrong)


def test_transfer_and_versions_are_told(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Store(store)
    (bench,) = benches(held)
    one = bench.entries[0].cell
    of = dataclasses.replace(one, attack="fgsm", source="resnet50", contents=(*one.contents, f"source={SHA[::-1]} resnet(depth=50)"))
    monkeypatch.setattr("forearm.evaluate.store.versions", lambda: "forearm 0.0.9, torch 1.0")
    put(held, of, rows(of, 0.9, 0.6))
    files = {file.name: file for file in write_report(store, tmp_path / "out")}
    said = Read(files["report.html"].read_text()).text
    markdown = files["report.md"].read_text()
    for words in (
        f"resnet50: source={SHA[::-1]} resnet(depth=50)",
        f"30 attacks were computed with forearm {forearm.__version__}, torch {torch.__version__}.",
        "1 attack was computed with forearm 0.0.9, torch 1.0.",
    ):
        assert words in said
        assert words in markdown or words.startswith("resnet50")
    assert complaints(files["report.html"].read_text()) == []
    assert "fgsm, transfer from resnet50" in said
    assert "fgsm, transfer from resnet50" in markdown
    table = pl.read_csv(files["table.csv"]).filter(pl.col("source") == "resnet50")
    assert table.select("attack", "defense", "robust_accuracy").rows() == [("fgsm", "none", pytest.approx(held.rows(of)["robust"].mean()))]
    assert pl.read_csv(files["rows.csv"])["source"].to_list().count("resnet50") == 60
    monkeypatch.setattr("forearm.evaluate.store.versions", lambda: ";")
    put(held, of, rows(of, 0.9, 0.6))
    assert "1 attack was computed with versions that the store does not record." in write_report(store, tmp_path / "old")[1].read_text()


def test_the_same_store_gives_the_same_bytes(store: Path, tmp_path: Path) -> None:
    one, two = (write_report(store, tmp_path / name, command="forearm report runs/") for name in ("one", "two"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]
    moved = shutil.copytree(store, tmp_path / "moved")
    three = write_report(moved, tmp_path / "three", command="forearm report runs/")
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in three]


def test_names_are_text_on_the_page(tmp_path: Path, data: None) -> None:
    hostile = "<script>alert('x')</script>|`*$x$*`"
    store = Store(tmp_path / "runs")
    for defense in ("none", "mspd"):
        of = cell(defense, "fab_t", model=hostile)
        put(store, of, rows(of, 0.9, 0.5))
    html, markdown = (file.read_text() for file in write_report(store.path, tmp_path / "out", command=hostile)[:2])
    assert complaints(html) == []
    assert "alert(" in Read(html).text
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.count("|") - line.count("\\|") for line in table if "before" in line or "**" in line}) == 1
    assert "<script>" not in markdown.replace("\\<script", "").split("```")[0]


def test_tables_hold_every_number(store: Path, tmp_path: Path) -> None:
    files = {file.name: file for file in write_report(store, tmp_path / "out")}
    table, every = pl.read_csv(files["table.csv"]), pl.read_csv(files["rows.csv"])
    assert len(every) == 60 * 30
    for line in table.filter(pl.col("attack") != "worst case").iter_rows(named=True):
        own = every.filter(
            pl.col("defense") == line["defense"], pl.col("attack") == line["attack"], pl.col("informed").cast(str) == line["informed"]
        )
        assert len(own) == line["n"] == 60
        assert line["robust_accuracy"] == pytest.approx(own["robust"].mean())
        assert line["still_right_of_right_before"] == pytest.approx(int(own["robust"].sum()) / int(own["protected"].sum()))
        assert line["low"] < line["robust_accuracy"] < line["high"]
    worst = table.filter(pl.col("attack") == "worst case", pl.col("informed") == "both")
    alive = every.group_by("defense", "id").agg(pl.col("robust").all()).group_by("defense").agg(pl.col("robust").mean())
    assert dict(worst.select("defense", "robust_accuracy").iter_rows()) == pytest.approx(dict(alive.iter_rows()))


def test_the_matrix_makes_the_same_cells(tmp_path: Path, data: None) -> None:
    write_model(tmp_path / "net")
    model = str(tmp_path / "net")
    text = f"""
        dataset = "cifar10"
        examples = 30
        seed = 3
        [[grid]]
        models = ["{model}", "cifar10_labeller"]
        defenses = ["none", "mspd(copies=4)", "mspd+conceal", "jpeg(quality=75)"]
        attacks = ["pgd(steps=2)", "fgsm"]
        threats = ["linf:8/255", "linf:2/255"]
        [[grid]]
        models = ["{model}"]
        defenses = ["conceal", "mspd"]
        attacks = ["ddn"]
        threats = ["l2:0.5"]
        wear = ["none", "resize(side=24)+jpeg(quality=75)"]
        informed = true
        around = "original"
        labels = "given"
        release_threat = "linf:4/255"
        pick = "even"
        [[grid]]
        models = ["{model}"]
        defenses = ["none", "mspd(copies=4)", "jpeg(quality=75)"]
        attacks = ["pgd(steps=2)", "mi_fgsm"]
        threats = ["linf:8/255"]
        source = "cifar10_labeller"
        [[grid]]
        models = ["cifar10_labeller"]
        defenses = ["jpeg(quality=75)"]
        attacks = ["fgsm"]
        threats = ["linf:8/255"]
        source = "{model}"
        informed = true
    """
    made = cells(matrix_from(text, "test"), Sources())
    store = Store(tmp_path / "runs")
    for of in made:
        put(store, of, rows(of, 0.9, 0.5))
    assert {of.source for of in made} == {"", "cifar10_labeller", model}
    again = cells(matrix_from(matrix_text(benches(store), masking=True), "test"), Sources())
    assert {of.key for of in again} == {of.key for of in made}
    assert matrix_from(matrix_text(benches(store), masking=False), "test").masking is False


SentenceOf = Callable[[Store, Cell, pytest.MonkeyPatch], None]


def unreadable(store: Store, of: Cell, patch: pytest.MonkeyPatch) -> None:
    def missing(*asked: object, first: int | None = None) -> Pictures:
        raise InputError("cifar10: no such folder; the data set")

    patch.setattr(sets, "load", missing)


def other_data(store: Store, of: Cell, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sets, "load", serving(torch.zeros(80, 3, 32, 32, dtype=torch.uint8), torch.arange(80) % 10))


def no_release(store: Store, of: Cell, patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(store.path / "releases")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (unreadable, "the originals cannot be read \\(cifar10: no such folder"),
        (other_data, "the data set here is not the one that was audited"),
        (no_release, "the store does not hold the released pictures"),
    ],
)
def test_pictures_that_cannot_be_shown_are_told(store: Path, monkeypatch: pytest.MonkeyPatch, spoil: SentenceOf, says: str) -> None:
    held = Store(store)
    found = benches(held)

    def originals(of: Cell) -> Any:
        return choose(of.dataset, of.split, of.examples, of.pick)

    shown = gallery(held, found, originals)
    assert [len(release.pictures) for release in shown.releases] == [4]
    assert "at most 8 levels" in shown.releases[0].pictures[0].size
    assert shown.absent == ()
    spoil(held, found[0].cell, monkeypatch)
    told = gallery(held, found, originals)
    assert told.releases == ()
    assert len(told.absent) == 1
    assert re.search(says, told.absent[0])


def test_without_pictures_and_verdicts_the_page_says_so(tmp_path: Path) -> None:
    of = cell(attack="fgsm")
    put(Store(tmp_path / "runs"), of, rows(of, 0.0, 0.5))
    files = write_report(tmp_path / "runs", tmp_path / "out")
    html = files[0].read_text()
    assert complaints(html) == []
    for words in ("No defence here changes pictures", "The store holds no masking verdict"):
        assert words in html
    assert not any("curves" in file.name for file in files)


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_one_line(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    real = builtins.__import__

    def without(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, globals, locals, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("importlib.import_module", without)
    with pytest.raises(SpecError, match=rf"^report: {package} is not installed; .*'forearm\[report\]'$"):
        write_report(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read_or_written(store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; a store that"):
        write_report(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(store, tmp_path / "file" / "out")
    block = next(store.glob("cells/*/block-00000.parquet"))
    block.write_bytes(block.read_bytes()[:-20] + b"x" * 20)
    with pytest.raises(ArtifactError, match="not as it was written"):
        write_report(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", "runs"])
    assert done.exit_code == 0, done.output
    assert done.stdout == "report/report.html\n"
    assert "forearm report runs" in (tmp_path / "report" / "report.html").read_text()
    elsewhere = CliRunner().invoke(app, ["report", "runs", "-o", "a b", "--data", str(tmp_path)])
    assert elsewhere.exit_code == 0
    assert "forearm report runs -o 'a b' --data" in (tmp_path / "a b" / "report.md").read_text()
    assert isinstance(CliRunner().invoke(app, ["report", "nothing"]).exception, InputError)


def test_a_real_audit(tmp_path: Path, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "net", "cnn_a")
    with torch.no_grad():
        labels = load_model(str(tmp_path / "net"))(images / 255).argmax(1)
    monkeypatch.setattr(sets, "load", serving(images, labels))
    matrix = f"""
        dataset = "cifar10"
        examples = 27
        masking = false
        [[grid]]
        models = ["{tmp_path / "net"}"]
        defenses = ["none", "conceal", "bit_depth"]
        attacks = ["fgsm", "fab(steps=2)"]
        threats = ["linf:1/255"]
    """
    frame = audit(matrix_from(matrix, "test"), store=tmp_path / "runs")
    files = {file.name: file for file in write_report(tmp_path / "runs", tmp_path / "out")}
    assert complaints(files["report.html"].read_text()) == []
    table = pl.read_csv(files["table.csv"]).filter(pl.col("attack") != "worst case")
    assert len(table) == frame["key"].n_unique()
    means = frame.group_by("defense", "attack", "informed").agg(pl.col("robust").mean())
    expected = {(d, a, str(i).lower()): share for d, a, i, share in means.iter_rows()}
    got = {(d, a, i): share for d, a, i, share in table.select("defense", "attack", "informed", "robust_accuracy").iter_rows()}
    assert got == pytest.approx(expected)
    assert frame["robust"].mean() < frame["protected"].mean()  # type: ignore[operator]
