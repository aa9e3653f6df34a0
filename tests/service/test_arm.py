"""One picture over HTTP: the bytes that the job gives, whoever else asks, and a problem for whatever else is sent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from forearm.jobs.arm import Armed, Pixels
from forearm.jobs.single import protect_bytes
from forearm.service.settings import SERVED
from tests.images.corpus import FILES, expected, png, sound
from tests.jobs.armourers import Fake
from tests.jobs.photos import paint
from tests.service.live import Live, problem, report, serving

KINDS = ["JPEG", "PNG", "WEBP", "BMP", "TIFF"]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(Fake(seed=3)) as service:
        yield service


def pictures(folder: Path, count: int) -> list[bytes]:
    return [paint(folder / f"{n}.png", n, 24 + 8 * (n % 2)).read_bytes() for n in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_those_of_the_job(live: Live, kind: str) -> None:
    answer = live.client.post("/v1/arm", content=sound(kind))
    data, line = protect_bytes(sound(kind), Fake(seed=3))
    assert answer.content == data
    assert answer.headers["content-type"] == f"image/{kind.lower()}"
    said, expected_line = report(answer), json.loads(line.text())
    for values in (said, expected_line):
        values.pop("seconds")
    assert expected_line.pop("key") is not None
    assert said.pop("key") is None  # it would let a client try seeds
    assert said == expected_line


def test_label_tag_and_again(live: Live) -> None:
    data = sound("PNG")
    assert report(live.client.post("/v1/arm?label=dog", content=data))["label"] == 1
    bare = live.client.post("/v1/arm?label=1&tag=false", content=data).content
    assert bare == protect_bytes(data, Fake(seed=3), label="dog", tag=False)[0]
    armed = live.client.post("/v1/arm", content=data).content
    assert "already armed" in problem(live.client.post("/v1/arm", content=armed), 409)
    assert report(live.client.post("/v1/arm?again=true", content=armed))["status"] == "armed"
    assert "'lorry'" in problem(live.client.post("/v1/arm?label=lorry", content=data), 422)
    assert "tag" in problem(live.client.post("/v1/arm?tag=perhaps", content=data), 422)


class Neighbourly(Fake):
    """The mutant: a picture's pixels depend on the size of its batch."""

    def arm(self, pictures: list[Pixels], labels: list[int | None]) -> list[Armed]:  # type: ignore[override]
        armed = super().arm(pictures, labels)
        return [Armed((a.pixels ^ (len(pictures) > 1)).astype(np.uint8), a.report) for a in armed]


def crowd(armourer: Fake, data: list[bytes]) -> tuple[list[bytes], list[int]]:
    """What all get who ask at once, and the sizes of the batches."""
    with serving(armourer, batch=4) as service, ThreadPoolExecutor(len(data)) as pool:
        answers = list(pool.map(lambda one: service.client.post("/v1/arm", content=one), data))
    assert {answer.status_code for answer in answers} == {200}
    return [answer.content for answer in answers], [size for _, size in armourer.batches]


def test_a_picture_does_not_depend_on_who_else_asks(tmp_path: Path) -> None:
    data = pictures(tmp_path, 16)
    alone = [protect_bytes(one, Fake())[0] for one in data]
    together, sizes = crowd(Fake(sleep=0.02), data)
    assert together == alone
    assert 1 < max(sizes) <= 4
    assert crowd(Neighbourly(sleep=0.02), data)[0] != alone


@pytest.mark.parametrize("name", [name for name in FILES if name.isascii() and name.isprintable()])
def test_the_corpus_is_armed_or_refused(live: Live, name: str) -> None:
    answer = live.client.post("/v1/arm", content=FILES[name]())
    if expected(Path(name)) == "pass":
        assert report(answer)["status"] == "armed"
    else:
        detail = problem(answer, 415 if answer.status_code == 415 else 422)
        assert "; " in detail


def test_what_is_no_picture_is_told_by_its_kind(live: Live) -> None:
    assert "a GIF" in problem(live.client.post("/v1/arm", content=FILES["refuse_gif.gif"]()), 415)
    assert "empty" in problem(live.client.post("/v1/arm"), 422)
    assert "multipart" in problem(live.client.post("/v1/arm", files={"file": sound("PNG")}), 415)


def test_caps_hold_before_anything_is_decoded(live: Live) -> None:
    assert "pixels" in problem(live.client.post("/v1/arm", content=png(5000, 5000, b"")), 422)
    most = SERVED.max_bytes
    head = f"POST /v1/arm HTTP/1.1\r\nHost: localhost\r\nContent-Length: {most + 1}\r\n\r\n"
    assert live.raw(head.encode()).startswith(b"HTTP/1.1 413 ")  # before a byte of it came
    started = time.monotonic()
    pieces = (bytes(2**20) for _ in range(most // 2**20 + 2))
    assert str(most) in problem(live.client.post("/v1/arm", content=pieces), 413)
    assert time.monotonic() - started < 30


def test_paths_and_methods(live: Live) -> None:
    problem(live.client.get("/nothing"), 404)
    problem(live.client.get("/v1/arm/"), 404)
    problem(live.client.get("/page/../server.py"), 404)
    answer = live.client.get("/v1/arm")
    problem(answer, 405)
    assert answer.headers["allow"] == "POST"
    problem(live.client.request("DELETE", "/health"), 405)


def test_every_answer_carries_the_policy(live: Live) -> None:
    for path in ("/", "/page/page.js", "/health", "/nothing", "/v1/arm"):
        headers = live.client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"


def test_health_and_metrics(live: Live) -> None:
    assert live.client.get("/health").json()["status"] == "up"
    assert live.client.get("/ready").json() == {"status": "ready"}
    armed, failed = (live.metric(f'forearm_pictures_total{{outcome="{word}"}}') for word in ("armed", "failed"))
    report(live.client.post("/v1/arm", content=sound("PNG")))
    problem(live.client.post("/v1/arm", content=b"no picture"), 415)
    assert live.metric('forearm_pictures_total{outcome="armed"}') == armed + 1
    assert live.metric('forearm_pictures_total{outcome="failed"}') == failed + 1
    assert live.metric('forearm_requests_total{route="/health",status="200"}') >= 1
    assert "nothing" not in live.client.get("/metrics").text  # a client's path is never a label
    assert live.metric("forearm_requests_inside") == 0


def test_the_schema_tells_of_problems(live: Live) -> None:
    schema = live.client.get("/openapi.json").json()
    assert set(schema["paths"]) == {"/v1/arm", "/v1/arm/zip", "/v1/verify", "/v1/inspect", "/v1/models", "/health", "/ready", "/metrics"}
    for path in schema["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                assert status == "200" or list(answer["content"]) == ["application/problem+json"], (path, status)
    assert {"413", "415", "422", "429", "503"} <= set(schema["paths"]["/v1/arm"]["post"]["responses"])


def test_models_says_what_arms_and_never_the_seed(live: Live) -> None:
    said = live.client.get("/v1/models").json()
    assert said["arming"]["photo"] == {"defense": "fake", "threat": "linf:1/255", "backbone": "none-photo"}
    assert said["limits"]["pixels"] == SERVED.max_pixels
    assert {model["name"] for model in said["models"]} >= {"photo_backbone", "cifar10_labeller"}


def test_inspect_says_what_the_command_says(live: Live, tmp_path: Path) -> None:
    from forearm.jobs.verify import inspect

    for kind in KINDS:
        data = protect_bytes(sound(kind), Fake())[0]
        (tmp_path / "a.bin").write_bytes(data)
        facts = inspect(tmp_path / "a.bin")
        facts.pop("file")
        said = live.client.post("/v1/inspect", content=data).json()
        facts["warnings"], said["warnings"] = [], [w for w in said["warnings"] if "named" not in w]
        assert said == facts
    problem(live.client.post("/v1/inspect", content=b"GIF89a"), 415)


def test_verify_takes_a_form(live: Live) -> None:
    original = sound("PNG")
    armed = protect_bytes(original, Fake())[0]
    said = live.client.post("/v1/verify?label=cat", files={"armed": armed, "original": original}).json()
    assert (said["problem"], said["within"], said["name"], said["psnr"]) == (None, False, "cat", None)
    assert said["tag"]["defense"] == "fake"
    swapped = live.client.post("/v1/verify", files={"armed": original, "original": original}).json()
    assert (swapped["problem"], swapped["within"]) == ("no tag", True)
    problem(live.client.post("/v1/verify", content=original), 415)
    problem(live.client.post("/v1/verify", files={"armed": armed}), 422)
    problem(live.client.post("/v1/verify", data={"armed": "a", "original": "b"}, files={"x": b""}), 422)
    problem(live.client.post("/v1/verify", files=[("original", armed), ("original", original)]), 422)
    problem(live.client.post("/v1/verify", files={"armed": armed, "original": b"GIF89a"}), 415)
    problem(live.client.post("/v1/verify", content=b"--x\r\nrubbish", headers={"content-type": "multipart/form-data; boundary=x"}), 422)
    problem(live.client.post("/v1/verify", content=b"x", headers={"content-type": "multipart/form-data"}), 400)
