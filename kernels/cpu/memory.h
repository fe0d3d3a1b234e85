// What the text of one slot attends to: the memory of a cell, packed for both products of cross-attention.
#pragma once
#include <cmath>

#include "linear.h"

namespace CELLSCRIBE_ISA {

// Keys [S, width] as the weight of scores (width -> S, `across`) and values [S, width] as that of mixtures (S -> width,
// `along`); a latent memory is both. Room for `most` rows is taken once; a cell uses what it needs.
class Attended {
 public:
  Attended(Kind kind, int64_t width, int64_t most)
      : across_(make_linear(kind, width, most, false)), along_(make_linear(kind, up_to(most, 2), width, false)) {}

  // Packs keys and values [count, width], `stride` apart.
  void fill(const float* keys, const float* values, int64_t count, int64_t stride) {
    across_->n = count, across_->np = up_to(count, kLanes);
    along_->k = count, along_->kp = padded_k(along_->kind, count);
    int64_t width = across_->k;
    if (across_->kind == kInt8) {
      round(*across_, [&](int64_t k, int64_t row) { return row < count && k < width ? keys[row * stride + k] : 0.0f; });
      round(*along_, [&](int64_t row, int64_t k) { return row < count && k < width ? values[row * stride + k] : 0.0f; });
      return;
    }
    for (int64_t panel = 0; panel < across_->panels(); ++panel) {
      uint8_t* at = across_->data.get() + panel * across_->panel_bytes();
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        int64_t row = panel * kLanes + lane;
        for (int64_t k = 0; k < across_->kp; ++k)
          put(at, k, lane, row < count && k < width ? keys[row * stride + k] : 0.0f);
      }
    }
    for (int64_t panel = 0; panel < along_->panels(); ++panel) {
      uint8_t* at = along_->data.get() + panel * along_->panel_bytes();
      for (int64_t row = 0; row < along_->kp; ++row)
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          int64_t column = panel * kLanes + lane;
          put(at, row, lane, row < count && column < width ? values[row * stride + column] : 0.0f);
        }
    }
  }

  int64_t count() const { return across_->n; }
  const Linear& across() const { return *across_; }
  const Linear& along() const { return *along_; }
  int64_t bytes() const { return across_->bytes() + along_->bytes(); }

 private:
  void put(uint8_t* panel, int64_t k, int64_t lane, float value) const {
    if (across_->kind == kFloat) reinterpret_cast<float*>(panel)[k * kLanes + lane] = value;
    else reinterpret_cast<uint16_t*>(panel)[(k / 2) * 2 * kLanes + 2 * lane + k % 2] = to_bf16(value);
  }

  // Bytes with a scale for every 32 numbers of a column; `at(k, column)` gives the numbers.
  template <class At>
  static void round(Linear& w, At&& at) {
    int64_t blocks = w.groups();
    for (int64_t panel = 0; panel < w.panels(); ++panel) {
      uint8_t* bytes = w.data.get() + panel * w.panel_bytes();
      for (int64_t block = 0; block < blocks; ++block, bytes += 512) {
        alignas(64) float scales[kLanes], numbers[kBlock];
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          bool finite = true;
          for (int64_t i = 0; i < kBlock; ++i) {
            numbers[i] = at(block * kBlock + i, panel * kLanes + lane);
            finite = finite && std::isfinite(numbers[i]);
          }
          float most = largest(max(abs(load(numbers)), abs(load(numbers + kLanes))));
          scales[lane] = finite ? most / 127.0f : NAN;
          float inverse = finite && most > 0.0f ? 127.0f / most : 0.0f;
          for (int64_t i = 0; i < kBlock; ++i)
            bytes[i / 4 * 64 + lane * 4 + i % 4] = static_cast<uint8_t>(std::lrint(finite ? numbers[i] * inverse : 0.0f) + 128);
        }
        store_half(w.scales.get() + (panel * blocks + block) * kLanes, load(scales));
      }
    }
  }

  std::unique_ptr<Linear> across_, along_;
};

}  // namespace CELLSCRIBE_ISA
