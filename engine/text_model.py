"""A bundle that reads cells as sentences, applied to opened cells: sentences, answers and vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import UsageError
from cellscribe.engine.keyed import cell_keys, stream_keys
from cellscribe.engine.sentences.frame import PLAIN, Frame
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.ranked import rank_genes, to_sentences
from cellscribe.engine.sentences.templates import ANNOTATION
from cellscribe.engine.sentences.transform import TIES
from cellscribe.engine.text_answers import Progress, Wishes, answers_of
from cellscribe.engine.text_bundle import Ints, TextBundle
from cellscribe.engine.text_types import Answer
from cellscribe.engine.types import Sampling

Rows = npt.NDArray[np.int64]

__all__ = ["LESS", "MAX_SLOTS", "NO_GENE", "Ints", "Progress", "Rows", "TextModel"]

_BLOCK = 1024
MAX_SLOTS = 512
NO_GENE = "no gene is expressed in it"
LESS = "choose fewer genes (--genes-per-cell, genes_per_cell) or shorter texts"  # where a prompt is too long


@dataclass
class TextModel:
    """One bundle on one device.

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
    def eos_ids(self) -> frozenset[int]:
        """The tokens that end a text."""
        return frozenset(self._input.eos_token_ids)

    @property
    def num_genes(self) -> int:
        """Genes of a sentence."""
        return self.settings.num_genes or self._input.num_genes

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
        ends = set(self._input.eos_token_ids)
        return {i: one.content for i, one in known.items() if one.special or i in ends}

    def label_trie(self, labels: Sequence[str]) -> LabelTrie:
        """Return labels as the model writes them after a prompt.

        Raises
        ------
        UsageError
            Where they cannot be told apart, or one holds a token that ends a text or has another meaning of its own.
        """
        named = [one.strip() for one in labels]
        if problem := twice(named):
            raise UsageError(problem)
        ids = [self.bundle.tokenizer.encode(f" {one}", add_special_tokens=False).ids for one in named]
        signs = self._reserved.keys() | set(self._input.eos_token_ids)
        bad = next((one for one, mine in zip(named, ids, strict=True) if not signs.isdisjoint(mine)), None)
        if bad is not None:
            raise UsageError(f"the label {bad!r} holds a token that is no text to the model but a sign; rename it.")
        return LabelTrie(named, ids, self._input.eos_token_ids[0])

    def sentences(self, source: CellSource, rows: Rows | None = None) -> tuple[tuple[str, ...], list[str]]:
        """Return names and sentences of cells; an empty sentence where a cell expresses nothing."""
        wanted = np.arange(source.n_cells) if rows is None else rows
        genes, names, texts = SentenceGenes.of_cells(source), list[str](), list[str]()
        self.prompts.check(f"a gene name of {source.name}", " ".join(genes.words))
        for block in source.blocks(wanted, _BLOCK):
            mine = source.obs_names[block.rows]
            keys = stream_keys(self.settings.seed, cell_keys(mine), TIES)
            names += [str(name) for name in mine]
            texts += to_sentences(rank_genes(block.part, genes, keys, self.num_genes), genes)
        return tuple(names), texts

    def about_cells(
        self,
        source: CellSource,
        task: str = ANNOTATION,
        *,
        rows: Rows | None = None,
        labels: Sequence[str] | None = None,
        all_labels: bool = False,
        values: Mapping[str, str] | None = None,
        sampling: Sampling | None = None,
        max_new_tokens: int = 32,
        batch_size: int = 8,
        progress: Progress | None = None,
    ) -> tuple[Answer, ...]:
        """Answer a task about every cell.

        Parameters
        ----------
        task
            One that asks about a single cell.
        labels
            What answers must be one of; None leaves the model free.
        all_labels
            Ask for the log-probability of every label, and answer with the best.
        values
            More values for the prompt.

        Raises
        ------
        UsageError
            For an unknown task or labels that are alike.
        """
        names, sentences = self.sentences(source, rows)
        texts = self._prompts(task, names, sentences, values)
        empty = {i: NO_GENE for i, one in enumerate(sentences) if not one}
        return self.answers(
            names, texts, empty, labels=labels, all_labels=all_labels, sampling=sampling,
            max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress, frame=self.frame(task, values),
        )  # fmt: skip

    def answers(
        self,
        names: Sequence[str],
        texts: Sequence[str],
        lost: Mapping[int, str] | None = None,
        *,
        labels: Sequence[str] | None = None,
        all_labels: bool = False,
        sampling: Sampling | None = None,
        max_new_tokens: int = 32,
        batch_size: int = 8,
        progress: Progress | None = None,
        mend: str = LESS,
        frame: Frame = PLAIN,
    ) -> tuple[Answer, ...]:
        """Answer prompts; those of `lost` fail for the reason given there, as do those beyond the context.

        `mend` says what to do about the latter, and `frame` what answers say around their value: labels are written
        so, and what is answered is that value. White space that a prompt ends in is taken for the answer's: as tokens
        it belongs to the word behind it.

        Raises
        ------
        UsageError
            For no slots or too many, texts of less than one token, or labels that cannot be told apart.
        """
        if not 1 <= batch_size <= MAX_SLOTS:
            raise UsageError(f"batch_size is {batch_size}; choose a whole number from 1 to {MAX_SLOTS}.")
        trie = None if labels is None else self.label_trie(labels)
        options = TextOptions(sampling or Sampling(), max_new_tokens, batch_size, self.eos_ids, trie, all_labels)
        if options.longest >= self.context:
            what = f"max_new_tokens is {max_new_tokens}" if trie is None else f"a label has {options.longest} tokens"
            raise UsageError(f"{what}, and the context of {self.bundle.name} holds {self.context} in all; choose less.")
        failed = dict(lost or {})
        tokens = self.encode(texts)
        for i, one in enumerate(tokens):
            if len(one) + options.longest > self.context:
                sizes = f"its prompt of {len(one)} tokens and {options.longest} new ones"
                failed.setdefault(i, f"{sizes} exceed the context of {self.context}; {mend}")
        kept = [i for i in range(len(names)) if i not in failed]
        found: dict[int, Answer] = {}
        report = None if progress is None else lambda done, count: progress(done + len(failed), len(names), count)
        keys = [cell_key(names[i]) for i in kept]
        said: list[str] = []
        for text in write_texts(self.runtime, [tokens[i] for i in kept], keys, options, report, said.append):
            i = kept[text.request.index]
            found[i] = self.answer_of(names[i], text)
        self.notice = " ".join([*([self._remark] if self._remark else []), *said[:1]])
        return tuple(
            found[i] if i in found else Answer(name, "", (), float("nan"), "failed", f"failed: {failed[i]}")
            for i, name in enumerate(names)
        )

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

    def _prompts(
        self, task: str, names: Sequence[str], sentences: Sequence[str], values: Mapping[str, str] | None = None
    ) -> list[str]:
        """Fill the prompts of a task about single cells."""
        prompts = self.prompts
        return [
            prompts.of_cell(self.prompt_of(task, name), sentence, values)
            for name, sentence in zip(names, sentences, strict=True)
        ]

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

    def answer_of(self, name: str, text: Text) -> Answer:
        """Return a finished text as an answer."""
        if text.finish_reason == "failed":
            return Answer(name, "", (), float("nan"), "failed", "failed: the model's output is not finite")
        written, total = decode(self.bundle.tokenizer, text.token_ids), float(np.sum(text.logprobs))
        ids = tuple(text.token_ids)
        return Answer(name, written, ids, total, text.finish_reason, label_logprobs=text.label_logprobs)
