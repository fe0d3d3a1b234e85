// Few query rows: the keys in use are cut into pieces, one block each; the warps of a block take different keys, bring
// them to shared memory each for itself, without barriers, and merge what they found in the end.
#pragma once

#include "attention/softmax.cuh"

namespace cellscribe::grouped {

template <int kWidth_, int kRowTiles_, int kWarps_>
struct SplitShape {
    static constexpr int kWidth = kWidth_, kRowTiles = kRowTiles_, kRows = 16 * kRowTiles;
    static constexpr int kWarps = kWarps_, kThreads = 32 * kWarps;
    static constexpr int kBlocksPerProcessor = (kWidth > 64 ? 6 : kRowTiles == 1 ? 12 : 8) / kWarps;
    static constexpr int kKeys = kGroupKeys, kBlocks = kKeys / 8;
    static constexpr int kTileBytes = kKeys * kWidth * 2;
    static constexpr int kStages = 2, kStageBytes = 2 * kTileBytes, kWarpBytes = kStages * kStageBytes;
    static constexpr int kQueryBytes = kRows * kWidth * 2;
    static constexpr int kMergeRow = kWidth + 8;  // floats; rows of a product start eight banks apart
    static constexpr int kStateBytes = kWarps * kRows * 8;
    static_assert(kRows * kMergeRow * 4 <= kWarpBytes);
    static constexpr int shared_bytes(int key_groups) {
        return kWarps * kWarpBytes + kQueryBytes + kStateBytes + (key_groups + 4) / 4 * 16;
    }
};

// What one block works on; rows count from the first row of attend_split.
struct SplitPlace {
    int slot, kv_head, split, first_row, row_count;
};

// Brings a warp's key tiles, every kWarps-th, to its stages.
template <class Shape>
struct SplitLoader {
    PairCopier<Shape::kWidth, Shape::kKeys, 32> copier;
    const uint32_t* words;
    unsigned char* stages;
    int next, end, number = 0;

    __device__ __forceinline__ SplitLoader(const Task& a, const SplitPlace& at, const uint32_t* marked,
                                           unsigned char* own_stages, int begin_tile, int end_tile)
        : copier(a, at.slot, at.kv_head, begin_tile * Shape::kKeys, threadIdx.x % 32), words(marked),
          stages(own_stages), next(begin_tile), end(end_tile) {}

    __device__ __forceinline__ void start() {
        if (next < end) {
            copier.start(stages + number % Shape::kStages * Shape::kStageBytes, words + next);
            copier.skip(Shape::kWarps - 1);
        }
        copy_async_commit();
        next += Shape::kWarps;
        ++number;
    }
};

template <class Shape>
struct SplitRows {
    static constexpr int kRowTiles = Shape::kRowTiles, kBlocks = Shape::kBlocks, kWidth = Shape::kWidth;
    uint32_t q[kRowTiles][kWidth / 16][4];
    float o[kRowTiles][kWidth / 8][4] = {};
    float most[kRowTiles][2], sum[kRowTiles][2];  // base 2; this lane's part
    int key_place = key_place_of<kWidth>(), value_place = value_place_of<kWidth>();
    int seen[kRowTiles][2];  // keys that row g + 8 h of row tile r sees by its position
    int seen_by_all;

    __device__ __forceinline__ SplitRows(const Task& a, const SplitPlace& at, const unsigned char* queries) {
        const int first = a.first_split * a.group + at.first_row, g = threadIdx.x % 32 / 4;
        seen_by_all = keys_seen(a, at.slot, first / a.group);
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
            load_queries<kWidth>(q[r], queries, 16 * r);
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                most[r][h] = -INFINITY, sum[r][h] = 0.0f;
                seen[r][h] = keys_seen(a, at.slot, (first + 16 * r + 8 * h + g) / a.group);
            }
        }
    }

    __device__ __forceinline__ void take(const Task& a, const SplitPlace& at, const unsigned char* stage, int tile,
                                         uint32_t word) {
        float s[kRowTiles][kBlocks][4] = {};
        score<kWidth>(s, q, stage, key_place);
        const int first_key = tile * Shape::kKeys;
        if (word != 0xffffffffu || first_key + Shape::kKeys > seen_by_all) {
#pragma unroll
            for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
                for (int h = 0; h < 2; ++h) hide(s[r], h, lane_keys(word, seen[r][h] - first_key), 0);
        }
        uint32_t w[kRowTiles][kBlocks][2];
        take_in(s, o, most, sum, a.scale_log2);
        pack_weights(w, s);
        if (a.has_evidence()) keep_weights(a, at, w, tile);
        mix<kWidth>(o, w, stage + Shape::kTileBytes, value_place);
    }

    // The weights as they are now, with the maximum that they are relative to; the final one is known only later.
    __device__ __forceinline__ void keep_weights(const Task& a, const SplitPlace& at,
                                                 const uint32_t (&w)[kRowTiles][kBlocks][2], int tile) const {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int local = 16 * r + 8 * h + g, row = at.first_row + local;
                if (local >= at.row_count || row < a.first_evidence) continue;
                const int64_t index = a.evidence_at(at.slot, at.kv_head, row) * a.key_groups + tile;
                a.weights[index * (kGroupKeys / 8) + t] = make_uint4(w[r][0][h], w[r][1][h], w[r][2][h], w[r][3][h]);
                if (!t) a.weight_maxima[index] = most[r][h];
            }
    }

    // Leave maxima and sums in state[row] and what was mixed in `mixed`, for the other warps.
    __device__ __forceinline__ void share(float2* state, float* mixed) const {
        const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int row = 16 * r + 8 * h + g;
                const float all = quad_sum(sum[r][h]);
                if (!t) state[row] = make_float2(most[r][h], all);
#pragma unroll
                for (int d = 0; d < kWidth / 8; ++d)
                    *reinterpret_cast<float2*>(mixed + row * Shape::kMergeRow + 8 * d + 2 * t) =
                        make_float2(o[r][d][2 * h], o[r][d][2 * h + 1]);
            }
    }
};

// Eight columns of a row, summed over the warps; to `out` if no other block knows more of them, else to the workspace.
template <class Shape>
__device__ __forceinline__ void merge(const Task& a, const SplitPlace& at, const float2* states,
                                      const unsigned char* stages, int row, int column) {
    float most = -INFINITY, sum = 0.0f, mixed[8] = {};
#pragma unroll
    for (int warp = 0; warp < Shape::kWarps; ++warp) most = fmaxf(most, states[warp * Shape::kRows + row].x);
    const float base = base_of(most);
#pragma unroll
    for (int warp = 0; warp < Shape::kWarps; ++warp) {
        const float2 state = states[warp * Shape::kRows + row];
        const float fade = fast_exp2(state.x - base);
        sum = fmaf(state.y, fade, sum);
        const auto* from = reinterpret_cast<const float*>(stages + warp * Shape::kWarpBytes) + row * Shape::kMergeRow;
#pragma unroll
        for (int i = 0; i < 8; ++i) mixed[i] = fmaf(from[column + i], fade, mixed[i]);
    }
    if (a.is_combined()) {
        const int64_t index = a.state_at(at.slot, at.kv_head, at.split, at.first_row + row);
        if (!column) a.maxima[index] = most, a.sums[index] = sum;
        if (a.splits > 1) {
            auto* to = reinterpret_cast<float4*>(a.partial + index * Shape::kWidth + column);
            to[0] = make_float4(mixed[0], mixed[1], mixed[2], mixed[3]);
            to[1] = make_float4(mixed[4], mixed[5], mixed[6], mixed[7]);
        }
    }
    if (a.splits == 1 && row < at.row_count && column < a.p.head_width) {
        const float share = sum == 0.0f ? 0.0f : 1.0f / sum;
        half* to = out_row(a, at.slot, at.kv_head, a.first_split * a.group + at.first_row + row) + column;
#pragma unroll
        for (float& one : mixed) one *= share;
        *reinterpret_cast<uint4*>(to) = make_uint4(pack_halves(mixed[0], mixed[1]), pack_halves(mixed[2], mixed[3]),
                                                   pack_halves(mixed[4], mixed[5]), pack_halves(mixed[6], mixed[7]));
    }
}

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocksPerProcessor) attend_split(const Task a) {
    CELLSCRIBE_DYNAMIC_SHARED(shared);
    const int warp = threadIdx.x / 32;
    unsigned char* const own_stages = shared + warp * Shape::kWarpBytes;
    unsigned char* const queries = shared + Shape::kWarps * Shape::kWarpBytes;
    auto* states = reinterpret_cast<float2*>(queries + Shape::kQueryBytes);
    auto* words = reinterpret_cast<uint32_t*>(queries + Shape::kQueryBytes + Shape::kStateBytes);

    const int row_tile = int(blockIdx.y) % a.row_tiles, first_row = row_tile * Shape::kRows;
    const SplitPlace at = {int(blockIdx.z), int(blockIdx.y) / a.row_tiles, int(blockIdx.x), first_row,
                           min(a.rows - first_row, Shape::kRows)};
    const int rows_before = a.first_split * a.group;
    copy_queries<Shape::kWidth, Shape::kRows, Shape::kThreads>(queries, a, at.slot, at.kv_head, rows_before + first_row,
                                                               at.row_count);
    copy_async_commit();
    copy_async_wait<0>();
    const int tiles = mark_keys<Shape::kThreads>(words, a, at.slot, keys_seen(a, at.slot, a.p.num_tokens - 1));
    const int begin = tiles * at.split / a.splits + warp, end = tiles * (at.split + 1) / a.splits;
    if (a.has_evidence() && !threadIdx.x && !blockIdx.x && !blockIdx.y) a.used_groups[at.slot] = tiles;

    SplitLoader<Shape> loader(a, at, words, own_stages, begin, end);
    for (int i = 0; i < Shape::kStages; ++i) loader.start();
    SplitRows<Shape> mine(a, at, queries);
    for (int tile = begin, number = 0; tile < end; tile += Shape::kWarps, ++number) {
        copy_async_wait<Shape::kStages - 1>();
        __syncwarp();  // the other lanes' copies have arrived, too
        mine.take(a, at, own_stages + number % Shape::kStages * Shape::kStageBytes, tile, words[tile]);
        __syncwarp();
        loader.start();
    }
    copy_async_wait<0>();
    __syncwarp();
    mine.share(states + warp * Shape::kRows, reinterpret_cast<float*>(own_stages));
    __syncthreads();
    constexpr int kColumns = Shape::kWidth / 8;
    for (int i = threadIdx.x; i < Shape::kRows * kColumns; i += Shape::kThreads)
        merge<Shape>(a, at, states, shared, i / kColumns, i % kColumns * 8);
}

}  // namespace cellscribe::grouped
