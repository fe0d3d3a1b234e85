"""The parameter structs of the kernels as ctypes: same names, same order as in include/cellscribe/*.h."""

from cellscribe.kernels.parameters.activations import BiasRelu, GatedSilu, ValueExpand
from cellscribe.kernels.parameters.embeddings import Embed
from cellscribe.kernels.parameters.grouped_attention import GroupedAttention
from cellscribe.kernels.parameters.latent_cross import LatentCross
from cellscribe.kernels.parameters.norms import AddLayerNorm, AddRmsNorm
from cellscribe.kernels.parameters.rotary_cache import RotaryCache
from cellscribe.kernels.parameters.sampling import Sample
from cellscribe.kernels.parameters.skinny_linear import SkinnyLinear

# By name, as library.cu has them.
PARAMETERS = (
    AddLayerNorm,
    AddRmsNorm,
    BiasRelu,
    Embed,
    GatedSilu,
    GroupedAttention,
    LatentCross,
    RotaryCache,
    Sample,
    SkinnyLinear,
    ValueExpand,
)
