// Keys and values of one slot, one layer after another, and attention of new tokens to them.
#pragma once
#include <algorithm>
#include <cmath>

#include "prepare.h"
#include "softmax.h"

namespace CELLSCRIBE_ISA {

// What becomes of scores before their softmax.
struct Scores {
  float scale, cap;     // cap 0: none
  const float* bias;    // [H, reach + 1 or 2 reach + 1], added to scaled scores by distance, or null
  int64_t reach, room;  // room: numbers of a head's row
};

// One query head of one row at a position: it attends to the positions first..length-1.
struct Query {
  const float* q;
  float* out;
  int64_t first, length, head, position;
};

// Scales scores of the keys 0..length-1 and adds what belongs to their distances from a query.
inline void add_bias(float* row, const Query& query, const Scores& how) {
  const float* bias = how.bias + query.head * how.room;
  int64_t near = query.position - how.reach, last = near + how.room - 1;  // keys at the ends of the table
  F scale = set1(how.scale);
  int64_t c = query.first;
  for (; c < std::min(near, query.length); ++c) row[c] = row[c] * how.scale + bias[0];
  int64_t stop = std::min(last + 1, query.length);
  for (; c + kLanes <= stop; c += kLanes) store(row + c, fma(load(row + c), scale, load(bias + c - near)));
  for (; c < stop; ++c) row[c] = std::fma(row[c], how.scale, bias[c - near]);
  for (; c < query.length; ++c) row[c] = row[c] * how.scale + bias[how.room - 1];
}

// Scores of a query's positions -> their weights, with zeros up to a multiple of 16 positions behind the first.
inline void weigh(float* row, const Query& query, const Scores& how) {
  int64_t length = query.length - query.first;
  if (how.cap > 0.0f) squash(row + query.first, length, how.scale, how.cap);
  if (how.bias) add_bias(row, query, how);
  softmax(row + query.first, length, how.cap > 0.0f || how.bias ? 1.0f : how.scale);
}

// What one thread attends with.
struct AttendScratch {
  Prepared prepared;
  Array<float> scores;
  int64_t scores_room = 0;
  float* reserve_scores(int64_t count) {
    if (count > scores_room) scores = make_array<float>(count), scores_room = count;
    return scores.get();
  }
};

struct HeadShape {
  int64_t layers, kv_heads, width, capacity;
  int64_t padded_width() const { return up_to(width, kLanes); }
  int64_t blocks() const { return (capacity + kLanes - 1) / kLanes; }
  int64_t numbers() const { return blocks() * kLanes * padded_width(); }  // of one head's keys, or values
};

class Caches {
 public:
  virtual ~Caches() = default;
  virtual void write(int64_t layer, int64_t head, int64_t position, const float* key, const float* value) = 0;
  // The first positions of the first layers of another slot's caches, which are of the same kind and shape.
  virtual void copy(const Caches& other, int64_t layers, int64_t length) = 0;
  // Queries of one key/value head attend to their positions. What one gets does not depend on the others.
  virtual void attend(int64_t layer, int64_t head, const Query* queries, int64_t count, const Scores& how,
                      AttendScratch& scratch) const = 0;
  virtual int64_t queries_at_once() const = 0;
  virtual int64_t bytes() const = 0;
};

// Keys lie in blocks of 16 positions, [C/16][D][16], so that a lane scores a position; values as rows [C][D].
class FloatCaches final : public Caches {
  static constexpr int kWide = 4;  // columns of 16 values that are mixed together

 public:
  explicit FloatCaches(const HeadShape& shape) : shape_(shape) {
    data_ = make_zeros<float>(2 * shape.layers * shape.kv_heads * shape.numbers());
  }

  void write(int64_t layer, int64_t head, int64_t position, const float* key, const float* value) override {
    float* k = keys(layer, head) + position / kLanes * kLanes * shape_.padded_width() + position % kLanes;
    for (int64_t d = 0; d < shape_.width; ++d) k[d * kLanes] = key[d];
    std::memcpy(values(layer, head) + position * shape_.padded_width(), value,
                static_cast<size_t>(shape_.width) * 4);
  }

  void copy(const Caches& from, int64_t layers, int64_t length) override {
    const FloatCaches& other = static_cast<const FloatCaches&>(from);
    size_t bytes = static_cast<size_t>(4 * up_to(length, kLanes) * shape_.padded_width());
    for (int64_t layer = 0; layer < layers; ++layer)
      for (int64_t head = 0; head < shape_.kv_heads; ++head) {
        std::memcpy(keys(layer, head), other.keys(layer, head), bytes);
        std::memcpy(values(layer, head), other.values(layer, head), bytes);
      }
  }

  // Up to eight at a time, so that a key is loaded once for all of them.
  void attend(int64_t layer, int64_t head, const Query* queries, int64_t count, const Scores& how,
              AttendScratch& scratch) const override {
    int64_t room = shape_.blocks() * kLanes;
    float* scores = scratch.reserve_scores(8 * room + kLanes);
    for (int64_t at = 0; at < count;) {
      int64_t take = count - at >= 8 ? 8 : count - at >= 4 ? 4 : 1;
      const Query* mine = queries + at;
      if (take == 8) score<8>(layer, head, mine, scores, room);
      else if (take == 4) score<4>(layer, head, mine, scores, room);
      else score<1>(layer, head, mine, scores, room);
      for (int64_t i = 0; i < take; ++i) weigh(scores + i * room, mine[i], how);
      for (int64_t i = 0; i < take;) {
        if (take - i >= 4) mix<4>(layer, head, mine + i, scores + i * room, room), i += 4;
        else mix<1>(layer, head, mine + i, scores + i * room, room), ++i;
      }
      at += take;
    }
  }

  int64_t queries_at_once() const override { return 8; }
  int64_t bytes() const override { return 8 * shape_.layers * shape_.kv_heads * shape_.numbers(); }

 private:
  float* keys(int64_t layer, int64_t head) const {
    return data_.get() + 2 * (layer * shape_.kv_heads + head) * shape_.numbers();
  }
  float* values(int64_t layer, int64_t head) const { return keys(layer, head) + shape_.numbers(); }

  template <int kCount>
  void score(int64_t layer, int64_t head, const Query* queries, float* scores, int64_t room) const {
    int64_t first = queries[0].first, length = queries[0].length;
    const float* q[kCount];
    for (int i = 0; i < kCount; ++i) {
      q[i] = queries[i].q;
      first = std::min(first, queries[i].first), length = std::max(length, queries[i].length);
    }
    int64_t block = kLanes * shape_.padded_width(), at = first / kLanes * kLanes;
    const float* k = keys(layer, head) + at * shape_.padded_width();
    for (; at + kLanes < length; at += 2 * kLanes, k += 2 * block) score_blocks<kCount, 2>(k, q, scores + at, room);
    if (at < length) score_blocks<kCount, 1>(k, q, scores + at, room);
  }

  // Scores of blocks of keys that follow each other; two at a time need fewer loads of queries than products.
  template <int kCount, int kBlocks>
  void score_blocks(const float* k, const float* const* q, float* scores, int64_t room) const {
    int64_t block = kLanes * shape_.padded_width();
    F acc[kCount][kBlocks];
    CELLSCRIBE_UNROLL
    for (int i = 0; i < kCount; ++i)
      CELLSCRIBE_UNROLL
      for (int j = 0; j < kBlocks; ++j) acc[i][j] = zero();
    for (int64_t d = 0; d < shape_.width; ++d) {
      F kd[kBlocks];
      CELLSCRIBE_UNROLL
      for (int j = 0; j < kBlocks; ++j) kd[j] = load(k + j * block + d * kLanes);
      CELLSCRIBE_UNROLL
      for (int i = 0; i < kCount; ++i) {
        F qd = set1(q[i][d]);
        CELLSCRIBE_UNROLL
        for (int j = 0; j < kBlocks; ++j) acc[i][j] = fma(qd, kd[j], acc[i][j]);
      }
    }
    CELLSCRIBE_UNROLL
    for (int i = 0; i < kCount; ++i)
      CELLSCRIBE_UNROLL
      for (int j = 0; j < kBlocks; ++j) store(scores + i * room + j * kLanes, acc[i][j]);
  }

  // Every query sums its own positions in rising order; those that all have in common load a value once for all.
  template <int kCount>
  void mix(int64_t layer, int64_t head, const Query* queries, const float* p, int64_t room) const {
    int64_t low = queries[0].first, high = queries[0].length;
    for (int i = 1; i < kCount; ++i) low = std::max(low, queries[i].first), high = std::min(high, queries[i].length);
    if (low > high) low = high;  // a window so small that they have nothing in common: the tails do it all
    const float* v = values(layer, head);
    int64_t d = 0;
    for (; shape_.width - d >= kWide * kLanes; d += kWide * kLanes)
      mix_columns<kCount, kWide>(v + d, queries, p, room, low, high, d, kLanes);
    for (; d < shape_.width; d += kLanes) {
      int64_t left = shape_.width - d;
      mix_columns<kCount, 1>(v + d, queries, p, room, low, high, d, static_cast<int>(left < kLanes ? left : kLanes));
    }
  }

  template <int kCount, int kColumns>
  void mix_columns(const float* v, const Query* queries, const float* p, int64_t room, int64_t low, int64_t high,
                   int64_t d, int lanes) const {
    int64_t width = shape_.padded_width();
    F acc[kCount][kColumns];
    CELLSCRIBE_UNROLL
    for (int i = 0; i < kCount; ++i) {
      CELLSCRIBE_UNROLL
      for (int j = 0; j < kColumns; ++j) acc[i][j] = zero();
      for (int64_t c = queries[i].first; c < std::max(low, queries[i].first); ++c) {
        F pc = set1(p[i * room + c]);
        CELLSCRIBE_UNROLL
        for (int j = 0; j < kColumns; ++j) acc[i][j] = fma(pc, load(v + c * width + j * kLanes), acc[i][j]);
      }
    }
    for (int64_t c = low; c < high; ++c) {
      F values[kColumns];
      CELLSCRIBE_UNROLL
      for (int j = 0; j < kColumns; ++j) values[j] = load(v + c * width + j * kLanes);
      CELLSCRIBE_UNROLL
      for (int i = 0; i < kCount; ++i) {
        F pc = set1(p[i * room + c]);
        CELLSCRIBE_UNROLL
        for (int j = 0; j < kColumns; ++j) acc[i][j] = fma(pc, values[j], acc[i][j]);
      }
    }
    CELLSCRIBE_UNROLL
    for (int i = 0; i < kCount; ++i) {
      for (int64_t c = std::max(high, queries[i].first); c < queries[i].length; ++c) {
        F pc = set1(p[i * room + c]);
        CELLSCRIBE_UNROLL
        for (int j = 0; j < kColumns; ++j) acc[i][j] = fma(pc, load(v + c * width + j * kLanes), acc[i][j]);
      }
      for (int j = 0; j < kColumns; ++j) store_some(queries[i].out + d + j * kLanes, acc[i][j], lanes);
    }
  }

  HeadShape shape_;
  Array<float> data_;
};

}  // namespace CELLSCRIBE_ISA
