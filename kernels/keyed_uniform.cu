// Keyed uniform numbers on the GPU, bit for bit those of engine/keyed.py: SplitMix64 used as a counter.

#include <cstdint>
#include <cuda_runtime.h>

namespace {

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;

__device__ __forceinline__ uint64_t mix(uint64_t state) {
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9ull;
    state = (state ^ (state >> 27)) * 0x94D049BB133111EBull;
    return state ^ (state >> 31);
}

__global__ void keyed_uniform(const uint64_t* keys, const int64_t* counters, float* out, int64_t count) {
    const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i < count) {
        const uint64_t state = mix(keys[i] + (uint64_t(counters[i]) + 1) * kGolden);
        out[i] = float(state >> 40) * 0x1p-24f;
    }
}

}  // namespace

// keys uint64 [count], counters int64 [count], out float32 [count], all on the device; returns a cudaError_t.
extern "C" __attribute__((visibility("default"))) int cellscribe_keyed_uniform(
    const uint64_t* keys, const int64_t* counters, float* out, int64_t count, cudaStream_t stream) {
    if (count > 0) {
        constexpr int kThreads = 256;
        const auto blocks = unsigned((count + kThreads - 1) / kThreads);
        keyed_uniform<<<blocks, kThreads, 0, stream>>>(keys, counters, out, count);
    }
    return int(cudaGetLastError());
}
