"""The tables of docs/results/gcm.md."""

from __future__ import annotations

from collections.abc import Callable

from rendering import NOT_YET, markdown, measured, result, share, signed, when_measured


def parts_of(name: str) -> list[str]:
    """Which parts of a benchmark were run."""
    return [part for part in ("cifar10", "photos") if measured(name) and part in result(name)["details"]]


def concealed(figure: str) -> str:
    """The published table of GCM on this project's models: AR ("ar") or robust accuracy ("robust") for who does not know it."""
    body = []
    for part in parts_of("gcm_table"):
        for model, row in result("gcm_table")["details"][part].items():
            for label, cells in row["published"].items():
                body.append([model, label, share(row["clean"]), *(share(cell[figure]) for cell in cells.values())])
    return markdown(["model", "", "clean", "FGSM Linf", "PGD L1", "PGD L2", "PGD Linf", "C&W L2"], body)


def knowing(part: str) -> str:
    """AR under each way to attack a concealed model."""
    if part not in parts_of("gcm_table"):
        return NOT_YET.format(name="gcm_table")
    body = []
    for model, row in result("gcm_table")["details"][part].items():
        n = row["worst"]["linf"]["difference"]["n"]
        for way, norms in row["knows"].items():
            shown = [norms.get(norm) for norm in ("l1", "l2", "linf")]
            body.append([f"{model} (n = {n})", way, *("-" if cell is None else share(cell["ar"]) for cell in shown)])
    return markdown(["concealed model", "attack", "L1", "L2", "Linf"], body)


def concealed_worst() -> str:
    """Worst cases in robust accuracy: of the bare model, of the concealed one by its own gradient alone, of the concealed one by all."""
    body = []
    for part in parts_of("gcm_table"):
        for model, row in result("gcm_table")["details"][part].items():
            for norm in ("l1", "l2", "linf"):
                w = row["worst"][norm]
                same = f"{w['verdicts that differ']} of {w['verdicts']}"
                body.append(
                    [model, norm, share(w["vanilla"]), share(w["GCM, its own gradient"]), share(w["GCM"]), signed(w["difference"]), same]
                )
    head = ["model", "norm", "bare", "GCM, by its own gradient", "GCM, by all", "GCM above bare, paired", "verdicts that differ"]
    return markdown(head, body)


def noise_controls() -> str:
    """AR through GCM beside that of noise of the same size on the bare model."""
    body = []
    for part in parts_of("gcm_table"):
        for model, row in result("gcm_table")["details"][part].items():
            for column, cell in row["controls"].items():
                body.append([model, column, share(cell["GCM"]["ar"]), share(cell["control"]["ar"]), signed(cell["difference"])])
    return markdown(["model", "attack", "through GCM", "noise on the bare model", "robust accuracy apart, paired"], body)


def to_and_fro() -> str:
    """How far 20 signed steps have come."""
    far = result("gcm_table")["details"]["steps"]["far"]
    shown = (1, 5, 10, 20)
    return markdown(["steps along", *map(str, shown)], [[name, *(f"{row[k - 1]:.2f}" for k in shown)] for name, row in far.items()])


def combinations() -> str:
    """MSPD and GCM together: robust accuracy in the worst case by what the attacker knows."""
    ways = ("knows nothing", "knows GCM alone", "knows all")
    body = []
    for model, row in result("together")["details"].items():
        for defense, made in row["defenses"].items():
            shown = ["-" if made[way] is None else share(made[way]) for way in ways]
            n = made["worst"]["n"]
            body.append(
                [f"{model} (n = {n})", row["kind"], defense, share(made["clean"]), *shown, share(made["worst"]), signed(made["above none"])]
            )
    return markdown(["model", "kind", "defence", "clean", *ways, "worst of all", "above none, paired"], body)


def ingredients() -> str:
    """The challenge's nets: clean, at the places of resize-and-pad, corrupted, and what FGSM regularisation is for."""
    r = result("challenge_ingredients")
    body = []
    for name, row in r["details"]["nets"].items():
        hit = row["attacked"]
        worth = row.get("above everything")
        above = "-" if name == "everything" or worth is None else signed(worth["PGD-20 linf:2/255, knows"])
        shown = [share(row[figure]) for figure in ("clean", "placed", "corrupted")]
        body.append([name, *shown, share(hit["PGD-20 linf:2/255, knows"]), above])
    head = [f"trained with (n = {r['n']})", "clean", "resized and padded", "corrupted", "PGD-20 2/255, knows", "above everything, paired"]
    return markdown(head, body)


def ingredients_attacked() -> str:
    """The challenge's nets behind GCM under FGSM and PGD-20, by who does not know it and by who does."""
    r = result("challenge_ingredients")
    shown = [
        (f"{attack} {eps}, {who}", f"{attack} linf:{eps}, {who}")
        for who in ("does not know", "knows")
        for eps in ("2/255", "8/255")
        for attack in ("FGSM", "PGD-20")
    ]
    body = [[name, *(share(row["attacked"][key]) for _, key in shown)] for name, row in r["details"]["nets"].items()]
    return markdown([f"trained with (n = {r['n']})", *(title for title, _ in shown)], body)


def purified() -> str:
    """Every purifier by who attacks it."""
    r = result("purifiers")
    ways = ("carried over", "does not know", "knows", "worst")
    body = [
        [f"`{name}`", share(row["clean"]), *(share(row[way]) if way in row else "-" for way in ways), signed(row["above none"])]
        for name, row in r["details"].items()
    ]
    head = [
        f"before the model (n = {r['n']})",
        "clean",
        "carried over from the bare model",
        "does not know",
        "knows",
        "worst of all",
        "above none, paired",
    ]
    return markdown(head, body)


TABLES: dict[str, Callable[[], str]] = {
    "gcm ar": when_measured("gcm_table", lambda: concealed("ar")),
    "gcm robust": when_measured("gcm_table", lambda: concealed("robust")),
    "gcm knows cifar10": when_measured("gcm_table", lambda: knowing("cifar10")),
    "gcm knows photos": when_measured("gcm_table", lambda: knowing("photos")),
    "gcm worst": when_measured("gcm_table", concealed_worst),
    "gcm controls": when_measured("gcm_table", noise_controls),
    "gcm steps": when_measured("gcm_table", to_and_fro),
    "together": when_measured("together", combinations),
    "purified": when_measured("purifiers", purified),
    "challenge": when_measured("challenge_ingredients", ingredients),
    "challenge attacked": when_measured("challenge_ingredients", ingredients_attacked),
}
