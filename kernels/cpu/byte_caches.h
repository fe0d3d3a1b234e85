// Keys and values rounded to bytes: a quarter of the memory that a step reads, and products of bytes.
#pragma once
#include "caches.h"

namespace CELLSCRIBE_ISA {

// Keys are the weight of scores, a lane for a position, with a scale for every 32 numbers of a key. Values are the weight
// of mixtures, a lane for a number; a value has one scale, which goes into the weights that mix it.
class ByteCaches final : public Caches {
  static constexpr int64_t kWeights = 64;  // of a mixture that share a scale

 public:
  explicit ByteCaches(const HeadShape& shape)
      : shape_(shape),
        key_width_(up_to(shape.width, kBlock)),
        room_(up_to(shape.capacity, kWeights)),
        key_bytes_(key_width_ * Linear::bytes_of_a_row(kInt8) + 64),
        value_bytes_(room_ * Linear::bytes_of_a_row(kInt8) + 64) {
    data_ = make_zeros<uint8_t>(shape.layers * shape.kv_heads * head_bytes());
    int64_t ones = value_panels() * room_ / kBlock * kLanes;
    ones_ = make_array<uint16_t>(ones);
    std::fill_n(ones_.get(), ones, uint16_t{0x3c00});
  }

  void write(int64_t layer, int64_t head, int64_t position, const float* key, const float* value) override {
    int64_t panel = position / kLanes, lane = position % kLanes, blocks = key_width_ / kBlock;
    uint8_t* keys = keys_of(layer, head) + panel * key_bytes_ + lane * 4;
    uint16_t* scales = key_scales(layer, head) + panel * blocks * kLanes + lane;
    alignas(64) int8_t bytes[kBlock];
    for (int64_t block = 0; block < blocks; ++block) {
      scales[block * kLanes] = round_key(key, block * kBlock, bytes);
      for (int i = 0; i < kBlock; i += 4) put_four(keys + block * 512 + i * kLanes, bytes + i);
    }
    uint8_t* values = values_of(layer, head) + position / kBlock * 512 + position % kBlock / 4 * 64 + position % 4;
    float most = 0.0f;
    bool finite = true;
    for (int64_t i = 0; i < shape_.width; i += kLanes) {
      F some = load_row(value, i, shape_.width);
      most = std::max(most, largest(abs(some))), finite = finite && all_finite(some);
    }
    F inverse = set1(finite && most > 0.0f ? 127.0f / most : 0.0f);
    for (int64_t i = 0; i < shape_.width; i += kLanes) {
      store_bytes(bytes, load_row(value, i, shape_.width) * inverse);
      uint8_t* to = values + i / kLanes * value_bytes_;
      for (int j = 0; j < kLanes; ++j) to[j * 4] = offset(bytes[j]);
    }
    value_scales(layer, head)[position] = finite ? most / 127.0f : NAN;
  }

  void copy(const Caches& from, int64_t layers, int64_t length) override {
    const ByteCaches& other = static_cast<const ByteCaches&>(from);
    int64_t panels = up_to(length, kLanes) / kLanes, blocks = up_to(length, kBlock) / kBlock;
    for (int64_t layer = 0; layer < layers; ++layer)
      for (int64_t head = 0; head < shape_.kv_heads; ++head) {
        std::memcpy(keys_of(layer, head), other.keys_of(layer, head), static_cast<size_t>(panels * key_bytes_));
        std::memcpy(key_scales(layer, head), other.key_scales(layer, head),
                    static_cast<size_t>(panels * key_width_ / kBlock * kLanes * 2));
        for (int64_t i = 0; i < value_panels(); ++i)
          std::memcpy(values_of(layer, head) + i * value_bytes_, other.values_of(layer, head) + i * value_bytes_,
                      static_cast<size_t>(blocks * 512));
        std::memcpy(value_scales(layer, head), other.value_scales(layer, head), static_cast<size_t>(length) * 4);
      }
  }

  void attend(int64_t layer, int64_t head, const Query* queries, int64_t count, const Scores& how,
              AttendScratch& scratch) const override {
    int64_t begin = queries[0].first, end = queries[0].length;
    for (int64_t i = 1; i < count; ++i)
      begin = std::min(begin, queries[i].first), end = std::max(end, queries[i].length);
    begin = begin / kWeights * kWeights;
    int64_t stop = up_to(end, kWeights), room = stop + 2 * kLanes, width = up_to(shape_.width, kLanes);
    float* scores = scratch.reserve_scores(count * (room + width));
    scratch.prepared.reserve(count, std::max(key_width_, stop));
    Linear keys = keys_weight(layer, head, end), values = values_weight(layer, head, begin, end);
    for (int64_t i = 0; i < count; ++i) scratch.prepared.put(keys, i, queries[i].q);
    Finish to_scores;
    to_scores.out = scores, to_scores.stride = room;
    multiply_panels(keys, begin / kLanes, keys.panels(), scratch.prepared.rows(keys), 0, count, scores, to_scores);
    for (int64_t i = 0; i < count; ++i) {
      float* row = scores + i * room;
      weigh(row, queries[i], how);
      scale_row(row, queries[i], begin, stop, value_scales(layer, head));
      scratch.prepared.put(values, i, row + begin);
    }
    Finish to_mixed;
    float* mixed = scores + count * room;
    to_mixed.out = mixed, to_mixed.stride = width;
    multiply_panels(values, 0, values.panels(), scratch.prepared.rows(values), 0, count, mixed, to_mixed);
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(queries[i].out, mixed + i * width, static_cast<size_t>(shape_.width) * 4);
  }

  // As many as make whole tiles; more would wait for the last one's positions.
  int64_t queries_at_once() const override { return 24; }
  int64_t bytes() const override { return shape_.layers * shape_.kv_heads * head_bytes(); }

 private:
  int64_t value_panels() const { return up_to(shape_.width, kLanes) / kLanes; }
  int64_t keys_room() const { return room_ / kLanes * key_bytes_; }
  int64_t key_scales_room() const { return up_to(room_ * key_width_ / kBlock * 2, 64); }
  int64_t values_room() const { return value_panels() * value_bytes_; }
  int64_t head_bytes() const { return keys_room() + key_scales_room() + values_room() + up_to(4 * room_, 64); }

  uint8_t* keys_of(int64_t layer, int64_t head) const {
    return data_.get() + (layer * shape_.kv_heads + head) * head_bytes();
  }
  uint16_t* key_scales(int64_t layer, int64_t head) const {
    return reinterpret_cast<uint16_t*>(keys_of(layer, head) + keys_room());
  }
  uint8_t* values_of(int64_t layer, int64_t head) const {
    return keys_of(layer, head) + keys_room() + key_scales_room();
  }
  float* value_scales(int64_t layer, int64_t head) const {
    return reinterpret_cast<float*>(values_of(layer, head) + values_room());
  }

  Linear keys_weight(int64_t layer, int64_t head, int64_t end) const {
    Linear w;
    w.kind = kInt8, w.group = kBlock;
    w.k = shape_.width, w.kp = key_width_, w.n = w.np = up_to(end, kLanes);
    w.data = lent(keys_of(layer, head)), w.scales = lent(key_scales(layer, head));
    return w;
  }
  Linear values_weight(int64_t layer, int64_t head, int64_t begin, int64_t end) const {
    Linear w;
    w.kind = kInt8, w.group = kWeights, w.room = room_;
    w.k = end - begin, w.kp = up_to(w.k, kWeights), w.n = shape_.width, w.np = up_to(w.n, kLanes);
    w.data = lent(values_of(layer, head) + begin / kBlock * 512), w.scales = lent(ones_.get());
    return w;
  }

  // Weights times the scales of their values, and nothing where a query does not look.
  static void scale_row(float* row, const Query& query, int64_t begin, int64_t stop, const float* scales) {
    std::fill(row + begin, row + query.first, 0.0f);
    int64_t at = query.first;
    for (; at + kLanes <= query.length; at += kLanes) store(row + at, load(row + at) * load(scales + at));
    for (; at < query.length; ++at) row[at] *= scales[at];
    std::fill(row + query.length, row + stop, 0.0f);
  }

  // Rounds 32 numbers of a key to bytes by the scale that is kept, and returns it.
  uint16_t round_key(const float* key, int64_t at, int8_t* bytes) const {
    F low = load_row(key, at, shape_.width), high = load_row(key, at + kLanes, shape_.width);
    bool finite = all_finite(low) && all_finite(high);
    alignas(64) float wide[kLanes] = {finite ? largest(max(abs(low), abs(high))) / 127.0f : NAN};
    uint16_t halves[kLanes];
    store_half(halves, load(wide));
    store(wide, load_half(halves));
    F inverse = set1(finite && wide[0] > 0.0f ? 1.0f / wide[0] : 0.0f), most = set1(127.0f), least = set1(-127.0f);
    store_bytes(bytes, min(max(low * inverse, least), most));
    store_bytes(bytes + kLanes, min(max(high * inverse, least), most));
    return halves[0];
  }

  static uint8_t offset(int8_t byte) { return static_cast<uint8_t>(byte ^ -128); }
  static void put_four(uint8_t* to, const int8_t* bytes) {
    uint32_t four;
    std::memcpy(&four, bytes, 4);
    four ^= 0x80808080u;
    std::memcpy(to, &four, 4);
  }

  HeadShape shape_;
  int64_t key_width_, room_, key_bytes_, value_bytes_;
  Array<uint8_t> data_;
  Array<uint16_t> ones_;
};

inline std::unique_ptr<Caches> make_caches(const HeadShape& shape, Kind kind) {
  if (kind == kInt8) return std::make_unique<ByteCaches>(shape);
  return std::make_unique<FloatCaches>(shape);
}

}  // namespace CELLSCRIBE_ISA
