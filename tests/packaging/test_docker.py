"""The Dockerfile, as far as it can be checked without Docker: what it copies is there, and what it runs is a command that is accepted."""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from pathlib import Path

import pytest

from forearm.cli.serve import KEY
from forearm.errors import SpecError
from forearm.service.settings import Settings
from tests.house.test_docs import complaint

ROOT = Path(__file__).parents[2]


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction and what it is given; comments left out, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


DOCKERFILE = instructions((ROOT / "Dockerfile").read_text())
KNOWN = {"FROM", "WORKDIR", "COPY", "RUN", "ARG", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def given(name: str) -> str:
    """What the last instruction of this name is given."""
    return [rest for word, rest in DOCKERFILE if word == name][-1]


def ignored(path: str) -> bool:
    """Whether .dockerignore leaves a path at the top out."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().split():
        if fnmatch.fnmatch(path, line.removeprefix("!").removeprefix("**/")):
            out = not line.startswith("!")
    return out


def test_it_is_made_of_instructions_and_begins_with_a_pinned_base() -> None:
    assert {word for word, _ in DOCKERFILE} <= KNOWN
    assert DOCKERFILE[0][0] == "FROM"
    bases = [rest.partition(" AS ")[0] for word, rest in DOCKERFILE if word == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+", base) for base in bases)


def test_what_is_copied_is_there_and_is_sent() -> None:
    copies = [rest.split()[:-1] for word, rest in DOCKERFILE if word == "COPY" and not rest.startswith("--from=build")]
    copied = {name for names in copies for name in names}
    for name in copied:
        assert (ROOT / name).exists()
        assert not ignored(name)
    assert {"pyproject.toml", "constraints.txt", "src"} <= copied
    assert ignored("runs")
    assert ignored(".git")
    assert ignored("src/forearm/__pycache__")


def test_the_build_has_what_the_package_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = " ".join(rest for word, rest in DOCKERFILE if word == "COPY").split()
    assert {project["readme"], *project["license-files"]} <= set(copied)
    extras = re.search(r"EXTRAS=(\S+)", given("ARG"))
    assert extras is not None
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
    installs = [rest for word, rest in DOCKERFILE if word == "RUN" and "pip install" in rest]
    assert all("--constraint constraints.txt" in rest for rest in installs)
    assert "https://download.pytorch.org/whl/cpu torch" in installs[0]


def test_it_runs_a_command_that_is_accepted_as_nobody_special() -> None:
    words = [*json.loads(given("ENTRYPOINT")), *json.loads(given("CMD"))]
    assert complaint(words) is None
    assert words[1] == "serve"
    host = words[words.index("--host") + 1]
    assert Settings(host=host, api_key="k" * 16).host == "0.0.0.0"
    with pytest.raises(SpecError, match="key"):
        Settings(host=host)
    assert f"-e {KEY}=" in (ROOT / "Dockerfile").read_text()
    assert int(given("USER")) > 0


def test_the_health_check_asks_what_the_service_answers() -> None:
    from forearm.service.guard import OPEN

    command = json.loads(given("HEALTHCHECK").partition("CMD ")[2])
    address = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", command[2])
    assert address is not None
    assert int(address[1]) == Settings().port == int(given("EXPOSE"))
    assert address[2] in OPEN
    compile(command[2], "health check", "exec")


def test_a_file_that_is_not_copied_is_told() -> None:
    assert instructions("# a\nFROM x AS y\nRUN a \\\n    && b\n") == [("FROM", "x AS y"), ("RUN", "a && b")]
    assert ignored("secrets.txt")
