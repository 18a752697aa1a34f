"""A config comes back from its JSON, and its hash depends on values only."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.runs.configs import config_hash, jsonable, restore


@dataclass(frozen=True)
class Dose:
    rate: float
    steps: int
    tag: str | None = None


@dataclass(frozen=True)
class Config:
    base: Path
    mode: Literal["on", "off"]
    layers: tuple[int, ...]
    doses: tuple[Dose, ...]
    best: Dose | None
    names: Mapping[str, Path]
    seed: int = 0


doses = st.builds(Dose, st.floats(-1e6, 1e6), st.integers(), st.none() | st.text())
paths = st.sampled_from([Path("a"), Path("a/b"), Path("/c.d")])
configs = st.builds(
    Config,
    paths,
    st.sampled_from(["on", "off"]),
    st.lists(st.integers()).map(tuple),
    st.lists(doses).map(tuple),
    st.none() | doses,
    st.dictionaries(st.text(), paths, max_size=3),
    st.integers(),
)


@given(configs)
def test_config_comes_back_from_its_json(config):
    assert restore(Config, json.loads(json.dumps(jsonable(config)))) == config


@given(configs, st.integers())
def test_hash_is_of_values_only(config, seed):
    shuffled = dict(reversed(jsonable(config).items()))
    assert config_hash(shuffled) == config_hash(config)
    assert (config_hash(dataclasses.replace(config, seed=seed)) == config_hash(config)) == (seed == config.seed)


def test_hash_is_the_same_in_every_process_and_version():
    assert config_hash({"b": (1, 2.5), "a": Path("x/y"), "c": None}) == "03423b92"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), len])
def test_value_without_exact_json_is_refused(value):
    with pytest.raises(ValueError, match="no exact JSON form"):
        config_hash({"a": [value]})


def test_unknown_field_is_refused():
    with pytest.raises(ValueError, match="'stepz': Dose has no such field"):
        restore(Dose, {"rate": 1.0, "stepz": 3})
