// A product of few rows with a large matrix: the time it takes to read the weights. A block takes a tile of 128 bytes
// of columns and a range of at most 1024 k; its warps take turns of 16 k, with the loads of two turns on their way
// before the inputs are ready. The sums of the warps, and then of the blocks of a tile, are added in a fixed order.

#include "cellscribe/skinny_linear.h"

#include "common/device.cuh"
#include "skinny/fragments.cuh"
#include "skinny/inputs.cuh"

namespace {

using namespace cellscribe;

constexpr int kUnit = kWarps * kStep;       // k that all warps of a block take in one turn
constexpr int kSumsColumn = kMaxRows + 1;   // floats between columns in shared memory

template <class Weight>
struct Tile {
    static constexpr int kLane = Fragments<Weight>::kColumns;
    static constexpr int kColumns = 8 * kLane;  // of a block
    static constexpr int kResident = kLane == 8 ? 3 : 2;  // blocks that a multiprocessor's registers hold
    static constexpr int kAhead = kLane == 8 ? 2 : 3;     // steps whose weights are on their way: 96 KB together
};

template <class Weight>
union alignas(16) Shared {
    Inputs inputs;
    float sums[kWarps][Tile<Weight>::kColumns * kSumsColumn];
};

// The weights of one step of this lane, zeros beyond the matrix.
template <class Weight>
struct Source {
    const Weight* column;  // of the lane; null beyond the matrix
    int64_t row_stride;
    int first, end;  // k of the lane in step 0, and where the range ends

    __device__ __forceinline__ void load(int step, uint4 (&w)[kQuad]) const {
#pragma unroll
        for (int i = 0; i < kQuad; ++i) {
            const int k = first + step * kUnit + i;
            w[i] = column && k < end ? __ldcs(reinterpret_cast<const uint4*>(column + k * row_stride))
                                     : make_uint4(0, 0, 0, 0);
        }
    }
};

// acc += weights of all steps times the inputs of shared memory.
template <class Weight>
__device__ __forceinline__ void multiply_range(const Source<Weight>& source, int steps, const Inputs& inputs,
                                               uint4 (&w)[Tile<Weight>::kAhead][kQuad],
                                               float (&acc)[Tile<Weight>::kLane / 2][4]) {
    constexpr int kAhead = Tile<Weight>::kAhead;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const half* x = inputs.rows[lane / 4] + warp * kStep + lane % 4 * kQuad;
    for (int step = 0; step < steps; step += kAhead) {
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
            if (step + i >= steps) break;
            const uint2 b = *reinterpret_cast<const uint2*>(x + (step + i) * kUnit);
            Fragments<Weight>::multiply(w[i], b.x, b.y, acc);
            if (step + i + kAhead < steps) source.load(step + i + kAhead, w[i]);
        }
    }
}

// Put the sums of this warp where the others find them: [column][row].
template <class Weight>
__device__ __forceinline__ void share_sums(const float (&acc)[Tile<Weight>::kLane / 2][4], float* sums) {
    const int lane = threadIdx.x % 32;
    float* mine = sums + lane / 4 * Tile<Weight>::kLane * kSumsColumn + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < Tile<Weight>::kLane / 2; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) mine[(2 * j + i / 2) * kSumsColumn + i % 2] = acc[j][i];
}

__device__ __forceinline__ void finish(const CellscribeSkinnyLinear& p, int row, int column, float sum) {
    if (p.scales) sum *= p.scales[column];
    if (p.bias) sum += p.bias[column];
    const int64_t at = row * p.out_row + column;
    if (p.output == CELLSCRIBE_OUTPUT_FP16) {
        static_cast<half*>(p.out)[at] = __float2half_rn(sum);
    } else if (p.output == CELLSCRIBE_OUTPUT_FP32) {
        static_cast<float*>(p.out)[at] = sum;
    } else {
        static_cast<float*>(p.out)[at] += sum;
    }
}

// Whether this block is the last of its tile to come here; all that the others wrote before is then to be seen.
__device__ __forceinline__ bool is_last(uint32_t* counter, uint32_t count) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(counter, 1u) == count - 1;
        if (last) *counter = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}

template <class Weight, int kInput>
__global__ void __launch_bounds__(kThreads, Tile<Weight>::kResident)
    skinny_linear(CellscribeSkinnyLinear p, int range) {
    constexpr int kColumns = Tile<Weight>::kColumns, kAhead = Tile<Weight>::kAhead;
    __shared__ Shared<Weight> s;
    __shared__ float scales[kMaxRows];
    const int tile = blockIdx.x, split = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int begin = split * range, end = min(p.inner, begin + range);
    const int steps = (end - begin + kUnit - 1) / kUnit;

    const int column = tile * kColumns + lane / 4 * Tile<Weight>::kLane;
    const Source<Weight> source = {column < p.width ? static_cast<const Weight*>(p.weight) + column : nullptr,
                                   p.weight_row, begin + warp * kStep + lane % 4 * kQuad, end};
    uint4 w[kAhead][kQuad];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) source.load(i, w[i]);

    stage_inputs<kInput>(p, begin, range, s.inputs, scales);
    float acc[Tile<Weight>::kLane / 2][4] = {};
    multiply_range<Weight>(source, steps, s.inputs, w, acc);
    __syncthreads();
    share_sums<Weight>(acc, s.sums[warp]);
    __syncthreads();

    float* parts = static_cast<float*>(p.workspace) + int64_t(tile) * gridDim.y * kMaxRows * kColumns;
    const int outputs = p.num_rows * kColumns;  // of which some may lie beyond the last column
    for (int item = threadIdx.x; item < outputs; item += kThreads) {
        const int at = item % kColumns * kSumsColumn + item / kColumns;
        float sum = 0;
#pragma unroll
        for (int i = 0; i < kWarps; ++i) sum += s.sums[i][at];
        if (gridDim.y > 1) {
            parts[split * kMaxRows * kColumns + item] = sum;
        } else if (tile * kColumns + item % kColumns < p.width) {
            finish(p, item / kColumns, tile * kColumns + item % kColumns, sum);
        }
    }
    if (gridDim.y == 1 || !is_last(p.counters + tile, gridDim.y)) return;
    for (int item = threadIdx.x; item < outputs; item += kThreads) {
        float sum = 0;
#pragma unroll 4
        for (unsigned i = 0; i < gridDim.y; ++i) sum += __ldcg(parts + i * kMaxRows * kColumns + item);
        if (tile * kColumns + item % kColumns < p.width)
            finish(p, item / kColumns, tile * kColumns + item % kColumns, sum);
    }
}

struct Plan {
    int tiles, splits, range;  // tiles 0: not served
};

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Few waves of blocks, each with enough to read that its start and its share of the last sum do not show.
int suggested_units(int tiles, int units, int resident) {
    const int slots = device_limits().multiprocessors * resident;
    constexpr int kOverhead = 2;  // of a block, in units
    int best = 1, best_cost = INT32_MAX;
    for (int each = 1; each <= min(units, kMaxRange / kUnit); ++each) {
        const int waves = ceil_div(tiles * ceil_div(units, each), slots);
        const int cost = waves * (each + kOverhead);
        if (cost <= best_cost) best = each, best_cost = cost;
    }
    return best;
}

Plan plan_of(const CellscribeSkinnyLinear& p) {
    const bool is_int8 = p.weight_type == CELLSCRIBE_INT8;
    const bool types_fit = (is_int8 || p.weight_type == CELLSCRIBE_FP16) && p.input >= CELLSCRIBE_INPUT_PLAIN &&
                           p.input <= CELLSCRIBE_INPUT_GATED_SILU && p.output >= CELLSCRIBE_OUTPUT_FP16 &&
                           p.output <= CELLSCRIBE_OUTPUT_ADD_FP32;
    const bool sizes_fit = p.num_rows >= 1 && p.num_rows <= kMaxRows && p.inner >= 8 && p.inner % 8 == 0 &&
                           p.width >= 8 && p.width % (is_int8 ? 16 : 8) == 0 && p.num_splits >= 0;
    if (!types_fit || !sizes_fit || p.inner > 1 << 20 || p.width > 1 << 24) return {0, 0, 0};
    const int tiles = ceil_div(p.width, is_int8 ? Tile<int8_t>::kColumns : Tile<half>::kColumns);
    const int resident = is_int8 ? Tile<int8_t>::kResident : Tile<half>::kResident, units = ceil_div(p.inner, kUnit);
    const int each = p.num_splits ? ceil_div(units, p.num_splits) : suggested_units(tiles, units, resident);
    const int kept = min(each, kMaxRange / kUnit), splits = ceil_div(units, kept);
    return splits > 65535 ? Plan{0, 0, 0} : Plan{tiles, splits, kept * kUnit};
}

int64_t workspace_bytes(const CellscribeSkinnyLinear& p, const Plan& plan) {
    const int64_t columns = p.weight_type == CELLSCRIBE_INT8 ? Tile<int8_t>::kColumns : Tile<half>::kColumns;
    return plan.splits > 1 ? int64_t(plan.tiles) * plan.splits * kMaxRows * columns * int64_t(sizeof(float)) : 0;
}

template <class Weight>
int launch_skinny(const CellscribeSkinnyLinear& p, const Plan& plan, void* stream) {
    auto kernel = p.input == CELLSCRIBE_INPUT_PLAIN      ? skinny_linear<Weight, CELLSCRIBE_INPUT_PLAIN>
                  : p.input == CELLSCRIBE_INPUT_RMS_NORM ? skinny_linear<Weight, CELLSCRIBE_INPUT_RMS_NORM>
                                                         : skinny_linear<Weight, CELLSCRIBE_INPUT_GATED_SILU>;
    const dim3 grid(unsigned(plan.tiles), unsigned(plan.splits));
    return int(launch(kernel, grid, dim3(kThreads), 0, cudaStream_t(stream), p, plan.range));
}

bool is_placed(const void* p, int64_t row_bytes) {
    return p && reinterpret_cast<uintptr_t>(p) % 16 == 0 && row_bytes % 16 == 0;
}

}  // namespace

CELLSCRIBE_API int64_t cellscribe_skinny_linear_workspace(const CellscribeSkinnyLinear* p) {
    const Plan plan = plan_of(*p);
    return plan.tiles ? workspace_bytes(*p, plan) : -1;
}

CELLSCRIBE_API int32_t cellscribe_skinny_linear_counters(const CellscribeSkinnyLinear* p) {
    const Plan plan = plan_of(*p);
    return !plan.tiles ? -1 : plan.splits > 1 ? plan.tiles : 0;
}

CELLSCRIBE_API int cellscribe_skinny_linear(const CellscribeSkinnyLinear* p, void* stream) {
    const Plan plan = plan_of(*p);
    const bool is_int8 = p->weight_type == CELLSCRIBE_INT8;
    if (!plan.tiles || !is_placed(p->weight, p->weight_row * (is_int8 ? 1 : 2))) return CELLSCRIBE_BAD_SHAPE;
    if (is_int8 != (p->scales != nullptr) || !p->x || !p->out) return CELLSCRIBE_BAD_SHAPE;
    if (p->input == CELLSCRIBE_INPUT_RMS_NORM && !p->norm_weight) return CELLSCRIBE_BAD_SHAPE;
    if (plan.splits > 1 && (!p->workspace || !p->counters)) return CELLSCRIBE_SMALL_WORKSPACE;
    if (p->workspace_bytes < workspace_bytes(*p, plan) || (plan.splits > 1 && p->num_counters < plan.tiles))
        return CELLSCRIBE_SMALL_WORKSPACE;
    return is_int8 ? launch_skinny<int8_t>(*p, plan, stream) : launch_skinny<half>(*p, plan, stream);
}
