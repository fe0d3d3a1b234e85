// Rows of a table by their numbers: one thread moves eight elements.

#include "cellscribe/embeddings.h"

#include "common/vectors.cuh"

namespace {

using namespace cellscribe;

constexpr int kThreads = 256;

template <class Out>
__global__ void __launch_bounds__(kThreads) embed(CellscribeEmbed p) {
    const int chunks = (p.width + kVector - 1) / kVector;
    const int64_t item = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    const int64_t row = item / chunks, first = item % chunks * kVector;
    if (row >= p.num_rows) return;
    const int64_t id = min(max(p.ids[row], int64_t(0)), int64_t(p.table_rows - 1));
    float v[kVector];
    load_8(static_cast<const half*>(p.table) + id * p.table_row + first, p.width - first, v);
    store_8(static_cast<Out*>(p.out) + row * p.out_row + first, p.width - first, v);
}

}  // namespace

CELLSCRIBE_API int cellscribe_embed(const CellscribeEmbed* p, void* stream) {
    if (p->num_rows < 0 || p->width < 1 || p->table_rows < 1) return CELLSCRIBE_BAD_SHAPE;
    const int64_t items = int64_t(p->num_rows) * ((p->width + kVector - 1) / kVector);
    const int64_t blocks = (items + kThreads - 1) / kThreads;
    if (blocks > INT32_MAX) return CELLSCRIBE_BAD_SHAPE;
    if (!blocks) return CELLSCRIBE_OK;
    auto kernel = p->out_fp32 ? embed<float> : embed<half>;
    return int(launch(kernel, dim3(unsigned(blocks)), dim3(kThreads), 0, cudaStream_t(stream), *p));
}
