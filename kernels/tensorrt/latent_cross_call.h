// From TensorRT's shapes to the sizes and strides of the kernel.
#pragma once

#include <NvInferRuntime.h>

#include "cellscribe/latent_cross.h"

namespace cellscribe::tensorrt {

// Inputs and outputs in order. Of `kept` only the second size is read: for how many of the last tokens mass and weights
// are wanted.
enum Input : int32_t { kQuery, kMemory, kMask, kKept, kNumInputs };
enum Output : int32_t { kMixed, kMass, kWeights };

struct Attributes {
    int32_t num_heads = 0;     // H
    int32_t with_weights = 0;  // 1: there is a third output

    int32_t num_outputs() const { return with_weights ? 3 : 2; }
};

struct Shapes {
    nvinfer1::Dims query;   // [B, R, m], R = H * T, head-major
    nvinfer1::Dims memory;  // [B, S, m]
    nvinfer1::Dims mask;    // [B, S]
    nvinfer1::Dims kept;    // [B, K]
};

// What is wrong with shapes of running tensors, in words; null if nothing is.
char const* fault_of(Attributes const& attributes, Shapes const& shapes);

// The greatest shapes of a profile as shapes of one call: TensorRT bounds each tensor by itself.
Shapes consistent(Attributes const& attributes, Shapes const& greatest);

// Sizes and strides, tensors still null.
CellscribeLatentCross call_for(Attributes const& attributes, Shapes const& shapes);

// Bytes that the kernel needs for these shapes.
int64_t kernel_bytes(Attributes const& attributes, Shapes const& shapes);

// Bytes that the kernel needs for these shapes or any smaller ones.
int64_t kernel_bytes_up_to(Attributes const& attributes, Shapes const& greatest);

}  // namespace cellscribe::tensorrt
