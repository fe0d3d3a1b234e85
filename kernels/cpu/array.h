// Memory aligned to cache lines.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace CELLSCRIBE_ISA {

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

}  // namespace CELLSCRIBE_ISA
