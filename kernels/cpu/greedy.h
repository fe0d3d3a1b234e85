// The most probable token of each row of logits, and its log-probability.
#pragma once
#include <cmath>

#include "simd.h"
#include "threads.h"

namespace CELLSCRIBE_ISA {

using cellscribe::Threads;

// The lowest of equal tokens; the natural log-probability is not finite where a logit is not.
inline void greedy_row(const float* logits, int64_t n, int64_t* token, float* logprob) {
  int64_t whole = n / kLanes * kLanes;
  int left = static_cast<int>(n - whole);
  F most = set1(-3.4e38f);
  bool finite = true;
  for (int64_t i = 0; i < whole; i += kLanes) {
    F x = load(logits + i);
    finite = finite && all_finite(x);
    most = max(x, most);
  }
  if (left) {
    F x = load_some(logits + whole, left, logits[whole]);
    finite = finite && all_finite(x);
    most = max(x, most);
  }
  float top = largest(most);
  F total = zero();
  for (int64_t i = 0; i < whole; i += kLanes) total += exp(load(logits + i) - set1(top));
  float rest = 0.0f;
  for (int64_t i = whole; i < n; ++i) rest += std::exp(logits[i] - top);
  int64_t at = 0;
  while (at < n - 1 && !(logits[at] == top)) ++at;
  *token = at;
  *logprob = finite ? -std::log(sum(total) + rest) : NAN;
}

inline void greedy(Threads& threads, const float* logits, int64_t rows, int64_t n, int64_t* tokens, float* logprobs) {
  threads.run(rows, [&](int64_t row, int) { greedy_row(logits + row * n, n, tokens + row, logprobs + row); });
}

}  // namespace CELLSCRIBE_ISA
