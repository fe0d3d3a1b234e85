#include "tensorrt/report.h"

#include <atomic>
#include <cstdio>

namespace cellscribe::tensorrt {

namespace {

std::atomic<nvinfer1::ILoggerFinder*>& finder() {
    static std::atomic<nvinfer1::ILoggerFinder*> known{nullptr};
    return known;
}

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* found) { finder().store(found); }

void report(nvinfer1::IErrorRecorder* recorder, nvinfer1::ErrorCode code, char const* what) noexcept {
    char line[256];
    std::snprintf(line, sizeof(line), "cellscribe LatentCrossAttention: %s", what);
    try {  // findLogger may throw, and no exception may leave a plugin
        nvinfer1::ILoggerFinder* const known = finder().load();
        nvinfer1::ILogger* const logger = known ? known->findLogger() : nullptr;
        if (logger) logger->log(nvinfer1::ILogger::Severity::kERROR, line);
    } catch (...) {
    }
    if (recorder) recorder->reportError(code, line);
}

}  // namespace cellscribe::tensorrt
