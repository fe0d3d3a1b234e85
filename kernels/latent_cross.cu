// Cross-attention to a memory shared by all heads: choice of sizes, workspace, launches. See notes/latent_cross.md.

#include "latent/attend.cuh"
#include "latent/combine.cuh"

namespace {

using namespace cellscribe;
using namespace cellscribe::latent;

int64_t up(int64_t value, int64_t to) { return (value + to - 1) / to; }

// Hands out pieces of the workspace; with a null base it only counts.
struct Carver {
    unsigned char* base;
    int64_t used = 0;

    template <class T>
    T* take(int64_t count) {
        T* at = base ? reinterpret_cast<T*>(base + used) : nullptr;
        used += up(count * int64_t(sizeof(T)), 256) * 256;
        return at;
    }
};

bool is_valid(const CellscribeLatentCross& p) {
    const bool sizes = p.num_slots >= 1 && p.num_slots <= 65535 && p.num_heads >= 1 && p.num_heads <= 64 &&
                       p.num_tokens >= 1 && p.num_tokens <= 4096 && p.num_genes >= 1 && p.num_genes <= 65535;
    const bool width = p.width == 64 || p.width == 128 || p.width == 256 || p.width == 512;
    return sizes && width && p.first_token >= 0 && p.first_token < p.num_tokens && p.num_blocks >= 0;
}

bool is_aligned(const void* pointer, int64_t stride_a, int64_t stride_b = 0, int64_t stride_c = 0) {
    return pointer && reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && (stride_a | stride_b | stride_c) % 8 == 0;
}

// What the copies of 16 bytes, and the stores of a whole row, ask of the arrays.
bool is_placed_well(const CellscribeLatentCross& p) {
    return is_aligned(p.query, p.query_slot, p.query_head, p.query_token) && is_aligned(p.memory, p.memory_slot) &&
           is_aligned(p.out, p.out_slot, p.out_head, p.out_token) && is_aligned(p.workspace, 0) && p.scale == p.scale;
}

// Tiles of 32 rows where a block may have the shared memory for them, else of 16.
int tile_for(const CellscribeLatentCross& p) {
    if (p.width < 256) return 32;
    const int wanted = p.width == 256 ? Shape<256, 32, 4>::kSharedBytes : Shape<512, 32, 4>::kSharedBytes;
    return device_limits().shared_bytes < wanted ? 16 : 32;
}

struct Plan {
    Params a;
    int blocks;
    int64_t bytes;
};

Plan plan_for(const CellscribeLatentCross& p, int tile) {
    Plan plan{};
    Params& a = plan.a;
    a.p = p;
    a.rows = p.num_heads * p.num_tokens;
    a.row_tiles = int(up(a.rows, kRows));
    a.tiles = int(up(p.num_genes, tile));
    a.units = p.num_slots * a.row_tiles;
    a.work = int64_t(a.units) * a.tiles;
    const int wanted = p.num_blocks ? p.num_blocks : device_limits().multiprocessors * (p.width >= 256 ? 1 : 2);
    a.per_block = up(a.work, wanted);
    plan.blocks = int(up(a.work, a.per_block));
    a.scored_from = p.mass || p.weights ? p.first_token * p.num_heads / kRows : a.row_tiles;
    Carver carver{static_cast<unsigned char*>(p.workspace)};
    a.partial_out = carver.take<float>(int64_t(2) * plan.blocks * kRows * p.width);
    a.partial_state = carver.take<float2>(int64_t(2) * plan.blocks * kRows);
    a.final_state = carver.take<float2>(int64_t(a.units) * kRows);
    const int64_t scored = int64_t(p.num_slots) * a.scored_tiles();
    a.probs = carver.take<half>(scored * kRows * a.tiles * tile);
    a.maxima = carver.take<float>(scored * a.tiles * kRows);
    plan.bytes = carver.used;
    return plan;
}

template <int kWidth, int kTile>
int run(const Plan& plan, cudaStream_t stream) {
    using Sizes = Shape<kWidth, kTile, 4>;
    const Params& a = plan.a;
    const int refused = launch(attend<Sizes>, dim3(unsigned(plan.blocks)), dim3(Sizes::kThreads), Sizes::kSharedBytes,
                               stream, a);
    if (refused) return refused;
    const bool scored = a.scored_tiles() > 0;
    if (!scored && a.per_block % a.tiles == 0) return CELLSCRIBE_OK;  // no unit is shared
    const unsigned row_blocks = unsigned(a.units) * kRows;
    const unsigned pieces = unsigned(up(a.p.num_genes, kCombineThreads));
    const unsigned weigh_blocks = scored ? pieces * unsigned(a.p.num_slots * (a.p.num_tokens - a.p.first_token)) : 0;
    return launch(combine<kTile>, dim3(row_blocks + weigh_blocks), dim3(kCombineThreads), 0, stream, a, row_blocks,
                  pieces);
}

}  // namespace

CELLSCRIBE_API int64_t cellscribe_latent_cross_workspace(const CellscribeLatentCross* p) {
    return is_valid(*p) ? plan_for(*p, tile_for(*p)).bytes : 0;
}

CELLSCRIBE_API int cellscribe_latent_cross(const CellscribeLatentCross* p, void* stream) {
    if (!is_valid(*p)) return CELLSCRIBE_BAD_SHAPE;
    const int tile = tile_for(*p);
    const Plan plan = plan_for(*p, tile);
    if (p->workspace_bytes < plan.bytes) return CELLSCRIBE_SMALL_WORKSPACE;
    if (!is_placed_well(*p)) return CELLSCRIBE_BAD_SHAPE;
    const auto on = cudaStream_t(stream);
    switch (p->width) {
        case 64: return run<64, 32>(plan, on);
        case 128: return run<128, 32>(plan, on);
        case 256: return tile == 16 ? run<256, 16>(plan, on) : run<256, 32>(plan, on);
        default: return tile == 16 ? run<512, 16>(plan, on) : run<512, 32>(plan, on);
    }
}
