// Filling the panels of a weight from the arrays of a bundle.
#pragma once
#include "linear.h"

namespace CELLSCRIBE_ISA {

// Columns n0.. of a packed weight from numbers [K, count], `stride` apart, float32 or fp16.
template <class T>
inline void pack_numbers(Linear& w, int64_t n0, int64_t count, const T* source, int64_t stride, Threads& threads) {
  int64_t first = n0 / kLanes, last = (n0 + count + kLanes - 1) / kLanes;
  threads.run(last - first, [&](int64_t task, int) {
    int64_t panel = first + task, column0 = panel * kLanes;
    int64_t from = column0 > n0 ? column0 : n0, to = column0 + kLanes < n0 + count ? column0 + kLanes : n0 + count;
    uint8_t* at = w.data.get() + panel * w.panel_bytes();
    for (int64_t k = 0; k < w.k; ++k) {
      alignas(64) float row[kLanes];
      const T* in = source + k * stride + (from - n0);
      int64_t width = to - from;
      if constexpr (sizeof(T) == 2) {
        uint16_t halves[kLanes] = {};
        std::memcpy(halves, in, static_cast<size_t>(width) * 2);
        store(row, load_half(halves));
      } else {
        std::memcpy(row, in, static_cast<size_t>(width) * 4);
      }
      int64_t lane = from - column0;
      if (w.kind == kFloat) {
        std::memcpy(reinterpret_cast<float*>(at) + k * kLanes + lane, row, static_cast<size_t>(width) * 4);
      } else if (w.kind == kHalf) {
        uint16_t halves[kLanes];
        store_half(halves, load(row));
        std::memcpy(reinterpret_cast<uint16_t*>(at) + k * kLanes + lane, halves, static_cast<size_t>(width) * 2);
      } else {
        uint16_t* out = reinterpret_cast<uint16_t*>(at) + (k / 2) * 2 * kLanes + k % 2;
        for (int64_t i = 0; i < width; ++i) out[2 * (lane + i)] = to_bf16(row[i]);
      }
    }
  });
}

// Columns n0.. of a weight of bytes from the tensors of MatMulNBits: packed [count, K/32, 16 or 32] (int4: the even k
// in the low half of a byte; offset by 8 or 128) and float32 scales [count, K/group], representable in fp16.
inline void pack_blocks(Linear& w, int64_t n0, int64_t count, const uint8_t* packed, const float* scales,
                        Threads& threads) {
  int64_t blocks = w.kp / kBlock, bytes = w.kind == kInt8 ? 32 : 16;
  int64_t first = n0 / kLanes, last = (n0 + count + kLanes - 1) / kLanes;
  threads.run(last - first, [&](int64_t task, int) {
    int64_t panel = first + task;
    uint8_t* at = w.data.get() + panel * w.panel_bytes();
    uint16_t* scale_at = w.scales.get() + panel * w.groups() * kLanes;
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      int64_t column = panel * kLanes + lane - n0;
      if (column < 0 || column >= count) continue;
      for (int64_t block = 0; block < blocks; ++block) {
        const uint8_t* in = packed + (column * blocks + block) * bytes;
        if (w.kind == kInt8) {
          uint8_t* out = at + block * 512 + lane * 4;
          for (int group = 0; group < 8; ++group) std::memcpy(out + group * 64, in + group * 4, 4);
        } else {
          uint8_t* out = at + block * 256 + lane * 4;
          for (int pair = 0; pair < 4; ++pair) {
            uint8_t even[4], odd[4];
            for (int i = 0; i < 4; ++i) {
              even[i] = static_cast<uint8_t>(in[pair * 4 + i / 2] >> (4 * (i % 2)) & 15);
              odd[i] = static_cast<uint8_t>(in[pair * 4 + 2 + i / 2] >> (4 * (i % 2)) & 15);
            }
            for (int i = 0; i < 4; ++i) out[pair * 64 + i] = static_cast<uint8_t>(even[i] | odd[i] << 4);
          }
        }
      }
      for (int64_t group = 0; group < w.groups(); ++group) {
        alignas(64) float wide[kLanes] = {scales[column * w.groups() + group]};
        uint16_t half[kLanes];
        store_half(half, load(wide));
        scale_at[group * kLanes + lane] = half[0];
      }
    }
  });
}

}  // namespace CELLSCRIBE_ISA
