"""A bundle folder, checked and opened."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from cellscribe.engine.bundle.integrity import bundle_hash, check_files
from cellscribe.engine.bundle.manifest import Manifest, read_manifest
from cellscribe.engine.cells import GeneVocabulary
from cellscribe.engine.errors import BundleError

ENCODER, DECODER, CROSS = "encoder.onnx", "decoder.onnx", "cross.onnx"
TEXT, KEYS, MATCH = "text.onnx", "keys.onnx", "match.onnx"  # of bundles that match texts with cells
TOWER, PROFILE = "tower.onnx", "profile.onnx"  # of bundles that follow instructions
DISPERSION = "dispersion.safetensors"
GENES, TOKENIZER, PREFIX, REFERENCE = "genes.json", "tokenizer.json", "prefix.safetensors", "reference.safetensors"


@dataclass(frozen=True)
class Bundle:
    """The deployable artefact: a folder whose files were checked against its manifest."""

    folder: Path
    manifest: Manifest
    hash: str

    @property
    def name(self) -> str:
        """Name that the exporter gave it."""
        return self.manifest.name

    @property
    def describes(self) -> bool:
        """Whether it writes text (an encoder alone only embeds)."""
        return self.manifest.decoder is not None

    def path(self, name: str) -> Path:
        """Return the path of a file that the manifest lists.

        Raises
        ------
        BundleError
            When the bundle has no such file.
        """
        if name not in self.manifest.files:
            raise BundleError(f"the bundle {self.folder} has no {name}; export it anew with this release.")
        return self.folder / name

    @cached_property
    def vocabulary(self) -> GeneVocabulary:
        """The gene vocabulary."""
        return GeneVocabulary.load(self.path(GENES))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The text tokenizer."""
        try:
            return Tokenizer.from_file(str(self.path(TOKENIZER)))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(f"{self.path(TOKENIZER)} cannot be read ({error}); export the bundle anew.") from error

    def tensors(self, name: str) -> dict[str, npt.NDArray[np.generic]]:
        """Return the arrays of a safetensors file of the bundle."""
        try:
            return dict(load_file(self.path(name)))
        except SafetensorError as error:
            raise BundleError(f"{self.path(name)} cannot be read ({error}); export the bundle anew.") from error


def open_bundle(folder: str | Path) -> Bundle:
    """Check a bundle folder and open it.

    Raises
    ------
    BundleError
        When it is missing, damaged, unsafe or too new.
    """
    path = Path(folder).expanduser()
    manifest = read_manifest(path)
    check_files(path, manifest)
    return Bundle(path, manifest, bundle_hash(path))
