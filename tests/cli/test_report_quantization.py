"""What `quantize` prints and what its JSON holds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from graphopt.bench import Ratio
from graphopt.pipeline.quantized import Quantized
from graphopt.report import schema
from graphopt.report.quantization import quantization
from graphopt.report.sites import groups, unfused
from graphopt.report.words import cost, percent, reading, shortened

from .made_quantized import HOSTILE, minilm, troubled


def printed(result: Quantized, *, verbose: bool = False) -> str:
    """The report as a terminal of 160 columns shows it."""
    console = Console(width=160, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(quantization(result, verbose=verbose))
    return capture.get()


def test_a_screen_says_what_was_decided_and_what_it_cost() -> None:
    text = printed(minilm())
    assert len(text.splitlines()) < 24
    lines = {line.split("  ")[0]: " ".join(line.split()) for line in text.splitlines()}
    assert lines["ffn.down"] == "ffn.down 6 weights8 MatMulNBits 0 of 6 0.0012 43 %"
    assert lines["attention.qkv"] == "attention.qkv 18 static MatMulIntegerToFloat 18 of 18 0.00016 22 %"
    assert lines["accuracy"].startswith("accuracy cosine 0.99934 on 128 held-out samples, the worst 0.99811; 0.99941")
    assert lines["integer"] == "integer 83 %: 30 of 36 products with constant weights on integer kernels"
    assert lines["speed"].startswith(
        "speed 1.85x faster, 0.541 of the original's CPU time (95 % interval 0.529 to 0.556)"
    )
    assert lines["size"] == "size 90.4 MB before, 58.9 MB after (65 %)"
    assert lines["search"] == "search 9 steps, 6 kept; last ffn.down → weights8"
    assert "optimizer on and off" in text
    assert [line.split()[0] for line in text.splitlines()[1:5]] == [
        "ffn.down",
        "ffn.up",
        "attention.qkv",
        "attention.out",
    ]


def test_what_is_not_integer_is_named_with_the_reason() -> None:
    text = printed(troubled())
    assert "28 of 36 products with constant weights on integer kernels, 30 were planned" in text
    assert f"the activation is float16: {HOSTILE[3]}" in text
    assert "excluded by --exclude: /encoder/layer.1/attention/output/dense/MatMul_output_0" in text
    assert "and 3 more" in text
    assert "and 3 more" not in printed(troubled(), verbose=True)


def test_verbose_lists_sites_and_steps() -> None:
    few, all_ = printed(minilm()), printed(minilm(), verbose=True)
    for said in ("/encoder/layer.4/intermediate/dense/MatMul_output_0", "384x1536", "static, smooth 0.75", "0.86502"):
        assert said not in few
        assert said in all_


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (Ratio(0.5, 0.49, 0.51, 25), "2.00x faster"),
        (Ratio(1.1, 1.05, 1.15, 25), "1.10x slower"),
        (Ratio(0.97, 0.93, 1.01, 25), "no difference shown"),
    ],
)
def test_speed_is_said_only_where_it_is_shown(ratio: Ratio, words: str) -> None:
    assert words in printed(replace(minilm(), latency=ratio))


def test_made_up_samples_are_called_so() -> None:
    result = minilm()
    assert result.accuracy is not None
    text = printed(replace(result, accuracy=replace(result.accuracy, made=True, search=None, unoptimized=None)))
    assert "128 made-up samples" in text
    assert "where it was searched" not in text


def test_nothing_measured_is_no_table_of_nothing() -> None:
    result = replace(minilm(), sites=(), integer_all=0, accuracy=None, latency=None, latency_wall=None, steps=())
    text = printed(result)
    assert "no product with constant weights" in text
    assert not {"accuracy", "speed", "search", "group"} & {line.split(" ")[0] for line in text.splitlines()}


def test_the_json_has_the_keys_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    schema.write(schema.quantization(troubled()), "-")
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (report["schema"], report["command"], report["mode"], report["verdict"]) == (
        "graphopt/1",
        "quantize",
        "auto",
        "equal",
    )
    assert {"name", "op", "scheme", "kernel", "sensitivity"} <= report["sites"][0].keys()
    assert report["integer"] == {"planned": 30, "running": 28, "all": 36, "share": 28 / 36}
    assert {key: report["accuracy"][key] for key in ("metric", "search", "holdout")} == {
        "metric": "cosine",
        "search": 0.99941,
        "holdout": 0.99934,
    }
    assert report["size"] == {"before": 90_405_214, "after": 58_911_020}
    assert (report["latency"]["ratio"], report["latency"]["interval"]) == (1.1, [1.06, 1.15])
    assert report["error"] == report["errors"][0]
    assert report["error"]["code"] == "GO141"
    assert sum(group["sites"] for group in report["groups"]) == 36


def test_groups_are_told_by_what_they_cost() -> None:
    found = groups(
        replace(site, sensitivity=None if site.group == "ffn.up" else site.sensitivity) for site in minilm().sites
    )
    assert [group.name for group in found] == ["ffn.down", "attention.qkv", "attention.out", "ffn.up"]
    assert [group.integer for group in found] == [0, 18, 6, 6]


def test_a_planned_site_that_floats_is_unfused_without_a_reason_too() -> None:
    site = replace(minilm().sites[0], integer=False, kernel="MatMul")
    assert [one.reason for one in unfused([site])] == ["runs as MatMul"]
    assert not unfused([replace(site, scheme="weights8")])
    assert not unfused([replace(site, integer=True)])


def test_words() -> None:
    assert [percent(share) for share in (0, 0.0001, 0.004, 0.5, 0.996, 0.99999, 1)] == [
        *("0 %", "0.1 %", "0.4 %", "50 %", "99.6 %", "99.9 %", "100 %")
    ]
    assert [reading(*one) for one in (("cosine", 0.9993), ("sqnr", 34.25), ("top1", 0.984), ("own.py:f", -2.0))] == [
        *("0.99930", "34.2 dB", "98.40 %", "−2")
    ]
    assert reading("cosine", 0.9999993) == "0.9999993"
    assert [cost(value) for value in (None, 0.0, 0.000091, -0.0012, 12.3)] == ["", "0", "0.000091", "−0.0012", "12"]


def test_groups_are_called_by_what_tells_them_apart() -> None:
    names = ["/encoder/layer.0/query/MatMul", "/encoder/layer.0/output/dense/MatMul"]
    assert shortened(names) == ["layer.0/query", "layer.0/output/dense"]
    assert shortened(["y"]) == ["y"]
    assert shortened(["a/b", "a/b"]) == ["a/b", "a/b"]
    assert shortened([]) == []
