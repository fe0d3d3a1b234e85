// Keys and values of one head of a cell, packed as the weights of both products of attention.
#pragma once
#include "products.h"

namespace CELLSCRIBE_ISA {

// n numbers rounded to bf16, one behind the other.
inline void round_row(const float* x, int64_t n, uint16_t* out) {
  int64_t i = 0;
#if defined(__AVX512BF16__)
  for (; i + kLanes <= n; i += kLanes) {
    __m256bh half = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
    std::memcpy(out + i, &half, 32);
  }
#endif
  for (; i < n; ++i) out[i] = to_bf16(x[i]);
}

// Four rows of four words at `from`, `stride` words apart -> four rows of four at `to`, 16 words apart.
inline void transpose_words(const float* from, int64_t stride, float* to) {
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + stride);
  __m128 c = _mm_loadu_ps(from + 2 * stride), d = _mm_loadu_ps(from + 3 * stride);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a), _mm_storeu_ps(to + kLanes, b);
  _mm_storeu_ps(to + 2 * kLanes, c), _mm_storeu_ps(to + 3 * kLanes, d);
}

class EncoderHead {
 public:
  // Room for `most` tokens.
  EncoderHead(Kind kind, int64_t width, int64_t most)
      : across_(make_linear(kind, width, most, false)), along_(make_linear(kind, most, width, false)) {}

  const Linear& across() const { return *across_; }
  const Linear& along() const { return *along_; }

  // How many words of four bytes a key or query takes: a number each, or two of bf16.
  static int64_t words_of(Kind kind, int64_t width) { return kind == kFloat ? width : up_to(width, 2) / 2; }

  void resize(int64_t count) {
    across_->n = count, across_->np = up_to(count, kLanes);
    along_->k = count, along_->kp = padded_k(along_->kind, count);
  }

  // Tokens first.. (a multiple of 16) from keys and values [count, width], `stride` apart; `room` has 16 keys of words
  // in multiples of four. The end of the last panel becomes zero.
  void put(int64_t first, int64_t count, const float* keys, const float* values, int64_t stride, float* room) {
    for (int64_t at = 0; at < count; at += kLanes)
      put_keys((first + at) / kLanes, keys + at * stride, count - at < kLanes ? count - at : kLanes, stride, room);
    for (int64_t panel = 0; panel < along_->panels(); ++panel) {
      if (along_->kind == kFloat) put_floats(panel, first, values, count, stride);
      else put_pairs(panel, first, values, count, stride);
    }
  }

 private:
  int64_t words() const { return up_to(words_of(across_->kind, across_->k), 4); }

  // Keys as rows of words, then transposed.
  void put_keys(int64_t panel, const float* keys, int64_t count, int64_t stride, float* room) const {
    int64_t width = across_->k, all = words_of(across_->kind, width), row = words();
    std::memset(room, 0, static_cast<size_t>(kLanes * row) * 4);
    for (int64_t lane = 0; lane < count; ++lane) {
      if (across_->kind == kFloat) std::memcpy(room + lane * row, keys + lane * stride, static_cast<size_t>(width) * 4);
      else round_row(keys + lane * stride, width, reinterpret_cast<uint16_t*>(room + lane * row));
    }
    float* to = reinterpret_cast<float*>(across_->data.get() + panel * across_->panel_bytes());
    int64_t word = 0;
    for (; word + 4 <= all; word += 4)
      for (int64_t lane = 0; lane < kLanes; lane += 4)
        transpose_words(room + lane * row + word, row, to + word * kLanes + lane);
    for (; word < all; ++word)
      for (int64_t lane = 0; lane < kLanes; ++lane) std::memcpy(to + word * kLanes + lane, room + lane * row + word, 4);
  }

  void put_floats(int64_t panel, int64_t first, const float* values, int64_t count, int64_t stride) const {
    float* to = reinterpret_cast<float*>(along_->data.get() + panel * along_->panel_bytes());
    int64_t column = panel * kLanes, left = along_->n - column;
    for (int64_t row = 0; row < count; ++row) {
      const float* from = values + row * stride + column;
      store(to + (first + row) * kLanes, left >= kLanes ? load(from) : load_some(from, static_cast<int>(left)));
    }
  }

  // Two rows side by side: number i of the even one in the low half of word i, of the odd one in the high half.
  void put_pairs(int64_t panel, int64_t first, const float* values, int64_t count, int64_t stride) const {
    uint8_t* to = along_->data.get() + panel * along_->panel_bytes() + first / 2 * 64;
    int64_t column = panel * kLanes, left = along_->n - column, width = left < kLanes ? left : kLanes;
    for (int64_t row = 0; row < count; row += 2) {
      uint16_t even[kLanes] = {}, odd[kLanes] = {};
      round_row(values + row * stride + column, width, even);
      if (row + 1 < count) round_row(values + (row + 1) * stride + column, width, odd);
      uint32_t words[kLanes];
      for (int i = 0; i < kLanes; ++i) words[i] = even[i] | static_cast<uint32_t>(odd[i]) << 16;
      std::memcpy(to + row / 2 * 64, words, 64);
    }
  }

  std::unique_ptr<Linear> across_, along_;
};

}  // namespace CELLSCRIBE_ISA
