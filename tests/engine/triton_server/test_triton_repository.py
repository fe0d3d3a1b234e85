from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed")
import schema
from google.protobuf import text_format

from cellscribe.engine.backends.tensorrt.homes import graphs_hash
from cellscribe.engine.backends.tensorrt.plan import PLAN_NAME, SCHEMA_VERSION, Recipe
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.errors import BundleError, CellscribeError, OutputError, PlanError, UsageError
from cellscribe.engine.packaged import packaged_bundle
from cellscribe.engine.triton import RepositoryOptions, write_repository
from cellscribe.engine.triton.config import Config, Tensor

ONNX_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(int64)": "TYPE_INT64",
}
RECIPE = Recipe(
    "trt", "11.0.0", None, "h100", 90, "fp16", slots=4, prompt_batch=4, encode_batch=5, prompt_len=8, max_new_tokens=96,
    capacity=104, genes=257, graphs="",
)  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "models"
    write_repository(open_bundle(packaged_bundle()), folder)
    return folder


def config_of(folder: Path) -> Any:
    """Parse a config.pbtxt by the real schema where it is installed; unknown fields and wrong types are errors."""
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    text_format.Parse(text, schema.ours()())
    real = schema.official()
    return text_format.Parse(text, schema.ours()() if real is None else real.ModelConfig())


def type_name(tensor: Any) -> str:
    return str(tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name)


def parameters(config: Any) -> dict[str, str]:
    held = config.parameters
    entries = held.items() if hasattr(held, "items") else ((one.key, one.value) for one in held)
    return {key: value.string_value for key, value in entries}


def plans_folder(home: Path, product: str, graphs: str, encoder: bytes = b"an engine") -> Path:
    folder = home / f"plan-{product}"
    folder.mkdir(parents=True)
    files = {}
    for name, blob in (("encoder.plan", encoder), ("decoder.plan", b"another")):
        (folder / name).write_bytes(blob)
        files[name] = {"bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}
    recipe = dataclasses.asdict(dataclasses.replace(RECIPE, product=product, graphs=graphs))
    text = {"schema_version": SCHEMA_VERSION, "recipe": recipe, "files": files}
    (folder / PLAN_NAME).write_text(json.dumps(text), encoding="utf-8")
    return home


def models_of(folder: Path) -> Iterator[Path]:
    return (one for one in sorted(folder.iterdir()) if one.is_dir())


def test_our_tables_are_those_of_the_schema() -> None:
    real = schema.official()
    if real is None:
        pytest.skip("tritonclient is not installed")
    for name, fields in schema.MESSAGES.items():
        message = (
            real.ModelConfig.ParametersEntry if name == "ParametersEntry" else getattr(real, name)
        ).DESCRIPTOR.fields_by_name
        for field, (number, kind) in fields.items():
            assert message[field].number == number, (name, field)
            assert message[field].is_repeated == kind.endswith("*"), (name, field)
    kinds = real.ModelInstanceGroup.Kind
    assert {one: real.DataType.Value(one) for one in schema.TYPES} == schema.TYPES
    assert {one: kinds.Value(one) for one in schema.KINDS} == schema.KINDS


def test_every_model_has_a_configuration_by_its_folders_name(repository: Path) -> None:
    configs = {folder.name: config_of(folder) for folder in models_of(repository)}
    assert {name: one.backend for name, one in configs.items()} == {
        "demo": "python",
        "demo_decoder": "onnxruntime",
        "demo_encoder": "onnxruntime",
    }
    assert all(one.name == name for name, one in configs.items())
    assert not any(path.name.startswith(".") for path in repository.parent.iterdir())  # nothing is left behind


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_graphs_are_described_as_they_are_and_load_where_they_lie(repository: Path, graph: str) -> None:
    check_graph(repository / f"demo_{graph}", packaged_bundle() / f"{graph}.onnx")


def check_graph(folder: Path, original: Path) -> None:
    config = config_of(folder)
    here, there = (ort.InferenceSession(str(path)) for path in (folder / "1/model.onnx/model.onnx", original))
    assert config.max_batch_size > 0
    for described, values, same in (
        (config.input, here.get_inputs(), there.get_inputs()),
        (config.output, here.get_outputs(), there.get_outputs()),
    ):
        assert [one.name for one in described] == [one.name for one in values] == [one.name for one in same]
        for one, value in zip(described, values, strict=True):
            assert type_name(one) == ONNX_TYPES[value.type]
            assert isinstance(value.shape[0], str)  # the batch, which the server adds
            assert list(one.dims) == [size if isinstance(size, int) else -1 for size in value.shape[1:]]


def test_the_encoder_computes_what_the_bundle_s_does(repository: Path) -> None:
    given = {
        "genes": np.arange(6, dtype=np.int64)[None],
        "values": np.ones((1, 6), np.float32),
        "mask": np.ones((1, 6), np.bool_),
    }
    paths = (repository / "demo_encoder/1/model.onnx/model.onnx", packaged_bundle() / "encoder.onnx")
    ours, theirs = (ort.InferenceSession(str(path)).run(["cell"], given)[0] for path in paths)
    assert (ours == theirs).all()


def test_prepared_keys_get_a_model_of_their_own(tiny_bundle_materialised: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle_materialised)
    write_repository(bundle, tmp_path / "models", RepositoryOptions(name="liver", max_new_tokens=32))
    folders = list(models_of(tmp_path / "models"))
    assert [one.name for one in folders] == ["liver", "liver_cross", "liver_decoder", "liver_encoder"]
    for folder in folders[1:]:
        check_graph(folder, bundle.folder / f"{folder.name.removeprefix('liver_')}.onnx")


def test_half_precision_is_described_as_such(tiny_bundle_fp16: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle_fp16)
    write_repository(bundle, tmp_path / "models", RepositoryOptions(name="half", max_new_tokens=32))
    outputs = {one.name: type_name(one) for one in config_of(tmp_path / "models/half_encoder").output}
    assert outputs == {"memory": "TYPE_FP16", "cell": "TYPE_FP32"}


def test_the_python_model_streams_and_lies_beside_its_bundle(repository: Path) -> None:
    config = config_of(repository / "demo")
    assert config.model_transaction_policy.decoupled
    assert config.max_batch_size == 0
    optional = {one.name for one in config.input if one.optional}
    assert {one.name for one in config.input} - optional == {"GENES", "VALUES"}
    assert parameters(config) == {"bundle": "bundle", "backend": "auto", "slots": "32", "max_new_tokens": "96"}
    assert open_bundle(repository / "demo" / "bundle").hash == open_bundle(packaged_bundle()).hash
    source = (repository / "demo/1/model.py").read_text(encoding="utf-8")
    for one in (*config.input, *config.output):
        assert f'"{one.name}"' in source, one.name


def test_weights_take_their_room_once(repository: Path) -> None:
    original = repository / "demo/bundle/decoder.onnx.data"
    assert original.samefile(repository / "demo_decoder/1/model.onnx/decoder.onnx.data")


def test_a_plan_of_tensorrt_takes_the_place_of_the_encoder(tmp_path: Path) -> None:
    bundle = open_bundle(packaged_bundle())
    plans = plans_folder(tmp_path / "plans", "trt", graphs_hash(bundle))
    made = write_repository(bundle, tmp_path / "models", RepositoryOptions(plans=plans))
    assert dict(made.models)["demo_encoder"] == "tensorrt_plan"
    config = config_of(tmp_path / "models/demo_encoder")
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", RECIPE.encode_batch)
    assert [one.name for one in config.input] == ["genes", "values", "mask"]
    assert (tmp_path / "models/demo_encoder/1/model.plan").read_bytes() == b"an engine"
    assert config_of(tmp_path / "models/demo_decoder").backend == "onnxruntime"
    assert parameters(config_of(tmp_path / "models/demo"))["plans"] == "plans"
    assert (tmp_path / "models/demo/plans/plan-trt/decoder.plan").is_file()


def test_plans_for_rtx_are_for_the_python_model_alone(tmp_path: Path) -> None:
    bundle = open_bundle(packaged_bundle())
    plans = plans_folder(tmp_path / "plans", "rtx", graphs_hash(bundle))
    made = write_repository(bundle, tmp_path / "models", RepositoryOptions(plans=plans))
    assert dict(made.models)["demo_encoder"] == "onnxruntime"
    assert (tmp_path / "models/demo/plans/plan-rtx/encoder.plan").is_file()


def test_an_empty_folder_is_filled_and_a_full_one_refused(tmp_path: Path) -> None:
    bundle = open_bundle(packaged_bundle())
    (tmp_path / "empty").mkdir()
    write_repository(bundle, tmp_path / "empty")
    with pytest.raises(OutputError, match="is not empty; choose another name"):
        write_repository(bundle, tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "options", "kind", "words"),
    [
        ("demo-c2s", RepositoryOptions(), BundleError, "for bundles of the family lingocell only"),
        ("demo", RepositoryOptions(name="a/b"), UsageError, "is no name for a model"),
        ("demo", RepositoryOptions(name=".."), UsageError, "is no name for a model"),
        ("demo", RepositoryOptions(max_new_tokens=5000), BundleError, "room for 453 new tokens"),
        ("demo", RepositoryOptions(plans=Path("nowhere")), PlanError, "has no TensorRT plan"),
    ],
)
def test_what_cannot_be_written_is_said_and_nothing_is_left(
    tmp_path: Path, name: str, options: RepositoryOptions, kind: type[CellscribeError], words: str
) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        write_repository(open_bundle(packaged_bundle(name)), tmp_path / "models", options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", ["graphs", "bytes"])
def test_foreign_and_damaged_plans_are_refused(tmp_path: Path, fault: str) -> None:
    bundle = open_bundle(packaged_bundle())
    plans = plans_folder(tmp_path / "plans", "trt", "0" * 64 if fault == "graphs" else graphs_hash(bundle))
    if fault == "bytes":
        (plans / "plan-trt/encoder.plan").write_bytes(b"another engine")
    with pytest.raises(PlanError, match="has no TensorRT plan of" if fault == "graphs" else "is not the file that"):
        write_repository(bundle, tmp_path / "models", RepositoryOptions(plans=plans))


def test_strings_are_quoted() -> None:
    config = Config("a", "python", (Tensor("X", "TYPE_BOOL", ()),), (), parameters={"path": 'a "quoted"\\\nname é'})
    parsed = text_format.Parse(config.text(), schema.ours()())
    assert parameters(parsed) == {"path": 'a "quoted"\\\nname é'}
