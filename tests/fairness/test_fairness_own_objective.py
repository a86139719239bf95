"""A user's own objective: the example of docs/objectives.md installed as a package, and what is refused."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from fairsynth.config import ObjectiveConfig
from fairsynth.errors import CohortError, ConfigError
from fairsynth.fairness.coefficients import coefficients
from fairsynth.fairness.objectives import load_objective

DOC = Path(__file__).parents[2] / "docs" / "objectives.md"
COUNTS = np.array([[400.0, 60, 70.5, 30.25], [100, 20, 12.5, 7.5], [50, 4, 9, 2.5], [0, 0, 0, 0]])
REFERENCE = np.array([True, False, False, False])


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install Python source as a distribution that declares the objective `name`."""

    def install_package(source, *, name, function, module="my_objectives_under_test"):
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[fairsynth.objectives]\n{name} = {module}:{function}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install_package


def documented_source():
    (source,) = re.findall(r"```python\n# my_objectives\.py\n(.*?)```", DOC.read_text(), flags=re.DOTALL)
    return source


@pytest.mark.parametrize("comparison", ["pooled", "mean"])
def test_the_documented_objective_loads_and_gives_coefficients(install, comparison):
    assert 'log_ratio = "my_objectives:log_ratio"' in DOC.read_text()
    install(documented_source(), name="log_ratio", function="log_ratio")
    config = ObjectiveConfig(name="log_ratio", target="label", comparison=comparison)
    found = coefficients(config, COUNTS, reference=REFERENCE)
    base = 70.5 / 400
    ratios = {"pooled": [21.5 / 150 / base], "mean": [12.5 / 100 / base, 9 / 50 / base]}[comparison]
    assert found.loss == pytest.approx(np.abs(np.log(ratios)).mean())
    assert np.isfinite(found.values).all()
    assert found.values[:2, 0].all()


def test_the_documented_objective_is_weighted_beside_another(install):
    install(documented_source(), name="log_ratio", function="log_ratio")
    own, other = {"name": "log_ratio", "comparison": "mean"}, {"name": "worst_tpr"}
    alone = [coefficients(ObjectiveConfig(**one, target="label"), COUNTS, reference=REFERENCE) for one in (own, other)]
    config = ObjectiveConfig(**other, target="label", also=({**own, "share": 0.25},))
    together = coefficients(config, COUNTS, reference=REFERENCE)
    assert together.loss == pytest.approx(0.25 * alone[0].loss + alone[1].loss, rel=1e-12)
    np.testing.assert_allclose(together.values, 0.25 * alone[0].values + alone[1].values, rtol=1e-12)


BROKEN = {
    "has no gradient": "return (counts[:, 2].detach() > 30).sum().double()",
    "has no gradient in S and TP": "return (counts[:, 0] / 100).sum()",
    "does not return a scalar tensor": "return counts[:, 2]",
    "is not finite": "return (counts[:, 2] / counts[:, 0]).var()",  # an empty group gives 0 / 0
    "has a gradient that is not finite": "return counts[:, 2].sqrt().sum()",  # infinite slope at an empty group
    "raises IndexError": "return counts[:, 4].sum()",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_faulty_objective_is_refused_before_a_study_starts(install, fault):
    install(f"def broken(counts, *, reference, comparison):\n    {BROKEN[fault]}\n", name="broken", function="broken")
    with pytest.raises(ConfigError) as caught:
        load_objective("broken")
    assert f"objective {fault} on trial counts" in str(caught.value)


def test_an_objective_that_cannot_be_imported_names_its_entry_point(install):
    install("x = 1\n", name="gone", function="missing")
    with pytest.raises(ConfigError, match="gone = my_objectives_under_test:missing"):
        load_objective("gone")


def test_an_entry_point_that_is_no_function_is_refused(install):
    install("constant = 1.0\n", name="constant", function="constant")
    with pytest.raises(ConfigError, match="not a function"):
        load_objective("constant")


def test_an_infinite_slope_at_the_studys_own_counts_stops_training(install):
    source = (
        "def root(counts, *, reference, comparison):\n    return (counts[:, 2] - counts[0, 3]).abs().sum().sqrt()\n"
    )
    install(source, name="root", function="root")
    with pytest.raises(CohortError, match="no finite gradient"):
        coefficients(ObjectiveConfig(name="root"), np.ones((4, 4)), reference=REFERENCE)
