"""``cellscribe inspect``: what a bundle holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from cellscribe.cli import options
from cellscribe.cli.guard import guarded

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cellscribe.engine.bundle.figures import Parity, TextParity
    from cellscribe.engine.bundle.manifest import Manifest


@guarded
def inspect(bundle: options.BundleArgument) -> None:
    """Print what a bundle holds: sizes, precision, prompt, parity, files."""
    from cellscribe.cli.console import output_console
    from cellscribe.cli.terminal import facts_table
    from cellscribe.engine.bundle.manifest import read_manifest

    manifest = read_manifest(options.bundle_folder(bundle))
    console = output_console()
    console.print(facts_table(_facts(manifest)))
    console.print()
    console.print(_files(manifest))


def _facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    from cellscribe.engine.verify_instruct import instruct_parity_lines
    from cellscribe.engine.verify_match import parity_lines

    yield "name", manifest.name
    yield "family", manifest.family
    yield "tasks", ", ".join(manifest.tasks)
    yield "precision", manifest.precision
    for name, part in (
        ("cells", manifest.cells),
        ("sentences", manifest.sentences),
        ("ranks", manifest.ranks),
        ("cell encoder", manifest.rank_shape and manifest.rank_shape.cell),
        ("text encoder", manifest.rank_shape and manifest.rank_shape.text),
        ("instructions", manifest.instruct),
        ("cell tower", manifest.tower),
        ("T5", manifest.t5),
        ("profiles", manifest.profile),
        ("encoder", manifest.encoder),
        ("decoder", manifest.decoder),
        ("style", manifest.style),
        ("cross-attention", manifest.cross_attention),
    ):
        if part is not None:
            yield name, _sizes(part)
    if manifest.prompt is not None:
        yield "prompt", f"{len(manifest.prompt.token_ids)} tokens"
        yield "", manifest.prompt.text.strip()
    if manifest.parity is not None:
        yield "parity", _parity(manifest.parity)
    if manifest.text_parity is not None:
        yield "parity", _text_parity(manifest.text_parity)
    if manifest.match_parity is not None:
        yield "parity", "; ".join(parity_lines(manifest.match_parity))
    if manifest.instruct_parity is not None:
        yield "parity", "; ".join(instruct_parity_lines(manifest.instruct_parity))
    quality = manifest.cost_of_bits
    if quality is not None:
        yield "against fp32", quality.words()
    yield "made with", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    if manifest.notes:
        yield "notes", manifest.notes


def _sizes(part: object) -> str:
    values = ((one.name, getattr(part, one.name)) for one in fields(part))  # type: ignore[arg-type]
    return ", ".join(f"{name} {value}" for name, value in values if value is not None)


def _parity(parity: Parity) -> str:
    parts = [f"{parity.cells} cells ({parity.source})", f"memory within {parity.memory_max_error:.1e}"]
    if parity.logits_max_error is not None:
        parts.append(f"logits within {parity.logits_max_error:.1e}")
    if parity.greedy_agreement is not None:
        parts.append(f"{100 * parity.greedy_agreement:.2f} % of {parity.tokens:,} greedy tokens equal")
    return "; ".join(parts)


def _text_parity(parity: TextParity) -> str:
    parts = [f"{parity.prompts} prompts ({parity.source})", f"logits within {parity.logits_max_error:.1e}"]
    parts.append(f"embeddings within {parity.embedding_max_error:.1e}")
    if parity.greedy_agreement is not None:
        parts.append(f"{100 * parity.greedy_agreement:.2f} % of {parity.tokens:,} greedy tokens equal")
    return "; ".join(parts)


def _files(manifest: Manifest) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from cellscribe.engine.output.text import printable

    table = Table(box=SIMPLE_HEAD, header_style="dim", pad_edge=False)
    table.add_column("file")
    table.add_column("size", justify="right")
    table.add_column("sha256, unchecked", style="dim")
    for name, record in sorted(manifest.files.items()):
        table.add_row(Text(printable(name)), size(record.bytes), printable(record.sha256[:16]))
    table.add_row("", size(sum(record.bytes for record in manifest.files.values())), "in all")
    return table


def size(number: int) -> str:
    """Write a size in bytes with a fitting unit: "4.2 MB"."""
    value, units = float(number), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
