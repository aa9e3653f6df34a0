"""The wheel as a stranger gets it: built from the sdist, installed into a venv of its own, used from a folder that is no checkout."""

from __future__ import annotations

import email
import json
import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST = 40_000_000  # bytes

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> str:
    """What a command prints, without any of this process's Python or forearm settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FOREARM", "VIRTUAL_ENV"))}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy, so that nothing of an earlier build gets in."""
    pytest.importorskip("setuptools", "77", reason="setuptools 77 is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    build = "import sys; from setuptools import build_meta as b; print(b.build_sdist('dist'))"
    sdist = run(sys.executable, "-c", build, cwd=folder).split()[-1]
    shutil.unpack_archive(folder / "dist" / sdist, folder / "unpacked", filter="data")
    build = "import sys; from setuptools import build_meta as b; print(b.build_wheel(sys.argv[1]))"
    return folder / run(sys.executable, "-c", build, folder, cwd=next((folder / "unpacked").iterdir())).split()[-1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a venv with this wheel and, to save a second copy of torch, what it needs from here."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    run(sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    packages = next(folder.glob("lib/python*/site-packages"))
    here = [path for path in (*site.getsitepackages(), site.getusersitepackages()) if Path(path).is_dir()]
    (packages / "here.pth").write_text("\n".join(here) + "\n")
    return folder / "bin"


def test_it_is_small_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        told = email.message_from_bytes(file.read(next(name for name in names if name.endswith("/METADATA"))))
        commands = file.read(next(name for name in names if name.endswith("/entry_points.txt"))).decode()
    kept = [path for path in (ROOT / "src/forearm").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT / "src").as_posix() for path in kept} == {name for name in names if ".dist-info/" not in name}
    assert told["Name"] == "forearm"
    assert told["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("LICENSE") for name in names)
    assert "forearm = forearm.cli.app:main" in commands
    needed = [line.split(";")[0] for line in told.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert len(needed) == 7
    assert set(told.get_all("Provides-Extra") or []) >= {"service", "ray", "cloud", "report"}


def test_it_is_used_from_any_folder(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import forearm; print(forearm.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(installed.parent)
    assert run(installed / "forearm", "--version", cwd=tmp_path).strip() == run(
        installed / "python", "-c", "from importlib.metadata import version; print(version('forearm'))", cwd=tmp_path
    ).strip()  # fmt: skip
    findings = {row["what"]: row["state"] for row in json.loads(run(installed / "forearm", "doctor", "--json", cwd=tmp_path))}
    assert findings["photo_backbone"] == findings["cifar10_labeller"] == "ok"
    assert "broken" not in findings.values()


def test_it_arms_a_photo_and_verifies_it(installed: Path, tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    from PIL import Image

    (tmp_path / "photos").mkdir()
    Image.fromarray(data.chelsea()).resize((225, 150)).save(tmp_path / "photos/cat.png")
    run(installed / "forearm", "protect", "photos", "-o", "armed", "--defense", "mspd(copies=2)", cwd=tmp_path)
    (check,) = json.loads(run(installed / "forearm", "verify", "armed", "--attack", "fgsm", "--json", cwd=tmp_path))["files"]
    assert check["problem"] is None
    assert check["linf"] == 4
    assert check["margin_after"] > check["margin_before"]
