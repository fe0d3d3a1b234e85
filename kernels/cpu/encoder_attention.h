// Attention of some queries of one head to all tokens of a cell. Scores stay in the second-level cache, and the
// division by their sum waits for the mixture, which is narrower.
#pragma once
#include "encoder_heads.h"
#include "encoder_math.h"

namespace CELLSCRIBE_ISA {

constexpr int64_t kQueries = 24;  // of a task: their scores and the packed head share the second-level cache

// What one thread needs; all of it is taken before the tasks begin.
struct EncoderScratch {
  Prepared prepared;
  Array<float> work, hidden;
  int64_t work_room = 0, hidden_room = 0;

  void reserve(int64_t work_count, int64_t hidden_count) {
    if (work_count > work_room) work = make_array<float>(work_count), work_room = work_count;
    if (hidden_count > hidden_room) hidden = make_array<float>(hidden_count), hidden_room = hidden_count;
  }
};

// What becomes of a product: rows of `out`, `stride` apart.
inline Finish into(float* out, int64_t stride, bool add = false, bool relu = false) {
  Finish finish;
  finish.out = out, finish.stride = stride, finish.add = add, finish.relu = relu;
  return finish;
}

// Rows [count, K], `stride` apart, times a weight, plus its bias.
inline void multiply_rows(void* weight, const float* rows, int64_t stride, int64_t count, const Finish& to,
                          EncoderScratch& scratch) {
  const Linear& w = *static_cast<const Linear*>(weight);
  Rows given{rows, stride, nullptr, nullptr, 0};
  if (w.kind != kFloat && w.kind != kHalf) {
    for (int64_t i = 0; i < count; ++i) scratch.prepared.put(w, i, rows + i * stride);
    given = scratch.prepared.rows(w);
  }
  Finish finish = to;
  finish.bias = w.bias.get();
  multiply_panels(w, 0, w.panels(), given, 0, count, scratch.work.get(), finish);
}

inline int64_t score_room(int64_t tokens) { return up_to(tokens, kLanes) + kLanes; }

inline float largest_of(const float* x, int64_t n) {
  const F low = set1(-3.0e38f);
  int64_t whole = n / kLanes * kLanes;
  F most = low, other = low;  // two, as one would wait for itself
  int64_t i = 0;
  for (; i + 2 * kLanes <= whole; i += 2 * kLanes) {
    most = max(load(x + i), most);
    other = max(load(x + i + kLanes), other);
  }
  if (i < whole) most = max(load(x + i), most);
  most = max(other, most);
  if (whole < n) most = max(load_some(x + whole, static_cast<int>(n - whole), -3.0e38f), most);
  return largest(most);
}

// 2^(scale x - scale max x) of a row of n with room for a multiple of 16, zeros after it; `put(i, powers)` keeps 16 of
// them. Returns their sum.
template <bool kCoarse, class Put>
inline float powers_of_row(const float* x, int64_t n, float scale, Put&& put) {
  float top = largest_of(x, n);
  F s = set1(scale), shift = set1(-top * scale), total = zero();
  int64_t whole = n / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    F e = power_of_two<kCoarse>(fma(load(x + i), s, shift));
    put(i, e);
    total += e;
  }
  if (whole < n) {
    alignas(64) float last[kLanes];
    int left = static_cast<int>(n - whole);
    store(last, power_of_two<kCoarse>(fma(load_some(x + whole, left, top), s, shift)));
    F e = load_some(last, left);
    put(whole, e);
    total += e;
  }
  return sum(total);
}

inline void put_bf16(uint16_t* out, F x) {
#if defined(__AVX512BF16__)
  __m256bh half = _mm512_cvtneps_pbh(x.v);
  std::memcpy(out, &half, 32);
#else
  alignas(64) float t[kLanes];
  store(t, x);
  for (int i = 0; i < kLanes; ++i) out[i] = to_bf16(t[i]);
#endif
}

// Queries [count, D] in the form of the head's kind -> mixtures [count, D], `stride` apart. `scale` of the scores is
// for powers of two: log2(e) / sqrt(D).
inline void attend(const EncoderHead& head, const Rows& queries, int64_t count, float scale, float* out, int64_t stride,
                   EncoderScratch& scratch) {
  const Linear &across = head.across(), &along = head.along();
  int64_t tokens = across.n, room = score_room(tokens), width = along.n;
  float* work = scratch.work.get();
  float *scores = work + kWideRoom + kQueries * 64, *sums = scores + kQueries * room;
  bool is_float = across.kind == kFloat;
  Finish to_scores;
  to_scores.out = scores, to_scores.stride = room;
  multiply_panels(across, 0, across.panels(), queries, 0, count, work, to_scores);
  Rows rows{scores, room, nullptr, nullptr, 0};
  if (is_float) {
    for (int64_t i = 0; i < count; ++i) {
      float* row = scores + i * room;
      sums[i] = powers_of_row<false>(row, tokens, scale, [&](int64_t at, F e) { store(row + at, e); });
    }
  } else {
    rows = scratch.prepared.rows(along);
    uint16_t* halves = static_cast<uint16_t*>(const_cast<void*>(rows.data));
    for (int64_t i = 0; i < count; ++i) {
      uint16_t* row = halves + i * rows.stride;
      sums[i] = powers_of_row<true>(scores + i * room, tokens, scale, [&](int64_t at, F e) { put_bf16(row + at, e); });
    }
  }
  Finish to_mixed;
  to_mixed.out = out, to_mixed.stride = stride;
  multiply_panels(along, 0, along.panels(), rows, 0, count, work, to_mixed);
  for (int64_t i = 0; i < count; ++i) {
    F inverse = set1(1.0f / sums[i]);
    for (int64_t k = 0; k < width; k += kLanes)
      store_row(out + i * stride, k, width, load_row(out + i * stride, k, width) * inverse);
  }
}

}  // namespace CELLSCRIBE_ISA
