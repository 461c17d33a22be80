"""The machine: bfloat16 where it multiplies that, and is faster by it."""

from __future__ import annotations

import pytest
import torch

from lyra_nli.errors import SettingsError
from lyra_nli.models import machine
from lyra_nli.models.machine import compute_dtype, device, device_of


@pytest.fixture
def cpu(monkeypatch):
    """A machine without a GPU whose CPU can do what the test says, and is fast at it."""

    def cpu(gain: float = 2.0, **capabilities: bool) -> None:
        monkeypatch.setattr(machine, "_bf16_gain", lambda: gain)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)

    return cpu


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, torch.float32),
        ({"avx2": True, "avx512_f": True}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False}, torch.float32),
    ],
)
def test_auto_takes_what_the_cpu_multiplies(cpu, capabilities, expected):
    cpu(**capabilities)
    assert compute_dtype("auto") == expected


@pytest.mark.parametrize(
    ("gain", "expected"), [(0.5, torch.float32), (1.1, torch.float32), (1.9, torch.bfloat16)]
)
def test_auto_goes_by_what_instructions_are_worth(cpu, gain, expected):
    """Some processors have them and take twice the time with them."""
    cpu(gain, avx512_bf16=True)
    assert compute_dtype("auto") == expected


@pytest.mark.parametrize(
    ("wanted", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
@pytest.mark.parametrize("capable", [True, False])
def test_a_wish_is_a_wish(cpu, wanted, expected, capable):
    cpu(avx512_bf16=capable)
    assert compute_dtype(wanted) == expected


@pytest.mark.parametrize(("capable", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_is_asked_itself(monkeypatch, capable, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: capable)
    assert device() == torch.device("cuda")
    assert compute_dtype("auto") == expected


def test_the_cpu_is_asked_where_a_gpu_is_not_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert device_of("auto") == device_of("cuda") == torch.device("cuda")
    assert compute_dtype("auto", device_of("cpu")) == torch.float32
    assert compute_dtype("fp16", device_of("cuda")) == torch.float16


def test_what_the_machine_has_not_is_refused(cpu):
    cpu()
    assert device_of("auto") == torch.device("cpu")
    with pytest.raises(SettingsError, match="sees no GPU"):
        device_of("cuda")
    with pytest.raises(SettingsError, match="fp16"):
        compute_dtype("fp16")


def test_this_machine_can_be_asked():
    assert compute_dtype("auto") in (torch.float32, torch.bfloat16)
    assert 0 < machine._bf16_gain() < 100
    assert machine._bf16_gain() == machine._bf16_gain()  # asked once: a process decides alike
