"""Checkpoints of LangCell and Geneformer: what is read, from which files, and what is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rank_bundles import golden_checkpoint
from safetensors.torch import load_file, save_file

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.dictionaries import read_rank_vocabulary
from cellscribe.export.checkpoint.langcell import read_geneformer, read_langcell
from cellscribe.export.checkpoint.wordpiece import read_wordpiece


@pytest.fixture
def checkpoint(shared: Path, tmp_path: Path) -> Path:
    return golden_checkpoint(shared, tmp_path / "checkpoint")


def test_what_a_langcell_folder_says(checkpoint: Path) -> None:
    found = read_langcell(checkpoint)
    assert (found.cell.config.d_model, found.cell.config.activation) == (64, "relu")
    assert found.texts is not None
    assert (found.texts.bert.config.d_memory, found.texts.bert.config.activation) == (64, "gelu")
    assert (found.input.max_tokens, found.input.has_cls, found.vocabulary.cls_id) == (256, True, 1999)


def test_every_file_format_will_do(checkpoint: Path) -> None:
    plain = read_langcell(checkpoint)
    cell = load_file(checkpoint / "cell_bert" / "model.safetensors")
    torch.save(cell, checkpoint / "cell_bert" / "pytorch_model.bin")
    (checkpoint / "cell_bert" / "model.safetensors").unlink()
    head = torch.load(checkpoint / "ctm_head.bin", weights_only=True)
    save_file({name: one.contiguous() for name, one in head.items()}, checkpoint / "ctm_head.safetensors")
    (checkpoint / "ctm_head.bin").unlink()
    other = read_langcell(checkpoint)
    for one, two in ((plain.cell, other.cell), (plain.texts.head, other.texts.head)):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, two.state_dict()[name])


def test_dictionaries_may_be_pickles(checkpoint: Path) -> None:
    wanted = read_rank_vocabulary(checkpoint)
    for name in ("token_dictionary", "gene_median_dictionary"):
        path = checkpoint / f"{name}.json"
        kind = np.int16 if name == "token_dictionary" else np.float64
        values = {key: kind(value) for key, value in json.loads(path.read_text()).items()}
        path.unlink()
        (checkpoint / f"{name}_gc95M.pkl").write_bytes(pickle.dumps(values))
    assert read_rank_vocabulary(checkpoint) == wanted


def test_a_pickle_that_does_more_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (str(tmp_path / "harmed"),)

    (checkpoint / "token_dictionary.json").unlink()
    (checkpoint / "token_dictionary.pkl").write_bytes(pickle.dumps({"<pad>": Harm()}))
    with pytest.raises(CheckpointError, match="holds more than names and numbers"):
        read_rank_vocabulary(checkpoint)
    assert not (tmp_path / "harmed").exists()


def test_a_geneformer_folder_alone(checkpoint: Path) -> None:
    folder = checkpoint / "cell_bert"
    for name in ("token_dictionary.json", "gene_median_dictionary.json"):
        (checkpoint / name).rename(folder / name)
    found = read_geneformer(folder)
    assert (found.cell.config.n_layers, found.texts, found.projection) == (2, None, None)
    assert found.notes == "states of layer 2 of 3"
    assert read_geneformer(folder, 0).cell.config.n_layers == 3
    for layer in (1, -3):
        with pytest.raises(CheckpointError, match="has 3 layers; choose 0 for the last one"):
            read_geneformer(folder, layer)


def test_a_model_without_cls_averages(checkpoint: Path) -> None:
    folder = checkpoint / "cell_bert"
    tokens = json.loads((checkpoint / "token_dictionary.json").read_text())
    tokens["ENSG00000999999"] = 1999
    (folder / "token_dictionary.json").write_text(json.dumps(tokens))
    (checkpoint / "gene_median_dictionary.json").rename(folder / "gene_median_dictionary.json")
    found = read_geneformer(folder)
    assert (found.input.has_cls, found.input.pooling) == (False, "mean")


Change = Callable[[Path], object]


def _config(folder: str, **entries: object) -> Change:
    def change(checkpoint: Path) -> None:
        path = checkpoint / folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return change


def _without(name: str) -> Change:
    return lambda checkpoint: (checkpoint / name).unlink()


def _text(name: str, text: str) -> Change:
    return lambda checkpoint: (checkpoint / name).write_text(text)


def _head(shape: tuple[int, int]) -> Change:
    return lambda checkpoint: torch.save(
        {"weight": torch.zeros(shape), "bias": torch.zeros(shape[0])}, checkpoint / "ctm_head.bin"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_config("cell_bert", model_type="gpt2"), "says model_type 'gpt2'"),
        (_config("cell_bert", hidden_act="swish"), "says hidden_act 'swish'"),
        (_config("cell_bert", position_embedding_type="relative_key"), "only absolute is known"),
        (_config("cell_bert", num_attention_heads=7), "not a multiple of its 7 heads"),
        (_config("cell_bert", intermediate_size=100), "where the configuration says"),
        (_config("cell_bert", num_hidden_layers=2), "tensor.s. that this model does not use"),
        (_config("text_bert", encoder_width=32), "where the configuration says"),
        (_without("cell_proj.bin"), "cell_proj.bin is missing"),
        (_without("cell_bert/config.json"), "config.json is missing"),
        (_without("gene_median_dictionary.json"), "has no gene_median_dictionary.json or .pkl"),
        (_without("token_dictionary.json"), "has no token_dictionary.json or .pkl"),
        (_without("tokenizer/vocab.txt"), "has no tokenizer.json or vocab.txt"),
        (_head((3, 96)), "gives 3 numbers; a matching head gives two"),
        (_head((2, 64)), "does not map 96 numbers"),
        (_text("token_dictionary.json", '{"<pad>": 0, "ENSG00000000003": 1}'), "of 2000 tokens and"),
        (_text("token_dictionary.json", "[]"), "is no dictionary"),
        (_text("tokenizer/vocab.txt", "[CLS]\n[SEP]\n"), r"has no \[UNK\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(checkpoint: Path, change: Change, said: str) -> None:
    change(checkpoint)
    with pytest.raises(CheckpointError, match=said):
        read_langcell(checkpoint)


def test_without_dictionaries_the_packaged_ones_serve() -> None:
    assert len(read_rank_vocabulary(None).tokens) == 25427


def test_words_are_cut_as_bert_does(shared: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = shared / "fixtures" / "langcell_model" / "tokenizer"
    theirs, mine = transformers.BertTokenizer(str(folder / "vocab.txt")), read_wordpiece(folder)
    for text in ("cell type: B cell.", "CD8-positive, alpha-beta T", "naïve  Zelle\t(β)", "細胞 x", ""):
        assert mine.encode(text).ids == theirs(text)["input_ids"]
