// CUDA C++ for a C++17 compiler: enough of it to run the kernels of this folder on a CPU, thread by thread.
//
// Stricter than a GPU where that finds mistakes: shared memory starts as NaN and has guards, a copy to shared memory
// leaves NaN until it is waited for, lanes must meet at the same instruction, a barrier must be reached by all. It
// says nothing about speed, and one block runs at a time, so races between blocks are not seen.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "emulator/block.h"

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static thread_local
#define __constant__ static const
#define threadIdx (emulator::Block::current()->running->index)
#define blockIdx (emulator::Block::current()->index)
#define blockDim (emulator::Block::current()->size)
#define gridDim (emulator::Block::current()->grid)
#define CELLSCRIBE_DYNAMIC_SHARED(name) unsigned char* const name = emulator::Block::current()->shared()

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t code) { return code ? "an emulated error" : "no error"; }

struct half {
    _Float16 value;
};
struct half2 {
    half x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

inline half __float2half(float x) { return {static_cast<_Float16>(x)}; }
inline half __float2half_rn(float x) { return __float2half(x); }
inline float __half2float(half x) { return static_cast<float>(x.value); }
inline half2 __floats2half2_rn(float x, float y) { return {__float2half(x), __float2half(y)}; }
inline half2 __halves2half2(half x, half y) { return {x, y}; }
inline float2 __half22float2(half2 x) { return {__half2float(x.x), __half2float(x.y)}; }
inline half2 __hsub2(half2 a, half2 b) {
    return __floats2half2_rn(__half2float(a.x) - __half2float(b.x), __half2float(a.y) - __half2float(b.y));
}
inline float __low2float(half2 x) { return __half2float(x.x); }
inline float __high2float(half2 x) { return __half2float(x.y); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline uint32_t __float_as_uint(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    return bits;
}
inline int __float_as_int(float x) { return int(__float_as_uint(x)); }
inline float __uint_as_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
}
inline float __int_as_float(int bits) { return __uint_as_float(uint32_t(bits)); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }
inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return uint64_t((unsigned __int128)a * b >> 64); }
inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __clz(uint32_t x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(uint32_t x) { return __builtin_ffs(int(x)); }
template <class T>
T __ldg(const T* pointer) {
    return *pointer;
}
template <class T>
T __ldcs(const T* pointer) {
    return *pointer;
}
template <class T>
T __ldcg(const T* pointer) {
    return *pointer;
}
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t both = a | uint64_t(b) << 32;
    uint32_t chosen = 0;
    for (int i = 0; i < 4; ++i) chosen |= uint32_t(both >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
    return chosen;
}
template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}

inline void __syncthreads() { emulator::Block::current()->barrier(); }
inline void __syncwarp(uint32_t mask = 0xffffffffu) {
    if (mask != 0xffffffffu) emulator::fail("only whole warps can meet");
    static const char purpose = 0;
    emulator::Block::current()->meet(nullptr, &purpose, [](void**) {});
}
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace emulator {

template <class T>
struct Exchange {
    T value, result;
    int lane;
};

template <class T, class Source>
T exchange(uint32_t mask, T value, int argument, const void* purpose, const Source& source) {
    if (mask != 0xffffffffu) fail("only whole warps can exchange values");
    Exchange<T> mine{value, value, argument};
    Block::current()->meet(&mine, purpose, [&](void** brought) {
        for (int lane = 0; lane < kLanes; ++lane) {
            auto* one = static_cast<Exchange<T>*>(brought[lane]);
            if (!one) fail("a warp of less than 32 lanes exchanges values");
            one->result = static_cast<Exchange<T>*>(brought[source(lane, one->lane) & 31])->value;
        }
    });
    return mine.result;
}

}  // namespace emulator

template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int offset) {
    static const char purpose = 0;
    return emulator::exchange(mask, value, offset, &purpose, [](int lane, int by) { return lane ^ by; });
}
template <class T>
T __shfl_sync(uint32_t mask, T value, int source) {
    static const char purpose = 0;
    return emulator::exchange(mask, value, source, &purpose, [](int, int from) { return from; });
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, int offset) {
    static const char purpose = 0;
    return emulator::exchange(mask, value, offset, &purpose, [](int lane, int by) { return lane < by ? lane : lane - by; });
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, int offset) {
    static const char purpose = 0;
    return emulator::exchange(mask, value, offset, &purpose,
                              [](int lane, int by) { return lane + by > 31 ? lane : lane + by; });
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate) {
    uint32_t all = 0;
    for (int lane = 0; lane < 32; ++lane) all |= uint32_t(__shfl_sync(mask, predicate != 0, lane)) << lane;
    return all;
}
inline int __any_sync(uint32_t mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(uint32_t mask, int predicate) { return __ballot_sync(mask, predicate) == 0xffffffffu; }
inline int __syncthreads_or(int predicate) {
    static thread_local int any;
    __syncthreads();
    any = 0;
    __syncthreads();
    any |= predicate != 0;
    __syncthreads();
    return any;
}

// Blocks run one after the other, threads give way only where they wait: these are atomic as they stand.
template <class T, class U>
T atomicAdd(T* target, U value) {
    const T old = *target;
    *target = old + value;
    return old;
}
template <class T, class U>
T atomicMax(T* target, U value) {
    const T old = *target;
    *target = old < T(value) ? T(value) : old;
    return old;
}
template <class T, class U>
T atomicMin(T* target, U value) {
    const T old = *target;
    *target = T(value) < old ? T(value) : old;
    return old;
}
template <class T, class U>
T atomicExch(T* target, U value) {
    const T old = *target;
    *target = value;
    return old;
}

#include "emulator/instructions.h"
#include "emulator/launch.h"
