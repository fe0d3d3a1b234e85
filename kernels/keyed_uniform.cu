// Keyed uniform numbers on the GPU, bit for bit those of engine/keyed.py: SplitMix64 used as a counter.

#include "common/keyed.cuh"

namespace {

__global__ void keyed_uniform(const uint64_t* keys, const int64_t* counters, float* out, int64_t count) {
    const int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
    if (i < count) {
        out[i] = cellscribe::keyed_uniform(keys[i], uint64_t(counters[i]));
    }
}

}  // namespace

// keys uint64 [count], counters int64 [count], out float32 [count], all on the device; returns a cudaError_t.
CELLSCRIBE_API int cellscribe_keyed_uniform(const uint64_t* keys, const int64_t* counters, float* out, int64_t count,
                                            void* stream) {
    if (count <= 0) return 0;
    constexpr int kThreads = 256;
    const auto blocks = unsigned((count + kThreads - 1) / kThreads);
    return int(cellscribe::launch(keyed_uniform, dim3(blocks), dim3(kThreads), 0, cudaStream_t(stream), keys, counters,
                                  out, count));
}
