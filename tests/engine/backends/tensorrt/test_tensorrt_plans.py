"""Which plan runs here, and why the others do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_device import FakeDevice
from fake_plans import make_plan, open_fake
from fake_tensorrt import fake_module

from cellscribe.engine.backends.tensorrt import (
    find_plans,
    open_tensorrt,
    plan_facts,
    plan_problems,
    products,
    read_plan,
)
from cellscribe.engine.backends.tensorrt import plan as plans
from cellscribe.engine.backends.tensorrt.find import choose_plan, unreadable_plans
from cellscribe.engine.backends.tensorrt.homes import plan_homes, writable_home
from cellscribe.engine.backends.tensorrt.machine import Machine, this_machine
from cellscribe.engine.backends.tensorrt.plan import PLAN_NAME, Plan
from cellscribe.engine.backends.tensorrt.plugins import LIBRARY, load_plugins
from cellscribe.engine.backends.tensorrt.products import PRODUCTS, Installed, require
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.errors import PlanError
from cellscribe.engine.packaged import packaged_bundle

CARD = Machine("NVIDIA GeForce RTX 4090", 89, 24 << 30, (13, 0))


@pytest.fixture
def bundle(tiny_bundle_fp16: Path) -> Bundle:
    return open_bundle(tiny_bundle_fp16)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT 11.4.0 is installed, and nothing else."""

    def fake(key: str) -> Installed:
        if key != "trt":
            raise PlanError("TensorRT for RTX is not installed; install it with: pip.")
        return Installed(PRODUCTS[key], fake_module(FakeDevice()), "11.4.0", 13)

    monkeypatch.setattr(plans, "require", fake)


@pytest.mark.usefixtures("installed")
def test_a_plan_that_fits_has_no_problems(bundle: Bundle, tmp_path: Path) -> None:
    assert plan_problems(make_plan(bundle, tmp_path), bundle, CARD) == ()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("recipe", "machine", "why"),
    [
        ({}, Machine(problem="no NVIDIA driver"), "needs a GPU of SM89, and there is no NVIDIA driver"),
        ({}, replace(CARD, gpu="NVIDIA H200", compute_capability=90), "GPUs of SM89 and the NVIDIA H200 is SM90"),
        ({}, replace(CARD, cuda=(12, 8)), "needs a driver for CUDA 13, and this one is for CUDA 12.8; update"),
        ({"version": "11.5.1"}, CARD, "built by TensorRT 11 11.5.1 and 11.4.0 is installed"),
        ({"plugins": (LIBRARY,)}, CARD, f"needs the plugin {LIBRARY}, which is missing"),
        ({"product": "rtx"}, CARD, "needs TensorRT for RTX 11.4.0: TensorRT for RTX is not installed"),
        ({"cuda_major": 12}, CARD, "by TensorRT 11 for CUDA 12 and the one for CUDA 13 is installed"),
        (
            {},
            replace(CARD, gpu="NVIDIA L40S"),
            r"measured on another GPU (rtx4090) than the NVIDIA L40S; build it anew",
        ),
        ({"revision": 0}, CARD, "was built by another release; build it anew with `cellscribe build"),
    ],
)
def test_a_plan_that_does_not_fit_says_why(
    bundle: Bundle,
    tmp_path: Path,
    recipe: dict[str, Any],
    machine: Machine,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plans, "plugin_library", lambda: None)
    problems = plan_problems(make_plan(bundle, tmp_path, **recipe), bundle, machine)
    assert len(problems) == 1
    assert why in problems[0]


@pytest.mark.usefixtures("installed")
def test_a_plan_of_another_bundle_or_with_a_damaged_file_says_so(
    bundle: Bundle, tiny_bundle: Path, tmp_path: Path
) -> None:
    plan = make_plan(bundle, tmp_path)
    assert "other graphs than those of the bundle tiny_latent" in plan_problems(plan, open_bundle(tiny_bundle), CARD)[0]
    path = plan.folder / "encoder.plan"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(PlanError, match=r"encoder\.plan is not what its recipe says; build the plan anew"):
        open_fake(bundle, plan)._encoder_for(61)
    path.write_bytes(content + b"?")
    assert "bytes where its recipe says" in plan_problems(plan, bundle, CARD)[0]
    path.unlink()
    assert "missing" in plan_problems(plan, bundle, CARD)[0]


def damage(change: Callable[[dict[str, object]], object]) -> Callable[[str], str]:
    def apply(text: str) -> str:
        raw = json.loads(text)
        change(raw)
        return json.dumps(raw)

    return apply


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:40],
        lambda text: "[]",
        damage(lambda raw: raw.pop("recipe")),
        damage(lambda raw: raw["recipe"].pop("slots")),  # type: ignore[attr-defined]
        damage(lambda raw: raw["recipe"].update(slots="many")),  # type: ignore[attr-defined]
        damage(lambda raw: raw["recipe"].update(capacity=-1)),  # type: ignore[attr-defined]
        damage(lambda raw: raw.update(schema_version=99)),
    ],
)
def test_a_damaged_recipe_is_refused_and_left_out(bundle: Bundle, tmp_path: Path, change: Callable[[str], str]) -> None:
    plan = make_plan(bundle, tmp_path)
    path = plan.folder / PLAN_NAME
    path.write_text(change(path.read_text()))
    with pytest.raises(PlanError, match=r"plan\.json .*build it anew with `cellscribe build`"):
        read_plan(plan.folder)
    assert find_plans(bundle, tmp_path) == ()
    assert len(unreadable_plans(bundle, tmp_path)) == 1
    with pytest.raises(PlanError, match=r"plan\.json"):
        choose_plan(bundle, CARD, output=tmp_path)
    assert any("plan.json" in text for label, text in plan_facts(bundle, tmp_path, CARD) if label == "plan")


@pytest.mark.usefixtures("installed")
def test_without_a_plan_that_fits_the_closest_is_named(bundle: Bundle, tmp_path: Path) -> None:
    command = rf"`cellscribe build {bundle.folder} --target this --output {tmp_path}`"
    with pytest.raises(PlanError, match=rf"has no TensorRT plan in .*; build one with {command}"):
        choose_plan(bundle, CARD, output=tmp_path)
    make_plan(bundle, tmp_path, slots=4, version="11.0.0", compute_capability=90)
    make_plan(bundle, tmp_path, slots=8, compute_capability=90)
    with pytest.raises(
        PlanError, match=r"SM90 and the NVIDIA GeForce RTX 4090 is SM89; .* \(1 other plan does not fit"
    ):
        choose_plan(bundle, CARD, output=tmp_path)
    facts = [text for label, text in plan_facts(bundle, tmp_path, CARD) if label == "plan"]
    assert len(facts) == 2
    assert all("SM90" in text for text in facts)


def test_plans_of_a_read_only_bundle_go_to_the_users_cache(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own, cache = plan_homes(bundle)
    assert own == bundle.folder / "plans"
    assert cache.is_relative_to(tmp_path / "cellscribe" / "plans")
    assert writable_home(bundle) == own
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert writable_home(bundle) == cache
    assert writable_home(bundle, tmp_path / "mine") == tmp_path / "mine"


def test_plans_of_the_packaged_bundle_never_go_where_packages_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert writable_home(open_bundle(packaged_bundle())).is_relative_to(tmp_path)


def test_a_recipe_names_its_folder_and_changes_its_hash(bundle: Bundle, tmp_path: Path) -> None:
    recipe = make_plan(bundle, tmp_path).recipe
    assert recipe.folder_name == f"rtx4090-sm89-trt11.4.0-fp16-b12-t24-g61-cu13-{recipe.hash[:8]}"
    assert "-b12-t24-g61-attention-cu13-" in replace(recipe, outputs=("evidence", "attention")).folder_name
    assert "-b12-t24-g61-plain-cu13-" in replace(recipe, outputs=()).folder_name
    assert "-g61-cu" not in replace(recipe, cuda_major=None).folder_name
    changes = ("slots", "genes", "max_new_tokens", "capacity", "cuda_major", "revision", "graphs")
    assert len({replace(recipe, **{n: 99}).folder_name for n in changes}) == len(changes)  # type: ignore[arg-type]
    others = {replace(recipe, **{name: 99}).hash for name in ("slots", "genes", "capacity", "cuda_major", "revision")}
    assert len({recipe.hash, *others}) == 6
    found = read_plan(tmp_path / recipe.folder_name)
    assert found == Plan(tmp_path / recipe.folder_name, recipe, found.files, found.digest)
    assert asdict(recipe)["outputs"] == ("evidence",)


def test_a_missing_plugin_says_so(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=f"needs the plugin {LIBRARY}, which is not installed for TensorRT"):
        open_fake(bundle, make_plan(bundle, tmp_path, plugins=(LIBRARY,), product="rtx"))
    load_plugins(Installed(PRODUCTS["trt"], None, "11.4.0", 13), ())


def test_a_plan_that_tensorrt_refuses_says_why(bundle: Bundle, tmp_path: Path) -> None:
    plan = make_plan(bundle, tmp_path)
    path = plan.folder / "encoder.plan"
    path.write_bytes(b"not a plan")
    with pytest.raises(PlanError, match=r"cannot load .*encoder\.plan \(magic tag does not match\)"):
        open_fake(bundle, replace(plan, files={path.name: record(path)}))._encoder_for(61)
    with pytest.raises(PlanError, match=r"has no encoder\.plan; build it anew"):
        open_fake(bundle, replace(plan, files={}))._encoder_for(61)


@pytest.mark.skipif(bool(this_machine().gpu), reason="this machine has a GPU")
def test_this_machine_without_a_gpu_says_so(bundle: Bundle, tmp_path: Path) -> None:
    assert this_machine().problem
    make_plan(bundle, tmp_path, product="rtx")
    with pytest.raises(PlanError):
        open_tensorrt(bundle, plans=tmp_path)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (ModuleNotFoundError("tensorrt"), r"TensorRT 11 is not installed; install it by hand \(see README"),
        (SimpleNamespace(), "TensorRT 11 is not installed"),  # a folder of that name
        (OSError("libnvinfer.so.11: no such file"), r"does not load \(libnvinfer\.so\.11: no such file\)"),
        (SimpleNamespace(__version__="10.15.1"), r"tensorrt 10\.15\.1 is installed and at least 11\.0 is needed"),
    ],
)
def test_a_product_that_cannot_be_used_says_how_to_get_it(
    found: object, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def imported(name: str) -> object:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(products.importlib, "import_module", imported)
    with pytest.raises(PlanError, match=why):
        require.__wrapped__("trt")
