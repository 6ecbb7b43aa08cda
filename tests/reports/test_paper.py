import pytest

from jaxcrop.reports.paper import figures, known


@pytest.mark.parametrize(
    ("region", "metric", "setting", "budget", "values"),
    [  # datasets_spec 9.1 and 9.2, by hand
        ("north-america", "overall_accuracy", "id", 10, {"v1": 69.78, "final": 58.89}),
        ("asia", "overall_accuracy", "ood+id", 900, {"v1": 90.06, "final": 89.17}),
        ("europe", "overall_accuracy", "ood", 0, {"v1": 61.52, "final": 61.48}),
        ("south-america", "average_accuracy", "id", 900, {"v1": 83.68}),
        ("africa", "average_accuracy", "ood+id", 100, {"v1": 27.99}),
        ("asia", "average_f1", "id", 100, {"v1": 38.98}),
        ("south-america", "average_jaccard", "ood+id", 10, {"v1": 17.83}),
        ("india", "overall_accuracy", "ood", 0, {"v1": 49.87}),
        ("india", "average_jaccard", "id", 900, {"v1": 24.25}),
        ("africa", "overall_accuracy", "id", 900, {"v1": 80.37, "final": 80.71}),
        ("africa", "present_accuracy", "id", 900, {}),
        ("africa", "overall_accuracy", "id", 33, {}),
        ("atlantis", "overall_accuracy", "id", 900, {}),
    ],
)
def test_figures_are_those_of_the_repositories(region, metric, setting, budget, values):
    found = {of.version: of.value for of in figures(region, metric, setting, budget)}
    assert found == pytest.approx({version: value / 100 for version, value in values.items()})


def test_every_figure_is_there_and_the_doubtful_ones_are_marked():
    every = [(key, figure) for key, of_key in known().items() for figure in of_key]
    # Four metrics of six datasets in version 1, one of five in the final one; seven columns.
    assert len(every) == 7 * (4 * 6 + 5)
    doubtful = {(*key, of.version) for key, of in every if of.doubtful}
    swapped = {(name, "overall_accuracy", "id", 900, "final") for name in ("nccm", "eurocrops")}
    falling = {key for key in doubtful if key[0] == "agrifieldnet"}
    assert doubtful == swapped | falling
    assert len(falling) == 4 * 4
    assert {key[2] for key in falling} == {"ood", "ood+id"}
    assert all(bool(of.note) == of.doubtful for _, of in every)
    assert all(0 < of.value < 1 for _, of in every)
