// Keyed uniform numbers, bit for bit those of engine/keyed.py: SplitMix64 used as a counter.
#pragma once

#include "common/platform.cuh"

namespace cellscribe {

__device__ __forceinline__ uint64_t mix_bits(uint64_t state) {
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9ull;
    state = (state ^ (state >> 27)) * 0x94D049BB133111EBull;
    return state ^ (state >> 31);
}

// The draw number `counter` of the stream `key`: a multiple of 2^-24 in [0, 1).
__device__ __forceinline__ float keyed_uniform(uint64_t key, uint64_t counter) {
    const uint64_t state = mix_bits(key + (counter + 1) * 0x9E3779B97F4A7C15ull);
    return float(state >> 40) * 0x1p-24f;
}

}  // namespace cellscribe
