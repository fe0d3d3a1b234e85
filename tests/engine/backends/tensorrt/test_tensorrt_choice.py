"""Which of several plans a run takes, whose plans are opened at all, and what is said about them."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_device import FakeDevice
from fake_plans import make_plan, open_fake
from fake_tensorrt import fake_module

from cellscribe.engine.backends import choose
from cellscribe.engine.backends.base import SlotPlan
from cellscribe.engine.backends.tensorrt import machine as machines
from cellscribe.engine.backends.tensorrt import plan as plans
from cellscribe.engine.backends.tensorrt import plan_facts, products
from cellscribe.engine.backends.tensorrt.find import choose_plan, find_plans, pick_plan, usable_plans
from cellscribe.engine.backends.tensorrt.machine import Machine, short_name
from cellscribe.engine.backends.tensorrt.plan import capacity_of, plan_problems
from cellscribe.engine.backends.tensorrt.products import PRODUCTS, RTX, Installed
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.errors import PlanError, RoomError
from cellscribe.engine.types import Sampling

CARD = Machine("NVIDIA GeForce RTX 4090", 89, 24 << 30, (13, 0))
ATTENTION = ("evidence", "attention")


def run(slots: int = 2, genes: int = 61, tokens: int = 24, attention: bool = False) -> SlotPlan:
    return SlotPlan(slots, genes, tokens, Sampling(), keep_attention=attention)


@pytest.fixture
def bundle(tiny_bundle_fp16: Path, tmp_path: Path) -> Bundle:
    return open_bundle(Path(shutil.copytree(tiny_bundle_fp16, tmp_path / "bundle")))


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT 11.4.0 is installed."""
    module = fake_module(FakeDevice())
    monkeypatch.setattr(plans, "require", lambda key: Installed(PRODUCTS[key], module, "11.4.0", 13))


def test_a_run_takes_the_smallest_plan_that_holds_it(bundle: Bundle, tmp_path: Path) -> None:
    home = tmp_path / "plans"
    for slots in (4, 32, 96):
        make_plan(bundle, home, slots=slots)
    make_plan(bundle, home, slots=32, outputs=ATTENTION)
    make_plan(bundle, home, slots=8, tokens=48)
    make_plan(bundle, home, slots=16, genes=99)
    make_plan(bundle, home, slots=1, outputs=())
    found = usable_plans(bundle, CARD, home)
    assert choose_plan(bundle, CARD, output=home).recipe.slots == 96

    def taken(slots: SlotPlan) -> str:
        return pick_plan(bundle, found, slots).folder.name.partition("fp16-")[2].partition("-cu")[0]

    assert [taken(run(n)) for n in (1, 4, 33)] == ["b4-t24-g61", "b4-t24-g61", "b96-t24-g61"]
    assert taken(run(5, attention=True)) == "b32-t24-g61-attention"
    assert taken(run(5, tokens=25)) == "b8-t48-g61"
    assert taken(run(5, genes=62)) == "b16-t24-g99"
    for slots, largest in ((run(97), 96), (run(33, attention=True), 32), (run(9, tokens=25), 8)):
        with pytest.raises(RoomError, match=f"holds {largest} slots") as caught:
            pick_plan(bundle, found, slots)
        assert caught.value.num_fitting == largest
    with pytest.raises(PlanError, match="49 are asked for"):
        pick_plan(bundle, found, run(tokens=49))


def test_the_backend_opens_the_plan_of_each_run(bundle: Bundle, tmp_path: Path) -> None:
    made = [make_plan(bundle, tmp_path / "p", slots=4), make_plan(bundle, tmp_path / "p", slots=2, outputs=ATTENTION)]
    backend = open_fake(bundle, *made)
    assert backend.device.endswith("2 plans")
    assert backend.precision == "fp16"
    for attention, plan in ((False, made[0]), (True, made[1]), (False, made[0])):
        backend.open_slots(run(2 if attention else 3, attention=attention))
        assert backend.plan == plan
        assert backend.device.endswith(plan.folder.name)


def test_texts_without_genes_are_remarked_and_avoided(bundle: Bundle, tmp_path: Path) -> None:
    plain, full = make_plan(bundle, tmp_path / "p", slots=4, outputs=()), make_plan(bundle, tmp_path / "p", slots=8)
    assert pick_plan(bundle, [plain, full], run()) == full
    with pytest.raises(RoomError, match="holds 8 slots"):
        pick_plan(bundle, [make_plan(bundle, tmp_path / "p", slots=9, outputs=()), full], run(9))
    backend = open_fake(bundle, plain)
    backend.open_slots(run())
    assert [one for one in backend.remarks if "texts name none; build one with `cellscribe build" in one]
    assert open_fake(bundle, full).remarks == ()


@pytest.mark.parametrize(
    ("slots", "why"),
    [
        (run(13), "holds 12 slots and 13 are asked for.*--target this .*--slots 13"),
        (run(tokens=25), "holds 24 new tokens and 25.*--max-new-tokens 25"),
        (run(13, genes=62), "holds 61 tokens per cell and 62.*--genes 62 --slots 13"),
        (run(attention=True), r"`cellscribe build \S+ --target this --attention .*leave --save-attn out"),
    ],
)
def test_a_plan_that_is_too_small_says_so(bundle: Bundle, tmp_path: Path, slots: SlotPlan, why: str) -> None:
    with pytest.raises((PlanError, RoomError), match=why) as caught:
        open_fake(bundle, make_plan(bundle, tmp_path / "p")).open_slots(slots)
    assert isinstance(caught.value, RoomError) == (slots.num_slots > 12 and slots.num_genes == 61)
    assert getattr(caught.value, "num_fitting", 12) == 12


def test_a_plan_that_came_with_a_bundle_is_not_opened(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(bundle, bundle.folder / "plans")
    assert usable_plans(bundle, CARD) == (plan,)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    with pytest.raises(PlanError, match=rf"was not built by this user.*or give --plans {plan.folder.parent} if you"):
        usable_plans(bundle, CARD)
    assert usable_plans(bundle, CARD, bundle.folder / "plans") == (plan,)
    recipe = plan.folder / "plan.json"
    monkeypatch.undo()
    recipe.write_text(recipe.read_text() + " ")
    assert len(plan_problems(find_plans(bundle)[0], bundle, CARD)) >= 1


def test_a_plan_is_summed_up_once_and_the_missing_gpu_is_not_repeated(bundle: Bundle, tmp_path: Path) -> None:
    plan = make_plan(bundle, tmp_path / "p")
    make_plan(bundle, tmp_path / "p", slots=4, version="11.0.0")
    name = plan.folder.name
    *_, first, second = plan_facts(bundle, tmp_path / "p", Machine(problem="no NVIDIA driver"))
    summary = "TensorRT 11 for SM89, 12 slots, 24 new tokens, 61 tokens per cell"
    assert first == ("plan", f"{name}: {summary}; it needs such a GPU.")
    assert "it was built by TensorRT 11 11.0.0 and 11.4.0 is installed" in second[1]
    assert "no NVIDIA driver" not in second[1]
    assert "the plan" not in second[1].partition(";")[2].partition(";")[0]
    assert list(plan_facts(bundle, tmp_path / "p", CARD))[2] == ("plan", f"{name}: {summary}; it fits this machine.")


def test_a_torch_for_the_cpu_alone_is_said_before_a_run(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    make_plan(bundle, tmp_path / "p")
    monkeypatch.setattr(choose, "has_gpu", lambda: True)
    monkeypatch.setattr(machines, "this_machine", lambda index=0: CARD)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch" in choose.problem_of(bundle, "tensorrt", plans=tmp_path / "p")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose.problem_of(bundle, "tensorrt", plans=tmp_path / "p") == ""


def test_the_cuda_of_a_product_is_read_from_its_packages_or_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(*found: str) -> None:
        monkeypatch.setattr(
            products, "distributions", lambda: [SimpleNamespace(metadata={"Name": name}) for name in found]
        )

    names("tensorrt_rtx", "tensorrt-rtx-cu13-libs", "tensorrt_rtx_cu13")
    assert products._cuda_major(RTX) == 13
    names("tensorrt_rtx_cu12_libs", "tensorrt_rtx_cu13_libs")
    assert products._cuda_major(RTX) is None


def test_short_names() -> None:
    for gpu, short in (
        ("NVIDIA GeForce RTX 3090", "rtx3090"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA RTX PRO 6000 Blackwell", "rtxpro6000"),
        ("", "gpu"),
    ):
        assert short_name(gpu) == short


def test_caches_have_a_length_that_masks_can_be_aligned_to() -> None:
    assert [capacity_of(59, n) for n in (96, 93, 1)] == [160, 152, 64]
