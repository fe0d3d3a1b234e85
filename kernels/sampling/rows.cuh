// A block reads a row of logits, and puts together what its threads found.
#pragma once

#include "common/vectors.cuh"

namespace cellscribe {

__device__ __forceinline__ float as_float(half x) { return __half2float(x); }
__device__ __forceinline__ float as_float(float x) { return x; }

// Eight logits as they lie in memory.
template <class T>
struct Raw {
    uint4 words[kVector * sizeof(T) / 16];

    __device__ __forceinline__ void load(const T* p) {
#pragma unroll
        for (int i = 0; i < int(sizeof(*this) / 16); ++i) words[i] = __ldg(reinterpret_cast<const uint4*>(p) + i);
    }
    __device__ __forceinline__ float at(int i) const {
        T all[kVector];
        memcpy(all, words, sizeof(all));
        return as_float(all[i]);
    }
};

// Call visit(id, logit) for every token of the row; two vectors are on their way before the first is used.
template <class T, class Visit>
__device__ __forceinline__ void for_each(const T* row, int count, const Visit& visit) {
    constexpr int kAhead = 2;
    const int vectors = is_aligned(row) ? count / kVector : 0, threads = blockDim.x;
    for (int at = threadIdx.x; at < vectors; at += kAhead * threads) {
        Raw<T> raw[kAhead];
#pragma unroll
        for (int i = 0; i < kAhead; ++i)
            if (at + i * threads < vectors) raw[i].load(row + int64_t(at + i * threads) * kVector);
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
            if (at + i * threads >= vectors) break;
#pragma unroll
            for (int j = 0; j < kVector; ++j) visit((at + i * threads) * kVector + j, raw[i].at(j));
        }
    }
    for (int at = vectors * kVector + threadIdx.x; at < count; at += threads) visit(at, as_float(row[at]));
}

struct Add {
    __device__ __forceinline__ uint64_t operator()(uint64_t a, uint64_t b) const { return a + b; }
};
struct Or {
    __device__ __forceinline__ uint64_t operator()(uint64_t a, uint64_t b) const { return a | b; }
};
struct Min {
    __device__ __forceinline__ uint64_t operator()(uint64_t a, uint64_t b) const { return a < b ? a : b; }
};

template <class Combine>
__device__ __forceinline__ uint64_t warp_combine(uint64_t x, const Combine& combine) {
    for (int offset = 16; offset > 0; offset /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

template <class Combine>
__device__ __forceinline__ uint64_t block_combine(uint64_t x, uint64_t none, uint64_t* parts, const Combine& combine) {
    const unsigned lane = threadIdx.x % 32;
    x = warp_combine(x, combine);
    __syncthreads();
    if (lane == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_combine(lane < blockDim.x / 32 ? parts[lane] : none, combine);
}

// The sum of x over the threads before this one.
__device__ __forceinline__ uint64_t sum_before(uint64_t x, uint64_t* parts) {
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint64_t up_to = x;
    for (int offset = 1; offset < 32; offset *= 2) {
        const uint64_t below = __shfl_up_sync(0xffffffffu, up_to, offset);
        if (lane >= unsigned(offset)) up_to += below;
    }
    __syncthreads();
    if (lane == 31) parts[warp] = up_to;
    __syncthreads();
    return warp_combine(lane < warp ? parts[lane] : 0, Add()) + up_to - x;
}

// Smaller is more probable; of equal logits the lower id; what is not a number comes first of all.
__device__ __forceinline__ uint64_t order_of(float logit, int id) {
    if (logit != logit) return 0;
    const uint32_t bits = __float_as_uint(logit + 0.0f);  // -0 is 0
    const uint32_t rising = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return uint64_t(~rising) << 32 | uint32_t(id);
}
__device__ __forceinline__ float logit_of(uint64_t order) {
    const auto rising = ~uint32_t(order >> 32);
    return __uint_as_float(rising & 0x80000000u ? rising & 0x7fffffffu : ~rising);
}

}  // namespace cellscribe
