#include "tensorrt/latent_cross_plugin.h"

#include <cstdio>
#include <new>

#include "tensorrt/mask_bytes.h"
#include "tensorrt/report.h"

namespace cellscribe::tensorrt {

using nvinfer1::DataType;
using nvinfer1::ErrorCode;

namespace {

constexpr int64_t kAlignment = 256;

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

Shapes shapes_of(nvinfer1::PluginTensorDesc const* in) {
    return {in[kQuery].dims, in[kMemory].dims, in[kMask].dims, in[kKept].dims};
}

Shapes greatest_of(Attributes const& attributes, nvinfer1::DynamicPluginTensorDesc const* in) {
    return consistent(attributes, {in[kQuery].max, in[kMemory].max, in[kMask].max, in[kKept].max});
}

// TensorRT's headers say that plugins take no bool tensors, so graphs carry int32 masks. Where a bool comes all the same
// its bytes are read as they are.
bool is_type_of(int32_t position, DataType type) {
    switch (position) {
        case kMask: return type == DataType::kINT32 || type == DataType::kBOOL;
        case kKept: return type == DataType::kINT64 || type == DataType::kINT32;
        case kNumInputs + kMass:
        case kNumInputs + kWeights: return type == DataType::kFLOAT;
        default: return type == DataType::kHALF;
    }
}

}  // namespace

LatentCrossPlugin::LatentCrossPlugin(Attributes const& attributes) noexcept : attributes_(attributes) {
    using nvinfer1::PluginFieldType;
    field_list_[0] = {kNumHeadsField, &attributes_.num_heads, PluginFieldType::kINT32, 1};
    field_list_[1] = {kWithWeightsField, &attributes_.with_weights, PluginFieldType::kINT32, 1};
    fields_ = {2, field_list_};
    std::snprintf(description_, sizeof(description_), "num_heads=%d with_weights=%d", int(attributes_.num_heads),
                  int(attributes_.with_weights));
}

nvinfer1::IPluginCapability* LatentCrossPlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
    switch (type) {
        case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

nvinfer1::IPluginV3* LatentCrossPlugin::clone() noexcept { return new (std::nothrow) LatentCrossPlugin(attributes_); }

nvinfer1::IPluginV3* LatentCrossPlugin::attachToContext(nvinfer1::IPluginResourceContext* context) noexcept {
    auto* const attached = new (std::nothrow) LatentCrossPlugin(attributes_);
    if (attached && context) attached->recorder_ = context->getErrorRecorder();
    return attached;
}

int32_t LatentCrossPlugin::refuse(ErrorCode code, char const* what) const noexcept {
    report(recorder_, code, what);
    return int32_t(code);
}

bool LatentCrossPlugin::counts_fit(int32_t num_inputs, int32_t num_outputs) const noexcept {
    return num_inputs == kNumInputs && num_outputs == attributes_.num_outputs();
}

int32_t LatentCrossPlugin::getOutputDataTypes(DataType* types, int32_t num_outputs, DataType const*,
                                              int32_t num_inputs) const noexcept {
    if (!counts_fit(num_inputs, num_outputs)) return refuse(ErrorCode::kINVALID_ARGUMENT, "four inputs are needed");
    for (int32_t i = 0; i < num_outputs; ++i) types[i] = i == kMixed ? DataType::kHALF : DataType::kFLOAT;
    return 0;
}

int32_t LatentCrossPlugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, int32_t num_inputs,
                                           nvinfer1::DimsExprs const*, int32_t num_shape_inputs,
                                           nvinfer1::DimsExprs* outputs, int32_t num_outputs,
                                           nvinfer1::IExprBuilder& builder) noexcept {
    if (!counts_fit(num_inputs, num_outputs) || num_shape_inputs)
        return refuse(ErrorCode::kINVALID_ARGUMENT, "four inputs are needed");
    if (inputs[kQuery].nbDims != 3 || inputs[kMemory].nbDims != 3 || inputs[kMask].nbDims != 2 ||
        inputs[kKept].nbDims != 2)
        return refuse(ErrorCode::kINVALID_ARGUMENT, "query and memory need three axes, mask and kept two");
    nvinfer1::IDimensionExpr const *slots = inputs[kQuery].d[0], *genes = inputs[kMemory].d[1],
                                   *kept = inputs[kKept].d[1];
    outputs[kMixed] = inputs[kQuery];
    outputs[kMass] = {3, {slots, kept, genes}};
    if (attributes_.with_weights)
        outputs[kWeights] = {4, {slots, builder.constant(attributes_.num_heads), kept, genes}};
    return 0;
}

bool LatentCrossPlugin::supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                                  int32_t num_inputs, int32_t num_outputs) noexcept {
    if (!counts_fit(num_inputs, num_outputs) || position < 0 || position >= num_inputs + num_outputs) return false;
    auto const& tensor = tensors[position].desc;
    return tensor.format == nvinfer1::TensorFormat::kLINEAR && is_type_of(position, tensor.type);
}

int32_t LatentCrossPlugin::configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t num_inputs,
                                           nvinfer1::DynamicPluginTensorDesc const*, int32_t num_outputs) noexcept {
    if (!counts_fit(num_inputs, num_outputs)) return refuse(ErrorCode::kINVALID_ARGUMENT, "four inputs are needed");
    char const* const fault = fault_of(attributes_, greatest_of(attributes_, in));
    return fault ? refuse(ErrorCode::kINVALID_ARGUMENT, fault) : 0;
}

size_t LatentCrossPlugin::getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, int32_t num_inputs,
                                           nvinfer1::DynamicPluginTensorDesc const*,
                                           int32_t num_outputs) const noexcept {
    if (!counts_fit(num_inputs, num_outputs)) return 0;
    Shapes const greatest = greatest_of(attributes_, inputs);
    int64_t const flags = inputs[kMask].desc.type == DataType::kBOOL ? 0 : greatest.mask.d[0] * greatest.mask.d[1];
    return size_t(aligned(flags) + kernel_bytes_up_to(attributes_, greatest));
}

int32_t LatentCrossPlugin::onShapeChange(nvinfer1::PluginTensorDesc const* in, int32_t num_inputs,
                                         nvinfer1::PluginTensorDesc const*, int32_t num_outputs) noexcept {
    if (!counts_fit(num_inputs, num_outputs)) return refuse(ErrorCode::kINVALID_ARGUMENT, "four inputs are needed");
    char const* const fault = fault_of(attributes_, shapes_of(in));
    return fault ? refuse(ErrorCode::kINVALID_ARGUMENT, fault) : 0;
}

int32_t LatentCrossPlugin::enqueue(nvinfer1::PluginTensorDesc const* input_descs, nvinfer1::PluginTensorDesc const*,
                                   void const* const* inputs, void* const* outputs, void* workspace,
                                   cudaStream_t stream) noexcept {
    Shapes const shapes = shapes_of(input_descs);
    if (char const* const fault = fault_of(attributes_, shapes)) return refuse(ErrorCode::kINVALID_ARGUMENT, fault);
    auto* free = static_cast<uint8_t*>(workspace);
    auto const* mask = static_cast<uint8_t const*>(inputs[kMask]);
    if (input_descs[kMask].type != DataType::kBOOL) {
        int64_t const flags = shapes.mask.d[0] * shapes.mask.d[1];
        int const refused = cellscribe_mask_bytes(static_cast<int32_t const*>(inputs[kMask]), free, flags, stream);
        if (refused) return refuse(ErrorCode::kFAILED_EXECUTION, "the mask could not be converted");
        mask = free;
        free += aligned(flags);
    }
    CellscribeLatentCross call = call_for(attributes_, shapes);
    call.query = inputs[kQuery];
    call.memory = inputs[kMemory];
    call.mask = mask;
    call.out = outputs[kMixed];
    call.mass = static_cast<float*>(outputs[kMass]);
    call.weights = attributes_.with_weights ? static_cast<float*>(outputs[kWeights]) : nullptr;
    call.workspace = free;
    call.workspace_bytes = kernel_bytes(attributes_, shapes);
    int const refused = cellscribe_latent_cross(&call, stream);
    if (!refused) return 0;
    char what[64];
    std::snprintf(what, sizeof(what), "the kernel was not launched (error %d)", refused);
    return refuse(ErrorCode::kFAILED_EXECUTION, what);
}

}  // namespace cellscribe::tensorrt
