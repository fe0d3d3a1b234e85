// Many query rows: a block keeps 64 or 128 of them in registers and reads all keys they see, 64 at a time.
#pragma once

#include "attention/softmax.cuh"

namespace cellscribe::grouped {

template <int kWidth_, int kRowTiles_, int kWarps_, int kBlocksPerProcessor_>
struct TilesShape {
    static constexpr int kWidth = kWidth_;
    static constexpr int kRowTiles = kRowTiles_;  // of 16 rows, per warp: each key fragment that is loaded serves all
    static constexpr int kThreads = 32 * kWarps_, kBlocksPerProcessor = kBlocksPerProcessor_;
    static constexpr int kWarpRows = 16 * kRowTiles, kRows = kWarpRows * kWarps_;
    static constexpr int kKeys = 64, kBlocks = kKeys / 8;
    static constexpr int kTileBytes = kKeys * kWidth * 2;
    static constexpr int kStages = 2, kStageBytes = 2 * kTileBytes;  // keys, then values
    // The queries pass through the second stage and the results through the first.
    static_assert(kRows * kWidth * 2 <= kStageBytes);
    static constexpr int shared_bytes(int key_groups) { return kStages * kStageBytes + (key_groups + 4) / 4 * 16; }
};

// What one block works on.
struct TilesPlace {
    int slot, kv_head, first_row, row_count;
};

template <class Shape>
struct TilesRows {
    static constexpr int kRowTiles = Shape::kRowTiles, kBlocks = Shape::kBlocks, kWidth = Shape::kWidth;
    uint32_t q[kRowTiles][kWidth / 16][4];
    float o[kRowTiles][kWidth / 8][4];
    float most[kRowTiles][2], sum[kRowTiles][2];  // base 2; this lane's part
    int key_place = key_place_of<kWidth>(), value_place = value_place_of<kWidth>();

    __device__ __forceinline__ void start(const unsigned char* queries, int first) {
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
            load_queries<kWidth>(q[r], queries, first + 16 * r);
#pragma unroll
            for (int h = 0; h < 2; ++h) most[r][h] = -INFINITY, sum[r][h] = 0.0f;
#pragma unroll
            for (int d = 0; d < kWidth / 8; ++d)
#pragma unroll
                for (int e = 0; e < 4; ++e) o[r][d][e] = 0.0f;
        }
    }

    // Keys first_key .. first_key + 63; `seen[r][h]` is how many keys row g + 8 h of row tile r sees by its position.
    __device__ __forceinline__ void take(const unsigned char* stage, const uint32_t* words, int first_key,
                                         const int (&seen)[kRowTiles][2], int seen_by_all, float scale_log2) {
        float s[kRowTiles][kBlocks][4] = {};
        score<kWidth>(s, q, stage, key_place);
        const uint32_t low = words[0], high = words[1];
        if ((low & high) != 0xffffffffu || first_key + Shape::kKeys > seen_by_all) {
#pragma unroll
            for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    hide(s[r], h, lane_keys(low, seen[r][h] - first_key), 0);
                    hide(s[r], h, lane_keys(high, seen[r][h] - first_key - kGroupKeys), 4);
                }
        }
        uint32_t w[kRowTiles][kBlocks][2];
        take_in(s, o, most, sum, scale_log2);
        pack_weights(w, s);
        mix<kWidth>(o, w, stage + Shape::kTileBytes, value_place);
    }

    // Divide by the sums and leave the rows as halves in shared memory.
    __device__ __forceinline__ void finish(unsigned char* results, int first) {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float all = quad_sum(sum[r][h]), share = all == 0.0f ? 0.0f : 1.0f / all;
                const int row = first + 16 * r + 8 * h + g;
#pragma unroll
                for (int d = 0; d < kWidth / 8; ++d) {
                    const uint32_t two = pack_halves(o[r][d][2 * h] * share, o[r][d][2 * h + 1] * share);
                    *reinterpret_cast<uint32_t*>(results + piece_at<kWidth>(row, d) + 4 * t) = two;
                }
            }
    }
};

// A warp's rows from shared memory to where they belong, 16 bytes a lane.
template <class Shape>
__device__ __forceinline__ void store_rows(const Task& a, const TilesPlace& at, const unsigned char* results,
                                           int first) {
    constexpr int kPieces = Shape::kWidth / 8;
    for (int i = threadIdx.x % 32; i < Shape::kWarpRows * kPieces; i += 32) {
        const int row = first + i / kPieces, piece = i % kPieces;
        if (row >= at.row_count || piece * 8 >= a.p.head_width) continue;
        half* to = out_row(a, at.slot, at.kv_head, at.first_row + row) + piece * 8;
        *reinterpret_cast<uint4*>(to) =
            *reinterpret_cast<const uint4*>(results + piece_at<Shape::kWidth>(row, piece));
    }
}

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocksPerProcessor) attend_tiles(const Task a) {
    CELLSCRIBE_DYNAMIC_SHARED(shared);
    constexpr int kWarpRows = Shape::kWarpRows;
    unsigned char* const second = shared + Shape::kStageBytes;
    auto* words = reinterpret_cast<uint32_t*>(shared + Shape::kStages * Shape::kStageBytes);

    // The last rows come first: with positions they see the most keys.
    const int first_row = int(gridDim.x - 1 - blockIdx.x) * Shape::kRows, rows = a.first_split * a.group;
    const TilesPlace at = {int(blockIdx.z), int(blockIdx.y), first_row, min(rows - first_row, Shape::kRows)};
    copy_queries<Shape::kWidth, Shape::kRows, Shape::kThreads>(second, a, at.slot, at.kv_head, first_row, at.row_count);
    copy_async_commit();
    const int last_token = (first_row + at.row_count - 1) / a.group;
    const int groups = mark_keys<Shape::kThreads>(words, a, at.slot, keys_seen(a, at.slot, last_token));
    const int tiles = (groups + 1) / 2;
    PairCopier<Shape::kWidth, Shape::kKeys, Shape::kThreads> copier(a, at.slot, at.kv_head, 0, threadIdx.x);
    if (tiles) copier.start(shared, words);
    copy_async_commit();

    const int own = int(threadIdx.x) / 32 * kWarpRows;  // this warp's first row in the block
    const int g = threadIdx.x % 32 / 4;
    const bool works = own < at.row_count;
    int seen[Shape::kRowTiles][2];
#pragma unroll
    for (int r = 0; r < Shape::kRowTiles; ++r)
#pragma unroll
        for (int h = 0; h < 2; ++h)
            seen[r][h] = keys_seen(a, at.slot, (first_row + own + 16 * r + 8 * h + g) / a.group);
    const int seen_by_all = keys_seen(a, at.slot, (first_row + own) / a.group);
    const int seen_by_any = keys_seen(a, at.slot, (first_row + own + kWarpRows - 1) / a.group);

    copy_async_wait<1>();
    __syncthreads();
    TilesRows<Shape> mine;
    mine.start(second, own);
    unsigned char *stage = shared, *next_stage = second;
    for (int tile = 0; tile < tiles; ++tile) {
        copy_async_wait<0>();
        __syncthreads();  // this tile has arrived for all, and nobody needs the one before it
        if (tile + 1 < tiles) copier.start(next_stage, words + 2 * (tile + 1));
        copy_async_commit();
        const int first_key = tile * Shape::kKeys;
        if (works && first_key < seen_by_any)
            mine.take(stage, words + 2 * tile, first_key, seen, seen_by_all, a.scale_log2);
        unsigned char* const done = stage;
        stage = next_stage, next_stage = done;
    }
    copy_async_wait<0>();
    __syncthreads();
    mine.finish(shared, own);
    __syncwarp();
    store_rows<Shape>(a, at, shared, own);
}

}  // namespace cellscribe::grouped
