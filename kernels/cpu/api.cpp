// The C functions of one instruction set; compiled once for each, with CELLSCRIBE_ISA as their ending.
#include <new>

#include "cross.h"
#include "greedy.h"
#include "pack.h"
#include "peak.h"

#define CELLSCRIBE_JOIN(a, b) cellscribe_##a##_##b
#define CELLSCRIBE_NAME(a, b) CELLSCRIBE_JOIN(a, b)
#define CELLSCRIBE_C(name) CELLSCRIBE_NAME(name, CELLSCRIBE_ISA)
#define CELLSCRIBE_EXPORT extern "C" __attribute__((visibility("default")))

using namespace CELLSCRIBE_ISA;
using cellscribe::Threads;

namespace {

// Runs `work`; false when memory ran out.
template <class Work>
int32_t guarded(Work&& work) {
  try {
    work();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // namespace

CELLSCRIBE_EXPORT void* CELLSCRIBE_C(linear_new)(int32_t kind, int64_t k, int64_t n, int32_t has_bias,
                                                int64_t group) {
  void* made = nullptr;
  guarded([&] { made = make_linear(static_cast<Kind>(kind), k, n, has_bias != 0, group).release(); });
  return made;
}

CELLSCRIBE_EXPORT void CELLSCRIBE_C(linear_free)(void* weight) { delete static_cast<Linear*>(weight); }

CELLSCRIBE_EXPORT int64_t CELLSCRIBE_C(linear_bytes)(void* weight) { return static_cast<Linear*>(weight)->bytes(); }

// Columns n0.. from numbers [K, count], `stride` apart: float32, or fp16.
CELLSCRIBE_EXPORT void CELLSCRIBE_C(linear_numbers)(void* weight, void* threads, int64_t n0, int64_t count,
                                                    const void* source, int64_t stride, int32_t is_half) {
  Linear& w = *static_cast<Linear*>(weight);
  Threads& crew = *static_cast<Threads*>(threads);
  if (is_half) pack_numbers(w, n0, count, static_cast<const uint16_t*>(source), stride, crew);
  else pack_numbers(w, n0, count, static_cast<const float*>(source), stride, crew);
}

CELLSCRIBE_EXPORT void CELLSCRIBE_C(linear_blocks)(void* weight, void* threads, int64_t n0, int64_t count,
                                                   const uint8_t* packed, const float* scales) {
  pack_blocks(*static_cast<Linear*>(weight), n0, count, packed, scales, *static_cast<Threads*>(threads));
}

CELLSCRIBE_EXPORT void CELLSCRIBE_C(linear_bias)(void* weight, int64_t n0, int64_t count, const float* bias) {
  std::memcpy(static_cast<Linear*>(weight)->bias.get() + n0, bias, static_cast<size_t>(count) * 4);
}

// y[rows, N] = x[rows, K] · W (+ bias).
CELLSCRIBE_EXPORT int32_t CELLSCRIBE_C(linear_run)(void* weight, void* threads, const float* x, int64_t rows,
                                                   float* y) {
  return guarded([&] {
    const Linear& w = *static_cast<Linear*>(weight);
    Threads& crew = *static_cast<Threads*>(threads);
    Products products(crew);
    Prepared prepared;
    prepared.reserve(rows, w.kp);
    crew.run(rows, [&](int64_t row, int) { prepared.put(w, row, x + row * w.k); });
    Finish finish;
    finish.bias = w.bias.get(), finish.out = y, finish.stride = w.n;
    products.run(w, prepared.rows(w), rows, finish);
  });
}

CELLSCRIBE_EXPORT void* CELLSCRIBE_C(slots_new)(const cellscribe_cpu_decoder* decoder, void* threads, int64_t slots,
                                                int64_t capacity, int64_t genes) {
  void* made = nullptr;
  guarded([&] { made = new Slots(*decoder, *static_cast<Threads*>(threads), slots, capacity, genes); });
  return made;
}

CELLSCRIBE_EXPORT void CELLSCRIBE_C(slots_free)(void* slots) { delete static_cast<Slots*>(slots); }

CELLSCRIBE_EXPORT int64_t CELLSCRIBE_C(slots_bytes)(void* slots) { return static_cast<Slots*>(slots)->bytes(); }

CELLSCRIBE_EXPORT int32_t CELLSCRIBE_C(slots_fill)(void* slots, int64_t slot, const float* memory,
                                                   const int64_t* columns, int64_t count) {
  return guarded([&] { static_cast<Slots*>(slots)->fill(slot, memory, columns, count); });
}

CELLSCRIBE_EXPORT void CELLSCRIBE_C(slots_write)(void* slots, int64_t slot, int64_t layer, const float* keys,
                                                 const float* values, int64_t length) {
  static_cast<Slots*>(slots)->write(slot, layer, keys, values, length);
}

// The first `length` keys and values of the first `layers` layers of another slot.
CELLSCRIBE_EXPORT void CELLSCRIBE_C(slots_copy)(void* slots, int64_t from, int64_t to, int64_t layers,
                                                int64_t length) {
  static_cast<Slots*>(slots)->copy(from, to, layers, length);
}

CELLSCRIBE_EXPORT int32_t CELLSCRIBE_C(slots_run)(void* slots, const cellscribe_cpu_call* call) {
  return guarded([&] { static_cast<Slots*>(slots)->run(*call); });
}

CELLSCRIBE_EXPORT void CELLSCRIBE_C(greedy)(void* threads, const float* logits, int64_t rows, int64_t n,
                                            int64_t* tokens, float* logprobs) {
  greedy(*static_cast<Threads*>(threads), logits, rows, n, tokens, logprobs);
}

// Operations a second that this instruction set reaches on registers: 0 float32, 1 bf16, 2 bytes.
CELLSCRIBE_EXPORT double CELLSCRIBE_C(peak)(void* threads, int32_t kind, double seconds) {
  return measure_peak(*static_cast<Threads*>(threads), kind, seconds);
}

#include "bert_api.h"
#include "encoder_api.h"
