// Softmax of a row in place.
#pragma once
#include "simd.h"

namespace CELLSCRIBE_ISA {

// exp(scale * (x - max)) / sum over the first n of a row with room for a multiple of 16; what lies beyond becomes 0.
inline void softmax(float* x, int64_t n, float scale) {
  const F low = set1(-3.0e38f);
  int64_t whole = n / kLanes * kLanes;
  int left = static_cast<int>(n - whole);
  F most = low;
  for (int64_t i = 0; i < whole; i += kLanes) most = max(load(x + i), most);
  if (left) most = max(load_some(x + whole, left, -3.0e38f), most);
  F top = set1(largest(most)), s = set1(scale), total = zero();
  for (int64_t i = 0; i < whole; i += kLanes) {
    F e = exp((load(x + i) - top) * s);
    store(x + i, e);
    total += e;
  }
  if (left) {
    F e = exp((load(x + whole) - top) * s);
    store(x + whole, e);
    store(x + whole, load_some(x + whole, left));
    total += load(x + whole);
  }
  F inverse = set1(1.0f / sum(total));
  for (int64_t i = 0; i < n; i += kLanes) store(x + i, load(x + i) * inverse);
}

// cap * tanh(scale / cap * x) over the first n of a row; lanes beyond are written, too.
inline void squash(float* x, int64_t n, float scale, float cap) {
  F s = set1(scale / cap), c = set1(cap);
  for (int64_t i = 0; i < n; i += kLanes) store(x + i, c * tanh(load(x + i) * s));
}

}  // namespace CELLSCRIBE_ISA
