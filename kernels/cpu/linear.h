// A weight packed once for products y[M, N] = x[M, K] · W[K, N], and the rows and results of such a product.
//
// A weight lies in panels of 16 columns, so that a lane owns a column: every output is summed over k in one order,
// whatever the number of rows, the tile it falls into or the thread that computes it. A text therefore does not depend on
// what else is in the batch, and tokens checked several at a time are the tokens of single steps.
//
//   kFloat   [panel][K][16] float32
//   kHalf    [panel][K][16] fp16, widened when read
//   kBrain   [panel][K/2][16][2] bf16; rows are rounded to bf16, sums are float32
//   kInt8    [panel][K/32][8][16][4] bytes offset by 128, scales fp16 [panel][K/group][16]
//   kInt4    [panel][K/32][4][16][4] bytes holding k-group 2i (low) and 2i+1 (high) offset by 8, scales likewise
//
// For the last two, rows are rounded to signed bytes, and as many numbers of a row share a scale as in the weight.
#pragma once
#include "array.h"
#include "simd.h"

namespace CELLSCRIBE_ISA {

enum Kind : int32_t { kFloat = 0, kHalf = 1, kBrain = 2, kInt8 = 3, kInt4 = 4 };
// Sums stay in registers only when every loop over them is gone.
#define CELLSCRIBE_UNROLL _Pragma("GCC unroll 8")

constexpr int kBlock = 32;  // numbers of k that lie together; one or more blocks share a scale

struct Linear {
  Kind kind;
  int64_t k, n;    // as given
  int64_t kp, np;  // padded
  int64_t group;   // numbers of k that share a scale, of bytes
  int64_t room = 0;  // numbers of k that a panel has room for, where that is more
  Array<uint8_t> data;
  Array<uint16_t> scales;
  Array<float> bias;  // [np], or none

  int64_t panels() const { return np / kLanes; }
  int64_t groups() const { return kp / group; }
  // A cache line more than it holds: panels a power of two apart would fight for the same lines of the first cache.
  int64_t panel_bytes() const { return (room ? room : kp) * bytes_of_a_row(kind) + 64; }
  static int64_t bytes_of_a_row(Kind kind) {
    switch (kind) {
      case kFloat: return 64;
      case kHalf:
      case kBrain: return 32;
      case kInt8: return 16;
      default: return 8;
    }
  }
  int64_t bytes() const { return panels() * (panel_bytes() + (scales ? groups() * 32 : 0)); }
  const uint8_t* panel(int64_t i) const { return data.get() + i * panel_bytes(); }
  const uint16_t* panel_scales(int64_t i) const { return scales.get() + i * groups() * kLanes; }
};

inline int64_t padded_k(Kind kind, int64_t k, int64_t group = kBlock) {
  return kind == kInt8 || kind == kInt4 ? up_to(k, group) : kind == kBrain ? up_to(k, 2) : k;
}

inline std::unique_ptr<Linear> make_linear(Kind kind, int64_t k, int64_t n, bool has_bias, int64_t group = kBlock) {
  auto made = std::make_unique<Linear>();
  made->kind = kind, made->k = k, made->n = n, made->group = group;
  made->kp = padded_k(kind, k, group), made->np = up_to(n, kLanes);
  int64_t bytes = made->panels() * made->panel_bytes();
  made->data = make_array<uint8_t>(bytes);
  std::memset(made->data.get(), kind == kInt8 ? 128 : kind == kInt4 ? 0x88 : 0, static_cast<size_t>(bytes));
  if (kind == kInt8 || kind == kInt4) {
    int64_t count = made->np * made->groups();
    made->scales = make_array<uint16_t>(count);
    std::memset(made->scales.get(), 0, static_cast<size_t>(count) * 2);
  }
  if (has_bias) {
    made->bias = make_array<float>(made->np);
    std::memset(made->bias.get(), 0, static_cast<size_t>(made->np) * 4);
  }
  return made;
}

// Rows in the form that a kind of weight multiplies.
struct Rows {
  const void* data;      // float, bf16 or bytes [M, stride]
  int64_t stride;        // in elements
  const float* scales;   // [M, groups], of bytes
  const int32_t* starts; // [M, groups], of bytes: what undoes the offset of the weight's bytes
  int64_t groups;
};

// What happens to a product before it is stored.
struct Finish {
  const float* bias = nullptr;  // [np]
  float* out = nullptr;         // [M, stride]
  int64_t stride = 0;
  bool add = false;   // to what is there
  bool relu = false;
};

inline void finish_tile(const Finish& f, const F& value, int64_t row, int64_t column, int64_t n) {
  float* at = f.out + row * f.stride + column;
  F y = f.bias ? value + load(f.bias + column) : value;
  if (f.relu) y = max(zero(), y);  // in this order NaN stays NaN
  int64_t left = n - column;
  if (left >= kLanes) {
    store(at, f.add ? load(at) + y : y);
  } else {
    store_some(at, f.add ? load_some(at, static_cast<int>(left)) + y : y, static_cast<int>(left));
  }
}

}  // namespace CELLSCRIBE_ISA
