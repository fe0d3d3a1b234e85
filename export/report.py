"""What an export says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cellscribe.engine.bundle.manifest import Manifest
from cellscribe.engine.verify_instruct import instruct_parity_lines
from cellscribe.engine.verify_match import parity_lines


@dataclass(frozen=True)
class ExportReport:
    """What an export made: the bundle folder and its manifest, parity included."""

    folder: Path
    manifest: Manifest

    def lines(self) -> list[str]:
        """Say it in lines for a terminal."""
        size = sum(f.bytes for f in self.manifest.files.values())
        parity = self.manifest.parity
        lines = [f"{self.folder}: {self.manifest.family}, {self.manifest.precision}, {size / 1e6:,.1f} MB"]
        if parity:
            lines.append(
                f"parity on {parity.cells} cells ({parity.source}): memory within {parity.memory_max_error:.2g}"
            )
            if parity.logits_max_error is not None:
                lines[-1] += f", logits within {parity.logits_max_error:.2g}"
            if parity.greedy_agreement is not None:
                lines[-1] += f", {parity.greedy_agreement:.1%} of {parity.tokens} greedy tokens equal"
        text = self.manifest.text_parity
        if text:
            lines.append(f"parity on {text.prompts} prompts ({text.source}): logits within {text.logits_max_error:.2g}")
            lines[-1] += f", embeddings within {text.embedding_max_error:.2g}"
            if text.greedy_agreement is not None:
                lines[-1] += f", {text.greedy_agreement:.1%} of {text.tokens} greedy tokens equal"
        match = self.manifest.match_parity
        if match:
            lines += [f"parity on {line}" for line in parity_lines(match)]
        instruct = self.manifest.instruct_parity
        if instruct:
            lines += [f"parity on {line}" for line in instruct_parity_lines(instruct)]
        quality = self.manifest.cost_of_bits
        if quality:
            lines.append(f"against fp32 on {quality.words()}")
        return lines
