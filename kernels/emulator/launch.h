// Launching: all blocks in turn. CELLSCRIBE_EMULATOR_REVERSED=1 runs blocks and threads from the last to the first.
#pragma once

namespace emulator {

inline bool reversed() {
    const char* set = std::getenv("CELLSCRIBE_EMULATOR_REVERSED");
    return set && *set == '1';
}

}  // namespace emulator

namespace cellscribe {

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 size, size_t shared_bytes, cudaStream_t,
                   Arguments... arguments) {
    constexpr size_t kSharedPerBlock = 227 * 1024;
    if (shared_bytes > kSharedPerBlock || size.x * size.y * size.z > 1024 || !grid.x || !grid.y || !grid.z ||
        grid.y > 65535 || grid.z > 65535)
        return cudaErrorInvalidValue;
    const bool reversed = emulator::reversed();
    emulator::Block block(grid, size, shared_bytes, reversed);
    const uint64_t count = uint64_t(grid.x) * grid.y * grid.z;
    for (uint64_t i = 0; i < count; ++i) {
        const uint64_t at = reversed ? count - 1 - i : i;
        block.run(dim3(unsigned(at % grid.x), unsigned(at / grid.x % grid.y), unsigned(at / grid.x / grid.y)),
                  [&] { kernel(Parameters(arguments)...); });
    }
    return cudaSuccess;
}

}  // namespace cellscribe
