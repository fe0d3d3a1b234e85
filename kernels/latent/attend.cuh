// The attention itself: persistent blocks, each with an equal share of all (slot, row tile, memory tile) items.
#pragma once

#include "latent/accumulator.cuh"
#include "latent/loader.cuh"
#include "latent/softmax.cuh"

namespace cellscribe::latent {

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1) attend(const Params a) {
    CELLSCRIBE_DYNAMIC_SHARED(shared);
    unsigned char* memory = shared;
    float* partial = reinterpret_cast<float*>(memory + Shape::kMemoryBytes);
    unsigned char* probs = reinterpret_cast<unsigned char*>(partial) + Shape::kPartialBytes;
    float* decay = reinterpret_cast<float*>(probs + Shape::kProbBytes);
    float2* state = reinterpret_cast<float2*>(decay + 2 * kRows);
    uint8_t* flags = reinterpret_cast<uint8_t*>(state + kRows);

    const int64_t begin = int64_t(blockIdx.x) * a.per_block, end = min(begin + a.per_block, a.work);
    const int warp = int(threadIdx.x) / 32, my_row = int(threadIdx.x) / Shape::kWarps;
    const float scale = a.p.scale * kLog2e;
    Loader<Shape> loader{a, memory, flags, begin, end};
    loader.start();
    __syncthreads();
    for (int i = 0; i < Shape::kStages - 2; ++i) {
        loader.issue();
        __syncthreads();  // the flags of the next tile
    }

    Accumulator<Shape> sums;
    int number = 0;  // of the tile, in this block
    for (int64_t item = begin; item < end;) {
        const int unit = int(item / a.tiles);
        const int slot = unit / a.row_tiles, row_tile = unit % a.row_tiles;
        const int first_tile = int(item % a.tiles), last_tile = int(min(int64_t(a.tiles), first_tile + end - item));
        const bool scored = row_tile >= a.scored_from;
        const int64_t scored_unit = scored ? int64_t(slot) * a.scored_tiles() + row_tile - a.scored_from : 0;
        sums.load(a, slot, row_tile * kRows);
        Softmax<Shape> softmax;
        for (int tile = first_tile; tile < last_tile; ++tile, ++number) {
            copy_async_wait<Shape::kStages - 3>();
            __syncthreads();  // this tile is there; the last one's probabilities too; the stage before it is free
            loader.issue();
            const unsigned char* here = memory + number % Shape::kStages * Shape::kTile * Shape::kMemoryRow;
            sums.score(here, partial + warp * kRows * Shape::kPartialRow);
            __syncthreads();
            half* kept = nullptr;
            float* kept_maximum = nullptr;
            if (scored) {
                kept = a.probs + (scored_unit * kRows + my_row) * a.tiles * Shape::kTile + tile * Shape::kTile;
                kept_maximum = a.maxima + (scored_unit * a.tiles + tile) * kRows + my_row;
            }
            softmax.take(partial, flags + number % Shape::kFlags * Shape::kTile, scale,
                         probs + number % 2 * kRows * Shape::kProbRow, decay + number % 2 * kRows, kept, kept_maximum);
            if (tile > first_tile) {  // while other warps are still at their softmax
                const int last = number - 1;
                sums.mix(memory + last % Shape::kStages * Shape::kTile * Shape::kMemoryRow,
                         probs + last % 2 * kRows * Shape::kProbRow, decay + last % 2 * kRows);
            }
        }
        const float2 mine = softmax.state();
        if (threadIdx.x % Shape::kWarps == 0) state[my_row] = mine;
        __syncthreads();
        const int last = number - 1;
        sums.mix(memory + last % Shape::kStages * Shape::kTile * Shape::kMemoryRow,
                 probs + last % 2 * kRows * Shape::kProbRow, decay + last % 2 * kRows);
        if (first_tile == 0 && last_tile == a.tiles) {
            store_whole<Shape>(a, sums, state, slot, row_tile * kRows);
            if (int(threadIdx.x) < kRows) a.final_state[int64_t(unit) * kRows + threadIdx.x] = state[threadIdx.x];
        } else {
            const int place = place_of(a, int(blockIdx.x), unit);
            store_partial<Shape>(a, sums, place);
            if (int(threadIdx.x) < kRows) a.partial_state[int64_t(place) * kRows + threadIdx.x] = state[threadIdx.x];
        }
        item += last_tile - first_tile;
    }
    copy_async_wait<0>();
}

}  // namespace cellscribe::latent
