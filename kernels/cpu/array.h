// Memory aligned to cache lines, and zeros in huge pages, where the system has them.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace CELLSCRIBE_ISA {

inline int64_t up_to(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

struct Free {
  size_t mapped = 0;  // bytes, of memory that is not the heap's
  bool is_lent = false;
  void operator()(void* p) const {
    if (is_lent) return;
#if defined(__linux__)
    if (mapped) {
      munmap(p, mapped);
      return;
    }
#endif
    std::free(p);
  }
};
template <class T>
using Array = std::unique_ptr<T[], Free>;

// Memory that belongs to another.
template <class T>
Array<T> lent(T* memory) {
  return Array<T>(memory, Free{0, true});
}

// Pages of 4 KiB cost a fault each when they are first touched.
constexpr size_t kHugePage = size_t{1} << 21;

#if defined(__linux__)
// Zeros on whole huge pages, or null.
inline void* map_zeros(size_t bytes) {
  size_t room = bytes + kHugePage;
  void* made = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (made == MAP_FAILED) return nullptr;
  char* begin = static_cast<char*>(made);
  size_t before = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  if (before) munmap(begin, before);
  if (kHugePage - before) munmap(begin + before + bytes, kHugePage - before);
#if defined(MADV_HUGEPAGE)
  madvise(begin + before, bytes, MADV_HUGEPAGE);
#endif
  return begin + before;
}
#endif

template <class T>
Array<T> make_array(int64_t count) {
  size_t bytes = static_cast<size_t>(up_to(count * static_cast<int64_t>(sizeof(T)) + 64, 64));
  void* made = std::aligned_alloc(64, bytes);
  if (!made) throw std::bad_alloc();
  return Array<T>(static_cast<T*>(made));
}

// Zeros; many of them cost nothing before they are touched.
template <class T>
Array<T> make_zeros(int64_t count) {
  size_t bytes = static_cast<size_t>(count) * sizeof(T);
#if defined(__linux__)
  if (bytes >= 2 * kHugePage) {
    bytes = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    void* made = map_zeros(bytes);
    if (!made) throw std::bad_alloc();
    return Array<T>(static_cast<T*>(made), Free{bytes, false});
  }
#endif
  Array<T> made = make_array<T>(count);
  std::memset(made.get(), 0, bytes);
  return made;
}

}  // namespace CELLSCRIBE_ISA
