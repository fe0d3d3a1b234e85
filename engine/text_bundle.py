"""A bundle that reads cells as sentences, on a device: prompts, tokens, labels and vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from cellscribe.engine.backends.choose import choose_backend, padding_backend
from cellscribe.engine.backends.prompt_rows import OnPrompts
from cellscribe.engine.backends.text import TextBackend
from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellSource
from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.errors import BundleError
from cellscribe.engine.provenance import settings_of
from cellscribe.engine.sentences.frame import PLAIN, Frame, frame_of
from cellscribe.engine.sentences.templates import (
    Template,
    digest,
    known_task,
    own_tasks,
    packaged_templates,
    read_templates,
)
from cellscribe.engine.text_labels import trie_of
from cellscribe.engine.text_prompts import Prompts
from cellscribe.engine.text_types import TextSettings

if TYPE_CHECKING:
    from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

PAD = "<pad>"  # of Gemma-2; tokenizers without it pad with the token that ends a text


@dataclass
class TextBundle:
    """A bundle that reads cells as sentences on one device: its prompts, tokens, labels and vectors; a base.

    Parameters
    ----------
    bundle
        An opened bundle of a family without an encoder.
    backend, plans
        What runs it, and a folder of TensorRT plans (:func:`cellscribe.engine.backends.choose.choose_backend`).
    templates
        A file of prompts (:func:`cellscribe.engine.sentences.templates.read_templates`) in place of ours.

    Attributes
    ----------
    tasks
        Prompts by task, ours and those of the file.
    notice
        What should be known about the last answers and is no failure (fewer slots than asked for, tasks of templates
        that are none of ours); empty when there is nothing.
    """

    bundle: Bundle
    threads: int | None = None
    backend: str = "auto"
    templates: Path | None = None
    settings: TextSettings = field(default_factory=TextSettings)
    plans: Path | None = None
    notice: str = field(default="", init=False)

    def __post_init__(self) -> None:
        manifest = self.bundle.manifest
        if manifest.sentences is None or manifest.decoder is None:
            raise BundleError(
                f"the bundle {self.bundle.name} reads no sentences; choose one of the family c2s or instructcell."
            )
        self._input, self.context = manifest.sentences, manifest.decoder.max_positions
        self.backend_choice = choose_backend(self.bundle, self.backend, threads=self.threads, plans=self.plans)
        self.runtime = cast(TextBackend, self.backend_choice.backend)
        self._padding: OnnxRuntimeText | None = None
        given = read_templates(self.templates) if self.templates else {}
        self.tasks, self._remark = packaged_templates() | given, own_tasks(given)
        self._templates_hash = "" if not self.templates else digest(given)

    @property
    def device(self) -> str:
        """Device and provider in words."""
        return self.runtime.device

    @property
    def width(self) -> int:
        """Numbers of a vector, d."""
        assert self.bundle.manifest.decoder is not None
        return self.bundle.manifest.decoder.d_model

    @property
    def num_genes(self) -> int:
        """Genes of a sentence."""
        return self.settings.num_genes or self._input.num_genes

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a text."""
        return frozenset(self._input.eos_token_ids)

    def task(self, name: str) -> Template:
        """Return the prompts of a task; UsageError for one that is not known."""
        return known_task(self.tasks, name)

    def prompt_of(self, task: str, key: str) -> str:
        """Return the prompt of a task that was chosen, or is drawn by key, with names in braces."""
        return self.task(task).prompt(self.settings.template, key, self.settings.seed)

    @property
    def prompts(self) -> Prompts:
        """What fills prompts."""
        return Prompts(self.settings.organism, self.num_genes, tuple(self._reserved.values()))

    @cached_property
    def _reserved(self) -> dict[int, str]:
        """Tokens of a meaning of their own, and how they are written."""
        known = self.bundle.tokenizer.get_added_tokens_decoder()
        return {i: one.content for i, one in known.items() if one.special or i in self.end_ids}

    def frame(self, task: str, values: Mapping[str, str] | None = None) -> Frame:
        """Return what answers to a task say around their value; UsageError for one that is not known."""
        return frame_of(task, self.task(task).answer, {"organism": self.settings.organism, **(values or {})})

    def label_trie(self, labels: Sequence[str], gap: str = " ", frame: Frame = PLAIN) -> LabelTrie:
        """Return labels as the model writes them after a prompt.

        Parameters
        ----------
        gap
            White space between the prompt and an answer.
        frame
            What answers say around a label.

        Raises
        ------
        UsageError
            Where they cannot be told apart, one holds a token that ends a text or has another meaning of its own, or
            answers do not name one value.
        """
        signs = self._reserved.keys() | self.end_ids
        return trie_of(self.bundle.tokenizer, labels, signs, self._input.eos_token_ids[0], gap, frame)

    def encode(self, texts: Sequence[str]) -> list[Ints]:
        """Return the tokens of prompts, int64 [P] each, with what the tokenizer puts before every text."""
        return [np.array(one.ids, np.int64) for one in self.bundle.tokenizer.encode_batch(list(texts))]

    def embed_prompts(self, prompts: Sequence[Ints], progress: OnPrompts | None = None) -> Floats:
        """Return the mean of the last states over each prompt's tokens, float32 [N, d]."""
        return self.runtime.embed_prompts(prompts, progress)

    def embed_padded(self, prompts: Sequence[Ints]) -> Floats:
        """Return the mean over one batch of prompts with its padding, float32 [N, d]; only ONNX Runtime can."""
        if self._padding is None:
            self._padding = padding_backend(self.bundle, self.runtime, self.backend, self.threads)
        pad_id = self.bundle.tokenizer.token_to_id(PAD)
        return self._padding.embed_padded(prompts, self._input.eos_token_ids[0] if pad_id is None else pad_id)

    def settings_of(self, source: CellSource | None, **more: object) -> dict[str, object]:
        """Return what a result depends on, with more or other entries."""
        own = {
            "seed": self.settings.seed,
            "organism": self.settings.organism,
            "num_genes": self.num_genes,
            "template": "drawn" if self.settings.template is None else self.settings.template,
            **({"templates_hash": self._templates_hash} if self._templates_hash else {}),
        }
        return settings_of(self.bundle, self.device, source, **{**own, **more})
