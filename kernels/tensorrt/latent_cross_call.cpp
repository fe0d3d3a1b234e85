#include "tensorrt/latent_cross_call.h"

#include <algorithm>

namespace cellscribe::tensorrt {

namespace {

bool is_built_for(int64_t width) { return width == 64 || width == 128 || width == 256 || width == 512; }

CellscribeLatentCross scoring(CellscribeLatentCross call, Attributes const& attributes) {
    static float wanted;  // the workspace depends on whether these are asked for, not on where they are
    call.mass = &wanted;
    call.weights = attributes.with_weights ? &wanted : nullptr;
    return call;
}

}  // namespace

char const* fault_of(Attributes const& attributes, Shapes const& shapes) {
    auto const& [query, memory, mask, kept] = shapes;
    if (query.nbDims != 3 || memory.nbDims != 3 || mask.nbDims != 2 || kept.nbDims != 2)
        return "query and memory need three axes, mask and kept two";
    int64_t const slots = query.d[0], genes = memory.d[1];
    if (memory.d[0] != slots || mask.d[0] != slots || kept.d[0] != slots || mask.d[1] != genes)
        return "the inputs differ in slots or genes";
    if (query.d[2] != memory.d[2] || !is_built_for(memory.d[2]))
        return "query and memory must be 64, 128, 256 or 512 wide, and equally";
    if (slots < 1 || slots > 65535 || genes < 1 || genes > 65535) return "slots and genes must be 1 to 65535";
    if (query.d[1] % attributes.num_heads) return "the query's rows are no multiple of num_heads";
    int64_t const tokens = query.d[1] / attributes.num_heads;
    if (tokens < 1 || tokens > 4096) return "tokens must be 1 to 4096";
    if (kept.d[1] < 1 || kept.d[1] > tokens) return "more tokens are to be kept than there are, or none";
    return nullptr;
}

Shapes consistent(Attributes const& attributes, Shapes const& greatest) {
    Shapes one = greatest;
    int64_t const heads = attributes.num_heads, tokens = (one.query.d[1] + heads - 1) / heads;
    one.query.d[1] = tokens * heads;
    one.memory.d[0] = one.mask.d[0] = one.kept.d[0] = one.query.d[0];
    one.mask.d[1] = one.memory.d[1];
    one.kept.d[1] = std::min<int64_t>(one.kept.d[1], tokens);
    return one;
}

CellscribeLatentCross call_for(Attributes const& attributes, Shapes const& shapes) {
    int64_t const rows = shapes.query.d[1], width = shapes.query.d[2], genes = shapes.memory.d[1];
    int64_t const heads = attributes.num_heads, tokens = rows / heads, kept = shapes.kept.d[1];
    CellscribeLatentCross call{};
    call.num_slots = int32_t(shapes.query.d[0]);
    call.num_heads = int32_t(heads);
    call.num_tokens = int32_t(tokens);
    call.num_genes = int32_t(genes);
    call.width = int32_t(width);
    call.scale = 1.0f;
    call.query_slot = call.out_slot = rows * width;
    call.query_head = call.out_head = tokens * width;
    call.query_token = call.out_token = width;
    call.memory_slot = genes * width;
    call.mask_slot = genes;
    call.mass_slot = kept * genes;
    call.mass_token = genes;
    call.mass_scale = 1.0f / float(heads);
    call.weights_slot = heads * kept * genes;
    call.weights_head = kept * genes;
    call.weights_token = genes;
    call.first_token = int32_t(tokens - kept);
    return call;
}

int64_t kernel_bytes(Attributes const& attributes, Shapes const& shapes) {
    CellscribeLatentCross const call = scoring(call_for(attributes, shapes), attributes);
    return cellscribe_latent_cross_workspace(&call);
}

int64_t kernel_bytes_up_to(Attributes const& attributes, Shapes const& greatest) {
    // Fewer slots or genes can make the kernel use more blocks, and another first token one row tile more: up to twice
    // as many of either, never more.
    return 2 * kernel_bytes(attributes, greatest);
}

}  // namespace cellscribe::tensorrt
