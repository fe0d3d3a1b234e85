// Rows on their way into a product: normed, gated, and in the form that the weight multiplies.
#pragma once
#include "cellscribe/cpu.h"
#include "norm.h"
#include "products.h"
#include "threads.h"

namespace CELLSCRIBE_ISA {

using cellscribe::Threads;

// Rows [M, stride] of a product, with room for the widest one that was asked for.
class Prepared {
 public:
  void reserve(int64_t rows, int64_t width) {
    int64_t room = rows * (up_to(width, 64) + 64);
    if (room <= room_) return;
    room_ = 0;  // until all three are there
    data_ = make_array<float>(room);
    scales_ = make_array<float>(room / kBlock);
    starts_ = make_array<int32_t>(room / kBlock);
    room_ = room;
  }
  Rows rows(const Linear& w) const {
    return {data_.get(), stride(w.kind, w.kp), scales_.get(), starts_.get(), w.groups()};
  }
  // A cache line more than a row holds, as for panels.
  static int64_t stride(Kind kind, int64_t kp) {
    return kind == kInt8 || kind == kInt4 ? kp + 64 : kind == kBrain ? kp + 32 : kp + 16;
  }

  // Puts row m, numbers [k] padded with zeros to kp, where a product with this weight finds it.
  void put(const Linear& w, int64_t m, const float* x) {
    if (w.kind == kFloat || w.kind == kHalf) {
      std::memcpy(data_.get() + m * stride(w.kind, w.kp), x, static_cast<size_t>(w.k) * 4);
    } else if (w.kind == kBrain) {
      put_brain(reinterpret_cast<uint16_t*>(data_.get()) + m * stride(w.kind, w.kp), x, w.k, w.kp);
    } else {
      put_bytes(w, m, x);
    }
  }

 private:
  static void put_brain(uint16_t* out, const float* x, int64_t k, int64_t kp) {
    int64_t i = 0;
#if defined(__AVX512BF16__)
    for (; i + kLanes <= k; i += kLanes) {
      __m256bh half = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
      std::memcpy(out + i, &half, 32);
    }
#endif
    for (; i < k; ++i) out[i] = to_bf16(x[i]);
    for (; i < kp; ++i) out[i] = 0;
  }

  void put_bytes(const Linear& w, int64_t m, const float* x) {
    int8_t* out = reinterpret_cast<int8_t*>(data_.get()) + m * stride(w.kind, w.kp);
    int64_t groups = w.groups(), whole = w.k / w.group;
    for (int64_t group = 0; group < groups; ++group) {
      int64_t begin = group * w.group, count = w.group;
      auto put = [&](auto&& some) { put_group(w, m * groups + group, count, some, out + begin); };
      if (group < whole) put([&](int64_t i) { return load(x + begin + i); });
      else put([&](int64_t i) { return load_row(x, begin + i, w.k); });
    }
  }

  // Rounds `count` numbers, 16 at a time from some(i), to bytes that share a scale.
  template <class Some>
  void put_group(const Linear& w, int64_t at, int64_t count, Some&& some, int8_t* out) {
    F low = some(0), high = some(kLanes), most = max(abs(low), abs(high));
    bool finite = all_finite(low) && all_finite(high);
    for (int64_t i = kBlock; i < count; i += kLanes) {
      F more = some(i);
      most = max(most, abs(more)), finite = finite && all_finite(more);
    }
    float top = largest(most);
    F inverse = set1(top > 0.0f ? 127.0f / top : 0.0f);
    I total = store_bytes(out, low * inverse) + store_bytes(out + kLanes, high * inverse);
    for (int64_t i = kBlock; i < count; i += kLanes) total = total + store_bytes(out + i, some(i) * inverse);
    // What is not finite must not vanish: bytes cannot hold it, and a maximum may pass it over.
    scales_[at] = finite ? top / 127.0f : NAN;
    starts_[at] = finite ? (w.kind == kInt8 ? -128 : -8) * sum(total) : 0;
  }

  Array<float> data_, scales_;
  Array<int32_t> starts_;
  int64_t room_ = 0;
};

// x / rms(x) * weight over k numbers; no weight leaves x as it is.
inline void rms_norm(const float* x, int64_t k, const float* weight, float eps, float* out) {
  if (weight == nullptr) {
    std::memcpy(out, x, static_cast<size_t>(k) * 4);
    return;
  }
  F squares = zero();
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) squares = fma(load(x + i), load(x + i), squares);
  float total = sum(squares);
  for (int64_t j = i; j < k; ++j) total += x[j] * x[j];
  float scale = 1.0f / std::sqrt(total / static_cast<float>(k) + eps);
  F s = set1(scale);
  for (i = 0; i + kLanes <= k; i += kLanes) store(out + i, load(x + i) * s * load(weight + i));
  for (; i < k; ++i) out[i] = x[i] * scale * weight[i];
}

inline F sigmoid(F x) { return set1(1.0f) / (set1(1.0f) + exp(zero() - x)); }

// (x - mean) / deviation * weight + shift over k numbers.
inline void layer_norm(const float* x, int64_t k, const float* weight, const float* shift, float eps, float* out) {
  std::memcpy(out, x, static_cast<size_t>(k) * 4);
  norm_row(out, k, weight, shift, eps);
}

template <int kActivation>
inline F activated(F x) {
  if constexpr (kActivation == CELLSCRIBE_SILU) return x * sigmoid(x);
  if constexpr (kActivation == CELLSCRIBE_RELU) return max(x, zero());
  F half = x * set1(0.5f);
  if constexpr (kActivation == CELLSCRIBE_GELU) return fma(half, erf(x * set1(0.70710678118f)), half);
  F cube = x * x * x;
  return fma(half, tanh(fma(cube, set1(0.044715f), x) * set1(0.79788456080f)), half);
}

// The activation of a row [f]; of a gate [f] times what follows it [f].
template <int kActivation, bool kGated>
inline void activate_row(const float* x, int64_t f, float* out) {
  for (int64_t i = 0; i < f; i += kLanes) {
    F y = activated<kActivation>(load_row(x, i, f));
    if constexpr (kGated) y = y * load_row(x + f, i, f);
    store_row(out, i, f, y);
  }
}

inline void activate(int64_t activation, bool is_gated, const float* x, int64_t f, float* out) {
  switch (activation * 2 + is_gated) {
    case 2 * CELLSCRIBE_SILU + 1: return activate_row<CELLSCRIBE_SILU, true>(x, f, out);
    case 2 * CELLSCRIBE_SILU: return activate_row<CELLSCRIBE_SILU, false>(x, f, out);
    case 2 * CELLSCRIBE_GELU + 1: return activate_row<CELLSCRIBE_GELU, true>(x, f, out);
    case 2 * CELLSCRIBE_GELU: return activate_row<CELLSCRIBE_GELU, false>(x, f, out);
    case 2 * CELLSCRIBE_GELU_TANH + 1: return activate_row<CELLSCRIBE_GELU_TANH, true>(x, f, out);
    case 2 * CELLSCRIBE_RELU: return activate_row<CELLSCRIBE_RELU, false>(x, f, out);
    default: return activate_row<CELLSCRIBE_GELU_TANH, false>(x, f, out);
  }
}

// Products of prepared rows by all threads; scratch of one thread for each.
class Products {
 public:
  explicit Products(Threads& threads) : threads_(threads), partial_(static_cast<size_t>(threads.count())) {}

  void run(const Linear& w, const Rows& x, int64_t rows, const Finish& finish) {
    // So many rows that their bytes stay in the second-level cache while panels pass.
    int64_t element = w.kind == kInt8 || w.kind == kInt4 ? 1 : w.kind == kBrain ? 2 : 4;
    int64_t most = (int64_t{1} << 19) / (w.kp * element);
    int64_t tall = element == 1 ? kTallRows : 8;  // whole tiles: a rest of few rows takes as long
    most = most < 32 ? 32 : most / tall * tall;
    int64_t parts = (rows + most - 1) / most;
    int64_t panels = w.panels(), group = panels_of_a_task(panels, rows <= 2 ? 4 : element == 1 ? 2 : 3);
    int64_t groups = (panels + group - 1) / group;
    for (Array<float>& one : partial_)
      if (room_ < most) one = make_array<float>(kWideRoom + most * 64);
    room_ = room_ < most ? most : room_;
    threads_.run(parts * groups, [&](int64_t task, int thread) {
      int64_t part = task / groups, first = task % groups * group;
      int64_t row0 = part * most, row1 = row0 + most < rows ? row0 + most : rows;
      int64_t last = first + group < panels ? first + group : panels;
      multiply_panels(w, first, last, x, row0, row1, partial_[static_cast<size_t>(thread)].get(), finish);
    });
  }

  Threads& threads() { return threads_; }

 private:
  // A dozen panels (a multiple of every tile), or fewer where that leaves threads without work; whole tiles if possible.
  int64_t panels_of_a_task(int64_t panels, int64_t tile) const {
    int64_t each = panels / (4 * threads_.count());
    return each >= 12 ? 12 : each >= tile ? each / tile * tile : each >= 1 ? each : 1;
  }

  Threads& threads_;
  std::vector<Array<float>> partial_;
  int64_t room_ = 0;
};

}  // namespace CELLSCRIBE_ISA
