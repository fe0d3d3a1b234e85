// Fibers: every CUDA thread of a block is one, so that a block runs on one CPU thread and stops where it must wait.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace emulator {

#if defined(__x86_64__)
// Save the callee-saved registers on the old stack, keep its top in *from, and go on from the stack `to`.
asm(R"(
.text
.weak cellscribe_switch_fiber
.type cellscribe_switch_fiber,@function
cellscribe_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cellscribe_switch_fiber,.-cellscribe_switch_fiber
)");
extern "C" void cellscribe_switch_fiber(void** from, void* to);

struct Context {
    void* top = nullptr;

    void start_on(char* stack, size_t bytes, void (*body)()) {
        auto address = (reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t(15);
        auto* words = reinterpret_cast<void**>(address);
        *--words = nullptr;  // the body never returns
        *--words = reinterpret_cast<void*>(body);
        for (int i = 0; i < 6; ++i) *--words = nullptr;
        top = words;
    }
    static void go(Context& from, Context& to) { cellscribe_switch_fiber(&from.top, to.top); }
};
#else
struct Context {
    ucontext_t state;

    void start_on(char* stack, size_t bytes, void (*body)()) {
        getcontext(&state);
        state.uc_stack.ss_sp = stack;
        state.uc_stack.ss_size = bytes;
        state.uc_link = nullptr;
        makecontext(&state, body, 0);
    }
    static void go(Context& from, Context& to) { swapcontext(&from.state, &to.state); }
};
#endif

// Memory for the stacks of one block's threads, kept from block to block.
class Stacks {
public:
    static constexpr size_t kBytes = 64 * 1024;

    ~Stacks() {
        if (memory_) munmap(memory_, count_ * kBytes);
    }
    char* of(size_t thread, size_t count) {
        if (count > count_) {
            if (memory_) munmap(memory_, count_ * kBytes);
            count_ = count;
            memory_ = static_cast<char*>(
                mmap(nullptr, count * kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            if (memory_ == MAP_FAILED) std::abort();
        }
        return memory_ + thread * kBytes;
    }

private:
    char* memory_ = nullptr;
    size_t count_ = 0;
};

}  // namespace emulator
