// Weights as they lie in memory become operands of the tensor cores.
//
// The product is computed as out^T = weight^T f(x)^T with mma m16n8k16, where eight rows of x are the n of the
// instruction. Which column of the weights is called which row of the instruction, and which k, is free as long as both
// operands agree: so lane 4 g + t takes 16 bytes (neighbouring columns, number g of eight) of the weight rows
// 4 t .. 4 t + 3, and nothing has to pass between lanes: only bytes within the lane's registers change places.
#pragma once

#include "common/ptx.cuh"

namespace cellscribe {

constexpr int kStep = 16;  // weight rows of one instruction
constexpr int kQuad = 4;   // of which a lane has four

// acc[j] is d of the columns 2 j and 2 j + 1 of this lane: (2 j, row 2 t), (2 j, 2 t + 1), (2 j + 1, 2 t), ...
template <class Weight>
struct Fragments;

__device__ __forceinline__ uint32_t word_of(const uint4& v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

template <>
struct Fragments<half> {
    static constexpr int kColumns = 8;  // of a lane

    static __device__ __forceinline__ void multiply(const uint4 (&w)[kQuad], uint32_t b0, uint32_t b1,
                                                    float (&acc)[kColumns / 2][4]) {
#pragma unroll
        for (int j = 0; j < kColumns / 2; ++j) {
            const uint32_t k0 = word_of(w[0], j), k1 = word_of(w[1], j), k2 = word_of(w[2], j), k3 = word_of(w[3], j);
            const uint32_t a[4] = {__byte_perm(k0, k1, 0x5410), __byte_perm(k0, k1, 0x7632),
                                   __byte_perm(k2, k3, 0x5410), __byte_perm(k2, k3, 0x7632)};
            mma_16x8x16(acc[j], a, b0, b1);
        }
    }
};

// Two bytes, each a number plus 128, become two halves: 0x6400 + byte is the half 1024 + byte.
template <int kSelector>
__device__ __forceinline__ uint32_t halves_of_bytes(uint32_t bytes) {
    const uint32_t raised = __byte_perm(bytes, 0x64646464u, kSelector), offset = 0x64806480u;  // 1152, 1152
    half2 value, much;
    memcpy(&value, &raised, 4);
    memcpy(&much, &offset, 4);
    value = __hsub2(value, much);
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

template <>
struct Fragments<int8_t> {
    static constexpr int kColumns = 16;

    static __device__ __forceinline__ void multiply(const uint4 (&w)[kQuad], uint32_t b0, uint32_t b1,
                                                    float (&acc)[kColumns / 2][4]) {
        constexpr uint32_t kSigns = 0x80808080u;
#pragma unroll
        for (int j = 0; j < kColumns / 2; ++j) {
            uint32_t k[kQuad];
#pragma unroll
            for (int i = 0; i < kQuad; ++i) k[i] = word_of(w[i], j / 2) ^ kSigns;
            // columns 2 j and 2 j + 1 of two rows: (k0 c, k1 c, k0 c', k1 c')
            const uint32_t selector = j % 2 ? 0x7362u : 0x5140u;
            const uint32_t low = __byte_perm(k[0], k[1], selector), high = __byte_perm(k[2], k[3], selector);
            const uint32_t a[4] = {halves_of_bytes<0x4140>(low), halves_of_bytes<0x4342>(low),
                                   halves_of_bytes<0x4140>(high), halves_of_bytes<0x4342>(high)};
            mma_16x8x16(acc[j], a, b0, b1);
        }
    }
};

}  // namespace cellscribe
