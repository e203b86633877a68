"""The rule that chooses the settings of the negatives: groups count once, and only settings of the same seeds are ranked."""

import json
from functools import partial

import pytest

from ama_core.data import catalog, load
from benchmarks import negatives as study


def judged(decodes, defects, changes):
    """Kinds of every group with these AUROCs by A and by T; R, which has no say, far off."""
    groups = {"decodes": decodes, "defects": defects, "changes": changes}
    return {
        group: {f"kind {i}": {"R": 0.0, "A": a, "T": t} for i, (a, t) in enumerate(kinds)} for group, kinds in groups.items()
    }


def store(folder, setting, seed, decodes):
    auroc = {ood: {"R": 0.1, "A": 0.2, "T": 0.3} for ood in ("mnist", "omniglot")}
    found = {
        "branch": {"setting": setting, "seed": seed},
        "judged": judged([(decodes, decodes)], [(0.5, 0.5)], [(0.5, 0.5)]),
        "auroc": auroc,
    }
    (folder / f"{setting}-s{seed}.json").write_text(json.dumps(found))


def test_every_group_counts_once_however_many_kinds_it_has():
    found = study.criterion({"judged": judged([(0.9, 0.7)], [(0.6, 0.6)], [(0.2, 0.4), (0.3, 0.3), (0.3, 0.3), (0.3, 0.3)])})
    assert found == pytest.approx({"decodes": 0.8, "defects": 0.6, "changes": 0.3, "all": (0.8 + 0.6 + 0.3) / 3})


def test_settings_of_all_seeds_are_ranked_and_the_others_stand_behind(tmp_path):
    for seed in range(2):
        store(tmp_path, "none", seed, 0.6 + 0.1 * seed)
        store(tmp_path, "out1", seed, 0.9 + 0.06 * seed)
    store(tmp_path, "in3", 0, 0.99)
    rows = [line.split(" | ") for line in study.report(tmp_path).splitlines()[2:]]
    assert [row[0] for row in rows] == ["| out1", "| none", "| in3 (unranked)"]
    assert rows[0][6] == "0.093 ± 0.009", "a third of .3 and of .26, seed for seed"
    assert rows[1][6] == "0.000 ± 0.000"


def test_a_branch_goes_on_from_its_base_and_is_measured_against_every_set(tmp_path, monkeypatch):
    """A whole branch, shorter and on digits; the images of FashionMNIST alone, which are not here, are not scored."""
    measured = []

    def evaluate(detector, ood, **options):
        measured.extend(ood)
        scores = {by: {"auroc": 0.5} for by in detector.score_names()}
        return {"results": [{"ood": name, "scores": scores} for name in ood]}

    monkeypatch.setattr(study.evaluation, "evaluate", evaluate)
    monkeypatch.setattr(study, "train", partial(study.train, log_every=1))
    monkeypatch.setattr(study, "STEPS", 10)
    monkeypatch.setattr(study, "N_JUDGED", 8)
    branch = study.Branch("out1-early", 0)
    images = study.AMADetector(study.config_for(study.NORMAL, study.PRESET)).prepared(load("digits", "train").images)
    found = study.train_branch(branch, tmp_path, images)
    assert [file.name for file in tmp_path.iterdir()] == ["base-s0-3.safetensors"]
    assert found["branch"] == {"setting": "out1-early", "seed": 0} and found["training"]["steps"] == 10
    assert {"mnist", "omniglot", "noise"} <= set(measured) == set(found["auroc"]) <= set(catalog()) - {study.NORMAL}
    assert set(found["judged"]) == set(study.GROUPS) and 0 <= study.criterion(found)["all"] <= 1


def test_every_branch_has_a_name_of_its_own_and_settings_that_train():
    names = [branch.name for branch in study.branches()]
    assert len(names) == len(set(names)) == 3 * len(study.SETTINGS)
    for changes in study.SETTINGS.values():
        assert study.config_of(0, **changes).lambda_drift == 0
