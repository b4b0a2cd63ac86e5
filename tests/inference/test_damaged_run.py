"""A run's folder may be damaged or made up: one clear error, whatever its files hold."""

import json
import shutil

import pytest
import torch

import imgdata
from support.networks import trained_run  # noqa: F401  a fixture


@pytest.fixture
def damaged(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "3", '"x"', "[" * 100_000, '{"version": 1' + "0" * 5_000 + "}", "\ud800", '{"version": 1}']
    + [f'{{"version": 1, "options": {value}}}' for value in ("null", "[]", "{}", '{"model": 5}')],
)
def test_a_config_that_is_none_is_one_error(damaged, text):
    (damaged / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(imgdata.ImgdataError, match="run"):
        imgdata.load_trained(damaged)


@pytest.mark.parametrize(
    ("name", "value"),
    [("classes", None), ("classes", [[1]]), ("size", "big"), ("size", -1), ("eval_recipe", []), ("data", None)],
)
def test_a_value_of_another_kind_is_one_error(damaged, name, value):
    content = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**content, name: value}))
    with pytest.raises(imgdata.ImgdataError):
        imgdata.load_trained(damaged)


@pytest.mark.parametrize("state", [{}, {"model": None}, {"model": {"x": torch.zeros(3)}}, {"model": 5, "ema": 7}, []])
def test_a_checkpoint_of_something_else_is_one_error(damaged, state):
    torch.save(state, damaged / "best.pt")
    with pytest.raises(imgdata.ImgdataError, match="run"):
        imgdata.load_trained(damaged)
