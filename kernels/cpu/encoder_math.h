// What the encoder computes besides products: norms of rows, and powers of two for its softmax.
#pragma once
#include "prepare.h"

namespace CELLSCRIBE_ISA {

inline void norm_rows(float* x, int64_t count, int64_t stride, int64_t n, const float* norm, float eps) {
  for (int64_t row = 0; row < count; ++row) norm_row(x + row * stride, n, norm, norm + n, eps);
}

// 2 to the power of x <= 0 (a little more does no harm); NaN stays NaN. The polynomial for 2^f on [0, 1) is within 2e-7
// of it, or within 1e-4 where the result is rounded to bf16. Coefficients: minimax fit of the relative error.
template <bool kCoarse>
inline F power_of_two(F x) {
#if defined(__AVX512F__)
  F f{_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
#else
  x = max(set1(-126.0f), x);  // in this order NaN is kept
  F n = floor(x), f = x - n;
#endif
  F p;
  if constexpr (kCoarse) {
    p = set1(7.8024523e-2f);
    p = fma(p, f, set1(2.2606716e-1f));
    p = fma(p, f, set1(6.9583354e-1f));
    p = fma(p, f, set1(9.9992520e-1f));
  } else {
    p = set1(1.877576695e-3f);
    p = fma(p, f, set1(8.989340626e-3f));
    p = fma(p, f, set1(5.582631752e-2f));
    p = fma(p, f, set1(2.401536107e-1f));
    p = fma(p, f, set1(6.931530833e-1f));
    p = fma(p, f, set1(0.9999999404f));
  }
#if defined(__AVX512F__)
  return {_mm512_scalef_ps(p.v, x.v)};
#else
  return p * exp2_whole(n);
#endif
}

}  // namespace CELLSCRIBE_ISA
