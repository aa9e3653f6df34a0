"""Photos in folders: one folder a class, tables, Tiny ImageNet, ImageNet, Imagenette as published."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from forearm.data import photos, sets
from forearm.data.folder import imagenette
from forearm.data.imagenet import imagenet, tiny_imagenet
from forearm.errors import InputError, SpecError

real = pytest.mark.skipif(not (sets.root() / "imagenet" / "photos").is_dir(), reason="no imagenet/photos under FOREARM_DATA")


def photo(path: Path, grey: int, size: tuple[int, int] = (12, 8)) -> None:
    """A photo of one grey value, which survives every resize and crop."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey, grey, grey)).save(path, quality=95)


def greys(images: torch.Tensor) -> list[int]:
    return images.float().mean((1, 2, 3)).round().int().tolist()


def three_classes(top: Path, split: str = "test") -> None:
    for name, values in (("ant", (10, 11, 12)), ("bee", (20,)), ("cat", (30, 31))):
        for i, value in enumerate(values):
            photo(top / split / name / f"{i}.png", value)


def test_one_folder_a_class_in_turn(tmp_path: Path) -> None:
    three_classes(tmp_path)
    (tmp_path / "test" / "ant" / "notes.txt").write_text("not a photo")
    (tmp_path / "test" / "ant" / ".hidden.png").write_text("not a photo")
    spec = f"folder(path={str(tmp_path)!r}, side=4)"
    pictures = sets.load(spec, "test")
    assert pictures.classes == ("ant", "bee", "cat")
    assert greys(pictures.images) == [10, 20, 30, 11, 31, 12]
    assert pictures.labels.tolist() == [0, 1, 2, 0, 2, 0]
    assert pictures.images.shape == (6, 3, 4, 4)
    for first in (0, 1, 4, 6, 100):
        some = sets.load(spec, "test", first=first)
        assert torch.equal(some.images, pictures.images[:first])
        assert torch.equal(some.labels, pictures.labels[:first])
        assert some.classes == pictures.classes


def test_classes_are_those_of_all_splits(tmp_path: Path) -> None:
    three_classes(tmp_path, "train")
    photo(tmp_path / "val" / "cat" / "x.jpg", 40)
    photo(tmp_path / "val" / "dog" / "x.webp", 50)
    train, test = (sets.load("folder(side=4)", split, tmp_path) for split in ("train", "test"))
    assert train.classes == test.classes == ("ant", "bee", "cat", "dog")
    assert test.labels.tolist() == [2, 3]
    assert len(train) == 6


def test_photos_without_splits_are_for_testing_alone(tmp_path: Path) -> None:
    for name in ("train", "car"):  # a class may have the name of a split
        photo(tmp_path / name / "1.png", 9)
    assert sets.load("folder(side=4)", "test", tmp_path).classes == ("car", "train")
    with pytest.raises(InputError, match="no photos for train"):
        sets.load("folder(side=4)", "train", tmp_path)


def test_only_the_chosen_photos_are_decoded(tmp_path: Path) -> None:
    three_classes(tmp_path)
    (tmp_path / "test" / "ant" / "1.png").write_bytes(b"damaged")
    assert len(sets.load("folder(side=4)", "test", tmp_path, first=3)) == 3
    assert len(sets.load("folder(side=4, first=3)", "test", tmp_path)) == 3
    with pytest.raises(InputError, match=r"ant/1\.png: not a readable photo") as caught:
        sets.load("folder(side=4)", "test", tmp_path, first=4)
    assert "\n" not in str(caught.value)


def test_a_table_in_its_own_order(tmp_path: Path) -> None:
    photo(tmp_path / "a" / "x.png", 10)
    photo(tmp_path / "y.png", 20)
    photo(tmp_path / "z.png", 30)
    (tmp_path / "labels.csv").write_text("file,index,name,split\nz.png,7,red,val\na/x.png,3,green,train\ny.png,3,green,val\n")
    test = sets.load(f"csv(path={str(tmp_path)!r}, side=4)", "test")
    assert greys(test.images) == [30, 20]
    assert test.labels.tolist() == [1, 0]
    assert test.classes == ("green", "red")
    train = sets.load("csv(side=4)", "train", tmp_path)
    assert (greys(train.images), train.labels.tolist()) == ([10], [0])
    (tmp_path / "labels.csv").write_text("file,index,name\nz.png,7,red\na/x.png,3,green\n")
    assert greys(sets.load("csv(side=4)", "test", tmp_path).images) == [30, 10]
    assert greys(sets.load("csv(side=4)", "test", tmp_path, first=1).images) == [30]
    with pytest.raises(InputError, match=r"labels\.csv has no photos for train"):
        sets.load("csv(side=4)", "train", tmp_path)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("", "no photos for test|no file, index and name"),
        ("file,index,name\n../secret.png,1,a\n", r"'\.\./secret\.png' of labels\.csv lies elsewhere"),
        ("file,index,name\n/etc/passwd,1,a\n", "lies elsewhere"),
        ("file,name\na.png,cat\n", "line 2: no file, index and name"),
        ("file,index,name\na.png,-1,cat\n", "line 2: no file, index and name"),
        ("file,index,name\na.png,1\n", "line 2: no file, index and name"),
        ("file,index,name\nmissing.png,1,cat\n", r"missing\.png: not a readable photo"),
        ("file,index,name\n\xff.png,1,cat\n", "not readable"),
    ],
)
def test_bad_tables_are_refused_in_one_line(table: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(table.encode("latin-1"))
    with pytest.raises(InputError, match=why) as caught:
        sets.load("csv(side=4)", "test", tmp_path)
    assert "\n" not in str(caught.value)


def tiny(top: Path) -> None:
    for wnid, grey in (("n02", 20), ("n01", 10)):
        for i in range(2):
            photo(top / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", grey + i, (64, 64))
    for i, grey in enumerate((100, 110, 120)):
        photo(top / "val" / "images" / f"val_{i}.JPEG", grey, (64, 64))
    (top / "wnids.txt").write_text("n02\nn01\n")
    (top / "words.txt").write_text("n01\ttench, Tinca tinca\nn02\tgreat white shark\nn03\tother\n")
    (top / "val" / "val_annotations.txt").write_text(
        "val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\nval_2.JPEG\tn02\t0\t0\t9\t9\n"
    )


def test_tiny_imagenet(tmp_path: Path) -> None:
    tiny(tmp_path / "tiny-imagenet-200")
    for folder in (tmp_path, tmp_path / "tiny-imagenet-200"):
        test, train = tiny_imagenet(folder, "test"), tiny_imagenet(folder, "train")
        assert test.classes == train.classes == ("tench", "great_white_shark")
        assert test.labels.tolist() == [1, 0, 1]
        assert greys(test.images) == [100, 110, 120]
        assert train.labels.tolist() == [0, 1, 0, 1]
        assert greys(train.images) == [10, 20, 11, 21]
        assert test.images.shape == (3, 3, 64, 64)
        assert tiny_imagenet(folder, "test", first=2).labels.tolist() == [1, 0]
        assert [len(tiny_imagenet(folder, split, first=0)) for split in ("test", "train")] == [0, 0]
    notes = tmp_path / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    notes.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"val_annotations\.txt: not readable"):
        tiny_imagenet(tmp_path, "test")
    for line, why in (("val_0.JPEG\tn09\t0", "line 1"), ("../val_0.JPEG\tn01\t0", "line 1"), ("val_0.JPEG n01", "line 1")):
        notes.write_text(line)
        with pytest.raises(InputError, match=why):
            tiny_imagenet(tmp_path, "test")
    photo(tmp_path / "tiny-imagenet-200" / "train" / "n09" / "images" / "x.JPEG", 1)
    assert len(tiny_imagenet(tmp_path, "train")) == 4  # a folder that wnids.txt does not name is none of the classes
    with pytest.raises(InputError, match=r"no Tiny ImageNet train files; wnids\.txt"):
        tiny_imagenet(tmp_path / "tiny-imagenet-200" / "val", "train")


def test_a_picture_of_its_own_size_is_not_resampled(tmp_path: Path) -> None:
    tiny(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "val" / "images" / "val_0.JPEG", "PNG")
    assert np.array_equal(tiny_imagenet(tmp_path, "test", first=1).images[0].permute(1, 2, 0).numpy(), pixels)


def test_imagenet_has_its_thousand_classes(tmp_path: Path) -> None:
    wnids = [f"n{i:08d}" for i in range(1000)]
    for wnid in reversed(wnids):
        (tmp_path / "val" / wnid).mkdir(parents=True)
    photo(tmp_path / "val" / wnids[3] / "ILSVRC2012_val_2.JPEG", 30)
    photo(tmp_path / "val" / wnids[999] / "ILSVRC2012_val_1.JPEG", 90)
    (tmp_path / "LOC_synset_mapping.txt").write_text(f"{wnids[3]} garbage truck, dustcart\n")
    test = imagenet(tmp_path, "test", side=8)
    assert test.labels.tolist() == [3, 999]
    assert greys(test.images) == [30, 90]
    assert (len(test.classes), test.classes[3], test.classes[999]) == (1000, "garbage_truck", wnids[999])
    (tmp_path / "val" / wnids[0]).rmdir()
    with pytest.raises(InputError, match="999 classes; ImageNet's 1000"):
        imagenet(tmp_path, "test", side=8)
    (tmp_path / "wnids.txt").write_text("\n".join(wnids))
    assert imagenet(tmp_path, "test", side=8).labels.tolist() == [3, 999]
    with pytest.raises(InputError, match="no ImageNet train files"):
        imagenet(tmp_path, "train")
    (tmp_path / "val" / "other").mkdir()
    with pytest.raises(InputError, match=r"the folder other; only ids of wnids\.txt"):
        imagenet(tmp_path, "test", side=8)


def test_imagenette_as_published_is_cut_by_origin(tmp_path: Path) -> None:
    place = tmp_path / "imagenette2-320"
    photo(place / "train" / "n01440764" / "n01440764_1.JPEG", 10)
    photo(place / "train" / "n01440764" / "ILSVRC2012_val_1.JPEG", 20)
    photo(place / "val" / "n03888257" / "ILSVRC2012_val_2.JPEG", 30)
    photo(place / "val" / "n03888257" / "n03888257_1.JPEG", 40)
    for folder in (tmp_path, place):
        test, train = imagenette(folder, "test", side=8), imagenette(folder, "train", side=8)
        assert (greys(test.images), test.labels.tolist()) == ([20, 30], [0, 9])
        assert (greys(train.images), train.labels.tolist()) == ([10, 40], [0, 9])
        assert test.classes[0] == "tench"
        assert len(imagenette(folder, "test", first=1)) == 1
    photo(place / "val" / "n00000001" / "x.JPEG", 1)
    with pytest.raises(InputError, match="Imagenette's ten"):
        imagenette(tmp_path, "test")


def test_too_much_for_memory_is_refused_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three_classes(tmp_path)
    monkeypatch.setattr(photos, "MOST", 5 * 3 * 16)
    with pytest.raises(SpecError, match="first: 6 photos at 4 x 4; up to 5 fit"):
        sets.load("folder(side=4)", "test", tmp_path)
    assert len(sets.load("folder(side=4)", "test", tmp_path, first=5)) == 5


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("folder(side=0)", "side: got 0"),
        ("folder(side=2.5)", "side: got 2.5"),
        ("folder(crop=0)", "crop: got 0"),
        ("folder(first='a')", "first: got"),
    ],
)
def test_options_are_checked(spec: str, why: str, tmp_path: Path) -> None:
    three_classes(tmp_path)
    with pytest.raises(SpecError, match=why):
        sets.load(spec, "test", tmp_path)


def test_own_sets_need_a_path() -> None:
    for name in ("folder", "csv", "npz"):
        with pytest.raises(SpecError, match=rf"{name}: got no path; .*{name}\(path='photos'\)"):
            sets.load(name, "test")
    with pytest.raises(InputError, match="no such folder"):
        sets.load("folder(path='nowhere/at/all')", "test")


def test_crop_keeps_the_middle(tmp_path: Path) -> None:
    pixels = np.full((16, 16, 3), 200, np.uint8)
    pixels[1:15, 1:15] = 100
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert photos.square(tmp_path / "a.png", 14, 0.875).max() == 100
    assert photos.square(tmp_path / "a.png", 16).max() == 200


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match="8 bits a channel"):
        photos.square(tmp_path / "deep.png", 4)


@real
def test_real_photos_of_every_size(tmp_path: Path) -> None:
    place = sets.root() / "imagenet" / "photos"
    pictures = sets.load(f"csv(path={str(place)!r}, side=24)", "test", first=12)
    assert pictures.images.shape == (12, 3, 24, 24)
    assert pictures.classes[int(pictures.labels[0])] == "hen"
    rows = (place / "labels.csv").read_text().splitlines()[1:13]
    for row in rows:
        name, _, _, word = row.split(",")[:4]
        (tmp_path / "test" / word).mkdir(parents=True)
        shutil.copy(place / name, tmp_path / "test" / word)
    same = sets.load("folder(side=24)", "test", tmp_path)
    for i, row in enumerate(rows):
        at = same.labels.tolist().index(same.classes.index(row.split(",")[3]))
        assert torch.equal(same.images[at], pictures.images[i])
