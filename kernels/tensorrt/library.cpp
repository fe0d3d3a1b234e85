// What TensorRT asks a plugin library for when it loads one. The library links to no TensorRT.

#include "tensorrt/latent_cross_creator.h"
#include "tensorrt/report.h"

#define CELLSCRIBE_EXPORTED extern "C" __attribute__((visibility("default")))

CELLSCRIBE_EXPORTED nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static cellscribe::tensorrt::LatentCrossCreator latent_cross;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&latent_cross};
    count = 1;
    return creators;
}

CELLSCRIBE_EXPORTED void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
    cellscribe::tensorrt::set_logger_finder(finder);
}
