#include "tensorrt/latent_cross_creator.h"

#include <cstring>
#include <new>

#include "tensorrt/latent_cross_plugin.h"
#include "tensorrt/report.h"

namespace cellscribe::tensorrt {

namespace {

// The first number of a field; false where it has none. The ONNX parser counts bytes in `length` and aligns nothing.
bool read(nvinfer1::PluginField const& field, int64_t* value) {
    if (!field.data || field.length < 1) return false;
    if (field.type == nvinfer1::PluginFieldType::kINT64) {
        std::memcpy(value, field.data, sizeof(*value));
        return true;
    }
    int32_t narrow = 0;
    std::memcpy(&narrow, field.data, sizeof(narrow));
    *value = narrow;
    return field.type == nvinfer1::PluginFieldType::kINT32;
}

bool find(nvinfer1::PluginFieldCollection const* fields, char const* name, int64_t* value) {
    for (int32_t i = 0; fields && i < fields->nbFields; ++i)
        if (!std::strcmp(fields->fields[i].name, name)) return read(fields->fields[i], value);
    return false;
}

}  // namespace

LatentCrossCreator::LatentCrossCreator() noexcept {
    using nvinfer1::PluginFieldType;
    field_list_[0] = {kNumHeadsField, nullptr, PluginFieldType::kINT32, 1};
    field_list_[1] = {kWithWeightsField, nullptr, PluginFieldType::kINT32, 1};
    fields_ = {2, field_list_};
}

char const* LatentCrossCreator::getPluginName() const noexcept { return kPluginName; }
char const* LatentCrossCreator::getPluginVersion() const noexcept { return kPluginVersion; }
char const* LatentCrossCreator::getPluginNamespace() const noexcept { return kPluginNamespace; }

nvinfer1::IPluginV3* LatentCrossCreator::createPlugin(char const*, nvinfer1::PluginFieldCollection const* fields,
                                                      nvinfer1::TensorRTPhase) noexcept {
    int64_t heads = 0, weights = 0;
    if (!find(fields, kNumHeadsField, &heads) || heads < 1 || heads > 64) {
        report(nullptr, nvinfer1::ErrorCode::kINVALID_ARGUMENT, "num_heads must be given, 1 to 64");
        return nullptr;
    }
    if (!find(fields, kWithWeightsField, &weights) || weights < 0 || weights > 1) {
        report(nullptr, nvinfer1::ErrorCode::kINVALID_ARGUMENT, "with_weights must be given, 0 or 1");
        return nullptr;
    }
    return new (std::nothrow) LatentCrossPlugin({int32_t(heads), int32_t(weights)});
}

}  // namespace cellscribe::tensorrt
