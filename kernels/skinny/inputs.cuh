// f(x) for a range of k, as halves in shared memory.
#pragma once

#include "cellscribe/skinny_linear.h"

#include "common/vectors.cuh"

namespace cellscribe {

constexpr int kMaxRows = 8;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxRange = 1024;          // k of one block
constexpr int kInputRow = kMaxRange + 16;  // halves; eight rows, read 8 bytes a lane, meet in no bank

struct Inputs {
    half rows[kMaxRows][kInputRow];
};

// What the norm multiplies each row by. All threads read a part of every row, so that one trip to memory serves all.
__device__ __forceinline__ void norm_scales(const CellscribeSkinnyLinear& p, float (&scales)[kMaxRows]) {
    __shared__ float parts[kMaxRows][kWarps];
    float squares[kMaxRows] = {}, v[kVector];
    for (int k = threadIdx.x * kVector; k < p.inner; k += kThreads * kVector) {
#pragma unroll
        for (int row = 0; row < kMaxRows; ++row) {
            if (row >= p.num_rows) break;
            load_8(static_cast<const float*>(p.x) + row * p.x_row + k, p.inner - k, v);
#pragma unroll
            for (int i = 0; i < kVector; ++i) squares[row] += v[i] * v[i];
        }
    }
#pragma unroll
    for (int row = 0; row < kMaxRows; ++row) {
        if (row >= p.num_rows) break;
        squares[row] = warp_sum(squares[row]);
        if (threadIdx.x % 32 == 0) parts[row][threadIdx.x / 32] = squares[row];
    }
    __syncthreads();
    if (int(threadIdx.x) >= p.num_rows) return;
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sum += parts[threadIdx.x][warp];
    scales[threadIdx.x] = rsqrtf(sum / float(p.inner) + p.eps);
}

// Eight elements of f(x).
template <int kInput>
__device__ __forceinline__ void load_input(const CellscribeSkinnyLinear& p, int row, int k, float scale,
                                           float (&v)[kVector]) {
    float other[kVector];
    if constexpr (kInput == CELLSCRIBE_INPUT_RMS_NORM) {
        load_8(static_cast<const float*>(p.x) + row * p.x_row + k, p.inner - k, v);
        load_8(p.norm_weight + k, p.inner - k, other);
#pragma unroll
        for (int i = 0; i < kVector; ++i) v[i] = v[i] * scale * other[i];
    } else {
        const half* x = static_cast<const half*>(p.x) + row * p.x_row + k;
        load_8(x, p.inner - k, v);
        if constexpr (kInput == CELLSCRIBE_INPUT_GATED_SILU) {
            load_8(x + p.inner, p.inner - k, other);
#pragma unroll
            for (int i = 0; i < kVector; ++i) v[i] = other[i] * (v[i] / (1.0f + __expf(-v[i])));
        }
    }
}

// Put f(x)[:, begin .. begin + range - 1] into shared memory, zeros where x ends. Ends with a barrier.
template <int kInput>
__device__ __forceinline__ void stage_inputs(const CellscribeSkinnyLinear& p, int begin, int range, Inputs& inputs,
                                             float (&scales)[kMaxRows]) {
    if constexpr (kInput == CELLSCRIBE_INPUT_RMS_NORM) {
        norm_scales(p, scales);
        __syncthreads();
    }
    const int vectors = range / kVector;
    for (int item = threadIdx.x; item < p.num_rows * vectors; item += kThreads) {
        const int row = item / vectors, at = item % vectors * kVector;
        float v[kVector] = {};
        if (begin + at < p.inner)
            load_input<kInput>(p, row, begin + at, kInput == CELLSCRIBE_INPUT_RMS_NORM ? scales[row] : 1.0f, v);
        store_8(&inputs.rows[row][at], kVector, v);
    }
    __syncthreads();
}

}  // namespace cellscribe
