// What the kernels of grouped attention are told, and which keys and rows a block has to do with.
//
// The query heads of one kv head and the tokens are packed into rows, row = token * G + head % G, so that one reading
// of a key serves all of them and rows of one 16-row tile end at nearly the same key.
#pragma once

#include "cellscribe/grouped_attention.h"
#include "common/device.cuh"
#include "common/ptx.cuh"

namespace cellscribe::grouped {

constexpr int kGroupKeys = 32;  // keys that one word of visibility bits speaks of
constexpr float kLog2e = 1.4426950408889634f;

struct Task {
    CellscribeGroupedAttention p;
    int group;           // G = H / K
    float scale_log2;    // scores are kept in base 2
    int key_groups;      // ceil(C / 32)
    int first_split;     // tokens before it are taken by attend_tiles, the others by attend_split
    int rows;            // of attend_split: G * (T - first_split) per kv head
    int row_tile;        // 16 or 32: how many of these one block has
    int warps;           // of one block of attend_split
    int row_tiles;       // ceil(rows / row_tile)
    int splits;          // pieces the keys in use are cut into
    int first_evidence;  // the row of attend_split whose weights are wanted first; rows: none
    // Workspace, with R = row_tiles * row_tile:
    int32_t* used_groups;  // [B], key groups that were looked at
    float* maxima;         // [B, K, splits, R], base 2
    float* sums;           // [B, K, splits, R]
    float* partial;        // [B, K, splits, R, kWidth], sums of p * value relative to the maximum
    uint4* weights;        // [B, K, rows - first_evidence, 4 * key_groups], 8 halves each, relative to the
    float* weight_maxima;  // [B, K, rows - first_evidence, key_groups] maximum of their time

    __host__ __device__ __forceinline__ bool has_evidence() const { return first_evidence < rows; }
    __host__ __device__ __forceinline__ bool is_combined() const { return splits > 1 || has_evidence(); }
    __device__ __forceinline__ int64_t state_at(int slot, int kv_head, int split, int row) const {
        return ((int64_t(slot) * p.num_kv_heads + kv_head) * splits + split) * (row_tiles * row_tile) + row;
    }
    __device__ __forceinline__ int64_t evidence_at(int slot, int kv_head, int row) const {
        return (int64_t(slot) * p.num_kv_heads + kv_head) * (rows - first_evidence) + (row - first_evidence);
    }
};

// Keys that token t may see if the mask allows it.
__device__ __forceinline__ int keys_seen(const Task& a, int slot, int token) {
    int seen = a.p.num_keys;
    if (a.p.lengths) seen = min(seen, a.p.lengths[slot]);
    if (a.p.positions) seen = min(seen, a.p.positions[slot] + token + 1);
    return max(seen, 0);
}

// words[i], bit j: key 32 i + j is seen by some token of the block. Of the last groups, those that nobody sees are cut
// off; returns how many are left, after a barrier.
template <int kThreads>
__device__ __forceinline__ int mark_keys(uint32_t* words, const Task& a, int slot, int seen) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint8_t* mask = a.p.mask ? a.p.mask + int64_t(slot) * a.p.mask_slot : nullptr;
    int groups = (seen + kGroupKeys - 1) / kGroupKeys;
#pragma unroll 4
    for (int i = warp; i < groups; i += kThreads / 32) {
        const int key = i * kGroupKeys + lane;
        const uint32_t word = __ballot_sync(0xffffffffu, key < seen && (!mask || mask[key]));
        if (!lane) words[i] = word;
    }
    if (!threadIdx.x) words[groups] = 0;  // an even number of groups can be read
    __syncthreads();
    while (groups && !words[groups - 1]) --groups;
    return groups;
}

__device__ __forceinline__ const half* query_row(const Task& a, int slot, int kv_head, int row) {
    return static_cast<const half*>(a.p.query) + slot * a.p.query_slot +
           (kv_head * a.group + row % a.group) * a.p.query_head + row / a.group * a.p.query_token;
}
__device__ __forceinline__ half* out_row(const Task& a, int slot, int kv_head, int row) {
    return static_cast<half*>(a.p.out) + slot * a.p.out_slot + (kv_head * a.group + row % a.group) * a.p.out_head +
           row / a.group * a.p.out_token;
}

}  // namespace cellscribe::grouped
