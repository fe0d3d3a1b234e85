// Keys and values of one slot, one layer after another, and attention of new tokens to them.
#pragma once
#include <cmath>

#include "linear.h"
#include "softmax.h"

namespace CELLSCRIBE_ISA {

// What becomes of scores before their softmax.
struct Scores {
  float scale, cap;  // cap 0: none
};

struct HeadShape {
  int64_t layers, kv_heads, width, capacity;
  int64_t padded_width() const { return up_to(width, kLanes); }
  int64_t blocks() const { return (capacity + kLanes - 1) / kLanes; }
  int64_t numbers() const { return blocks() * kLanes * padded_width(); }  // of one head's keys, or values
};

// Keys lie in blocks of 16 positions, [C/16][D][16], so that a lane scores a position; values as rows [C][D].
class Caches {
 public:
  explicit Caches(const HeadShape& shape) : shape_(shape) {
    int64_t count = 2 * shape.layers * shape.kv_heads * shape.numbers();
    data_ = make_array<float>(count);
    std::memset(data_.get(), 0, static_cast<size_t>(count) * 4);
  }

  void write(int64_t layer, int64_t head, int64_t position, const float* key, const float* value) {
    float* k = keys(layer, head) + position / kLanes * kLanes * shape_.padded_width() + position % kLanes;
    for (int64_t d = 0; d < shape_.width; ++d) k[d * kLanes] = key[d];
    std::memcpy(values(layer, head) + position * shape_.padded_width(), value,
                static_cast<size_t>(shape_.width) * 4);
  }

  // The first layers of another slot's caches.
  void copy(const Caches& other, int64_t layers) {
    std::memcpy(data_.get(), other.data_.get(), static_cast<size_t>(8 * layers * shape_.kv_heads * shape_.numbers()));
  }

  // Query heads [count, D] of one key/value head attend to the positions first..length-1; `scores` has room for 8 x C.
  void attend(int64_t layer, int64_t head, int64_t first, int64_t length, const Scores& how, const float* q,
              int64_t count, float* out, float* scores) const {
    int64_t room = shape_.blocks() * kLanes;
    for (int64_t g = 0; g < count;) {
      int64_t take = count - g >= 8 ? 8 : count - g >= 4 ? 4 : 1;
      const float* mine = q + g * shape_.width;
      if (take == 8) score<8>(layer, head, first, length, mine, scores, room);
      else if (take == 4) score<4>(layer, head, first, length, mine, scores, room);
      else score<1>(layer, head, first, length, mine, scores, room);
      for (int64_t i = 0; i < take; ++i) {
        float* row = scores + i * room + first;
        if (how.cap > 0.0f) squash(row, length - first, how.scale, how.cap);
        softmax(row, length - first, how.cap > 0.0f ? 1.0f : how.scale);
      }
      for (int64_t i = 0; i < take; ++i)
        mix(layer, head, first, length, scores + i * room, out + (g + i) * shape_.width);
      g += take;
    }
  }

  int64_t bytes() const { return 8 * shape_.layers * shape_.kv_heads * shape_.numbers(); }

 private:
  float* keys(int64_t layer, int64_t head) const {
    return data_.get() + 2 * (layer * shape_.kv_heads + head) * shape_.numbers();
  }
  float* values(int64_t layer, int64_t head) const { return keys(layer, head) + shape_.numbers(); }

  template <int kCount>
  void score(int64_t layer, int64_t head, int64_t first, int64_t length, const float* q, float* scores,
             int64_t room) const {
    int64_t begin = first / kLanes * kLanes;
    const float* k = keys(layer, head) + begin * shape_.padded_width();
    for (int64_t at = begin; at < length; at += kLanes, k += kLanes * shape_.padded_width()) {
      F acc[kCount];
      CELLSCRIBE_UNROLL
      for (int i = 0; i < kCount; ++i) acc[i] = zero();
      for (int64_t d = 0; d < shape_.width; ++d) {
        F kd = load(k + d * kLanes);
        CELLSCRIBE_UNROLL
        for (int i = 0; i < kCount; ++i) acc[i] = fma(set1(q[i * shape_.width + d]), kd, acc[i]);
      }
      CELLSCRIBE_UNROLL
      for (int i = 0; i < kCount; ++i) store(scores + i * room + at, acc[i]);
    }
  }

  void mix(int64_t layer, int64_t head, int64_t first, int64_t length, const float* p, float* out) const {
    const float* v = values(layer, head);
    int64_t width = shape_.padded_width();
    for (int64_t d = 0; d < shape_.width;) {
      int64_t left = shape_.width - d;
      if (left >= 64) {
        F acc[4] = {zero(), zero(), zero(), zero()};
        for (int64_t c = first; c < length; ++c) {
          F pc = set1(p[c]);
          CELLSCRIBE_UNROLL
          for (int i = 0; i < 4; ++i) acc[i] = fma(pc, load(v + c * width + d + i * kLanes), acc[i]);
        }
        for (int i = 0; i < 4; ++i) store(out + d + i * kLanes, acc[i]);
        d += 64;
        continue;
      }
      F acc = zero();
      for (int64_t c = first; c < length; ++c) acc = fma(set1(p[c]), load(v + c * width + d), acc);
      store_some(out + d, acc, static_cast<int>(left < kLanes ? left : kLanes));
      d += kLanes;
    }
  }

  HeadShape shape_;
  Array<float> data_;
};

}  // namespace CELLSCRIBE_ISA
