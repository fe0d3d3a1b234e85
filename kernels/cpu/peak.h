// The rate at which a machine multiplies and adds on registers: the roof of every product.
#pragma once
#include <chrono>

#include "prepare.h"

namespace CELLSCRIBE_ISA {

constexpr int64_t kPeakRounds = 1 << 16;
constexpr int kPeakChains = 12;

inline float peak_float() {
  F acc[kPeakChains], a = set1(1.0000001f), b = set1(1e-9f);
  CELLSCRIBE_UNROLL
  for (int i = 0; i < kPeakChains; ++i) acc[i] = set1(static_cast<float>(i));
  for (int64_t round = 0; round < kPeakRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kPeakChains; ++i) acc[i] = fma(acc[i], a, b);
  }
  F total = zero();
  for (int i = 0; i < kPeakChains; ++i) total += acc[i];
  return sum(total);
}

inline float peak_bytes() {
  I acc[kPeakChains], a = set1_i(0x01020304), b = set1_i(0x01010101);
  for (int i = 0; i < kPeakChains; ++i) acc[i] = set1_i(i);
  for (int64_t round = 0; round < kPeakRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kPeakChains; ++i) acc[i] = dot(acc[i], a, b);
#if defined(__AVX512F__)
    __asm__ volatile("" : "+v"(a.v));  // or the sums of all rounds would be worked out at once
#else
    __asm__ volatile("" : "+x"(a.a), "+x"(a.b));
#endif
  }
  F total = zero();
  for (int i = 0; i < kPeakChains; ++i) total += to_float(acc[i]);
  return sum(total);
}

inline float peak_brain() {
#if defined(__AVX512BF16__)
  __m512 acc[kPeakChains];
  __m512bh a = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f803f80)), b = a;
  for (int i = 0; i < kPeakChains; ++i) acc[i] = _mm512_setzero_ps();
  for (int64_t round = 0; round < kPeakRounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kPeakChains; ++i) acc[i] = _mm512_dpbf16_ps(acc[i], a, b);
  }
  F total = zero();
  for (int i = 0; i < kPeakChains; ++i) total += F{acc[i]};
  return sum(total);
#else
  return peak_float();
#endif
}

inline double measure_peak(Threads& threads, int32_t kind, double seconds) {
  double per_lane = kind == 0 ? 2.0 : kind == 1 ? 4.0 : 8.0;
#if !defined(__AVX512BF16__)
  if (kind == 1) per_lane = 2.0;
#endif
  double operations = per_lane * kLanes * kPeakChains * static_cast<double>(kPeakRounds), best = 0.0;
  using Clock = std::chrono::steady_clock;
  Clock::time_point begun = Clock::now();
  std::vector<float> sink(static_cast<size_t>(threads.count()));
  int64_t tasks = 16 * threads.count();
  while (std::chrono::duration<double>(Clock::now() - begun).count() < seconds || best == 0.0) {
    Clock::time_point at = Clock::now();
    threads.run(tasks, [&](int64_t, int thread) {
      sink[static_cast<size_t>(thread)] += kind == 0 ? peak_float() : kind == 1 ? peak_brain() : peak_bytes();
    });
    double took = std::chrono::duration<double>(Clock::now() - at).count();
    double rate = operations * static_cast<double>(tasks) / took;
    best = rate > best ? rate : best;
  }
  volatile float kept = sink[0];
  (void)kept;
  return best;
}

}  // namespace CELLSCRIBE_ISA
