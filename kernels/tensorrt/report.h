// Saying what went wrong: to TensorRT's logger and, in an execution context, to its error recorder.
#pragma once

#include <NvInferRuntime.h>

namespace cellscribe::tensorrt {

void set_logger_finder(nvinfer1::ILoggerFinder* finder);

// Log an error, and record it where there is a recorder. Never throws.
void report(nvinfer1::IErrorRecorder* recorder, nvinfer1::ErrorCode code, char const* what) noexcept;

}  // namespace cellscribe::tensorrt
