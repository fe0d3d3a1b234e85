from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.bundle.integrity import record
from cellscribe.engine.bundle.onnx_external import external_data
from cellscribe.engine.errors import BundleError

onnx = pytest.importorskip("onnx", reason="the export extra is not installed")


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def reseal(folder: Path, edit: Callable[[dict], None] = lambda _: None) -> None:
    """Rewrite the manifest so that every hash is right again, then apply an edit."""
    path = folder / "manifest.json"
    raw = json.loads(path.read_text())
    for name in raw["files"]:
        if (folder / name).is_file():
            found = record(folder / name)
            raw["files"][name] = {"bytes": found.bytes, "sha256": found.sha256}
    edit(raw)
    path.write_text(json.dumps(raw))


def test_a_whole_bundle_opens_anywhere(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.describes
    assert opened.vocabulary.tokens[:2] == ("<pad>", "<cls>")
    assert len(opened.hash) == 64


def test_a_changed_byte_is_found(bundle: Path) -> None:
    path = bundle / "decoder.onnx.data"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"decoder\.onnx\.data does not have the hash"):
        open_bundle(bundle)


def test_a_truncated_file_is_found(bundle: Path) -> None:
    path = bundle / "encoder.onnx"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BundleError, match=r"encoder\.onnx has .* bytes where"):
        open_bundle(bundle)


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json is missing"):
        open_bundle(bundle)


def test_a_link_is_refused_even_to_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    path = bundle / "genes.json"
    shutil.move(path, tmp_path / "genes.json")
    os.symlink(tmp_path / "genes.json", path)
    with pytest.raises(BundleError, match="is a link"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["../outside.bin", "sub/file.bin", "/etc/hostname", "..", "a\\b"])
def test_file_names_that_leave_the_folder_are_refused(bundle: Path, name: str) -> None:
    reseal(bundle, lambda raw: raw["files"].update({name: {"bytes": 1, "sha256": "0"}}))
    with pytest.raises(BundleError, match="not a plain file name"):
        open_bundle(bundle)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "unlisted.data"])
def test_external_data_outside_the_bundle_is_refused(bundle: Path, location: str) -> None:
    model = onnx.load(str(bundle / "encoder.onnx"), load_external_data=False)
    next(e for e in model.graph.initializer[0].external_data if e.key == "location").value = location
    (bundle / "encoder.onnx").write_bytes(model.SerializeToString())
    reseal(bundle)
    with pytest.raises(BundleError, match="not a file of this bundle"):
        open_bundle(bundle)


def test_external_data_past_the_end_is_refused(bundle: Path) -> None:
    model = onnx.load(str(bundle / "encoder.onnx"), load_external_data=False)
    next(e for e in model.graph.initializer[0].external_data if e.key == "length").value = "99999999"
    (bundle / "encoder.onnx").write_bytes(model.SerializeToString())
    reseal(bundle)
    with pytest.raises(BundleError, match="past the end"):
        open_bundle(bundle)


def test_what_is_not_onnx_is_refused(bundle: Path) -> None:
    (bundle / "encoder.onnx").write_bytes(b"\x3a\xff\xff\xff\xff\x0f not a model")
    reseal(bundle)
    with pytest.raises(BundleError, match="not a readable ONNX file"):
        open_bundle(bundle)


def test_external_references_equal_those_of_the_onnx_package(tiny_bundle: Path) -> None:
    for name in ("encoder.onnx", "decoder.onnx"):
        model = onnx.load(str(tiny_bundle / name), load_external_data=False)
        expected = []
        for tensor in model.graph.initializer:
            if tensor.external_data:
                entries = {e.key: e.value for e in tensor.external_data}
                expected.append((entries["location"], int(entries["offset"]), int(entries["length"])))
        assert [(e.location, e.offset, e.length) for e in external_data(tiny_bundle / name)] == expected
        assert expected


def test_external_data_is_found_in_subgraphs_and_attributes(tmp_path: Path) -> None:
    def stored(name: str) -> object:
        tensor = onnx.TensorProto(name=name, data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=f"{name}.bin")
        return tensor

    helper = onnx.helper
    inner = helper.make_graph([], "inner", [], [], initializer=[stored("in_subgraph")])
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
        helper.make_node("Constant", [], ["k"], value=stored("in_attribute")),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    found = {e.location for e in external_data(tmp_path / "m.onnx")}
    assert found == {"in_subgraph.bin", "in_attribute.bin"}
