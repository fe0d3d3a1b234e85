"""The manifest of a bundle: everything the runtime must know that is not in a graph."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from cellscribe.engine.bundle.figures import (
    InstructParity,
    InstructQuality,
    MatchParity,
    MatchQuality,
    Parity,
    Quality,
    TextParity,
    TextQuality,
)
from cellscribe.engine.bundle.shapes import (
    CrossShape,
    DecoderShape,
    DecoderStyle,
    EncoderShape,
    ProfileShape,
    RankShape,
    T5Shape,
    TowerShape,
)
from cellscribe.engine.cells.spec import CellInput
from cellscribe.engine.errors import BundleError
from cellscribe.engine.instruct.spec import InstructInput
from cellscribe.engine.ranks.spec import RankInput

# 2 brought quantised bundles, 3 those that read cells as sentences, 4 quantised ones of these, 5 those that read ranks,
# 6 those that follow instructions.
SCHEMA_VERSION = 6
MANIFEST_NAME = "manifest.json"
# What manifests of the first version do not have.
_LATER = (
    "quality", "style", "sentences", "text_parity", "text_quality", "ranks", "rank_shape", "match_parity",
    "match_quality", "instruct", "t5", "tower", "profile", "instruct_parity", "instruct_quality",
)  # fmt: skip

Precision = Literal["fp32", "fp16", "fp16-stored", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
WEIGHT_ONLY: tuple[Precision, ...] = ("fp16-stored", "int8", "int4")


@dataclass(frozen=True)
class SentenceInput:
    """How a bundle reads cells as sentences: words of a sentence at most, and the ids that end a text."""

    num_genes: int
    eos_token_ids: tuple[int, ...]


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
class Manifest:
    """A bundle's manifest.json.

    It is written with the lowest schema version that can say it, so that older releases read what they can run.
    """

    name: str
    family: str
    tasks: tuple[str, ...]
    precision: Precision
    encoder: EncoderShape | None
    cells: CellInput | None
    decoder: DecoderShape | None = None
    cross_attention: CrossShape | None = None
    prompt: PromptRecord | None = None
    parity: Parity | None = None
    files: dict[str, FileRecord] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: str = ""
    schema_version: int = 1
    quality: Quality | None = None
    style: DecoderStyle | None = None
    sentences: SentenceInput | None = None
    text_parity: TextParity | None = None
    text_quality: TextQuality | None = None
    ranks: RankInput | None = None
    rank_shape: RankShape | None = None
    match_parity: MatchParity | None = None
    match_quality: MatchQuality | None = None
    instruct: InstructInput | None = None
    t5: T5Shape | None = None
    tower: TowerShape | None = None
    profile: ProfileShape | None = None
    instruct_parity: InstructParity | None = None
    instruct_quality: InstructQuality | None = None

    @property
    def encoder_shape(self) -> EncoderShape:
        """Sizes of the encoder; BundleError where there is none."""
        if self.encoder is None:
            raise self._without_encoder()
        return self.encoder

    @property
    def cell_input(self) -> CellInput:
        """What the encoder wants of a cell; BundleError where there is none."""
        if self.cells is None:
            raise self._without_encoder()
        return self.cells

    def _without_encoder(self) -> BundleError:
        return BundleError(f"the bundle {self.name} {self.reading}; its tasks are {', '.join(self.tasks)}.")

    @property
    def reading(self) -> str:
        """What a bundle without LingoCell's encoder does with cells, after its name."""
        if self.instruct is not None:
            return "follows instructions"
        return f"reads {'ranks of genes' if self.ranks else 'cells as sentences'}"

    @property
    def cost_of_bits(self) -> Quality | TextQuality | MatchQuality | InstructQuality | None:
        """What quantising cost; None where nothing was quantised."""
        return self.quality or self.text_quality or self.match_quality or self.instruct_quality

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
        raw["schema_version"] = 1 + (self.is_quantized or self.quality is not None) + 2 * (self.sentences is not None)
        if self.ranks is not None:
            raw["schema_version"] = 5
        if self.instruct is not None:
            raw["schema_version"] = 6
        for name in _LATER:
            if raw[name] is None:
                del raw[name]
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
