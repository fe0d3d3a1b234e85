"""The manifest of a bundle: everything the runtime must know that is not in a graph."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cellscribe.engine.cells.spec import CellInput
from cellscribe.engine.errors import BundleError

SCHEMA_VERSION = 2  # what this release reads; 2 brought quantised bundles
MANIFEST_NAME = "manifest.json"

Precision = Literal["fp32", "fp16", "fp16-stored", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
WEIGHT_ONLY: tuple[Precision, ...] = ("fp16-stored", "int8", "int4")


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of encoder.onnx."""

    d_model: int
    n_layers: int
    n_heads: int
    d_ffn: int


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of decoder.onnx; `n_lower` layers run below the first cross-attention layer."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_lower: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_ffn: int
    max_positions: int


@dataclass(frozen=True)
class CrossShape:
    """How the decoder attends to a cell; `prepared` says that cross.onnx turns the memory into what it reads."""

    form: Literal["latent", "materialised"]
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_memory: int
    prepared: bool


@dataclass(frozen=True)
class PromptRecord:
    """The fixed prompt: its text, its token ids, and the ids that end a text."""

    text: str
    token_ids: tuple[int, ...]
    eos_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class FileRecord:
    """Size and SHA-256 of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Parity:
    """How far the graphs are from the torch model on the cells of reference.safetensors.

    Largest absolute differences of memory, cell embedding and logits, the smallest cosine of memory rows, and the
    share of `tokens` greedy steps on which both choose the same token (near-ties left out, `near_ties` of them; in a
    quantised bundle every step counts). `tolerance` is what passes for each figure; that of a quantised bundle was
    measured when it was made.
    """

    cells: int
    source: str
    memory_max_error: float
    memory_min_cosine: float
    cell_max_error: float
    logits_max_error: float | None = None
    greedy_agreement: float | None = None
    tokens: int = 0
    near_ties: int = 0
    tolerance: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Quality:
    """What quantising cost, measured with ONNX Runtime on the CPU against the fp32 bundle of hash `compared_with`.

    Cosines of memory rows and the largest absolute difference of the cell embeddings of `cells` cells. The fp32
    bundle wrote `tokens` tokens about them greedily: `greedy_agreement` is the share of these that the quantised one
    chooses too when it has read the same text so far, and the perplexities are those that both give to that text.
    """

    cells: int
    source: str
    compared_with: str
    memory_min_cosine: float
    memory_mean_cosine: float
    cell_max_error: float
    tokens: int = 0
    greedy_agreement: float | None = None
    perplexity: float | None = None
    perplexity_fp32: float | None = None

    def words(self) -> str:
        """Say it in one line."""
        said = f"{self.cells} cells ({self.source}): memory cosine {self.memory_mean_cosine:.6f} "
        said += f"(at least {self.memory_min_cosine:.6f}), cell embedding within {self.cell_max_error:.2g}"
        if self.greedy_agreement is not None:
            said += f"; the token of fp32 at {self.greedy_agreement:.1%} of {self.tokens:,} greedy steps"
        if self.perplexity is not None and self.perplexity_fp32 is not None:
            said += f", perplexity of its text {self.perplexity:.4g} (fp32: {self.perplexity_fp32:.4g})"
        return said


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest.json.

    It is written with the lowest schema version that can say it, so that older releases read what they can run.
    """

    name: str
    family: str
    tasks: tuple[str, ...]
    precision: Precision
    encoder: EncoderShape
    cells: CellInput
    decoder: DecoderShape | None = None
    cross_attention: CrossShape | None = None
    prompt: PromptRecord | None = None
    parity: Parity | None = None
    files: dict[str, FileRecord] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: str = ""
    schema_version: int = 1
    quality: Quality | None = None

    @property
    def is_quantized(self) -> bool:
        """Whether weights are stored in fewer bits than they are computed with."""
        return self.precision in WEIGHT_ONLY

    @property
    def gpu_problem(self) -> str:
        """Why no GPU backend runs the bundle, in a sentence; empty when there is no reason in its precision."""
        if not self.is_quantized:
            return ""
        return f"the bundle {self.name} is {self.precision}, which runs on the CPU; GPUs take its fp16 or fp32 bundle."

    def to_json(self) -> str:
        """Return the text of manifest.json."""
        raw = asdict(self)
        raw["schema_version"] = 2 if self.is_quantized or self.quality else 1
        if self.quality is None:
            del raw["quality"]
        return json.dumps(raw, indent=1, ensure_ascii=False) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json of a bundle folder.

    Raises
    ------
    BundleError
        When the folder or file is missing, damaged, or written by a newer release.
    """
    path = folder / MANIFEST_NAME
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder; name a bundle made by `cellscribe export`.")
    if not path.is_file():
        raise BundleError(f"{folder} has no {MANIFEST_NAME}; name a bundle made by `cellscribe export`.")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"{path} is damaged ({error}); copy the bundle again or export it anew.") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(version, int) or version < 1:
        raise BundleError(f"{path} has no schema version; it is not the manifest of a bundle.")
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {version}, this release reads up to {SCHEMA_VERSION}; upgrade cellscribe."
        )
    try:
        manifest: Manifest = _build(Manifest, raw, "manifest")
    except (TypeError, ValueError) as error:
        raise BundleError(f"{path} is damaged ({error}); copy the bundle again or export it anew.") from error
    return manifest


def _build(kind: Any, raw: Any, where: str) -> Any:
    """Build a (nested) dataclass from parsed JSON, checking names and basic types."""
    if get_origin(kind) in (Union, UnionType):
        if raw is None and type(None) in get_args(kind):
            return None
        return _build(next(k for k in get_args(kind) if k is not type(None)), raw, where)
    if get_origin(kind) is Literal:
        if raw not in get_args(kind):
            raise ValueError(f"{where} is {raw!r}, not one of {', '.join(map(repr, get_args(kind)))}")
        return raw
    if get_origin(kind) is tuple:
        return tuple(_build(get_args(kind)[0], item, where) for item in _expect(list, raw, where))
    if get_origin(kind) is dict:
        value_kind = get_args(kind)[1]
        return {key: _build(value_kind, item, f"{where}.{key}") for key, item in _expect(dict, raw, where).items()}
    if hasattr(kind, "__dataclass_fields__"):
        return _build_fields(kind, _expect(dict, raw, where), where)
    return _expect(kind, raw, where)


def _build_fields(kind: Any, raw: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    unknown = sorted(set(raw) - {f.name for f in fields(kind)})
    if unknown:
        raise ValueError(f"{where} has an unknown entry {unknown[0]}")
    return kind(**{name: _build(hints[name], value, f"{where}.{name}") for name, value in raw.items()})


def _expect(kind: Any, raw: Any, where: str) -> Any:
    if kind is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if not isinstance(raw, kind) or (kind is int and isinstance(raw, bool)):
        raise ValueError(f"{where} is not {kind.__name__}")
    return raw
