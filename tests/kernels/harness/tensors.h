// Descriptions of the plugin's tensors for given sizes.
#pragma once

#include <NvInferRuntime.h>

#include <vector>

#include "problem.h"

struct Case {
    int heads, width;
    bool with_weights, bool_mask;

    int num_outputs() const { return with_weights ? 3 : 2; }
    int num_tensors() const { return 4 + num_outputs(); }
};

inline std::vector<nvinfer1::Dims> dims_of(Case const& c, Sizes const& n) {
    std::vector<nvinfer1::Dims> all{{3, {n.slots, c.heads * n.tokens, c.width}},
                                    {3, {n.slots, n.genes, c.width}},
                                    {2, {n.slots, n.genes}},
                                    {2, {n.slots, n.kept}},
                                    {3, {n.slots, c.heads * n.tokens, c.width}},
                                    {3, {n.slots, n.kept, n.genes}},
                                    {4, {n.slots, c.heads, n.kept, n.genes}}};
    all.resize(size_t(c.num_tensors()));
    return all;
}

inline nvinfer1::DataType type_of(Case const& c, int position) {
    using nvinfer1::DataType;
    if (position == 2) return c.bool_mask ? DataType::kBOOL : DataType::kINT32;
    if (position == 3) return DataType::kINT64;
    return position > 4 ? DataType::kFLOAT : DataType::kHALF;
}

inline std::vector<nvinfer1::PluginTensorDesc> described(Case const& c, Sizes const& n) {
    std::vector<nvinfer1::PluginTensorDesc> all;
    for (auto const& dims : dims_of(c, n))
        all.push_back({dims, type_of(c, int(all.size())), nvinfer1::TensorFormat::kLINEAR, -1.0f});
    return all;
}

// As in a profile from one slot, token and gene to the greatest sizes; what varies is -1.
inline std::vector<nvinfer1::DynamicPluginTensorDesc> ranged(Case const& c, Sizes const& greatest) {
    auto const least = dims_of(c, {1, 1, 1, 1}), most = dims_of(c, greatest);
    auto const descs = described(c, greatest);
    std::vector<nvinfer1::DynamicPluginTensorDesc> all;
    for (size_t i = 0; i < descs.size(); ++i) {
        all.push_back({descs[i], least[i], most[i], most[i]});
        for (int axis = 0; axis < most[i].nbDims; ++axis)
            if (least[i].d[axis] != most[i].d[axis]) all[i].desc.dims.d[axis] = -1;
    }
    return all;
}
