// One tile of a product: some rows times some panels, its sums in registers.
#pragma once
#include "linear.h"

namespace CELLSCRIBE_ISA {

#if defined(__AVX512F__)
constexpr int kFloatRows = 8, kByteRows = 8;
constexpr int float_panels(int rows) { return rows <= 2 ? 4 : 3; }
constexpr int byte_panels(int rows) { return rows <= 2 ? 4 : rows <= 4 ? 2 : 1; }
#else
constexpr int kFloatRows = 6, kByteRows = 2;
constexpr int float_panels(int rows) { return rows <= 2 ? 2 : 1; }
constexpr int byte_panels(int) { return 1; }
#endif

// Panels of a weight from k0 on, `stride` bytes apart.
struct Weights {
  const uint8_t* at;
  int64_t stride;
};

// --- products in floating point --------------------------------------------------------------------------------

template <Kind kKind>
inline F load_weights(const uint8_t* p) {
  if constexpr (kKind == kFloat) return load(reinterpret_cast<const float*>(p));
  else return load_half(reinterpret_cast<const uint16_t*>(p));
}

template <Kind kKind, int kRows, int kPanels>
inline void float_tile(const Weights& w, const Rows& x, int64_t row, int64_t k0, int64_t k1, float* partial,
                       F (&acc)[kRows][kPanels]) {
  constexpr int64_t kStep = kKind == kFloat ? 64 : 32;
  const uint8_t* b[kPanels];
  const float* a[kRows];
  CELLSCRIBE_UNROLL
  for (int p = 0; p < kPanels; ++p) b[p] = w.at + p * w.stride;
  CELLSCRIBE_UNROLL
  for (int r = 0; r < kRows; ++r) a[r] = static_cast<const float*>(x.data) + (row + r) * x.stride;
  CELLSCRIBE_UNROLL
  for (int r = 0; r < kRows; ++r)
    CELLSCRIBE_UNROLL
    for (int p = 0; p < kPanels; ++p) acc[r][p] = k0 ? load(partial + (r * kPanels + p) * kLanes) : zero();
  for (int64_t k = k0; k < k1; ++k) {
    F wk[kPanels];
    CELLSCRIBE_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      wk[p] = load_weights<kKind>(b[p]);
      _mm_prefetch(reinterpret_cast<const char*>(b[p] + 1024), _MM_HINT_T0);
      b[p] += kStep;
    }
    CELLSCRIBE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      F ak = set1(a[r][k]);
      CELLSCRIBE_UNROLL
      for (int p = 0; p < kPanels; ++p) acc[r][p] = fma(ak, wk[p], acc[r][p]);
    }
  }
}

template <int kRows, int kPanels>
inline void brain_tile(const Weights& w, const Rows& x, int64_t row, int64_t k0, int64_t k1, float* partial,
                       F (&acc)[kRows][kPanels]) {
  const uint8_t* b[kPanels];
  const uint16_t* a[kRows];
  CELLSCRIBE_UNROLL
  for (int p = 0; p < kPanels; ++p) b[p] = w.at + p * w.stride;
  CELLSCRIBE_UNROLL
  for (int r = 0; r < kRows; ++r) a[r] = static_cast<const uint16_t*>(x.data) + (row + r) * x.stride;
  CELLSCRIBE_UNROLL
  for (int r = 0; r < kRows; ++r)
    CELLSCRIBE_UNROLL
    for (int p = 0; p < kPanels; ++p) acc[r][p] = k0 ? load(partial + (r * kPanels + p) * kLanes) : zero();
  for (int64_t k = k0; k < k1; k += 2) {
    I wk[kPanels];
    CELLSCRIBE_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      wk[p] = load_i(b[p]);
      b[p] += 64;
    }
    CELLSCRIBE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      int32_t pair;
      std::memcpy(&pair, a[r] + k, 4);
#if defined(__AVX512BF16__)
      __m512bh ak = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
      CELLSCRIBE_UNROLL
      for (int p = 0; p < kPanels; ++p)
        acc[r][p].v = _mm512_dpbf16_ps(acc[r][p].v, ak, reinterpret_cast<__m512bh>(wk[p].v));
#else
      float first, second;
      uint32_t bits = static_cast<uint32_t>(pair) << 16, high = static_cast<uint32_t>(pair) & 0xffff0000u;
      std::memcpy(&first, &bits, 4);
      std::memcpy(&second, &high, 4);
      CELLSCRIBE_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        acc[r][p] = fma(set1(first), even_halves(wk[p]), acc[r][p]);
        acc[r][p] = fma(set1(second), odd_halves(wk[p]), acc[r][p]);
      }
#endif
    }
  }
}

// --- products of bytes -----------------------------------------------------------------------------------------

constexpr int64_t kNear = 256;

// How far ahead of its products a panel is fetched. One or two rows are done with a line before the next one is there, so
// that all that is near must be under way at once; more rows leave time, and lines fetched too early push out others.
template <Kind kKind, int kRows>
constexpr int64_t bytes_ahead() {
  if (kRows <= 2 || (kKind == kInt8 && kRows <= 4)) return kNear;
  return kKind == kInt4 && kRows == 8 ? 4096 : 1024;
}

inline void prefetch(const void* at) { _mm_prefetch(static_cast<const char*>(at), _MM_HINT_T0); }

template <Kind kKind, int kRows, int kPanels>
inline void byte_tile(const Linear& w, int64_t panel, const Rows& x, int64_t row, F (&acc)[kRows][kPanels]) {
  constexpr int64_t kBytes = kKind == kInt8 ? 512 : 256;
  constexpr int64_t kAhead = bytes_ahead<kKind, kRows>();
  const int64_t groups = w.groups(), blocks = w.group / kBlock;
  const uint8_t* b[kPanels];
  const uint16_t* ws[kPanels];
  const int8_t* a[kRows];
  CELLSCRIBE_UNROLL
  for (int p = 0; p < kPanels; ++p) b[p] = w.panel(panel + p), ws[p] = w.panel_scales(panel + p);
  CELLSCRIBE_UNROLL
  for (int r = 0; r < kRows; ++r) a[r] = static_cast<const int8_t*>(x.data) + (row + r) * x.stride;
  const float* as = x.scales + row * x.groups;
  const int32_t* starts = x.starts + row * x.groups;
  CELLSCRIBE_UNROLL
  for (int r = 0; r < kRows; ++r)
    CELLSCRIBE_UNROLL
    for (int p = 0; p < kPanels; ++p) acc[r][p] = zero();
  for (int64_t group = 0; group < groups; ++group) {
    I whole[kRows][kPanels];
    CELLSCRIBE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      I start = set1_i(starts[r * x.groups + group]);
      CELLSCRIBE_UNROLL
      for (int p = 0; p < kPanels; ++p) whole[r][p] = start;
    }
    for (int64_t block = 0; block < blocks; ++block) {
      CELLSCRIBE_UNROLL
      for (int i = 0; i < 4; ++i) {
        I even[kPanels], odd[kPanels];
        CELLSCRIBE_UNROLL
        for (int p = 0; p < kPanels; ++p) {
          if constexpr (kKind == kInt8) {
            even[p] = load_i(b[p] + 128 * i), odd[p] = load_i(b[p] + 128 * i + 64);
            prefetch(b[p] + kAhead + 128 * i), prefetch(b[p] + kAhead + 128 * i + 64);
          } else {
            I both = load_i(b[p] + 64 * i);
            prefetch(b[p] + kAhead + 64 * i);
            even[p] = low_nibbles(both), odd[p] = high_nibbles(both);
          }
        }
        CELLSCRIBE_UNROLL
        for (int r = 0; r < kRows; ++r) {
          int32_t first, second;
          std::memcpy(&first, a[r] + 8 * i, 4);
          std::memcpy(&second, a[r] + 8 * i + 4, 4);
          I a0 = set1_i(first), a1 = set1_i(second);
          CELLSCRIBE_UNROLL
          for (int p = 0; p < kPanels; ++p) {
            if constexpr (kKind == kInt8) {
              whole[r][p] = dot_wide(dot_wide(whole[r][p], even[p], a0), odd[p], a1);
            } else {
              whole[r][p] = dot(dot(whole[r][p], even[p], a0), odd[p], a1);
            }
          }
        }
      }
      CELLSCRIBE_UNROLL
      for (int p = 0; p < kPanels; ++p) b[p] += kBytes;
      CELLSCRIBE_UNROLL
      for (int r = 0; r < kRows; ++r) a[r] += kBlock;
    }
    CELLSCRIBE_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      if constexpr (kAhead == kNear) prefetch(ws[p] + 2 * kLanes);
      F scale = load_half(ws[p]);
      ws[p] += kLanes;
      CELLSCRIBE_UNROLL
      for (int r = 0; r < kRows; ++r)
        acc[r][p] = fma(to_float(whole[r][p]) * scale, set1(as[r * x.groups + group]), acc[r][p]);
    }
  }
}

}  // namespace CELLSCRIBE_ISA
