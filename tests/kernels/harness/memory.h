// Memory where the kernels run: the host's in the emulator, else the GPU's.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef CELLSCRIBE_EMULATED
inline void* take(size_t bytes) { return aligned_alloc(256, (bytes + 255) / 256 * 256); }
inline void give_back(void* at) { free(at); }
inline void copy(void* to, void const* from, size_t bytes) { std::memcpy(to, from, bytes); }
inline void finish() {}
#else
#include <cuda_runtime_api.h>

inline void must(cudaError_t error) {
    if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}
inline void* take(size_t bytes) {
    void* at = nullptr;
    must(cudaMalloc(&at, bytes));
    return at;
}
inline void give_back(void* at) { cudaFree(at); }
inline void copy(void* to, void const* from, size_t bytes) { must(cudaMemcpy(to, from, bytes, cudaMemcpyDefault)); }
inline void finish() { must(cudaDeviceSynchronize()); }
#endif

// A tensor or workspace. It starts as NaN, and what lies behind it must stay as it was.
class Buffer {
public:
    explicit Buffer(size_t bytes) : bytes_(bytes), at_(take(bytes + kGuard)) {
        std::vector<uint8_t> const poison(bytes + kGuard, 0xff);
        copy(at_, poison.data(), poison.size());
    }
    template <class T>
    explicit Buffer(std::vector<T> const& values) : Buffer(values.size() * sizeof(T)) {
        copy(at_, values.data(), bytes_);
    }
    Buffer(Buffer const&) = delete;
    ~Buffer() { give_back(at_); }

    void* get() const { return at_; }
    template <class T>
    std::vector<T> read() const {
        std::vector<T> values(bytes_ / sizeof(T));
        copy(values.data(), at_, bytes_);
        return values;
    }
    bool guard_is_whole() const {
        std::vector<uint8_t> behind(kGuard);
        copy(behind.data(), static_cast<uint8_t*>(at_) + bytes_, kGuard);
        for (uint8_t const byte : behind)
            if (byte != 0xff) return false;
        return true;
    }

private:
    static constexpr size_t kGuard = 1 << 20;
    size_t bytes_;
    void* at_;
};
