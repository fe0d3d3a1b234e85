// Products of a few to many rows with a packed weight: which tiles, in which order.
#pragma once
#include "tiles.h"

namespace CELLSCRIBE_ISA {

constexpr int64_t kChunkK = 512;  // numbers of k that a float tile passes before its weights leave the caches
constexpr int64_t kWideChunk = 128, kWideRoom = 4 * kWideChunk * kLanes;

template <Kind kKind, int kRows, int kPanels>
inline void tile(const Linear& w, const Weights& at, int64_t panel, const Rows& x, int64_t row, int64_t k0, int64_t k1,
                 float* partial, const Finish& f) {
  F acc[kRows][kPanels];
  if constexpr (kKind == kInt8 || kKind == kInt4) byte_tile<kKind, kRows, kPanels>(w, panel, x, row, acc);
  else if constexpr (kKind == kBrain) brain_tile<kRows, kPanels>(at, x, row, k0, k1, partial, acc);
  else float_tile<kKind, kRows, kPanels>(at, x, row, k0, k1, partial, acc);
  if (k1 < w.kp) {
    CELLSCRIBE_UNROLL
    for (int r = 0; r < kRows; ++r)
      CELLSCRIBE_UNROLL
      for (int p = 0; p < kPanels; ++p) store(partial + (r * kPanels + p) * kLanes, acc[r][p]);
    return;
  }
  CELLSCRIBE_UNROLL
  for (int r = 0; r < kRows; ++r)
    CELLSCRIBE_UNROLL
    for (int p = 0; p < kPanels; ++p) finish_tile(f, acc[r][p], row + r, (panel + p) * kLanes, w.n);
}

// The tiles whose sums fit the registers; no others are made.
template <Kind kKind, int kRows, int kPanels>
constexpr bool fits() {
#if defined(__AVX512F__)
  if (kKind == kInt8 || kKind == kInt4) return kPanels == 1 || (kPanels == 2 && kRows <= 4) || (kPanels == 4 && kRows <= 2);
  return kPanels != 4 || kRows <= 2;
#else
  if (kKind == kInt8 || kKind == kInt4) return kPanels == 1 && kRows <= kByteRows;
  return kRows <= kFloatRows && (kPanels == 1 || (kPanels == 2 && kRows <= 2));
#endif
}

template <Kind kKind, int kPanels>
inline void rows_of_panels(const Linear& w, const Weights& at, int64_t panel, const Rows& x, int64_t row0,
                           int64_t row1, int64_t k0, int64_t k1, float* partial, const Finish& f) {
  constexpr bool kBytes = kKind == kInt8 || kKind == kInt4;
  constexpr int kMost = kBytes ? kByteRows : kFloatRows;
  for (int64_t row = row0; row < row1;) {
    int64_t left = row1 - row, take = left < kMost ? left : kMost;
    float* mine = partial + (row - row0) * kPanels * kLanes;
    switch (take) {
#define CELLSCRIBE_ROWS(R) \
  case R:                  \
    if constexpr (fits<kKind, R, kPanels>()) tile<kKind, R, kPanels>(w, at, panel, x, row, k0, k1, mine, f); \
    break;
      CELLSCRIBE_ROWS(1)
      CELLSCRIBE_ROWS(2)
      CELLSCRIBE_ROWS(3)
      CELLSCRIBE_ROWS(4)
      CELLSCRIBE_ROWS(5)
      CELLSCRIBE_ROWS(6)
      CELLSCRIBE_ROWS(7)
      CELLSCRIBE_ROWS(8)
#undef CELLSCRIBE_ROWS
      default: break;
    }
    row += take;
  }
}

// Panels first.. of a weight, k0..k1, widened from fp16 into `wide`: [kPanels][k1 - k0][16].
template <int kPanels>
inline Weights widened(const Linear& w, int64_t first, int64_t k0, int64_t k1, float* wide) {
  int64_t length = k1 - k0;
  const uint8_t* in = w.panel(first) + k0 * 32;
  for (int64_t k = 0; k < length; ++k) {
    CELLSCRIBE_UNROLL
    for (int p = 0; p < kPanels; ++p) {
      const uint8_t* at = in + p * w.panel_bytes() + k * 32;
      _mm_prefetch(reinterpret_cast<const char*>(at + 2048), _MM_HINT_T0);
      store(wide + (p * length + k) * kLanes, load_half(reinterpret_cast<const uint16_t*>(at)));
    }
  }
  return {reinterpret_cast<const uint8_t*>(wide), length * 64};
}

template <Kind kKind, int kPanels>
inline void panels_at_once(const Linear& w, int64_t panel, const Rows& x, int64_t row0, int64_t row1, int64_t chunk,
                           float* scratch, const Finish& f) {
  for (int64_t k0 = 0; k0 < w.kp; k0 += chunk) {
    int64_t k1 = k0 + chunk < w.kp ? k0 + chunk : w.kp;
    float* partial = scratch + kWideRoom;
    if constexpr (kKind == kHalf) {
      if (row1 - row0 > 2) {
        Weights wide = widened<kPanels>(w, panel, k0, k1, scratch);
        rows_of_panels<kFloat, kPanels>(w, wide, panel, x, row0, row1, k0, k1, partial, f);
        continue;
      }
    }
    Weights at{w.panel(panel) + k0 * Linear::bytes_of_a_row(kKind), w.panel_bytes()};
    rows_of_panels<kKind, kPanels>(w, at, panel, x, row0, row1, k0, k1, partial, f);
  }
}

// Rows row0..row1 of panels first..last; `scratch` has kWideRoom + (row1 - row0) x 64 floats.
template <Kind kKind>
inline void some_panels(const Linear& w, int64_t first, int64_t last, const Rows& x, int64_t row0, int64_t row1,
                        float* scratch, const Finish& f) {
  constexpr bool kBytes = kKind == kInt8 || kKind == kInt4;
  constexpr int kMost = kBytes ? kByteRows : kFloatRows;
  int64_t rows = row1 - row0;
  int tallest = static_cast<int>(rows < kMost ? rows : kMost);
  int best = kBytes ? byte_panels(tallest) : float_panels(tallest);
  bool widens = kKind == kHalf && rows > 2;
  int64_t chunk = widens ? kWideChunk : kBytes || rows <= kMost ? w.kp : kChunkK;
  for (int64_t panel = first; panel < last;) {
    int64_t left = last - panel;
    int take = left >= best ? best : left >= 2 && best >= 2 ? 2 : 1;
    if (take == 4) panels_at_once<kKind, 4>(w, panel, x, row0, row1, chunk, scratch, f);
    else if (take == 3) panels_at_once<kKind, 3>(w, panel, x, row0, row1, chunk, scratch, f);
    else if (take == 2) panels_at_once<kKind, 2>(w, panel, x, row0, row1, chunk, scratch, f);
    else panels_at_once<kKind, 1>(w, panel, x, row0, row1, chunk, scratch, f);
    panel += take;
  }
}

#if defined(__AVX512F__)
constexpr int kTallRows = 6, kTallPanels = 2;
#else
constexpr int kTallRows = kByteRows, kTallPanels = 1;
#endif
constexpr int64_t kNearBytes = 1 << 18;  // of weights that stay in the second-level cache while rows pass

// Many rows of bytes: a tile of rows passes some panels before the next one does, so that it writes whole lines side by
// side. Panel by panel, every line would lie in another page, and bytes are quicker than the look-up of a page.
template <Kind kKind>
inline void tall_panels(const Linear& w, int64_t first, int64_t last, const Rows& x, int64_t row0, int64_t row1,
                        float* scratch, const Finish& f) {
  int64_t group = kNearBytes / w.panel_bytes() / kTallPanels * kTallPanels;
  group = group < kTallPanels ? kTallPanels : group;
  for (int64_t panel = first; panel < last; panel += group) {
    int64_t end = panel + group < last ? panel + group : last, row = row0;
    int64_t whole = panel + (end - panel) / kTallPanels * kTallPanels;
    for (; row + kTallRows <= row1; row += kTallRows) {
      for (int64_t p = panel; p < whole; p += kTallPanels)
        tile<kKind, kTallRows, kTallPanels>(w, {}, p, x, row, 0, w.kp, scratch, f);
      if (whole < end) some_panels<kKind>(w, whole, end, x, row, row + kTallRows, scratch, f);
    }
    if (row < row1) some_panels<kKind>(w, panel, end, x, row, row1, scratch, f);
  }
}

inline void multiply_panels(const Linear& w, int64_t first, int64_t last, const Rows& x, int64_t row0, int64_t row1,
                            float* scratch, const Finish& f) {
  if (w.kind == kInt8 && row1 - row0 > kByteRows) return tall_panels<kInt8>(w, first, last, x, row0, row1, scratch, f);
  if (w.kind == kInt4 && row1 - row0 > kByteRows) return tall_panels<kInt4>(w, first, last, x, row0, row1, scratch, f);
  switch (w.kind) {
    case kFloat: return some_panels<kFloat>(w, first, last, x, row0, row1, scratch, f);
    case kHalf: return some_panels<kHalf>(w, first, last, x, row0, row1, scratch, f);
    case kBrain: return some_panels<kBrain>(w, first, last, x, row0, row1, scratch, f);
    case kInt8: return some_panels<kInt8>(w, first, last, x, row0, row1, scratch, f);
    case kInt4: return some_panels<kInt4>(w, first, last, x, row0, row1, scratch, f);
  }
}

}  // namespace CELLSCRIBE_ISA
