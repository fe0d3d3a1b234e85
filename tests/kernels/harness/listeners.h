// What TensorRT gives a plugin to be heard with: a logger, an error recorder, the resources of a context.
#pragma once

#include <NvInferRuntime.h>

#include <string>
#include <vector>

class Logger final : public nvinfer1::ILogger {
public:
    std::vector<std::string> lines;
    void log(Severity, char const* message) noexcept override { lines.emplace_back(message); }
};

class LoggerFinder final : public nvinfer1::ILoggerFinder {
public:
    Logger logger;
    nvinfer1::ILogger* findLogger() override { return &logger; }
    ~LoggerFinder() override = default;
};

class Recorder final : public nvinfer1::IErrorRecorder {
public:
    std::vector<std::string> errors;
    int32_t getNbErrors() const noexcept override { return int32_t(errors.size()); }
    nvinfer1::ErrorCode getErrorCode(int32_t) const noexcept override { return nvinfer1::ErrorCode::kUNSPECIFIED_ERROR; }
    ErrorDesc getErrorDesc(int32_t i) const noexcept override { return errors[size_t(i)].c_str(); }
    bool hasOverflowed() const noexcept override { return false; }
    void clear() noexcept override { errors.clear(); }
    bool reportError(nvinfer1::ErrorCode, ErrorDesc what) noexcept override {
        errors.emplace_back(what);
        return true;
    }
    RefCount incRefCount() noexcept override { return 1; }
    RefCount decRefCount() noexcept override { return 0; }
};

class Context final : public nvinfer1::IPluginResourceContext {
public:
    mutable Recorder recorder;
    nvinfer1::IGpuAllocator* getGpuAllocator() const noexcept override { return nullptr; }
    nvinfer1::IErrorRecorder* getErrorRecorder() const noexcept override { return &recorder; }
};
