"""fp32 bundle -> quantised bundle: every graph rewritten, the rest copied, the loss measured, then moved into place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import cast

from cellscribe.engine.backends.onnxruntime_cpu import OnnxRuntimeCpu
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.bundle.load import DECODER, ENCODER, MATCH, TEXT, TOWER
from cellscribe.engine.bundle.manifest import WEIGHT_ONLY, Manifest, Precision
from cellscribe.engine.bundle.onnx_weights import onnx_weights
from cellscribe.engine.errors import BundleError, OutputError, UsageError
from cellscribe.engine.output.folder import check_target, staging
from cellscribe.engine.versions import versions
from cellscribe.export.quantize.graph import BitsOf, rewrite
from cellscribe.export.quantize.instruct_quality import measured_instructions, with_instruct_quality
from cellscribe.export.quantize.match_quality import measured_ranks, with_match_quality
from cellscribe.export.quantize.quality import MeasuredCells, measure_quality, measured_cells, measured_parity
from cellscribe.export.quantize.text_quality import measured_prompts, with_text_quality
from cellscribe.export.sealing import seal
from cellscribe.export.sharing import share_weights

Progress = Callable[[str, float], None]

# The second ones where head and embedding are tied.
_HEADS = ("decoder.head.weight", "decoder.embedding.weight", "t5.head.weight", "t5.embedding.weight")
_FINER = {4: 8, 8: None}


@dataclass(frozen=True)
class QuantizeReport:
    """What quantising made: the folder, its manifest, and the bytes before and after."""

    folder: Path
    manifest: Manifest
    bytes_before: int

    @property
    def bytes_after(self) -> int:
        """Bytes of all files."""
        return _size(self.manifest)

    def lines(self) -> list[str]:
        """Say it in lines for a terminal."""
        share = self.bytes_after / self.bytes_before
        sizes = f"{self.bytes_after / 1e6:,.1f} MB, {share:.0%} of fp32"
        lines = [f"{self.folder}: {self.manifest.family}, {self.manifest.precision}, {sizes}"]
        quality = self.manifest.cost_of_bits
        return lines if quality is None else [*lines, f"against fp32 on {quality.words()}"]


def quantize_bundle(
    source: Path,
    target: Path,
    precision: str,
    *,
    keep: Sequence[str] = (),
    cells: Path | None = None,
    progress: Progress | None = None,
) -> QuantizeReport:
    """Make a quantised bundle of an fp32 one.

    int4 has the decoder's layers in 4 bits and its head and the other graphs in 8; int8 all products in 8;
    fp16-stored all of them, and every precision the tables, in half, computed in float32. The encoder stays in 8 bits
    because it is a fiftieth of the bytes and all texts rest on it. Biases, norms and rotary tables stay as they are.

    Parameters
    ----------
    source, target
        The bundle, and the folder to make; it must not exist yet.
    precision
        ``int4``, ``int8`` or ``fp16-stored``.
    keep
        Patterns (``*`` as in file names) of weights to store one step finer: 8 bits instead of 4, half instead of 8.
    cells
        Cells to measure on; None takes the packaged ones.
    progress
        Called with what is worked on and the share done.

    Raises
    ------
    UsageError
        For an unknown precision, or a pattern that fits no weight.
    BundleError
        When the source is damaged or not in fp32, or the result does not do what it did.
    OutputError
        When the bundle cannot be written.
    """
    check_precision(precision)
    check_target(target)
    report = progress or (lambda _what, _share: None)
    original = open_bundle(source)
    if original.manifest.precision != "fp32":
        raise BundleError(
            f"the bundle {source} is {original.manifest.precision}; quantise the fp32 bundle of the same model "
            "(`cellscribe export` without --precision makes it)."
        )
    if original.manifest.ranks is not None and precision == "int4":
        raise UsageError(f"the bundle {source} reads ranks of genes, which int8 and fp16-stored serve; choose one.")
    measured = _measuring(original, cells)
    with staging(target) as folder:
        try:
            _write(original, folder, precision, keep, report)
            if MATCH in original.manifest.files:
                share_weights(folder, TEXT, MATCH)
            if TOWER in original.manifest.files:
                share_weights(folder, ENCODER, DECODER)
        except OSError as error:
            raise OutputError(
                f"{target} could not be written ({error}); free some room, or choose another place."
            ) from error
        manifest = replace(
            original.manifest,
            precision=cast("Precision", precision),
            files={},
            parity=None,
            text_parity=None,
            match_parity=None,
            instruct_parity=None,
        )
        manifest = replace(manifest, notes=_notes(manifest, keep))
        tools = {**original.manifest.versions, **versions(), "onnx": version("onnx")}
        manifest = seal(manifest, folder, tools)
        manifest = seal(measured(open_bundle(folder), report), folder, tools)
    return QuantizeReport(target, manifest, _size(original.manifest))


def check_precision(precision: str) -> None:
    """Raise UsageError unless a precision is one that bundles are quantised to."""
    if precision not in WEIGHT_ONLY:
        raise UsageError(f"precision is {precision!r}; choose {', '.join(WEIGHT_ONLY)}.")


def _write(original: Bundle, folder: Path, precision: str, keep: Sequence[str], report: Progress) -> None:
    unused = set(keep)
    for name in original.manifest.files:
        if name.endswith(".onnx"):
            bits_of = _bits(original.path(name), precision, keep, unused)
            rewrite(original.path(name), folder / name, bits_of, partial(report, name))
        elif not name.endswith(".onnx.data"):
            shutil.copyfile(original.path(name), folder / name)
    if unused:
        raise UsageError(
            f"--keep (keep) {sorted(unused)[0]!r} fits no quantised weight; look at the names of the graphs."
        )


def _bits(path: Path, precision: str, keep: Sequence[str], unused: set[str]) -> BitsOf:
    """Return how many bits each weight of a graph gets; patterns that fit leave `unused`."""
    aliases = onnx_weights(path).aliases
    heads = {aliases.get(name, name) for name in _HEADS}

    def bits_of(name: str) -> int | None:
        if precision == "fp16-stored":
            return None
        bits = 4 if precision == "int4" and path.name == DECODER and name not in heads else 8
        called = (name, *(other for other, kept in aliases.items() if kept == name))
        fitting = {pattern for pattern in keep if any(fnmatchcase(one, pattern) for one in called)}
        unused.difference_update(fitting)
        return _FINER[bits] if fitting else bits

    return bits_of


def _measuring(original: Bundle, cells: Path | None) -> Callable[[Bundle, Progress], Manifest]:
    """Read what to measure on; return what measures a quantised bundle on it and fills in its manifest."""
    if original.manifest.sentences is not None:
        prompts = measured_prompts(original, cells)
        return lambda quantized, report: with_text_quality(original, quantized, prompts, report)
    if original.manifest.instruct is not None:
        asked = measured_instructions(original, cells)
        return lambda quantized, report: with_instruct_quality(original, quantized, asked, report)
    if original.manifest.ranks is not None:
        ranks = measured_ranks(original, cells)
        return lambda quantized, report: with_match_quality(original, quantized, ranks, report)
    chosen = measured_cells(original, cells)
    return lambda quantized, report: _measured(original, quantized, chosen, report)


def _measured(original: Bundle, quantized: Bundle, cells: MeasuredCells, report: Progress) -> Manifest:
    """Return the manifest with what quantising cost, and with what a check may find."""
    quality = measure_quality(original, quantized, cells, report)
    said = original.manifest.parity.source if original.manifest.parity else "reference cells"
    parity = measured_parity(quantized, OnnxRuntimeCpu(quantized), said, quality)
    return replace(quantized.manifest, quality=quality, parity=parity)


def _notes(manifest: Manifest, keep: Sequence[str]) -> str:
    kept = f"stored one step finer: {', '.join(keep)}" if keep else ""
    return "; ".join(part for part in (manifest.notes, kept) if part)


def _size(manifest: Manifest) -> int:
    return sum(file.bytes for file in manifest.files.values())
