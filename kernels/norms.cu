// RMS norm and LayerNorm, each with the residual sum before it. One block per row, eight elements per thread: the row
// is read once, kept in registers, and written once.

#include "cellscribe/norms.h"

#include "common/vectors.cuh"

namespace {

using namespace cellscribe;

constexpr int kMaxWidth = 1024 * kVector;

struct Share {
    int64_t first;  // of the row's elements, this thread's first
    int64_t count;  // elements from there to the end of the row; 0 or less: none
};

__device__ __forceinline__ Share my_share(int width) {
    const int64_t first = int64_t(threadIdx.x) * kVector;
    return {first, width - first};
}

// v += update[row] + bias
__device__ __forceinline__ void add_update(const half* update, const float* bias, Share my, float (&v)[kVector]) {
    float more[kVector];
    load_8(update + my.first, my.count, more);
#pragma unroll
    for (int i = 0; i < kVector; ++i) v[i] += more[i];
    if (!bias) return;
    load_8(bias + my.first, my.count, more);
#pragma unroll
    for (int i = 0; i < kVector; ++i) v[i] += more[i];
}

__global__ void __launch_bounds__(1024) add_rms_norm(CellscribeAddRmsNorm p) {
    __shared__ float parts[32];
    const int64_t row = blockIdx.x;
    const Share my = my_share(p.width);
    float v[kVector], weight[kVector];
    float* x = p.x + row * p.x_row + my.first;
    load_8(x, my.count, v);
    if (p.update) {
        add_update(static_cast<const half*>(p.update) + row * p.update_row, p.update_bias, my, v);
        store_8(x, my.count, v);
    }
    if (!p.out) return;
    load_8(p.weight + my.first, my.count, weight);
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kVector; ++i) squares += v[i] * v[i];
    const float scale = rsqrtf(block_sum(squares, parts) / float(p.width) + p.eps);
#pragma unroll
    for (int i = 0; i < kVector; ++i) v[i] = v[i] * scale * weight[i];
    store_8(static_cast<half*>(p.out) + row * p.out_row + my.first, my.count, v);
}

// v += table[id], id clamped to the table
__device__ __forceinline__ void add_table_row(const CellscribeAddLayerNorm& p, int64_t id, Share my,
                                              float (&v)[kVector]) {
    id = min(max(id, int64_t(0)), int64_t(p.table_rows - 1));
    add_update(static_cast<const half*>(p.table) + id * p.table_row, nullptr, my, v);
}

__global__ void __launch_bounds__(1024) add_layer_norm(CellscribeAddLayerNorm p) {
    __shared__ float parts[32];
    const int64_t row = blockIdx.x;
    const Share my = my_share(p.width);
    float v[kVector], weight[kVector], bias[kVector];
    load_8(static_cast<const half*>(p.x) + row * p.x_row + my.first, my.count, v);
    if (p.update) add_update(static_cast<const half*>(p.update) + row * p.update_row, p.update_bias, my, v);
    load_8(p.weight + my.first, my.count, weight);
    load_8(p.bias + my.first, my.count, bias);
    float sum = 0, squares = 0;
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum += v[i];
    const float mean = block_sum(sum, parts) / float(p.width);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
        v[i] = i < my.count ? v[i] - mean : 0.0f;
        squares += v[i] * v[i];
    }
    const float scale = rsqrtf(block_sum(squares, parts) / float(p.width) + p.eps);
#pragma unroll
    for (int i = 0; i < kVector; ++i) v[i] = v[i] * scale * weight[i] + bias[i];
    if (p.table) add_table_row(p, p.ids[row], my, v);
    store_8(static_cast<half*>(p.out) + row * p.out_row + my.first, my.count, v);
}

template <class Parameters>
int launch_rows(void (*kernel)(Parameters), const Parameters* p, void* stream) {
    if (p->num_rows < 0 || p->width < 1 || p->width > kMaxWidth) return CELLSCRIBE_BAD_SHAPE;
    if (!p->num_rows) return CELLSCRIBE_OK;
    const int threads = (p->width + 32 * kVector - 1) / (32 * kVector) * 32;
    return int(launch(kernel, dim3(unsigned(p->num_rows)), dim3(unsigned(threads)), 0, cudaStream_t(stream), *p));
}

}  // namespace

CELLSCRIBE_API int cellscribe_add_rms_norm(const CellscribeAddRmsNorm* p, void* stream) {
    if (p->out && !p->weight) return CELLSCRIBE_BAD_SHAPE;
    return launch_rows(add_rms_norm, p, stream);
}

CELLSCRIBE_API int cellscribe_add_layer_norm(const CellscribeAddLayerNorm* p, void* stream) {
    if (p->table && p->table_rows < 1) return CELLSCRIBE_BAD_SHAPE;
    return launch_rows(add_layer_norm, p, stream);
}
