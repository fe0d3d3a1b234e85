// Grouped-query attention: what include/cellscribe/grouped_attention.h promises. Many query rows go to attend_tiles,
// few go to attend_split and, where keys are shared out or evidence is wanted, on to combine.

#include "attention/combine.cuh"
#include "attention/split.cuh"
#include "attention/tiles.cuh"

namespace {

using namespace cellscribe;
using namespace cellscribe::grouped;

int64_t up(int64_t count, int64_t unit) { return (count + unit - 1) / unit; }

bool is_between(int64_t x, int64_t low, int64_t high) { return low <= x && x <= high; }

bool is_aligned(const void* pointer, int64_t a, int64_t b, int64_t c) {
    return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && (a | b | c) % 8 == 0;
}

bool has_sizes(const CellscribeGroupedAttention& p) {
    return is_between(p.num_slots, 1, 65535) && is_between(p.num_heads, 1, kMaxHeads) && p.num_kv_heads > 0 &&
           p.num_heads % p.num_kv_heads == 0 && is_between(p.num_tokens, 1, 65535) &&
           is_between(p.num_keys, 1, 65535) && is_between(p.head_width, 8, 128) && p.head_width % 8 == 0 &&
           p.scale > 0.0f && is_between(p.first_token, 0, p.num_tokens) && p.num_blocks >= 0;
}

bool has_alignment(const CellscribeGroupedAttention& p) {
    return is_aligned(p.query, p.query_slot, p.query_head, p.query_token) &&
           is_aligned(p.key, p.key_slot, p.key_head, p.key_row) &&
           is_aligned(p.value, p.value_slot, p.value_head, p.value_row) &&
           is_aligned(p.out, p.out_slot, p.out_head, p.out_token) && is_aligned(p.workspace, 0, 0, 0);
}

int width_for(const CellscribeGroupedAttention& p) { return p.head_width <= 32 ? 32 : p.head_width <= 64 ? 64 : 128; }

// The first token for attend_split. It alone keeps evidence; it is best for few rows, and for more as long as blocks of
// 64 rows would leave the device idle over a long row of keys.
int first_split_for(const CellscribeGroupedAttention& p, bool has_evidence) {
    constexpr int kFewRows = 32, kTilesRows = 64, kLong = 512;
    const int without = has_evidence ? p.first_token : p.num_tokens;
    const int64_t rows = int64_t(p.num_heads / p.num_kv_heads) * without;
    const int64_t blocks = int64_t(p.num_slots) * p.num_kv_heads * up(rows, kTilesRows);
    const bool fills = 2 * blocks >= device_limits().multiprocessors;
    const bool has_many = rows > kFewRows && (fills || (rows > kTilesRows && p.num_keys < kLong));
    return has_many ? without : 0;
}

int64_t units_of(const Task& a) { return int64_t(a.p.num_slots) * a.p.num_kv_heads * a.row_tiles; }

// Two warps a block, where blocks abound: more of them share a multiprocessor, one starts while others work.
int warps_for(const Task& a, int width) {
    constexpr int kMany = 2;  // blocks per multiprocessor
    if (width != 64) return width < 64 ? 4 : 2;
    return units_of(a) >= kMany * device_limits().multiprocessors ? 2 : 4;
}

// Pieces of the keys, so that blocks fill the device but no piece is so short that combining costs more.
int splits_for(const Task& a) {
    constexpr int kBlocksPerProcessor = 2, kGroupsPerWarp = 2, kMaxSplits = 128;
    const int64_t blocks = a.p.num_blocks ? a.p.num_blocks : kBlocksPerProcessor * device_limits().multiprocessors;
    const int shortest = a.warps * (a.p.num_blocks ? 1 : a.has_evidence() ? kGroupsPerWarp : 2 * kGroupsPerWarp);
    const int64_t most = min(up(a.key_groups, shortest), int64_t(kMaxSplits));
    return int(max(int64_t(1), min(blocks / units_of(a), most)));
}

struct Carver {
    unsigned char* start;
    int64_t used = 0;

    template <class T>
    T* take(int64_t count) {
        T* taken = reinterpret_cast<T*>(start + used);
        used += up(count * int64_t(sizeof(T)), 16) * 16;
        return taken;
    }
};

struct Plan {
    Task a;
    int64_t bytes;
};

Plan plan_for(const CellscribeGroupedAttention& p) {
    Task a = {};
    a.p = p;
    a.group = p.num_heads / p.num_kv_heads;
    a.scale_log2 = p.scale * kLog2e;
    a.key_groups = int(up(p.num_keys, kGroupKeys));
    const bool has_evidence = (p.mass || p.weights) && p.first_token < p.num_tokens;
    a.first_split = first_split_for(p, has_evidence);
    a.rows = a.group * (p.num_tokens - a.first_split);
    const int width = width_for(p);
    a.row_tile = a.rows > 16 && width <= 64 ? 32 : 16;  // 32 rows of 128 columns are more than the registers hold
    a.row_tiles = int(up(a.rows, a.row_tile));
    a.first_evidence = has_evidence ? a.group * max(p.first_token - a.first_split, 0) : a.rows;
    a.warps = warps_for(a, width);
    a.splits = a.rows ? splits_for(a) : 1;

    Carver carver = {static_cast<unsigned char*>(p.workspace)};
    const int64_t kv_heads = int64_t(p.num_slots) * p.num_kv_heads;
    const int64_t states = a.is_combined() ? kv_heads * a.splits * a.row_tiles * a.row_tile : 0;
    const int64_t kept = kv_heads * (a.rows - a.first_evidence) * a.key_groups;
    a.used_groups = carver.take<int32_t>(kept ? p.num_slots : 0);
    a.maxima = carver.take<float>(states);
    a.sums = carver.take<float>(states);
    a.partial = carver.take<float>(a.splits > 1 ? states * width : 0);
    a.weights = carver.take<uint4>(kept * (kGroupKeys / 8));
    a.weight_maxima = carver.take<float>(kept);
    return {a, carver.used};
}

template <class Shape>
int run_tiles(const Task& a, cudaStream_t stream) {
    const dim3 grid(unsigned(up(int64_t(a.first_split) * a.group, Shape::kRows)), unsigned(a.p.num_kv_heads),
                    unsigned(a.p.num_slots));
    return int(launch(attend_tiles<Shape>, grid, dim3(Shape::kThreads), Shape::shared_bytes(a.key_groups), stream, a));
}

template <class Shape>
int run_split(const Task& a, cudaStream_t stream) {
    const dim3 grid(unsigned(a.splits), unsigned(a.p.num_kv_heads * a.row_tiles), unsigned(a.p.num_slots));
    return int(launch(attend_split<Shape>, grid, dim3(Shape::kThreads), Shape::shared_bytes(a.key_groups), stream, a));
}

int run_combine(const Task& a, int width, cudaStream_t stream) {
    const int head_blocks = a.splits > 1 ? int(up(a.p.num_heads, kCombineWarps)) : 0;
    const int key_blocks = a.has_evidence() ? int(up(a.p.num_keys, kEvidenceKeys)) : 0;
    const int tokens = a.p.num_tokens - a.first_split;
    const dim3 grid(unsigned(head_blocks + key_blocks), unsigned(tokens), unsigned(a.p.num_slots));
    return int(launch(combine, grid, dim3(kCombineThreads), 0, stream, a, head_blocks, width));
}

// 128 rows a block where they fill the device, else 64.
template <int kWidth>
int run_many(const Task& a, cudaStream_t stream) {
    if constexpr (kWidth == 64) {
        const int64_t blocks = up(int64_t(a.first_split) * a.group, 128) * a.p.num_kv_heads * a.p.num_slots;
        if (blocks >= device_limits().multiprocessors) return run_tiles<TilesShape<64, 2, 4, 2>>(a, stream);
    }
    return run_tiles<TilesShape<kWidth, 1, 4, kWidth == 128 ? 2 : 3>>(a, stream);
}

template <int kWidth>
int run_few(const Task& a, cudaStream_t stream) {
    if constexpr (kWidth == 128) {
        return run_split<SplitShape<kWidth, 1, 2>>(a, stream);
    } else {
        if constexpr (kWidth == 64) {
            if (a.warps == 2 && a.row_tile == 16) return run_split<SplitShape<kWidth, 1, 2>>(a, stream);
            if (a.warps == 2) return run_split<SplitShape<kWidth, 2, 2>>(a, stream);
        }
        if (a.row_tile == 16) return run_split<SplitShape<kWidth, 1, 4>>(a, stream);
        return run_split<SplitShape<kWidth, 2, 4>>(a, stream);
    }
}

template <int kWidth>
int run(const Task& a, cudaStream_t stream) {
    int refused = CELLSCRIBE_OK;
    if (a.first_split) refused = run_many<kWidth>(a, stream);
    if (refused || !a.rows) return refused;
    refused = run_few<kWidth>(a, stream);
    if (refused || !a.is_combined()) return refused;
    return run_combine(a, kWidth, stream);
}

}  // namespace

CELLSCRIBE_API int64_t cellscribe_grouped_attention_workspace(const CellscribeGroupedAttention* p) {
    return has_sizes(*p) ? plan_for(*p).bytes : 0;
}

CELLSCRIBE_API int cellscribe_grouped_attention(const CellscribeGroupedAttention* p, void* stream) {
    if (!has_sizes(*p) || !has_alignment(*p)) return CELLSCRIBE_BAD_SHAPE;
    const Plan plan = plan_for(*p);
    if (p->workspace_bytes < plan.bytes) return CELLSCRIBE_SMALL_WORKSPACE;
    const auto on = cudaStream_t(stream);
    if (int64_t(plan.a.p.num_kv_heads) * plan.a.row_tiles > 65535) return CELLSCRIBE_BAD_SHAPE;
    switch (width_for(*p)) {
        case 32: return run<32>(plan.a, on);
        case 64: return run<64>(plan.a, on);
        default: return run<128>(plan.a, on);
    }
}
