"""Throughput: pairs of mixed length, by sentence-transformers and by ours, of `serving`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from onnx_serving import exported
from sentence_transformers import CrossEncoder
from serving_engine import products
from serving_tools import Ground, Target, in_turn, mixed, of_length, precisions
from transformers.modeling_outputs import SequenceClassifierOutput

from lyra_nli.ml_server.nli import NLIService
from lyra_nli.models import starter
from lyra_nli.models.base import Base
from lyra_nli.models.encoding import encode
from lyra_nli.settings import Settings

COUNT = 384


def throughput(ground: Ground) -> list[Target]:
    """Texts in, probabilities out, as each is used: predict in batches of 32, and our service."""
    base, threads = ground.base, ground.threads
    some = of_length(base, mixed(ground.pairs), COUNT, seed=3)
    tokens = sum(map(len, encode(base, some)))
    texts = [(pair.premise, pair.hypothesis) for pair in some]
    plain, by_onnx = cross_encoder(), cross_encoder()
    by_onnx.transformers_model.forward = onnx_forward(exported(base, threads))
    with asyncio.Runner() as runner:
        services = {
            f"ours, {precision}": runner.run(started(precision, threads))
            for precision in precisions()
        }

        def ours(service: NLIService) -> Callable[[], Any]:
            return lambda: runner.run(service.judge(some))

        ways: dict[str, Callable[[], Any]] = {
            "CrossEncoder.predict": lambda: plain.predict(texts, batch_size=32),
            "the same over ONNX Runtime": lambda: by_onnx.predict(texts, batch_size=32),
            **{name: ours(service) for name, service in services.items()},
            **{
                f"nothing but the matrix products, {name}": products(base, dtype, tokens)
                for name, dtype in precisions().items()
            },
        }
        ms = in_turn(ways, -(-ground.repeat // 5))
        check(ways, services, base)
        for service in services.values():
            runner.run(service.close())
    print(f"\n| {COUNT} pairs of 20 to 200 tokens | seconds | pairs a second | faster | |")
    print("|---|---|---|---|---|")
    peers = [ms["CrossEncoder.predict"], ms["the same over ONNX Runtime"]]
    for name, each in ms.items():
        faster = " | ".join(f"{peer / each:.1f}x" for peer in peers)
        print(f"| {name} | {each / 1000:.2f} | {1000 * COUNT / each:.1f} | {faster} |")
    print("\nfaster than CrossEncoder.predict, and than the same over ONNX Runtime")
    best = min(ms[name] for name in services)
    return [
        Target(f"mixed lengths: {factor:g}x {name}", f"{peer / best:.1f}x", peer >= factor * best)
        for name, peer, factor in zip(
            ("CrossEncoder.predict", "the same over ONNX Runtime"), peers, (4.0, 1.7), strict=True
        )
    ]


def cross_encoder() -> CrossEncoder:
    """The starter in sentence-transformers, float32."""
    return CrossEncoder(str(starter.materialise()), device="cpu", max_length=512)


def onnx_forward(
    judge: Callable[[Mapping[str, torch.Tensor]], Any],
) -> Callable[..., SequenceClassifierOutput]:
    """What CrossEncoder's ONNX backend puts in the place of the model's forward pass.

    The backend itself needs optimum-onnx, which needs an older transformers than ours.
    """

    def forward(**batch: torch.Tensor) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=torch.from_numpy(judge(batch)))

    return forward


async def started(precision: str, threads: int) -> NLIService:
    """A service as the server runs it, without a registry."""
    settings = {
        "storage": {"database_path": "nowhere.db"},
        "nli": {"fast_model": "starter", "precision": precision},
        "ml_server": {"threads": threads},
        "monitoring": {"log_share": 0.0},
    }
    service = NLIService(Settings.model_validate(settings))
    await service.start()
    return service


def check(ways: Mapping[str, Callable[[], Any]], services: Collection[str], base: Base) -> None:
    """All say the same, so that they may be compared."""
    peers = ("CrossEncoder.predict", "the same over ONNX Runtime")
    said = {name: ways[name]() for name in (*peers, *services)}
    expected = torch.tensor(said["CrossEncoder.predict"]).argmax(1)
    onnx = torch.tensor(said["the same over ONNX Runtime"]).argmax(1)
    rows = {"ONNX Runtime": (onnx == expected).double().mean().item()}
    names = [base.labels.raw_names[list(base.labels.order).index(i)] for i in range(3)]
    for name in services:
        labels = [judgement.raw_label for judgement in said[name].judgements]
        same = [label == names[i] for label, i in zip(labels, expected.tolist(), strict=True)]
        rows[name] = sum(same) / len(same)
    print(
        "\nthe label of CrossEncoder.predict: " + ", ".join(f"{k} {v:.2%}" for k, v in rows.items())
    )
