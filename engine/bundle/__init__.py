"""The bundle: the only thing that passes from export to engine."""

from cellscribe.engine.bundle.load import Bundle, open_bundle
from cellscribe.engine.bundle.manifest import Manifest, read_manifest

__all__ = ["Bundle", "Manifest", "open_bundle", "read_manifest"]
