#include "tensorrt/mask_bytes.h"

#include "common/platform.cuh"

namespace {

constexpr int kThreads = 256;

__global__ void mask_bytes(const int32_t* mask, uint8_t* bytes, int64_t count) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) bytes[i] = mask[i] != 0;
}

}  // namespace

CELLSCRIBE_API int cellscribe_mask_bytes(const int32_t* mask, uint8_t* bytes, int64_t count, void* stream) {
    const unsigned blocks = unsigned((count + kThreads - 1) / kThreads);
    return cellscribe::launch(mask_bytes, dim3(blocks), dim3(kThreads), 0, cudaStream_t(stream), mask, bytes, count);
}
