// What the plugin must refuse, in words that TensorRT passes on: refuse <library>

#include "library.h"
#include "tensors.h"

namespace {

constexpr Case kCase{4, 64, false, false};
constexpr Sizes kSizes{2, 3, 1, 10};

void refuse_attributes(Library& library) {
    auto const build = nvinfer1::TensorRTPhase::kBUILD;
    check(!library.create({{"with_weights", 0}}, build), "num_heads must be given");
    check(!library.create({{"num_heads", 4}}, build), "with_weights must be given");
    check(!library.build(0, 0) && !library.build(65, 0), "num_heads has a range");
    check(!library.build(4, 2), "with_weights is 0 or 1");
    check(library.finder.logger.lines.size() == 5, "every refusal is logged");
}

void refuse_counts(Library& library) {
    Plugin const plugin = library.build(kCase.heads, 0);
    auto& build = *build_of(plugin);
    auto const tensors = ranged(kCase, kSizes);
    check(!build.supportsFormatCombination(0, tensors.data(), 3, 2), "three inputs are refused");
    check(!build.supportsFormatCombination(0, tensors.data(), 4, 3), "an output that was not asked for is refused");
    check(!build.supportsFormatCombination(6, tensors.data(), 4, 2), "a position outside is refused");
    check(build.configurePlugin(tensors.data(), 3, tensors.data() + 4, 2) != 0, "three inputs do not configure");
}

void refuse_profile(Library& library, Case const& c, char const* what) {
    Plugin const plugin = library.build(c.heads, 0);
    auto const tensors = ranged(c, kSizes);
    check(build_of(plugin)->configurePlugin(tensors.data(), 4, tensors.data() + 4, 2) != 0, what);
}

// Shapes of a call with one size changed.
void refuse_shape(Library& library, int tensor, int axis, int size, char const* words) {
    Plugin const plugin = library.build(kCase.heads, 0);
    Context context;
    Plugin const attached(runtime_of(plugin)->attachToContext(&context));
    auto descs = described(kCase, kSizes);
    descs[size_t(tensor)].dims.d[axis] = size;
    check(runtime_of(attached)->onShapeChange(descs.data(), 4, descs.data() + 4, 2) != 0, words);
    check(runtime_of(attached)->enqueue(descs.data(), descs.data() + 4, nullptr, nullptr, nullptr, nullptr) != 0, words);
    check(context.recorder.errors.size() == 2, "errors reach the context's recorder");
    if (context.recorder.errors[0].find(words) == std::string::npos) std::fprintf(stderr, "%s\n", context.recorder.errors[0].c_str());
    check(context.recorder.errors[0].find(words) != std::string::npos, words);
    check(library.finder.logger.lines.back() == context.recorder.errors[1], "errors reach the logger");
}

}  // namespace

int main(int count, char** words) {
    check(count == 2, "one argument: the library");
    Library library(words[1]);
    refuse_attributes(library);
    refuse_counts(library);
    refuse_profile(library, {4, 96, false, false}, "a width that the kernel is not built for is refused");
    refuse_shape(library, 0, 1, 13, "no multiple of num_heads");
    refuse_shape(library, 1, 0, 3, "differ in slots or genes");
    refuse_shape(library, 2, 1, 9, "differ in slots or genes");
    refuse_shape(library, 1, 2, 128, "64, 128, 256 or 512 wide");
    refuse_shape(library, 3, 1, 4, "more tokens are to be kept");
    return 0;
}
