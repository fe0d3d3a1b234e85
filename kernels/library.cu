// What a caller asks of the library itself.

#include "cellscribe/activations.h"
#include "cellscribe/embeddings.h"
#include "cellscribe/grouped_attention.h"
#include "cellscribe/latent_cross.h"
#include "cellscribe/norms.h"
#include "cellscribe/rotary_cache.h"
#include "cellscribe/sampling.h"
#include "cellscribe/skinny_linear.h"
#include "common/platform.cuh"

namespace {

template <class... Structs>
constexpr int64_t fingerprint() {
    uint64_t value = 0;
    for (const size_t size : {sizeof(Structs)...}) value = value * 1009 + size;
    return int64_t(value);
}

}  // namespace

// A number made of the sizes of all parameter structs, by name: a caller with other ones must not call.
CELLSCRIBE_API int64_t cellscribe_fingerprint() {
    return fingerprint<CellscribeAddLayerNorm, CellscribeAddRmsNorm, CellscribeBiasRelu, CellscribeEmbed,
                       CellscribeGatedSilu, CellscribeGroupedAttention, CellscribeLatentCross, CellscribeRotaryCache,
                       CellscribeSample, CellscribeSkinnyLinear, CellscribeValueExpand>();
}

// What a cudaError_t means.
CELLSCRIBE_API const char* cellscribe_error_text(int code) { return cudaGetErrorString(cudaError_t(code)); }
