from dataclasses import replace

from made_up_results import made_up_cells, made_up_result

from jaxcrop.reports.groups import grouped, scenario_title


def results(cells):
    return [made_up_result(cell, chips=4) for cell in cells]


def one_region(**changes):
    changes = {"scenarios": (("id", 10), ("id", 100)), "seeds": 2, **changes}
    return made_up_cells(("africa",), **changes)


def changed(cell, **settings):
    """The cell that a study file asks for with other settings."""
    fields = {name: value for name, value in settings.items() if hasattr(cell, name)}
    return replace(cell, **fields, settings={**cell.settings, **settings})


def test_seeds_are_put_together_and_nothing_else():
    models, groups = grouped(results(reversed(one_region())))
    assert [model.name for model in models] == ["SSL4EO-S12", "SatlasPretrain", "ImageNet"]
    assert all(model.representative for model in models)
    assert len(groups) == 3 * 2
    assert all(group.seeds == (0, 1) for group in groups)
    assert [group.budget for group in groups] == [10, 100] * 3


def test_what_goes_with_the_scenario_makes_no_other_model():
    cells = [changed(c, steps=c.budget * 7) for c in one_region()]
    cells += [changed(c, decoder="fpn") for c in one_region(families=("satlas",))]
    cells = [c for c in cells if (c.family, c.decoder) != ("satlas", "unet")]
    models, groups = grouped(results(cells))
    assert [model.name for model in models] == ["SSL4EO-S12", "SatlasPretrain", "ImageNet"]
    assert models[0].build["steps"] == ("steps 70", "steps 700")
    assert models[1].build["decoder"] == ("FPN",)
    assert [model.like_the_paper for model in models] == [True, False, False]
    assert len(groups) == 6


def test_what_varies_at_one_place_tells_models_apart():
    cells = one_region(families=("satlas",))
    faster = [changed(cell, learning_rate=1e-2) for cell in cells]
    tuned = [changed(cell, tune="full") for cell in cells]
    own = [changed(cell, weights="published") for cell in cells]
    models, groups = grouped(results(cells + faster + tuned + own))
    names = {model.name for model in models}
    rate = "random weights · rate 0.001"
    assert names == {
        f"SatlasPretrain · {rate} · default tune",
        "SatlasPretrain · random weights · rate 0.01 · default tune",
        f"SatlasPretrain · {rate} · tune full",
        "SatlasPretrain · published weights · rate 0.001 · default tune",
    }
    # One model stands for each family and weights: here that of the usual rate.
    chosen = sorted(model.name for model in models if model.representative)
    assert chosen == [
        "SatlasPretrain · published weights · rate 0.001 · default tune",
        f"SatlasPretrain · {rate} · default tune",
    ]
    assert len(groups) == 4 * 2


def test_a_cell_said_in_two_ways_counts_once():
    cells = one_region(families=("satlas",))
    again = [
        replace(c, settings={k: v for k, v in c.settings.items() if k != "decoder"}) for c in cells
    ]
    assert {cell.key for cell in cells}.isdisjoint(cell.key for cell in again)
    _, groups = grouped(results(cells + again))
    assert [group.seeds for group in groups] == [(0, 1)] * 2


def test_weights_of_runs_are_one_kind_whatever_their_folders():
    cells = made_up_cells(("africa", "asia"), ("satlas",), (("id", 10),), seeds=1)
    own = [changed(cell, weights=f"runs/{cell.region}") for cell in cells]
    models, _ = grouped(results(cells + own))
    assert {model.name for model in models} == {
        "SatlasPretrain · random weights",
        "SatlasPretrain · weights of a run",
    }


def test_a_title_of_the_study_file_names_the_model():
    cells = made_up_cells(("africa", "asia"), ("satlas", "imagenet"), (("id", 10),), seeds=1)
    cells = [c for c in cells if (c.region, c.family) != ("asia", "imagenet")]
    own = [
        replace(changed(c, weights=f"runs/{c.region}"), model="Ours")
        for c in cells
        if c.family == "satlas"
    ]
    models, groups = grouped(results(cells + own))
    assert {(m.name, m.family) for m in models} == {
        ("SatlasPretrain", "satlas"),
        ("ImageNet", "imagenet"),
        ("Ours", "satlas"),
    }
    assert all(model.representative for model in models)
    assert {(g.region, g.model) for g in groups if g.model == "Ours"} == {
        ("africa", "Ours"),
        ("asia", "Ours"),
    }


def test_a_trap_belongs_to_the_model_most_like_it():
    cells = one_region(families=("ssl4eo", "satlas"))
    small = [changed(cell, architecture="resnet18") for cell in cells]
    trapped = [
        changed(cell, trap="raw", variant="paper-raw") for cell in small if cell.family == "satlas"
    ]
    models, groups = grouped(results(cells + small + trapped))
    assert len(models) == 4
    found = {group.model for group in groups if group.trap}
    assert found == {"SatlasPretrain · ResNet-18"}


def test_scenarios_in_words():
    assert scenario_title(("id", 900)) == "ID, 900 labels"
    assert scenario_title(("ood", 0)) == "OOD"
    assert scenario_title(("ood+id", None)) == "OOD+ID, all labels"
