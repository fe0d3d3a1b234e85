// Element by element: one thread computes eight neighbours of a row.

#include "cellscribe/activations.h"

#include "common/vectors.cuh"

namespace {

using namespace cellscribe;

constexpr int kThreads = 256;

struct Place {
    int64_t row, first, count;  // eight elements from `first` on, of which `count` are in the row; 0: nothing to do
};

__device__ __forceinline__ Place my_place(int num_rows, int width) {
    const int chunks = (width + kVector - 1) / kVector;
    const int64_t item = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    const int64_t row = item / chunks, first = item % chunks * kVector;
    return {row, first, row < num_rows ? width - first : 0};
}

// Comparisons, not fmaxf and fminf: what is not a number stays so, and is found where tokens are chosen.
__device__ __forceinline__ float positive_part(float x) { return x < 0.0f ? 0.0f : x; }
__device__ __forceinline__ float at_most(float x, float limit) { return x > limit ? limit : x; }

__global__ void __launch_bounds__(kThreads) gated_silu(CellscribeGatedSilu p) {
    const Place my = my_place(p.num_rows, p.width);
    if (my.count <= 0) return;
    const half* x = static_cast<const half*>(p.x) + my.row * p.x_row + my.first;
    float gate[kVector], up[kVector];
    load_8(x, my.count, gate);
    load_8(x + p.width, my.count, up);
#pragma unroll
    for (int i = 0; i < kVector; ++i) up[i] *= gate[i] / (1.0f + __expf(-gate[i]));
    store_8(static_cast<half*>(p.out) + my.row * p.out_row + my.first, my.count, up);
}

__global__ void __launch_bounds__(kThreads) bias_relu(CellscribeBiasRelu p) {
    const Place my = my_place(p.num_rows, p.width);
    if (my.count <= 0) return;
    float v[kVector], bias[kVector] = {};
    load_8(static_cast<const half*>(p.x) + my.row * p.x_row + my.first, my.count, v);
    if (p.bias) load_8(p.bias + my.first, my.count, bias);
#pragma unroll
    for (int i = 0; i < kVector; ++i) v[i] = p.relu ? positive_part(v[i] + bias[i]) : v[i] + bias[i];
    store_8(static_cast<half*>(p.out) + my.row * p.out_row + my.first, my.count, v);
}

__global__ void __launch_bounds__(kThreads) value_expand(CellscribeValueExpand p) {
    const Place my = my_place(p.num_rows, p.width);
    if (my.count <= 0) return;
    const float value = at_most(p.values[my.row], p.max_value);
    float v[kVector], bias[kVector];
    load_8(p.weight + my.first, my.count, v);
    load_8(p.bias + my.first, my.count, bias);
#pragma unroll
    for (int i = 0; i < kVector; ++i) v[i] = positive_part(value * v[i] + bias[i]);
    store_8(static_cast<half*>(p.out) + my.row * p.out_row + my.first, my.count, v);
}

template <class Parameters>
int launch_elements(void (*kernel)(Parameters), const Parameters* p, void* stream) {
    if (p->num_rows < 0 || p->width < 1) return CELLSCRIBE_BAD_SHAPE;
    const int64_t items = int64_t(p->num_rows) * ((p->width + kVector - 1) / kVector);
    const int64_t blocks = (items + kThreads - 1) / kThreads;
    if (blocks > INT32_MAX) return CELLSCRIBE_BAD_SHAPE;
    if (!blocks) return CELLSCRIBE_OK;
    return int(launch(kernel, dim3(unsigned(blocks)), dim3(kThreads), 0, cudaStream_t(stream), *p));
}

}  // namespace

CELLSCRIBE_API int cellscribe_gated_silu(const CellscribeGatedSilu* p, void* stream) {
    return launch_elements(gated_silu, p, stream);
}

CELLSCRIBE_API int cellscribe_bias_relu(const CellscribeBiasRelu* p, void* stream) {
    return launch_elements(bias_relu, p, stream);
}

CELLSCRIBE_API int cellscribe_value_expand(const CellscribeValueExpand* p, void* stream) {
    return launch_elements(value_expand, p, stream);
}
