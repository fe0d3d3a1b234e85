// What a launch must know of the device.
#pragma once

#include <mutex>

#include "common/platform.cuh"

namespace cellscribe {

struct DeviceLimits {
    int multiprocessors;
    int shared_bytes;  // that one block may have
};

#ifdef CELLSCRIBE_EMULATED
inline DeviceLimits device_limits() {
    const char* shared = std::getenv("CELLSCRIBE_EMULATOR_SHARED");
    return {3, shared ? std::atoi(shared) : 227 * 1024};
}
#else
inline DeviceLimits device_limits() {
    constexpr int kMaxDevices = 64;
    static DeviceLimits known[kMaxDevices];
    static std::once_flag asked[kMaxDevices];
    int device = 0;
    if (cudaGetDevice(&device) != cudaSuccess || device >= kMaxDevices) return {1, 48 * 1024};
    std::call_once(asked[device], [device] {
        cudaDeviceGetAttribute(&known[device].multiprocessors, cudaDevAttrMultiProcessorCount, device);
        cudaDeviceGetAttribute(&known[device].shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    });
    return known[device];
}
#endif

}  // namespace cellscribe
