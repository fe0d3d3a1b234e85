// Choosing tokens: one block per slot.

#include "cellscribe/sampling.h"

#include "common/keyed.cuh"
#include "sampling/nucleus.cuh"

namespace {

using namespace cellscribe;

constexpr int kMaxThreads = 1024;

__device__ __forceinline__ bool ends_text(const CellscribeSample& p, int token) {
    for (int i = 0; i < p.num_eos; ++i)
        if (p.eos_ids[i] == token) return true;
    return false;
}

// One thread moves the slot on.
__device__ __forceinline__ void settle(const CellscribeSample& p, int slot, int token, float logprob) {
    const bool is_lost = token < 0;
    const int length = p.lengths[slot];
    p.chosen[slot] = token;
    p.logprobs[slot] = logprob;
    p.tokens[slot] = is_lost ? 0 : token;
    p.positions[slot] = p.prompt_len + length;
    p.lengths[slot] = length + 1;
    p.finished[slot] = is_lost || length + 1 >= p.max_new_tokens || ends_text(p, token);
}

enum Way { kGreedy, kDrawn, kMixed };  // what all slots do, or each as it says itself

template <class T, Way kWay>
__global__ void __launch_bounds__(kMaxThreads) sample(int weight_shift, CellscribeSample p) {
    __shared__ Shared s;
    const int slot = blockIdx.x;
    if (p.finished[slot]) {
        if (threadIdx.x == 0) p.chosen[slot] = CELLSCRIBE_SILENT, p.logprobs[slot] = 0.0f;
        return;
    }
    const T* logits = static_cast<const T*>(p.logits) + slot * p.logits_slot;
    uint64_t best = ~uint64_t(0);
    for_each(logits, p.vocabulary, [&](int id, float logit) { best = min(best, order_of(logit, id)); });
    best = block_combine(best, ~uint64_t(0), s.words[0], Min());
    const float largest = logit_of(best);
    if (largest - largest != 0.0f) {
        if (threadIdx.x == 0) settle(p, slot, CELLSCRIBE_NOT_FINITE, __int_as_float(0x7fc00000));
        return;
    }

    int token = int(uint32_t(best));
    float exponentials = 0;
    const bool is_greedy = kWay == kGreedy || (kWay == kMixed && p.temperatures[slot] == 0.0f);  // as the whole block
    if constexpr (kWay != kDrawn) {
        if (is_greedy) for_each(logits, p.vocabulary, [&](int, float logit) { exponentials += expf(logit - largest); });
    }
    if constexpr (kWay != kGreedy) {
        if (!is_greedy) {
            const float temperature = kWay == kMixed ? p.temperatures[slot] : p.temperature;
            const Row<T> row = {logits, p.vocabulary, {largest, temperature, weight_shift}, s};
            const float uniform = keyed_uniform(p.keys[slot], uint64_t(p.lengths[slot]));
            const uint64_t total = row.weigh(exponentials);
            token = row.draw(kWay == kMixed ? p.top_ps[slot] : p.top_p, total, uniform);
        }
    }
    const float sum = block_sum(exponentials, s.floats);
    if (threadIdx.x == 0) settle(p, slot, token, (as_float(logits[token]) - largest) - logf(sum));
}

int round_up_log2(int x) {
    int bits = 0;
    while ((1 << bits) < x) ++bits;
    return bits;
}

template <class T>
int launch_sample(const CellscribeSample& p, void* stream) {
    const int log2 = round_up_log2(p.vocabulary);
    const int threads = log2 < 10 ? 128 : log2 > 13 ? kMaxThreads : 1 << (log2 - 3);
    auto kernel = p.temperatures ? sample<T, kMixed> : p.temperature == 0.0f ? sample<T, kGreedy> : sample<T, kDrawn>;
    return int(launch(kernel, dim3(unsigned(p.num_slots)), dim3(unsigned(threads)), 0, cudaStream_t(stream),
                      log2 < 1 ? 1 : log2, p));
}

}  // namespace

CELLSCRIBE_API int cellscribe_sample(const CellscribeSample* p, void* stream) {
    const bool sizes_fit = p->num_slots >= 1 && p->vocabulary >= 1 && p->vocabulary <= 1 << 22 && p->num_eos >= 0 &&
                           p->max_new_tokens >= 1;
    const bool type_fits = p->logits_type == CELLSCRIBE_FP16 || p->logits_type == CELLSCRIBE_FP32;
    const bool is_greedy = p->temperature == 0.0f;
    const bool draw_fits = is_greedy || (p->temperature > 0.0f && p->top_p > 0.0 && p->top_p <= 1.0 && p->keys);
    const bool each_fits = p->temperatures && p->top_ps && p->keys;
    const bool choice_fits = p->temperatures || p->top_ps ? each_fits : draw_fits;
    const bool ends_fit = !p->num_eos || p->eos_ids;
    if (!sizes_fit || !type_fits || !choice_fits || !ends_fit) return CELLSCRIBE_BAD_SHAPE;
    return p->logits_type == CELLSCRIBE_FP16 ? launch_sample<half>(*p, stream) : launch_sample<float>(*p, stream);
}
