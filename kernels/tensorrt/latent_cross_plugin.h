// The plugin object: latent cross-attention for TensorRT 11. See README.md in this folder.
#pragma once

#include <NvInferRuntime.h>

#include "tensorrt/latent_cross_call.h"

namespace cellscribe::tensorrt {

constexpr char const* kPluginName = "LatentCrossAttention";
constexpr char const* kPluginVersion = "1";
constexpr char const* kPluginNamespace = "cellscribe";
constexpr char const* kNumHeadsField = "num_heads";
constexpr char const* kWithWeightsField = "with_weights";

// IPluginV3OneBuild and not its second version, which adds aliasing: no output is an update of an input, and the kernel
// promises nothing for tensors that overlap. With none declared, TensorRT gives every output memory of its own.
class LatentCrossPlugin final : public nvinfer1::IPluginV3,
                                public nvinfer1::IPluginV3OneCore,
                                public nvinfer1::IPluginV3OneBuild,
                                public nvinfer1::IPluginV3OneRuntime {
public:
    explicit LatentCrossPlugin(Attributes const& attributes) noexcept;

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;

    char const* getPluginName() const noexcept override { return kPluginName; }
    char const* getPluginVersion() const noexcept override { return kPluginVersion; }
    char const* getPluginNamespace() const noexcept override { return kPluginNamespace; }

    int32_t getNbOutputs() const noexcept override { return attributes_.num_outputs(); }
    int32_t getOutputDataTypes(nvinfer1::DataType* types, int32_t num_outputs, nvinfer1::DataType const* input_types,
                               int32_t num_inputs) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t num_inputs, nvinfer1::DimsExprs const* shape_inputs,
                            int32_t num_shape_inputs, nvinfer1::DimsExprs* outputs, int32_t num_outputs,
                            nvinfer1::IExprBuilder& builder) noexcept override;
    bool supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                   int32_t num_inputs, int32_t num_outputs) noexcept override;
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t num_inputs,
                            nvinfer1::DynamicPluginTensorDesc const* out, int32_t num_outputs) noexcept override;
    size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t num_inputs,
                            nvinfer1::DynamicPluginTensorDesc const* outputs,
                            int32_t num_outputs) const noexcept override;
    char const* getTimingCacheID() noexcept override { return description_; }
    char const* getMetadataString() noexcept override { return description_; }

    int32_t onShapeChange(nvinfer1::PluginTensorDesc const* in, int32_t num_inputs,
                          nvinfer1::PluginTensorDesc const* out, int32_t num_outputs) noexcept override;
    int32_t enqueue(nvinfer1::PluginTensorDesc const* input_descs, nvinfer1::PluginTensorDesc const* output_descs,
                    void const* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override { return &fields_; }

private:
    int32_t refuse(nvinfer1::ErrorCode code, char const* what) const noexcept;
    bool counts_fit(int32_t num_inputs, int32_t num_outputs) const noexcept;

    Attributes attributes_;
    nvinfer1::IErrorRecorder* recorder_ = nullptr;  // of the execution context that this object is attached to
    nvinfer1::PluginField field_list_[2];
    nvinfer1::PluginFieldCollection fields_;
    char description_[64];
};

}  // namespace cellscribe::tensorrt
