// Eight neighbouring elements at a time: 16-byte accesses where the address allows, one by one where it does not.
#pragma once

#include "common/ptx.cuh"

namespace cellscribe {

constexpr int kVector = 8;

__device__ __forceinline__ bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

__device__ __forceinline__ void unpack_halves(uint4 raw, float (&v)[kVector]) {
    half2 pairs[kVector / 2];
    memcpy(pairs, &raw, sizeof(raw));
#pragma unroll
    for (int i = 0; i < kVector / 2; ++i) {
        const float2 two = __half22float2(pairs[i]);
        v[2 * i] = two.x;
        v[2 * i + 1] = two.y;
    }
}

// The first `count` elements (eight, if there are more); zeros in place of the others.
__device__ __forceinline__ void load_8(const half* p, int64_t count, float (&v)[kVector]) {
    if (count >= kVector && is_aligned(p)) {
        unpack_halves(*reinterpret_cast<const uint4*>(p), v);
    } else {
#pragma unroll
        for (int i = 0; i < kVector; ++i) v[i] = i < count ? __half2float(p[i]) : 0.0f;
    }
}

__device__ __forceinline__ void load_8(const float* p, int64_t count, float (&v)[kVector]) {
    if (count >= kVector && is_aligned(p)) {
        const float4 low = reinterpret_cast<const float4*>(p)[0], high = reinterpret_cast<const float4*>(p)[1];
        v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
        v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
    } else {
#pragma unroll
        for (int i = 0; i < kVector; ++i) v[i] = i < count ? p[i] : 0.0f;
    }
}

__device__ __forceinline__ void store_8(half* p, int64_t count, const float (&v)[kVector]) {
    if (count >= kVector && is_aligned(p)) {
        *reinterpret_cast<uint4*>(p) = make_uint4(pack_halves(v[0], v[1]), pack_halves(v[2], v[3]),
                                                  pack_halves(v[4], v[5]), pack_halves(v[6], v[7]));
    } else {
#pragma unroll
        for (int i = 0; i < kVector; ++i)
            if (i < count) p[i] = __float2half_rn(v[i]);
    }
}

__device__ __forceinline__ void store_8(float* p, int64_t count, const float (&v)[kVector]) {
    if (count >= kVector && is_aligned(p)) {
        reinterpret_cast<float4*>(p)[0] = make_float4(v[0], v[1], v[2], v[3]);
        reinterpret_cast<float4*>(p)[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else {
#pragma unroll
        for (int i = 0; i < kVector; ++i)
            if (i < count) p[i] = v[i];
    }
}

// The sum over a block of whole warps, the same bits in every thread. `parts` is [32] in shared memory.
__device__ __forceinline__ float block_sum(float x, float* parts) {
    x = warp_sum(x);
    __syncthreads();  // whoever used `parts` before is done
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0.0f);
}

}  // namespace cellscribe
