"""What a build is asked for, what is refused, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cellscribe.engine.backends.tensorrt.machine import Machine
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.errors import OutputError, PlanError, UsageError
from cellscribe.export.tensorrt import build_plans
from cellscribe.export.tensorrt.target import choose_product, parse_target

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (the tensorrt extra)")

NO_GPU = Machine(problem="no GPU at all")


def test_targets() -> None:
    card = Machine("NVIDIA GeForce RTX 4090", 89, 24 << 30, (13, 0))
    assert parse_target("this", card).gpu == "rtx4090"
    assert parse_target("this", Machine("NVIDIA H100 80GB HBM3", 90, 1, (13, 0))).gpu == "h100"
    assert parse_target("RTX-4090", NO_GPU).compute_capability == 89
    assert parse_target("sm_120", NO_GPU).compute_capability == 120
    assert parse_target("SM89", NO_GPU).compute_capability == 89
    assert parse_target("rtx3090", NO_GPU).compute_capability == 86
    assert parse_target("NVIDIA GeForce RTX 4090", NO_GPU) == parse_target("rtx4090", NO_GPU)
    for unknown in ("sm_61", "sm_999"):
        with pytest.raises(UsageError, match=r"is no GPU that TensorRT runs on; choose one of sm_75, .*sm_121"):
            parse_target(unknown, NO_GPU)
    with pytest.raises(UsageError, match="choose rtx4090"):
        parse_target("gtx1080", NO_GPU)
    with pytest.raises(PlanError, match="no GPU at all"):
        parse_target("this", NO_GPU)


def test_products_are_chosen_by_what_can_build_where() -> None:
    assert choose_product(parse_target("rtx4090", NO_GPU), NO_GPU).product.key == "rtx"
    h200 = Machine("NVIDIA H200", 90, 1, (13, 0))
    with pytest.raises(PlanError, match=r"plans for h100, SM90 are built by TensorRT 11 on .* machine has NVIDIA H200"):
        choose_product(parse_target("h100", h200), h200, "trt")
    with pytest.raises(PlanError, match="SM90 are built by TensorRT 11 on the GPU itself, and here there is no GPU"):
        choose_product(parse_target("h100", NO_GPU), NO_GPU)
    with pytest.raises(
        PlanError, match="SM90 are built by TensorRT 11 on the GPU itself, and this machine has NVIDIA X"
    ):
        choose_product(parse_target("h200", NO_GPU), Machine("NVIDIA X", 89, 1, (13, 0)))
    with pytest.raises(PlanError, match="does not know SM90"):
        choose_product(parse_target("h200", NO_GPU), NO_GPU, "rtx")


def test_bad_sizes_and_places_are_refused(tiny_bundle_fp16: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle_fp16)
    for options, why in (
        ({"slots": 513}, "slots is 513; choose 1 to 512"),
        ({"genes": 0}, "genes is 0; choose 1 to "),
        ({"genes": 999_999}, f"choose 1 to {len(bundle.vocabulary.tokens)}, the most that a cell of"),
        ({"max_new_tokens": 257}, "choose 1 to 256"),
        ({"outputs": ("logits",)}, "choose evidence or attention"),
        ({"timing_cache": tmp_path / "cache"}, "is for TensorRT 11"),
        ({"product": "onnx"}, "choose auto, rtx or trt"),
    ):
        with pytest.raises(UsageError, match=why):
            build_plans(bundle, "rtx4090", **options)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another one with --output"):
        build_plans(bundle, "rtx4090", output=tmp_path / "file")
    other = replace(bundle, manifest=replace(bundle.manifest, precision="int4"))  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="is int4, which runs on the CPU; GPUs take its fp16 or fp32 bundle"):
        build_plans(other, "rtx4090", output=tmp_path / "plans")


def test_the_command_builds_and_says_so(
    tiny_bundle_fp16: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from cellscribe.cli.app import main

    arguments = ["build", str(tiny_bundle_fp16), "--target", "rtx4090", "--slots", "2", "-o", str(tmp_path)]
    for expected in ("built in", "is up to date"):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert not ended.value.code
        said = capfd.readouterr().err
        assert expected in said
        assert f"--plans {tmp_path}" in "".join(said.splitlines())
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "plan.json").read_text())["recipe"]["slots"] == 2
    with pytest.raises(SystemExit) as ended:
        main([*arguments[:3], "h200"])
    assert ended.value.code == 3
