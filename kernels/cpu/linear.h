// Products of a few to many rows with a weight that was packed once: y[M, N] = x[M, K] · W[K, N].
//
// A weight lies in panels of 16 columns, so that a lane owns a column: every output is summed over k in one order,
// whatever the number of rows, the tile it falls into or the thread that computes it. A text therefore does not depend on
// what else is in the batch, and tokens checked several at a time are the tokens of single steps.
//
//   kFloat   [panel][K][16] float32
//   kHalf    [panel][K][16] fp16, widened when read
//   kBrain   [panel][K/2][16][2] bf16; rows are rounded to bf16, sums are float32
//   kInt8    [panel][K/32][8][16][4] bytes offset by 128, scales fp16 [panel][K/32][16]
//   kInt4    [panel][K/32][4][16][4] bytes holding k-group 2i (low) and 2i+1 (high) offset by 8, scales likewise
//
// For the last two, rows are rounded to signed bytes with a scale for every 32 numbers.
#pragma once
#include <cstdlib>
#include <memory>
#include <new>

#include "simd.h"
#include "threads.h"

namespace CELLSCRIBE_ISA {

using cellscribe::Threads;

enum Kind : int32_t { kFloat = 0, kHalf = 1, kBrain = 2, kInt8 = 3, kInt4 = 4 };
// Sums stay in registers only when every loop over them is gone.
#define CELLSCRIBE_UNROLL _Pragma("GCC unroll 8")

constexpr int kBlock = 32;  // numbers that share a scale

inline int64_t up_to(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

struct Free {
  void operator()(void* p) const { std::free(p); }
};
template <class T>
using Array = std::unique_ptr<T[], Free>;
template <class T>
Array<T> make_array(int64_t count) {
  size_t bytes = static_cast<size_t>(up_to(count * static_cast<int64_t>(sizeof(T)) + 64, 64));
  void* made = std::aligned_alloc(64, bytes);
  if (!made) throw std::bad_alloc();
  return Array<T>(static_cast<T*>(made));
}

struct Linear {
  Kind kind;
  int64_t k, n;    // as given
  int64_t kp, np;  // padded
  Array<uint8_t> data;
  Array<uint16_t> scales;
  Array<float> bias;  // [np], or none

  int64_t panels() const { return np / kLanes; }
  // A cache line more than it holds: panels a power of two apart would fight for the same lines of the first cache.
  int64_t panel_bytes() const { return kp * bytes_of_a_row(kind) + 64; }
  static int64_t bytes_of_a_row(Kind kind) {
    switch (kind) {
      case kFloat: return 64;
      case kHalf:
      case kBrain: return 32;
      case kInt8: return 16;
      default: return 8;
    }
  }
  int64_t bytes() const { return panels() * (panel_bytes() + (scales ? kp / kBlock * 32 : 0)); }
  const uint8_t* panel(int64_t i) const { return data.get() + i * panel_bytes(); }
  const uint16_t* panel_scales(int64_t i) const { return scales.get() + i * (kp / kBlock) * kLanes; }
};

inline int64_t padded_k(Kind kind, int64_t k) {
  return kind == kInt8 || kind == kInt4 ? up_to(k, kBlock) : kind == kBrain ? up_to(k, 2) : k;
}

inline std::unique_ptr<Linear> make_linear(Kind kind, int64_t k, int64_t n, bool has_bias) {
  auto made = std::make_unique<Linear>();
  made->kind = kind, made->k = k, made->n = n;
  made->kp = padded_k(kind, k), made->np = up_to(n, kLanes);
  int64_t bytes = made->panels() * made->panel_bytes();
  made->data = make_array<uint8_t>(bytes);
  std::memset(made->data.get(), kind == kInt8 ? 128 : kind == kInt4 ? 0x88 : 0, static_cast<size_t>(bytes));
  if (kind == kInt8 || kind == kInt4) {
    int64_t count = made->np * (made->kp / kBlock);
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
  const float* scales;   // [M, blocks], of bytes
  const int32_t* sums;   // [M, blocks], of bytes
  int64_t blocks;
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

template <Kind kKind, int kRows, int kPanels>
inline void byte_tile(const Linear& w, int64_t panel, const Rows& x, int64_t row, F (&acc)[kRows][kPanels]) {
  constexpr int64_t kBytes = kKind == kInt8 ? 512 : 256;
  constexpr int32_t kOffset = kKind == kInt8 ? 128 : 8;
  const int64_t blocks = w.kp / kBlock;
  const uint8_t* b[kPanels];
  const uint16_t* ws[kPanels];
  const int8_t* a[kRows];
  CELLSCRIBE_UNROLL
  for (int p = 0; p < kPanels; ++p) b[p] = w.panel(panel + p), ws[p] = w.panel_scales(panel + p);
  CELLSCRIBE_UNROLL
  for (int r = 0; r < kRows; ++r) a[r] = static_cast<const int8_t*>(x.data) + (row + r) * x.stride;
  const float* as = x.scales + row * x.blocks;
  const int32_t* sums = x.sums + row * x.blocks;
  CELLSCRIBE_UNROLL
  for (int r = 0; r < kRows; ++r)
    CELLSCRIBE_UNROLL
    for (int p = 0; p < kPanels; ++p) acc[r][p] = zero();
  for (int64_t block = 0; block < blocks; ++block) {
    I whole[kRows][kPanels];
    CELLSCRIBE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      I start = set1_i(-kOffset * sums[r * x.blocks + block]);
      CELLSCRIBE_UNROLL
      for (int p = 0; p < kPanels; ++p) whole[r][p] = start;
    }
    CELLSCRIBE_UNROLL
    for (int i = 0; i < 4; ++i) {
      I even[kPanels], odd[kPanels];
      CELLSCRIBE_UNROLL
      for (int p = 0; p < kPanels; ++p) {
        if constexpr (kKind == kInt8) {
          even[p] = load_i(b[p] + 128 * i), odd[p] = load_i(b[p] + 128 * i + 64);
        } else {
          I both = load_i(b[p] + 64 * i);
          even[p] = low_nibbles(both), odd[p] = high_nibbles(both);
        }
      }
      CELLSCRIBE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        int32_t first, second;
        std::memcpy(&first, a[r] + block * kBlock + 8 * i, 4);
        std::memcpy(&second, a[r] + block * kBlock + 8 * i + 4, 4);
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
    for (int p = 0; p < kPanels; ++p) {
      _mm_prefetch(reinterpret_cast<const char*>(b[p] + 4 * kBytes), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(b[p] + 4 * kBytes + 64), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(b[p] + 4 * kBytes + 128), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(b[p] + 4 * kBytes + 192), _MM_HINT_T0);
      F scale = load_half(ws[p]);
      b[p] += kBytes, ws[p] += kLanes;
      CELLSCRIBE_UNROLL
      for (int r = 0; r < kRows; ++r)
        acc[r][p] = fma(to_float(whole[r][p]) * scale, set1(as[r * x.blocks + block]), acc[r][p]);
    }
  }
}

// --- loops -----------------------------------------------------------------------------------------------------

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
