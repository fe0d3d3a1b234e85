// After attend_split: results of several blocks become one, and the weights that were kept become evidence.
#pragma once

#include "attention/softmax.cuh"

namespace cellscribe::grouped {

constexpr int kCombineThreads = 128, kCombineWarps = kCombineThreads / 32;
constexpr int kEvidenceKeys = 64;  // keys of one block
constexpr int kKeyLanes = kEvidenceKeys / 8, kHeadLanes = kCombineThreads / kKeyLanes;
constexpr int kMaxHeads = 128;

struct RowState {
    float base;   // what to subtract from maxima, base 2
    float share;  // 1 / sum; 0 where nothing was seen
};

__device__ __forceinline__ RowState final_state(const Task& a, int64_t first_split, int64_t stride) {
    float most = -INFINITY, sum = 0.0f;
    for (int i = 0; i < a.splits; ++i) most = fmaxf(most, a.maxima[first_split + i * stride]);
    const float base = base_of(most);
    for (int i = 0; i < a.splits; ++i)
        sum = fmaf(a.sums[first_split + i * stride], fast_exp2(a.maxima[first_split + i * stride] - base), sum);
    return {base, sum == 0.0f ? 0.0f : 1.0f / sum};
}

// One warp: the output of one head and token (counted from first_split).
__device__ __forceinline__ void combine_row(const Task& a, int slot, int token, int head, int width) {
    const int kv_head = head / a.group, row = token * a.group + head % a.group, lane = threadIdx.x % 32;
    const int64_t first = a.state_at(slot, kv_head, 0, row), stride = int64_t(a.row_tiles) * a.row_tile;
    const RowState all = final_state(a, first, stride);
    half* to = out_row(a, slot, kv_head, a.first_split * a.group + row);
    for (int column = 2 * lane; column < a.p.head_width; column += 64) {
        float low = 0.0f, high = 0.0f;
#pragma unroll 4
        for (int i = 0; i < a.splits; ++i) {
            const float fade = fast_exp2(a.maxima[first + i * stride] - all.base);
            const float2 two = *reinterpret_cast<const float2*>(a.partial + (first + i * stride) * width + column);
            low = fmaf(two.x, fade, low), high = fmaf(two.y, fade, high);
        }
        *reinterpret_cast<uint32_t*>(to + column) = pack_halves(low * all.share, high * all.share);
    }
}

// Eight neighbouring keys: the final weights of one row, from what attend_split kept. Keys nobody looked at have none.
__device__ __forceinline__ void final_weights(float (&p)[8], const Task& a, int64_t row, int key, RowState all,
                                              int used_groups) {
    const int group = key / kGroupKeys;
    if (group >= used_groups) {
#pragma unroll
        for (float& one : p) one = 0.0f;
        return;
    }
    const int64_t index = row * a.key_groups + group;
    const float factor = fast_exp2(a.weight_maxima[index] - all.base) * all.share;
    const uint4 bits = a.weights[(index * kGroupKeys + key % kGroupKeys) / 8];
    half2 kept[4];
    static_assert(sizeof(bits) == sizeof(kept), "eight halves");
    memcpy(kept, &bits, sizeof(bits));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 two = __half22float2(kept[i]);
        p[2 * i] = two.x * factor, p[2 * i + 1] = two.y * factor;
    }
}

__device__ __forceinline__ void store_weights(const float (&p)[8], const Task& a, int slot, int head, int token,
                                              int key) {
    float* to = a.p.weights + slot * a.p.weights_slot + head * a.p.weights_head + token * a.p.weights_token + key;
#pragma unroll
    for (int i = 0; i < 8; ++i)
        if (key + i < a.p.num_keys) to[i] = p[i];
}

// One block: kEvidenceKeys keys of one token, all heads. Heads are shared out over lanes and summed in a fixed order.
__device__ __forceinline__ void weigh(const Task& a, int slot, int token, int first_key) {
    __shared__ RowState states[kMaxHeads];
    __shared__ float sums[kHeadLanes][kEvidenceKeys + 8];
    const int key_lane = threadIdx.x % kKeyLanes, head_lane = threadIdx.x / kKeyLanes, key = first_key + 8 * key_lane;
    const int64_t stride = int64_t(a.row_tiles) * a.row_tile;
    for (int head = threadIdx.x; head < a.p.num_heads; head += kCombineThreads) {
        const int row = token * a.group + head % a.group;
        states[head] = final_state(a, a.state_at(slot, head / a.group, 0, row), stride);
    }
    __syncthreads();
    const int used = a.used_groups[slot], out_token = token + a.first_split - a.p.first_token;
    float total[8] = {};
#pragma unroll 2
    for (int head = head_lane; head < a.p.num_heads; head += kHeadLanes) {
        float p[8];
        const int64_t row = a.evidence_at(slot, head / a.group, token * a.group + head % a.group);
        final_weights(p, a, row, key, states[head], used);
        if (a.p.weights) store_weights(p, a, slot, head, out_token, key);
#pragma unroll
        for (int i = 0; i < 8; ++i) total[i] += p[i];
    }
    if (!a.p.mass) return;
#pragma unroll
    for (int i = 0; i < 8; ++i) sums[head_lane][8 * key_lane + i] = total[i];
    __syncthreads();
    const int own = threadIdx.x;
    if (own >= kEvidenceKeys || first_key + own >= a.p.num_keys) return;
    float mass = 0.0f;
#pragma unroll
    for (int i = 0; i < kHeadLanes; ++i) mass += sums[i][own];
    float* to = a.p.mass + slot * a.p.mass_slot + out_token * a.p.mass_token + first_key + own;
    *to = a.p.mass_add ? fmaf(a.p.mass_scale, mass, *to) : a.p.mass_scale * mass;
}

// grid.x: blocks of one head per warp where the keys were split, then blocks of keys; y: token; z: slot.
__global__ void __launch_bounds__(kCombineThreads) combine(const Task a, int head_blocks, int width) {
    const int slot = blockIdx.z, token = blockIdx.y, block = blockIdx.x;
    if (block < head_blocks) {
        const int head = block * kCombineWarps + int(threadIdx.x) / 32;
        if (head < a.p.num_heads) combine_row(a, slot, token, head, width);
    } else if (token + a.first_split >= a.p.first_token) {
        weigh(a, slot, token, (block - head_blocks) * kEvidenceKeys);
    }
}

}  // namespace cellscribe::grouped
