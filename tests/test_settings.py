"""Config: every value is checked when it is made, from whatever side it comes."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ama_core import PRESETS, Config, preset
from ama_core.errors import AMAError, ConfigError

FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def test_the_default_is_the_paper():
    c = Config()
    assert preset("paper") == c
    assert (c.nz, c.width_encoder, c.width_generator, c.width_critic) == (128, 64, 256, 128)
    assert (c.lambda_gp, c.lambda_inter, c.lambda_reg, c.lambda_neg, c.k) == (10, 0.2, 1, 5, 3)
    assert (c.batch_size, c.epochs, c.n_critic, c.lr, c.negative_fraction, c.warmup) == (256, 100, 5, 3e-4, 0.1, 0.1)
    assert (c.gp_fraction, c.inter_fraction) == (1, 1)
    assert c.mode == "paper" and c.reconstruction == "mirrored"
    assert c.radius == math.sqrt(128)


def test_short_presets_have_the_drift_term_and_the_papers_has_not():
    assert {name: preset(name).lambda_drift for name in PRESETS} == {"tiny": 1e-3, "small": 1e-3, "fast64": 1e-3, "paper": 0}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_round_trip(name):
    c = preset(name, channels=1)
    assert Config.from_dict(json.loads(c.to_json())) == c
    assert c.total_steps(1167) > 0


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_documented_and_its_default_valid(name):
    field = FIELDS[name]
    assert len(field.metadata["doc"]) > 20
    assert Config.from_dict({name: str(field.default)}) == Config()


@pytest.mark.parametrize("name", FIELDS)
def test_every_bound_and_choice_is_enforced(name):
    meta = FIELDS[name].metadata
    whole = isinstance(FIELDS[name].default, int)
    wrong = ["a word"] if meta["choices"] or whole or isinstance(FIELDS[name].default, float) else []
    if meta["low"] is not None:
        wrong.append(meta["low"] - 1)
    if meta["high"] is not None:
        wrong.append(meta["high"] * 2 + 1)
    assert wrong
    for value in wrong:
        with pytest.raises(ConfigError, match=name):
            Config.from_dict({name: value})


@pytest.mark.parametrize(
    "change",
    [
        {"nz": 3.5},
        {"nz": True},
        {"nz": None},
        {"nz": "1e2"},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"lr": "fast"},
        {"lr": []},
        {"mode": 1},
        {"channels": 2},
        {"image_size": 48},
        {"k": 5, "batch_size": 4},
        {"no_such_field": 1},
        {"lambda_gp": "nan"},
        {"epochs": 0},
    ],
)
def test_nonsense_is_refused_by_name(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        Config.from_dict(change)
    assert issubclass(ConfigError, AMAError)


def test_unknown_preset():
    with pytest.raises(ConfigError, match="huge"):
        preset("huge")


def test_strings_are_parsed_to_the_field_s_type():
    c = Config().replace(nz="64", lr="1e-3", mode="released", lambda_gp="0")
    assert (c.nz, c.lr, c.mode, c.lambda_gp) == (64, 1e-3, "released", 0.0)
    assert isinstance(c.lambda_gp, float)
    assert isinstance(Config(lambda_gp=3).lambda_gp, (int, float))


def test_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().nz = 3


@given(
    nz=st.integers(2, 4096),
    lr=st.floats(1e-8, 1.0),
    fraction=st.floats(0, 0.5),
    reg=st.sampled_from(["norm", "hinge"]),
    seed=st.integers(0, 2**31 - 1),
)
def test_json_round_trip_is_exact(nz, lr, fraction, reg, seed):
    c = Config(nz=nz, lr=lr, negative_fraction=fraction, reg=reg, seed=seed)
    assert Config.from_dict(json.loads(c.to_json())) == c


@pytest.mark.parametrize(
    "change, uses", [({}, True), ({"atypical": "none"}, False), ({"negative_fraction": 0}, False), ({"lambda_neg": 0}, False)]
)
def test_uses_negatives(change, uses):
    assert Config.from_dict(change).uses_negatives is uses
