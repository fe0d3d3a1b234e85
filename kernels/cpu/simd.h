// Sixteen lanes, whatever the machine: one AVX-512 register, or two of AVX2. Kernels are written once over these and
// compiled for each instruction set in a namespace of its own.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace CELLSCRIBE_ISA {

constexpr int kLanes = 16;

#if defined(__AVX512F__)

struct F {
  __m512 v;
};
struct I {
  __m512i v;
};

inline F zero() { return {_mm512_setzero_ps()}; }
inline F set1(float x) { return {_mm512_set1_ps(x)}; }
inline F load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F x) { _mm512_storeu_ps(p, x.v); }
inline F fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F operator+(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F operator-(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F operator*(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F operator/(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F max(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F min(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F abs(F a) { return {_mm512_abs_ps(a.v)}; }
inline F floor(F a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
inline F load_half(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store_half(uint16_t* p, F x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}
inline F load_bf16(const uint16_t* p) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
inline F with_sign_of(F size, F x) {
  __m512i sign = _mm512_and_si512(_mm512_castps_si512(x.v), _mm512_set1_epi32(static_cast<int>(0x80000000u)));
  return {_mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(size.v), sign))};
}
// 2 to the power of whole numbers.
inline F exp2_whole(F n) {
  __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(e, 23))};
}

inline bool all_finite(F x) {
  __m512 none = _mm512_sub_ps(x.v, x.v);  // 0, or NaN
  return _mm512_cmp_ps_mask(none, none, _CMP_UNORD_Q) == 0;
}

inline I set1_i(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline I load_i(const void* p) { return {_mm512_loadu_si512(p)}; }
inline F to_float(I x) { return {_mm512_cvtepi32_ps(x.v)}; }
inline I low_nibbles(I x) { return {_mm512_and_si512(x.v, _mm512_set1_epi8(0x0f))}; }
inline I high_nibbles(I x) { return {_mm512_and_si512(_mm512_srli_epi16(x.v, 4), _mm512_set1_epi8(0x0f))}; }
// acc + the products of four unsigned bytes of w with four signed bytes of a, in each lane.
inline I dot(I acc, I w, I a) { return {_mm512_dpbusd_epi32(acc.v, w.v, a.v)}; }
inline I dot_wide(I acc, I w, I a) { return dot(acc, w, a); }
inline F even_halves(I x) { return {_mm512_castsi512_ps(_mm512_slli_epi32(x.v, 16))}; }
inline F odd_halves(I x) {
  return {_mm512_castsi512_ps(_mm512_and_si512(x.v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
// Rounds 16 numbers to signed bytes and returns them.
inline I store_bytes(int8_t* p, F x) {
  __m512i whole = _mm512_cvtps_epi32(x.v);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(whole));
  return {whole};
}
inline I operator+(I a, I b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline int32_t sum(I x) { return _mm512_reduce_add_epi32(x.v); }

#else

struct F {
  __m256 a, b;
};
struct I {
  __m256i a, b;
};

inline F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, F x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline F operator+(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F operator-(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F operator*(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F operator/(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F abs(F x) {
  __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
inline F floor(F x) { return {_mm256_floor_ps(x.a), _mm256_floor_ps(x.b)}; }
inline F load_half(const uint16_t* p) {
  const __m128i* q = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
}
inline void store_half(uint16_t* p, F x) {
  __m128i* q = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(q, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(q + 1, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
inline __m256 widen_bf16(__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); }
inline F load_bf16(const uint16_t* p) {
  const __m128i* q = reinterpret_cast<const __m128i*>(p);
  return {widen_bf16(_mm_loadu_si128(q)), widen_bf16(_mm_loadu_si128(q + 1))};
}
inline F with_sign_of(F size, F x) {
  __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(size.a, _mm256_and_ps(x.a, sign)), _mm256_xor_ps(size.b, _mm256_and_ps(x.b, sign))};
}
inline __m256 exp2_whole(__m256 n) {
  __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(e, 23));
}
inline F exp2_whole(F n) { return {exp2_whole(n.a), exp2_whole(n.b)}; }

inline bool all_finite(F x) {
  __m256 a = _mm256_sub_ps(x.a, x.a), b = _mm256_sub_ps(x.b, x.b);  // 0, or NaN
  return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_UNORD_Q)) == 0;
}

inline I set1_i(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I load_i(const void* p) {
  const __m256i* q = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
inline F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline I low_nibbles(I x) {
  __m256i m = _mm256_set1_epi8(0x0f);
  return {_mm256_and_si256(x.a, m), _mm256_and_si256(x.b, m)};
}
inline I high_nibbles(I x) {
  __m256i m = _mm256_set1_epi8(0x0f);
  return {_mm256_and_si256(_mm256_srli_epi16(x.a, 4), m), _mm256_and_si256(_mm256_srli_epi16(x.b, 4), m)};
}
inline __m256i pairs_to_lanes(__m256i x) { return _mm256_madd_epi16(x, _mm256_set1_epi16(1)); }
// Bytes of w up to 15: the sums of two products fit sixteen bits.
inline I dot(I acc, I w, I a) {
  return {_mm256_add_epi32(acc.a, pairs_to_lanes(_mm256_maddubs_epi16(w.a, a.a))),
          _mm256_add_epi32(acc.b, pairs_to_lanes(_mm256_maddubs_epi16(w.b, a.b)))};
}
// Bytes of w up to 255: widened first, as two products would not fit.
inline __m256i dot_wide_half(__m256i acc, __m256i w, __m256i a) {
  __m256i even = _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(0xff)),
                                   _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8));
  __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(a, 8));
  return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}
inline I dot_wide(I acc, I w, I a) { return {dot_wide_half(acc.a, w.a, a.a), dot_wide_half(acc.b, w.b, a.b)}; }
inline F even_halves(I x) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(x.a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(x.b, 16))};
}
inline F odd_halves(I x) {
  __m256i m = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return {_mm256_castsi256_ps(_mm256_and_si256(x.a, m)), _mm256_castsi256_ps(_mm256_and_si256(x.b, m))};
}
inline I store_bytes(int8_t* p, F x) {
  I whole = {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)};
  alignas(32) int32_t numbers[16];
  _mm256_store_si256(reinterpret_cast<__m256i*>(numbers), whole.a);
  _mm256_store_si256(reinterpret_cast<__m256i*>(numbers + 8), whole.b);
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(numbers[i]);
  return whole;
}
inline I operator+(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline int32_t sum(I x) {
  alignas(32) int32_t numbers[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(numbers), _mm256_add_epi32(x.a, x.b));
  int32_t total = 0;
  for (int32_t one : numbers) total += one;
  return total;
}

#endif

inline F& operator+=(F& a, F b) { return a = a + b; }

// In one order on every machine: halves are folded onto each other.
inline __m256 low_half(F x) {
#if defined(__AVX512F__)
  return _mm512_castps512_ps256(x.v);
#else
  return x.a;
#endif
}
inline __m256 high_half(F x) {
#if defined(__AVX512F__)
  return _mm512_extractf32x8_ps(x.v, 1);
#else
  return x.b;
#endif
}
inline float sum(F x) {
  __m256 eight = _mm256_add_ps(low_half(x), high_half(x));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float largest(F x) {
  __m256 eight = _mm256_max_ps(low_half(x), high_half(x));
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// The first n lanes; the others are `fill`.
inline F load_some(const float* p, int n, float fill = 0.0f) {
  alignas(64) float t[16];
  for (int i = 0; i < 16; ++i) t[i] = i < n ? p[i] : fill;
  return load(t);
}
inline void store_some(float* p, F x, int n) {
  alignas(64) float t[16];
  store(t, x);
  std::memcpy(p, t, sizeof(float) * static_cast<size_t>(n));
}

// e to the power of x, within two units in the last place for x in [-87, 88], and as at their ends beyond. Range reduction by log 2 in
// two parts and a polynomial of degree 6 (coefficients: Cephes expf).
inline F exp(F x) {
  F clamped = min(set1(88.3f), max(set1(-87.3f), x));  // in this order NaN stays NaN
  F n = floor(fma(clamped, set1(1.44269504088896341f), set1(0.5f)));
  F r = fma(n, set1(-0.693359375f), clamped);
  r = fma(n, set1(2.12194440e-4f), r);
  F p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = fma(p, r * r, r + set1(1.0f));
  return p * exp2_whole(n);
}

// Within 1e-7 of the hyperbolic tangent.
inline F tanh(F x) { return set1(1.0f) - set1(2.0f) / (exp(x + x) + set1(1.0f)); }

// Within 2e-7 of the error function (Abramowitz and Stegun, 7.1.26).
inline F erf(F x) {
  F size = abs(x), t = set1(1.0f) / fma(size, set1(0.3275911f), set1(1.0f));
  F p = fma(t, set1(1.061405429f), set1(-1.453152027f));
  p = fma(p, t, set1(1.421413741f));
  p = fma(p, t, set1(-0.284496736f));
  p = fma(p, t, set1(0.254829592f));
  return with_sign_of(set1(1.0f) - p * t * exp(zero() - size * size), x);
}

inline uint16_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);  // NaN stays NaN
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace CELLSCRIBE_ISA
