"""Weight-only quantisation: an fp32 bundle becomes a smaller one that any ONNX Runtime reads.

:mod:`blocks` holds the arithmetic (NumPy alone), :mod:`graph` rewrites one ONNX file, :mod:`bundle` a whole folder, and
:mod:`quality` measures what was lost.
"""

from cellscribe.engine.bundle.onnx_weights import BLOCK, Quantized
from cellscribe.export.quantize.blocks import block_of, dequantize, quantize_weight

__all__ = ["BLOCK", "Quantized", "block_of", "dequantize", "quantize_weight"]
