// One source, two compilers: nvcc for the GPU, a C++17 compiler with kernels/emulator for tests without one.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef CELLSCRIBE_EMULATED
#include "emulator/device.h"
#else
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define CELLSCRIBE_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

namespace cellscribe {

// Launch a kernel; `shared_bytes` may exceed the 48 KiB that need no permission.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   Arguments... arguments) {
    if (shared_bytes > 48 * 1024) {
        const cudaError_t refused = cudaFuncSetAttribute(
            reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
        if (refused != cudaSuccess) {
            cudaGetLastError();
            return refused;
        }
    }
    kernel<<<grid, block, shared_bytes, stream>>>(Parameters(arguments)...);
    return cudaGetLastError();
}

}  // namespace cellscribe
#endif

#define CELLSCRIBE_API extern "C" __attribute__((visibility("default")))
