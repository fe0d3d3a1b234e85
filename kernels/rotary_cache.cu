// Rotary embeddings of queries and keys, and the write of keys and values into the cache: one thread turns kPart
// elements of the lower half of a head together with their partners of the upper half, so that it may work in place.

#include "cellscribe/rotary_cache.h"

#include "common/vectors.cuh"

namespace {

using namespace cellscribe;

constexpr int kThreads = 256;
constexpr int kMaxWidth = 256;

__device__ __forceinline__ float as_float(half x) { return __half2float(x); }
__device__ __forceinline__ float as_float(float x) { return x; }

// kPart neighbouring elements, 16 or 8 bytes: heads whose half is a multiple of 8 or only of 4.
template <int kPart>
struct Part {
    float v[kPart];

    template <class T>
    __device__ __forceinline__ void load(const T* p) {
        if constexpr (kPart == kVector) {
            load_8(p, kPart, v);
        } else {
#pragma unroll
            for (int i = 0; i < kPart; ++i) v[i] = as_float(p[i]);
        }
    }
    __device__ __forceinline__ void store(half* p) const {
        if constexpr (kPart == kVector) {
            store_8(p, kPart, v);
        } else {
#pragma unroll
            for (int i = 0; i < kPart; ++i) p[i] = __float2half_rn(v[i]);
        }
    }
};

template <int kPart>
__device__ __forceinline__ void turn(Part<kPart>& low, Part<kPart>& high, const float* cos, const float* sin) {
    Part<kPart> c, s;
    c.load(cos);
    s.load(sin);
#pragma unroll
    for (int i = 0; i < kPart; ++i) {
        const float a = low.v[i], b = high.v[i];
        low.v[i] = a * c.v[i] - b * s.v[i];
        high.v[i] = b * c.v[i] + a * s.v[i];
    }
}

template <int kPart>
__global__ void __launch_bounds__(kThreads) rotary_cache(CellscribeRotaryCache p) {
    const int half_width = p.width / 2, parts = half_width / kPart, heads = p.num_heads + 2 * p.num_kv_heads;
    const int64_t item = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    const int at = int(item % parts) * kPart, head = int(item / parts % heads);
    const int64_t row = item / parts / heads;
    const int64_t slot = row / p.num_tokens, token = row % p.num_tokens;
    if (slot >= p.num_slots) return;

    const half* x = static_cast<const half*>(p.qkv) + slot * p.qkv_slot + token * p.qkv_token + head * p.width + at;
    Part<kPart> low, high;
    low.load(x);
    high.load(x + half_width);
    const int64_t position = p.positions[slot] + token;
    if (head < p.num_heads + p.num_kv_heads) {
        const int64_t turned = min(max(position, int64_t(0)), int64_t(p.table_rows - 1)) * half_width + at;
        turn(low, high, p.cos + turned, p.sin + turned);
    }

    half* y;
    if (head < p.num_heads) {
        y = static_cast<half*>(p.out) + slot * p.out_slot + head * p.out_head + token * p.out_token;
    } else {
        if (position < 0 || position >= p.capacity) return;
        const int of_keys = head - p.num_heads;
        const bool is_key = of_keys < p.num_kv_heads;
        y = static_cast<half*>(is_key ? p.keys : p.values) + slot * p.cache_slot +
            (is_key ? of_keys : of_keys - p.num_kv_heads) * p.cache_head + position * p.cache_position;
    }
    low.store(y + at);
    high.store(y + at + half_width);
}

}  // namespace

CELLSCRIBE_API int cellscribe_rotary_cache(const CellscribeRotaryCache* p, void* stream) {
    const bool sizes_fit = p->num_slots >= 0 && p->num_tokens >= 0 && p->num_heads >= 0 && p->num_kv_heads >= 0 &&
                           p->capacity >= 0 && p->table_rows >= 1;
    if (!sizes_fit || p->width < 8 || p->width > kMaxWidth || p->width % 8) return CELLSCRIBE_BAD_SHAPE;
    const bool by_8 = p->width % 16 == 0;
    const int64_t heads = p->num_heads + 2ll * p->num_kv_heads;
    const int64_t items = int64_t(p->num_slots) * p->num_tokens * heads * (p->width / (by_8 ? 16 : 8));
    const int64_t blocks = (items + kThreads - 1) / kThreads;
    if (blocks > INT32_MAX) return CELLSCRIBE_BAD_SHAPE;
    if (!blocks) return CELLSCRIBE_OK;
    auto kernel = by_8 ? rotary_cache<8> : rotary_cache<4>;
    return int(launch(kernel, dim3(unsigned(blocks)), dim3(kThreads), 0, cudaStream_t(stream), *p));
}
