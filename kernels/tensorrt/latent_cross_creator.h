// Makes plugin objects: from an ONNX node's attributes, or from what an engine keeps.
#pragma once

#include <NvInferRuntime.h>

namespace cellscribe::tensorrt {

class LatentCrossCreator final : public nvinfer1::IPluginCreatorV3One {
public:
    LatentCrossCreator() noexcept;

    // Null where an attribute is missing or out of range.
    nvinfer1::IPluginV3* createPlugin(char const* name, nvinfer1::PluginFieldCollection const* fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override { return &fields_; }
    char const* getPluginName() const noexcept override;
    char const* getPluginVersion() const noexcept override;
    char const* getPluginNamespace() const noexcept override;

private:
    nvinfer1::PluginField field_list_[2];
    nvinfer1::PluginFieldCollection fields_;
};

}  // namespace cellscribe::tensorrt
