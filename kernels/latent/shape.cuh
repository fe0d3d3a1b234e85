// Sizes of one build of the latent cross-attention, and how its work is cut up.
#pragma once

#include "cellscribe/latent_cross.h"
#include "common/device.cuh"
#include "common/ptx.cuh"

namespace cellscribe::latent {

constexpr int kRows = 32;  // query rows (token-major: row = token * H + head) that share one reading of the memory
constexpr float kLog2e = 1.4426950408889634f;

// A block holds kRows queries; each warp owns kDims columns of the width in both products, so that every byte of the
// memory enters each warp's registers once per product. Scores are then summed over the warps.
template <int kWidth_, int kTile_, int kStages_>
struct Shape {
    static constexpr int kWidth = kWidth_, kTile = kTile_, kStages = kStages_;
    static constexpr int kWarps = kWidth / 16 < 8 ? kWidth / 16 : 8;
    static constexpr int kThreads = 32 * kWarps;
    static constexpr int kDims = kWidth / kWarps;
    static constexpr int kColumns = kTile / kWarps;        // of a score row, for one thread
    static constexpr int kMemoryRow = 2 * kWidth + 16;     // bytes; an odd multiple of 16 keeps ldmatrix off its banks
    static constexpr int kPartialRow = kTile + 8;          // floats
    static constexpr int kProbRow = 2 * kTile + 16;        // bytes
    static constexpr int kFlags = kStages + 2;             // tiles whose row flags are kept
    static constexpr int kMemoryBytes = kStages * kTile * kMemoryRow;
    static constexpr int kPartialBytes = kWarps * kRows * kPartialRow * 4;
    static constexpr int kProbBytes = 2 * kRows * kProbRow;
    static constexpr int kSharedBytes =
        kMemoryBytes + kPartialBytes + kProbBytes + 2 * kRows * 4 + kRows * 8 + kFlags * kTile;
    static_assert(kDims % 16 == 0 && kTile % 16 == 0 && kColumns >= 2 && kThreads >= kTile);
};

struct Params {
    CellscribeLatentCross p;
    int rows, row_tiles;       // H * T, and kRows-row pieces of them
    int tiles;                 // kTile-row pieces of the memory
    int units;                 // slot x row tile
    int64_t work, per_block;   // units x tiles, and how many of these one block takes
    int scored_from;           // the first row tile whose weights are asked for; row_tiles: none
    // Workspace
    float* partial_out;    // [2 * blocks, kRows, m]: what a block summed for a unit that it shares with others
    float2* partial_state; // [2 * blocks, kRows]: maximum (base 2) and sum
    float2* final_state;   // [units, kRows]
    half* probs;           // [B, row_tiles - scored_from, kRows, tiles * kTile], relative to the maximum of its time
    float* maxima;         // [B, row_tiles - scored_from, tiles, kRows]

    __host__ __device__ __forceinline__ int scored_tiles() const { return row_tiles - scored_from; }
};

// Which block holds work item i, and which of its two shared places it writes for a unit.
__device__ __forceinline__ int block_of(const Params& a, int64_t item) { return int(item / a.per_block); }
__device__ __forceinline__ int place_of(const Params& a, int block, int unit) {
    return 2 * block + (int64_t(block) * a.per_block < int64_t(unit) * a.tiles ? 1 : 0);  // began in a unit before
}
__device__ __forceinline__ int rows_of_memory(const Params& a, int slot) {
    return a.p.lengths ? min(max(a.p.lengths[slot], 0), a.p.num_genes) : a.p.num_genes;
}

}  // namespace cellscribe::latent
