// Rows of any length, lane by lane, and their layer norm.
#pragma once
#include <cmath>

#include "simd.h"

namespace CELLSCRIBE_ISA {

// The lanes of numbers i.. of a row of n.
inline F load_row(const float* x, int64_t i, int64_t n) {
  return i + kLanes <= n ? load(x + i) : load_some(x + i, static_cast<int>(n - i));
}
inline void store_row(float* x, int64_t i, int64_t n, F y) {
  if (i + kLanes <= n) store(x + i, y);
  else store_some(x + i, y, static_cast<int>(n - i));
}

// (x - mean) / deviation * scale + shift of n numbers, in place.
inline void norm_row(float* x, int64_t n, const float* scale, const float* shift, float eps) {
  F total = zero(), squares = zero();
  for (int64_t i = 0; i < n; i += kLanes) total += load_row(x, i, n);
  F mean = set1(sum(total) / static_cast<float>(n));
  int64_t whole = n / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    F apart = load(x + i) - mean;
    squares = fma(apart, apart, squares);
  }
  if (whole < n) {
    alignas(64) float rest[kLanes];
    store(rest, load_row(x, whole, n) - mean);
    F apart = load_some(rest, static_cast<int>(n - whole));
    squares = fma(apart, apart, squares);
  }
  F factor = set1(1.0f / std::sqrt(sum(squares) / static_cast<float>(n) + eps));
  for (int64_t i = 0; i < n; i += kLanes) {
    F y = (load_row(x, i, n) - mean) * factor;
    store_row(x, i, n, fma(y, load_row(scale, i, n), load_row(shift, i, n)));
  }
}

}  // namespace CELLSCRIBE_ISA
