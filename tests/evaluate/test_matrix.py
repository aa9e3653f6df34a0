"""Matrix files: what they become, and what is refused with which words."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from forearm.attacks.table import TRAITS
from forearm.defenses.inference.table import INFERENCE
from forearm.defenses.preemptive.protector import PREEMPTIVE
from forearm.errors import ArtifactError, InputError, SpecError
from forearm.evaluate.chosen import Sources, choose, content
from forearm.evaluate.defense import canonical_spec, defense, knowable, parts, preemptive_part, split_spec, usual
from forearm.evaluate.matrix import cells, matrix_from, read_matrix
from forearm.models.load import PAIRS, embedded, locate
from forearm.registry import parse
from tests.evaluate.bench import N, cells_of, matrix_text
from tests.models.tiny import write_model


def test_a_grid_is_the_product_of_its_lists(bench: Path) -> None:
    text = matrix_text(bench, '"fgsm", "pgd(steps=3)"', '"none", "mspd", "conceal"', '"linf:1/255", "l2:0.5"', 'wear = ["none", "jpeg"]')
    found = cells_of(bench, text)
    rows = {(c.defense, c.wear, c.attack, c.threat, c.informed) for c in found}
    expected = set()
    for defense_, wear, attack, threat in itertools.product(
        ("none", "mspd", "conceal"), ("none", "jpeg"), ("fgsm", "pgd(steps=3)"), ("linf:1/255", "l2:0.5")
    ):
        expected |= {(defense_, wear, attack, threat, informed) for informed in ((False,) if defense_ == "none" else (False, True))}
    assert rows == expected
    assert len(found) == len(expected) == len({cell.key for cell in found})


def test_only_what_decides_is_named(bench: Path) -> None:
    none, mspd, _ = cells_of(bench, matrix_text(bench, defenses='"none", "mspd"'))
    assert (none.backbone, none.labeller, none.release_threat) == ("", "", "")
    assert [text.partition("=")[0] for text in none.contents] == ["model", "pictures"]
    assert (mspd.backbone, mspd.labeller, mspd.release_threat) == (str(bench / "backbone"), str(bench / "labeller"), "linf:1/255")
    assert [text.partition("=")[0] for text in mspd.contents] == ["backbone", "labeller", "model", "pictures"]
    given_, _ = cells_of(bench, matrix_text(bench, defenses='"mspd"', more='labels = "given"\nrelease_threat = "linf:2/255"'))
    assert (given_.labeller, given_.release_threat) == ("", "linf:2/255")
    targeted, _ = cells_of(bench, matrix_text(bench, defenses='"mspd"', threats='"targeted:linf:1/255"'))
    assert (targeted.threat, targeted.release_threat) == ("targeted:linf:1/255", "linf:1/255")


@pytest.mark.parametrize(("informed", "expected"), [("true", [False, True]), ("false", [False, False]), ('"both"', [False, False, True])])
def test_who_knows(bench: Path, informed: str, expected: list[bool]) -> None:
    found = cells_of(bench, matrix_text(bench, defenses='"none", "conceal"', more=f"informed = {informed}"))
    assert [cell.informed for cell in found] == expected


def test_other_words_for_the_same_cell_are_one_cell(bench: Path) -> None:
    words = '"mspd( copies = 4, rate=1/2 )+none", "none+mspd(rate=0.5,copies=4)"'
    found = cells_of(bench, matrix_text(bench, '"pgd( steps = 3 )", "pgd(steps=3)"', words, '"linf:1/255", " LINF:1/255 "'))
    assert [(cell.defense, cell.attack, cell.threat) for cell in found] == [("mspd(copies=4, rate=0.5)", "pgd(steps=3)", "linf:1/255")] * 2


def test_settings_of_a_grid_win(bench: Path) -> None:
    (own,) = cells_of(bench, matrix_text(bench, more='examples = 7\nseed = 3\npick = "even"\naround = "original"'))
    assert (own.examples, own.seed, own.pick, own.around) == (7, 3, "even", "original")
    (default,) = cells_of(bench, matrix_text(bench))
    assert (default.examples, default.seed, default.pick, default.around, default.split) == (30, 0, "first", "release", "test")
    (everything,) = cells_of(bench, matrix_text(bench, top=""))
    assert everything.examples == N


def test_a_source_is_a_setting_of_the_file_or_of_a_grid(bench: Path) -> None:
    labeller, attacks = bench / "labeller", '"fgsm", "mi_fgsm"'
    (white, _) = cells_of(bench, matrix_text(bench, attacks))
    whole = cells_of(bench, matrix_text(bench, attacks, top=f'examples = 30\nsource = "{labeller}"'))
    assert [(cell.source, cell.attack) for cell in whole] == [(str(labeller), "fgsm"), (str(labeller), "mi_fgsm")]
    (named,) = [text for text in whole[0].contents if text.startswith("source=")]
    assert named == content("source", Sources().card(str(labeller)))
    assert dataclasses.replace(whole[0], source="", contents=white.contents) == white
    assert whole[0].key != white.key
    (off, _) = cells_of(bench, matrix_text(bench, attacks, top=f'examples = 30\nsource = "{labeller}"', more='source = ""'))
    assert off == white
    own = cells_of(bench, matrix_text(bench, '"fgsm"', top='examples = 30\nsource = "nobody"', more=f'source = "{labeller}"'))
    assert own == whole[:1]
    (alias,) = cells_of(bench, matrix_text(bench, '"fgsm"', more='source = "labeller"'))
    assert alias.source == "cifar10_labeller"


def test_a_model_is_no_surrogate_of_itself_but_of_itself_hardened(bench: Path) -> None:
    found = cells_of(bench, matrix_text(bench, defenses='"none", "mspd", "median", "conceal"', more=f'source = "{bench / "victim"}"'))
    assert {(cell.defense, bool(cell.source)) for cell in found} == {("none", False), ("mspd", False), ("median", True), ("conceal", True)}
    plain = cells_of(bench, matrix_text(bench, defenses='"none", "mspd"'))
    assert found[:3] == plain


def test_the_pictures_decide_the_key(bench: Path, tmp_path: Path) -> None:
    (before,) = cells_of(bench, matrix_text(bench))
    data = bytearray((bench / "data/cifar10/test_batch.bin").read_bytes())
    (tmp_path / "data/cifar10").mkdir(parents=True)
    for at, same in (
        (3073 * 30, True),
        (3073 * 30 - 1, False),
        (0, False),
    ):  # the first picture that is not chosen, the last that is, a label
        changed = bytearray(data)
        changed[at] ^= 1
        (tmp_path / "data/cifar10/test_batch.bin").write_bytes(changed)
        (after,) = cells(matrix_from(matrix_text(bench), "m"), Sources(tmp_path / "data"))
        assert (after.key == before.key) is same


@given(st.integers(1, N))
def test_even_picks_are_spread_over_the_split(bench: Path, examples: int) -> None:
    ids = choose("cifar10", "test", examples, "even", bench / "data" / "cifar10").ids.tolist()
    steps = [after - before for before, after in itertools.pairwise(ids)]
    assert ids[0] == 0
    assert len(set(ids)) == examples
    assert not steps or max(steps) - min(steps) <= 1
    assert N - ids[-1] <= -(-N // examples)


COMPLAINTS = [
    ('"fgsm"', '"fgms"', "m: grid 1: attacks: name: got 'fgms'; did you mean 'fgsm'?"),
    ('"fgsm"', '"pgd(stpes=3)"', "m: grid 1: attacks: pgd: got the option 'stpes'; did you mean 'steps'?"),
    ('"fgsm"', '"pgd(steps=__import__)"', "m: grid 1: attacks: spec: got 'pgd(steps=__import__)'; a name, or a name with keywords"),
    ('"none"', '"concel"', "m: grid 1: defense: got 'concel'; did you mean 'conceal'?"),
    ('"none"', '"mspd+s_pgd"', "m: grid 1: defense: got 'mspd+s_pgd' with 2 preemptive parts; at most one"),
    ('"linf:1/255"', '"l0:8"', "m: grid 1: threat: got 'l0:8'; a norm (linf, l2, l1)"),
    ('dataset = "cifar10"', 'dataset = "cifar1"', "m: grid 1: datasets: name: got 'cifar1'; did you mean 'cifar10'?"),
    ('dataset = "cifar10"', "", "m: grid 1: no data set; dataset at the top or datasets in the grid"),
    ("examples = 30", "exampels = 30", "m: exampels: no such setting; did you mean 'examples'?"),
    ("examples = 30", 'examples = "30"', "m: examples: Input should be a valid integer, got '30'"),
    ("examples = 30", "examples = 0", "m: examples: Input should be greater than or equal to 1, got '0'"),
    ("examples = 30", 'labels = "mine"', "m: labels: Input should be 'decoupled', 'coupled' or 'given', got 'mine'"),
    ("attacks", "atacks", "m: grid.1."),
    ("[[grid]]", "[[grit]]", "m: grid: Field required"),
    ("[[grid]]", "[grid]", "m: grid: Input should be a valid list"),
    ("[[grid]]", "[[grid]", "m: not TOML"),
    ('"fgsm"', '"carlini_wagner"', "m: grid 1: the attack 'carlini_wagner' cannot have the threat 'linf:1/255'; it takes l2"),
]


@pytest.mark.parametrize(("old", "new", "words"), COMPLAINTS, ids=[new or "nothing" for _, new, _ in COMPLAINTS])
def test_what_is_wrong_is_told_in_one_line(bench: Path, old: str, new: str, words: str) -> None:
    text = matrix_text(bench)
    matrix_from(text, "m")
    with pytest.raises(SpecError) as caught:
        matrix_from(text.replace(old, new, 1), "m")
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("square(queries=5)", "m: grid 1: the attack 'square' asks the victim and takes nothing from a source; one with gradients"),
        ("spsa", "m: grid 1: the attack 'spsa' asks the victim"),
        (
            "mi_fgsm(source='resnet9')",
            "m: grid 1: attacks: mi_fgsm: source is no option here; a setting of the grid, for example source = ",
        ),
    ],
)
def test_what_takes_no_source_is_told(bench: Path, attack: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        matrix_from(matrix_text(bench, f'"{attack}"', more='source = "cifar10_labeller"'), "m")
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)
    if "source" not in attack:
        matrix_from(matrix_text(bench, f'"{attack}"'), "m")


def test_every_attack_is_let_at_the_threats_it_takes(bench: Path) -> None:
    for name, traits in TRAITS.items():
        for norm, targeted in itertools.product(("linf", "l2", "l1"), (False, True)):
            text = matrix_text(bench, f'"{name}"', threats=f'"{"targeted:" if targeted else ""}{norm}:1"')
            if norm in traits.norms and (traits.targeted or not targeted):
                matrix_from(text, "m")
            else:
                with pytest.raises(SpecError, match=f"the attack '{name}' cannot have the threat"):
                    matrix_from(text, "m")


def test_what_is_not_there_is_told(bench: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no readable matrix"):
        read_matrix(tmp_path / "none.toml")
    with pytest.raises(InputError, match=r"grid 1: .*no such folder"):
        cells_of(tmp_path, matrix_text(bench))
    with pytest.raises(ArtifactError, match=r"grid 1: .*no such file"):
        cells_of(bench, matrix_text(bench).replace("/victim", "/nobody"))
    with pytest.raises(ArtifactError, match=r"grid 1: .*no such file"):
        cells_of(bench, matrix_text(bench, more=f'source = "{bench / "nobody"}"'))
    write_model(tmp_path / "four")
    card = (tmp_path / "four/card.toml").read_text()
    (tmp_path / "four/card.toml").write_text(card.replace('classes = ["airplane", ', "classes = ["))
    with pytest.raises(SpecError, match=r"grid 1: model: '.*four' knows 9 classes, the data set 'cifar10' has 10"):
        cells_of(bench, matrix_text(bench, more=f'source = "{tmp_path / "four"}"'))
    with pytest.raises(InputError, match=f"got examples = 61 of the split 'test', which has {N}"):
        cells_of(bench, matrix_text(bench, top="examples = 61"))
    own = tmp_path / "own"
    for name in ("a", "b"):
        (own / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(own / name / "0.png")
    with pytest.raises(SpecError, match=r"knows 10 classes, the data set .* has 2"):
        cells_of(bench, matrix_text(bench, top="examples = 2").replace('"cifar10"', f"\"folder(path='{own}', side=32)\""))


VALUES = st.one_of(st.integers(-9, 9), st.floats(0, 1), st.text("a+'\"\\()[]", max_size=8))


@given(st.dictionaries(st.sampled_from(("copies", "rate", "words")), VALUES))
def test_the_canonical_form_is_its_own(options: dict[str, object]) -> None:
    once = canonical_spec("name", options)
    assert canonical_spec(*parse(once)) == once
    assert parse(once) == ("name", options)
    assert split_spec(f"a+{once}+b") == ["a", once, "b"]


def test_parts_of_a_defense() -> None:
    assert parts("conceal+mspd(copies=2)") == ("mspd(copies=2)", "conceal")
    assert parts("none+none") == parts("none") == ("none",)
    assert parts("jpeg(subsampling='4:2:0', quality=50)+median") == ("jpeg(quality=50, subsampling='4:2:0')", "median")
    assert preemptive_part("conceal") == "none"
    assert preemptive_part("conceal+s_fgsm") == "s_fgsm"


def test_who_has_something_to_know() -> None:
    assert not knowable("none")
    assert all(knowable(name) for name in PREEMPTIVE if name != "none")
    for name, row in INFERENCE.items():
        assert knowable(name) is (row.unmask is not None)
        if name == "regenerate":  # it is nothing without its student, which is no part of the package
            with pytest.raises(SpecError, match="regenerate: got no student"):
                defense(name)
            continue
        assert (defense(name).unmask is not None) is (row.unmask is not None)
        assert defense(name).random is row.random
        assert defense(name).revert is None


def test_a_preemptive_part_needs_its_backbone() -> None:
    with pytest.raises(SpecError, match="'mspd' without a backbone"):
        defense("mspd")


@pytest.mark.parametrize("small", [True, False])
def test_who_arms_where_nobody_is_named(small: bool) -> None:
    """The pair for published defences; several embedded backbones for the default one, and nobody that `verify` shows as unseen."""
    assert usual("mspd(copies=3)", small) == PAIRS[small]
    names, labeller = usual("ensemble", small)
    cards = [locate(name).card for name in (*names.split("+"), labeller)]
    assert names.split("+")[0] == PAIRS[small][0]
    assert len(set(names.split("+"))) == len(names.split("+")) > 2
    assert set(names.split("+")) <= set(embedded()) - {"photo_target"}
    assert len({(card.classes, card.size) for card in cards}) == 1
    assert all(card.threat for card in cards[:-1])
