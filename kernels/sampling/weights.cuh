// Keys and weights of tokens, as integers.
#pragma once

#include "sampling/rows.cuh"

namespace cellscribe {

constexpr int kFractionBits = 53;  // of a key: near 1, double precision knows no finer exp(-key)
constexpr int kDigitBits = 11;
constexpr int kFirstShift = 6 + kFractionBits - kDigitBits;  // keys end at 64, where weights have long been 0
constexpr int kBins = 1 << kDigitBits;
constexpr int kTableBits = 10;
constexpr int kTable = 1 << kTableBits;
constexpr uint64_t kFarKey = ~uint64_t(0);  // of tokens whose weight is 0

// 64-bit sums in shared memory from 32-bit atomics, the ones that the hardware has.
struct Sums {
    uint32_t low[kBins], high[kBins];

    __device__ __forceinline__ void clear() {
        for (int i = threadIdx.x; i < kBins; i += blockDim.x) low[i] = high[i] = 0;
    }
    __device__ __forceinline__ void add(int bin, uint64_t weight) {
        const auto part = uint32_t(weight);
        const uint32_t carry = atomicAdd(&low[bin], part) > ~part;
        const uint32_t rest = uint32_t(weight >> 32) + carry;
        if (rest) atomicAdd(&high[bin], rest);
    }
    __device__ __forceinline__ uint64_t of(int bin) const { return low[bin] | uint64_t(high[bin]) << 32; }
};

struct Shared {
    uint64_t powers[kTable];  // 2^(63 - i / kTable)
    Sums first, next;         // by the first digit of the keys, and by a later one
    float floats[32];
    uint64_t words[3][32];
    uint64_t before;  // the sum of weights before
    int bin;          // the one where a target is reached
};

// The tokens of interest share the digits of their keys above `shift`.
struct Prefix {
    uint64_t digits;
    int shift;

    __device__ __forceinline__ bool matches(uint64_t key) const { return key >> shift == digits; }
};

// How the tokens of one slot are weighed.
struct Scale {
    float largest, temperature;
    int weight_shift;  // the largest weight is 2^(63 - weight_shift): V of them fit into 64 bits

    __device__ __forceinline__ uint64_t key(float logit) const {
        const float distance = (largest - logit) / temperature;
        return distance < 64.0f ? uint64_t(rintf(distance * 0x1p53f)) : kFarKey;
    }

    // exp(-key) with a relative error below 2^-40, by integers alone.
    __device__ __forceinline__ uint64_t weight(uint64_t key, const uint64_t* powers) const {
        constexpr uint64_t kLog2E = 0xB8AA3B295C17F0BCull;  // log2(e), a multiple of 2^-63
        constexpr uint32_t kLn2 = 0xB17217F7u;              // ln(2), a multiple of 2^-32
        if (key == kFarKey) return 0;
        const uint64_t exponent = __umul64hi(key << 1, kLog2E);  // of 2^-53; the weight is 2^-exponent
        const int shift = int(exponent >> kFractionBits) + weight_shift;
        if (shift > 63) return 0;
        const uint64_t power = powers[exponent >> (kFractionBits - kTableBits) & (kTable - 1)];
        // What the table leaves: 2^-rest = 1 - r + r^2 / 2 - r^3 / 6 with r = rest ln(2) < 2^-10.
        const auto rest = uint32_t(exponent >> (kFractionBits - 42));   // of 2^-42, as are r and loss
        const uint32_t r = __umulhi(rest, kLn2), r2 = __umulhi(r, r);   // r2 of 2^-52
        const uint32_t loss = r - (r2 >> 11) + (__umulhi(r2, r) >> 20) / 6;
        const uint64_t precise = power - ((power >> 32) * loss >> 10);
        return ((precise >> (shift - 1)) + 1) >> 1;
    }
};

// powers[i] = 2^(63 - i / kTable), from 32 coarse and 32 fine ones: few double-precision powers are taken.
__device__ __forceinline__ void make_powers(Shared& s) {
    for (int i = threadIdx.x; i < 64; i += blockDim.x)
        s.words[i / 32][i % 32] = uint64_t(exp2(63.0 - i % 32 / (i < 32 ? 32.0 : 1024.0)));
    __syncthreads();
    for (int i = threadIdx.x; i < kTable; i += blockDim.x)
        s.powers[i] = __umul64hi(s.words[0][i / 32], s.words[1][i % 32]) << 1;
}

}  // namespace cellscribe
