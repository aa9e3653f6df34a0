"""What a store says, counted again in the slow and obvious way; wrong groupings are refused or seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from forearm.errors import InputError
from forearm.evaluate.cell import Cell
from forearm.evaluate.statistics import mcnemar
from forearm.evaluate.store import Store
from forearm.jobs.audit import about
from forearm.report.findings import Attempt, Bench, Entry, benches, judged
from tests.report.stores import ATTACKS, EPS, SHA, cell, put, realistic, rows, verdict


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    (found,) = benches(realistic(tmp_path_factory.mktemp("store")))
    return found


def entry(bench: Bench, defense: str) -> Entry:
    return next(one for one in bench.entries if one.cell.defense == defense)


def test_one_bench_with_none_first(bench: Bench) -> None:
    assert bench.names == ("none", "conceal", "jpeg(quality=75)", "mspd")
    assert bench.attacks == ATTACKS
    assert bench.title == "resnet20 on cifar10, linf:8/255"


def test_worst_cases_counted_example_by_example(bench: Bench) -> None:
    for one in bench.entries:
        tables = [dict(zip(a.ids.tolist(), a.robust.tolist(), strict=True)) for a in one.attempts]
        alive = sum(all(table[i] for table in tables) for i in range(60))
        assert one.worst.accuracy.successes == alive
        for attacked in (one.uninformed, one.informed, *(a.attacked for a in one.attempts)):
            assert attacked is None or one.worst.accuracy.successes <= attacked.accuracy.successes
        assert one.worst.kept is not None
        assert one.worst.kept.n == one.before.successes == one.attempts[0].rows["protected"].sum()


def test_an_entry_without_its_informed_attacks_is_flattered(bench: Bench) -> None:
    whole = entry(bench, "conceal")
    blind = Entry(tuple(a for a in whole.attempts if not a.cell.informed))
    assert blind.worst.accuracy.successes > whole.worst.accuracy.successes
    assert not whole.unknown
    assert blind.unknown
    assert entry(bench, "jpeg(quality=75)").unknown
    assert not entry(bench, "none").unknown


def test_comparison_with_none_is_paired(bench: Bench) -> None:
    mspd, none = entry(bench, "mspd"), entry(bench, "none")
    got = bench.comparison(mspd)
    assert got is not None
    mine, its = (dict(zip(*(part.tolist() for part in one.survivors), strict=True)) for one in (mspd, none))
    gained, lost = sum(mine[i] and not its[i] for i in mine), sum(its[i] and not mine[i] for i in mine)
    assert got.difference == pytest.approx((gained - lost) / 60)
    assert got.p == mcnemar(gained, lost)
    assert got.interval[0] < got.difference < got.interval[1]
    assert got.same_attacks
    assert bench.comparison(none) is None
    fewer = Entry(mspd.attempts[:-2])
    assert not fewer.against(none).same_attacks


def test_unchanged_pictures_are_counted_of_those_attacked(bench: Bench) -> None:
    attempt = entry(bench, "conceal").attempt("fgsm", False)
    assert attempt is not None
    right = attempt.rows.filter("protected")
    assert attempt.unchanged is not None
    assert (attempt.unchanged.successes, attempt.unchanged.n) == (sum(not c for c in right["changed"]), len(right))
    assert attempt.stuck
    assert not any(a.stuck for a in entry(bench, "mspd").attempts)


def test_a_curve_starts_before_the_attack_and_ends_at_the_worst_case(bench: Bench) -> None:
    for one in bench.entries:
        assert one.curve is not None
        assert one.curve[0][1].successes <= one.before.successes
        assert one.curve[-1][0] == pytest.approx(EPS)
        assert one.curve[-1][1].successes == one.worst.accuracy.successes
        assert Entry(tuple(a for a in one.attempts if a.cell.attack != "fab_t")).curve is None


def test_what_is_another_bench_and_what_is_another_entry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = cell()
    for of in (
        first,
        dataclasses.replace(first, attack="apgd"),
        dataclasses.replace(first, labels="coupled"),  # nothing is released: nobody's labels matter
        dataclasses.replace(first, threat="linf:4/255"),
        dataclasses.replace(first, wear="jpeg(quality=75)"),
        dataclasses.replace(first, seed=1),
        dataclasses.replace(first, contents=(f"model={SHA[::-1]}", f"pictures={SHA}")),
        cell("mspd"),
        cell("mspd", labels="coupled", labeller=""),
        cell("mspd", around="original"),
        cell("mspd", backbone="another"),
    ):
        put(store, of, rows(of, 0.9, 0.5))
    found = benches(store)
    assert sorted(len(one.entries) for one in found) == [1, 1, 1, 1, 5]
    big = max(found, key=lambda one: len(one.entries))
    assert len(set(big.names)) == 5
    assert [a.cell.attack for a in big.entries[0].attempts] == ["apgd", "pgd(steps=20)"]
    assert [one.title for one in found if one.cell.wear != "none"] == ["resnet20 on cifar10, linf:8/255, worn by jpeg(quality=75)"]


def test_the_baseline_is_attacked_around_the_same_centre(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for around, kept in (("release", 0.3), ("original", 0.6)):
        for of in (cell(wear="median", around=around), cell("mspd", wear="median", around=around)):
            put(store, of, rows(of, 0.9, kept if of.defense == "none" else 0.8))
    (bench,) = benches(store)
    for one in bench.entries:
        none = bench.none(one)
        assert none is not None
        assert (none.cell.defense, none.cell.around) == ("none", one.cell.around)
    assert len(set(bench.names)) == 4


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finished cell; run for example 'forearm audit"):
        benches(Store(tmp_path))


def test_transfer_counts_and_is_told_apart(tmp_path: Path) -> None:
    """Attacks by surrogates join the entry of the model that they are judged on; they make nobody one who knows it."""
    store = Store(tmp_path)
    contents = cell().contents
    cells = [cell("median"), *(moved("median", source) for source in ("resnet50", "vgg")), moved("median", "vgg", informed=True)]
    weights = dataclasses.replace(cells[2], contents=(*contents, "source=0000"))
    for seed, of in enumerate((*cells, weights)):
        drawn = rows(of, 0.9, 0.3 if of is weights else 0.9, seed=seed)
        put(store, of, drawn | {"protected": np.ones(60, bool), "clean": np.ones(60, bool)})
    (found,) = benches(store)
    (only,) = found.entries
    told = ["pgd(steps=20)", "pgd(steps=20), transfer from resnet50", "pgd(steps=20), transfer from vgg"]
    assert list(only.attacks) == told
    assert len(only.attempts) == 5
    alive = np.all([store.rows(of)["robust"].to_numpy() for of in (*cells, weights)], axis=0)
    assert only.worst.accuracy.successes == alive.sum() < min(one.robust.sum() for one in only.attempts)
    for of in cells:
        attempt = only.attempt(of.told, of.informed)
        assert attempt is not None
        assert (attempt.cell.source, attempt.cell.informed) == (of.source, of.informed)
    assert only.unknown  # whoever knows the defence but has another model has not attacked it
    assert only.informed is not None
    white = Entry((*only.attempts, Attempt(cell("median", informed=True), only.attempts[0].rows)))
    assert not white.unknown


def test_a_verdict_on_a_model_is_that_for_whoever_attacks_it() -> None:
    assert about(moved("median", "vgg")) == about(cell("median"))


def moved(defense: str, source: str, informed: bool = False) -> Cell:
    """An attack made on another model."""
    return cell(defense, source=source, informed=informed, contents=(*cell(defense).contents, f"source={SHA} {source}"))


def test_the_masking_verdict_is_the_models_own(bench: Bench) -> None:
    conceal = entry(bench, "conceal")
    own = {"about": about(conceal.cell), "verdict": verdict(True)}
    other_threat = {"about": about(dataclasses.replace(conceal.cell, threat="linf:4/255")), "verdict": verdict(False)}
    other_weights = {"about": about(dataclasses.replace(conceal.cell, contents=("model=ff",))), "verdict": verdict(False)}
    other_defense = {"about": about(entry(bench, "mspd").cell), "verdict": verdict(False)}
    assert judged(conceal, [other_defense, other_threat, other_weights, own]) is own
    assert judged(conceal, [other_defense, other_weights, other_threat]) is other_threat
    assert judged(conceal, [other_defense, other_weights]) is None


def test_rows_are_put_in_order() -> None:
    of = cell()
    values = rows(of, 0.9, 0.5)
    assert values["distance"].max() == np.float64(EPS)
    import polars as pl

    frame = pl.DataFrame(values)
    whole, backwards = (
        Entry((Attempt(of, frame),)),
        Entry((Attempt(of, frame), Attempt(dataclasses.replace(of, attack="apgd"), frame[::-1]))),
    )
    assert whole.worst == backwards.worst
