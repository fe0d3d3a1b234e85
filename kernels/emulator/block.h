// One thread block: its fibers, its barriers, its shared memory, and its copies under way.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <string>

#include "emulator/fibers.h"

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulator {

constexpr int kLanes = 32;

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "emulated kernel: %s\n", what);
    std::abort();
}

struct Copy {
    void* target;
    char bytes[16];
};

struct Thread {
    Context context;
    dim3 index;
    unsigned number = 0;
    bool finished = false;
    std::vector<Copy> open_copies;             // issued, not committed
    std::deque<std::vector<Copy>> groups;      // committed, not waited for
};

// Where the 32 lanes of a warp meet: each brings its arguments, the last to come does the work for all.
struct Meeting {
    void* brought[kLanes] = {};
    const void* purpose = nullptr;  // which instruction; all must mean the same one
    unsigned arrived = 0;
    uint64_t round = 0;
};

class Block {
public:
    static Block*& current() {
        static thread_local Block* block = nullptr;
        return block;
    }

    dim3 index, grid, size;
    Thread* running = nullptr;

    Block(dim3 grid_, dim3 size_, size_t shared_bytes, bool reversed)
        : grid(grid_), size(size_), shared_bytes_(shared_bytes), reversed_(reversed) {
        const unsigned count = size.x * size.y * size.z;
        threads_.resize(count);
        meetings_.resize((count + kLanes - 1) / kLanes);
        shared_.resize(shared_bytes + 2 * kGuard);
    }

    template <class Body>
    void run(dim3 index_, const Body& body) {
        index = index_;
        // Shared memory starts as NaN and has guards on both sides.
        std::memset(shared_.data(), 0xff, shared_.size());
        body_ = [&body] { body(); };
        barrier_arrived_ = 0;
        for (auto& meeting : meetings_) meeting = Meeting();
        for (unsigned i = 0; i < threads_.size(); ++i) {
            Thread& thread = threads_[i];
            thread = Thread();
            thread.number = i;
            thread.index = dim3(i % size.x, i / size.x % size.y, i / (size.x * size.y));
            thread.context.start_on(stacks_.of(i, threads_.size()), Stacks::kBytes, &Block::begin);
        }
        current() = this;
        turn_until_all_finished();
        current() = nullptr;
        for (size_t i = 0; i < kGuard; ++i)
            if (shared_[i] != '\xff' || shared_[shared_.size() - 1 - i] != '\xff')
                fail("shared memory was written outside its bounds");
    }

    unsigned char* shared() { return reinterpret_cast<unsigned char*>(shared_.data()) + kGuard; }
    bool is_shared(const void* pointer, size_t bytes) {
        const auto* p = static_cast<const unsigned char*>(pointer);
        return p >= shared() && p + bytes <= shared() + shared_bytes_;
    }

    void yield() { Context::go(running->context, turns_); }

    void barrier() {
        const uint64_t round = barrier_round_;
        if (++barrier_arrived_ == threads_.size()) {
            pass_barrier();
            return;
        }
        while (barrier_round_ == round) yield();
    }

    // Meet with the other lanes of the warp; `work(brought)` runs once, when all have come.
    template <class Work>
    void meet(void* mine, const void* purpose, const Work& work) {
        Meeting& here = meetings_[running->number / kLanes];
        const unsigned lanes = std::min<size_t>(kLanes, threads_.size() - running->number / kLanes * kLanes);
        if (here.arrived && here.purpose != purpose) fail("the lanes of a warp are at different instructions");
        here.purpose = purpose;
        here.brought[running->number % kLanes] = mine;
        progressed_ = true;
        if (++here.arrived == lanes) {
            work(here.brought);
            here.arrived = 0;
            ++here.round;
            return;
        }
        const uint64_t round = here.round;
        while (here.round == round) yield();
    }

private:
    static constexpr size_t kGuard = 128;

    static void begin() {
        Block& block = *current();
        block.body_();
        if (!block.running->open_copies.empty() || !block.running->groups.empty())
            fail("a thread ended while its copies were under way");
        block.running->finished = true;
        block.progressed_ = true;
        block.yield();
    }

    void pass_barrier() {
        barrier_arrived_ = 0;
        ++barrier_round_;
        progressed_ = true;
    }

    // Each warp runs as far as it can before the next one does: what another warp should have written by then, and no
    // barrier enforced, is missing. A reversed block begins with the last warp and the last lane.
    void turn_until_all_finished() {
        const size_t count = threads_.size(), warps = meetings_.size();
        size_t left = count;
        while (left) {
            bool any = false;
            for (size_t i = 0; i < warps; ++i) {
                do {
                    progressed_ = false;
                    left -= turn_warp(reversed_ ? warps - 1 - i : i);
                    any |= progressed_;
                } while (progressed_);
            }
            if (!any && left) fail("threads wait for each other (a barrier that not all of them reach)");
        }
    }

    size_t turn_warp(size_t warp) {
        const size_t first = warp * kLanes, lanes = std::min<size_t>(kLanes, threads_.size() - first);
        size_t ended = 0;
        for (size_t i = 0; i < lanes; ++i) {
            Thread& thread = threads_[first + (reversed_ ? lanes - 1 - i : i)];
            if (thread.finished) continue;
            running = &thread;
            const unsigned waiting = barrier_arrived_;
            Context::go(turns_, thread.context);
            if (barrier_arrived_ != waiting) progressed_ = true;
            if (thread.finished) ++ended;
        }
        return ended;
    }

    size_t shared_bytes_;
    bool reversed_;
    std::vector<Thread> threads_;
    std::vector<Meeting> meetings_;
    std::vector<char> shared_;
    std::function<void()> body_;
    Stacks stacks_;
    Context turns_;
    unsigned barrier_arrived_ = 0;
    uint64_t barrier_round_ = 0;
    bool progressed_ = false;
};

}  // namespace emulator
