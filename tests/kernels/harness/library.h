// The plugin library, loaded as TensorRT loads it, and the objects that it makes.
#pragma once

#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "listeners.h"

inline void check(bool holds, char const* what) {
    if (holds) return;
    std::fprintf(stderr, "failed: %s\n", what);
    std::exit(1);
}

using Plugin = std::unique_ptr<nvinfer1::IPluginV3>;

template <class Capability>
Capability* capability(Plugin const& plugin, nvinfer1::PluginCapabilityType type) {
    auto* const found = static_cast<Capability*>(plugin->getCapabilityInterface(type));
    check(found != nullptr, "a capability is missing");
    return found;
}
inline auto* core_of(Plugin const& p) {
    return capability<nvinfer1::IPluginV3OneCore>(p, nvinfer1::PluginCapabilityType::kCORE);
}
inline auto* build_of(Plugin const& p) {
    return capability<nvinfer1::IPluginV3OneBuild>(p, nvinfer1::PluginCapabilityType::kBUILD);
}
inline auto* runtime_of(Plugin const& p) {
    return capability<nvinfer1::IPluginV3OneRuntime>(p, nvinfer1::PluginCapabilityType::kRUNTIME);
}

// A field as the ONNX parser gives an integer: its length counts bytes, its number may lie anywhere.
struct ParsedField {
    std::string name;
    char bytes[5] = {};

    ParsedField(std::string name_, int32_t value) : name(std::move(name_)) { std::memcpy(bytes + 1, &value, 4); }
    nvinfer1::PluginField field() const { return {name.c_str(), bytes + 1, nvinfer1::PluginFieldType::kINT32, 4}; }
};

class Library {
public:
    LoggerFinder finder;

    explicit Library(char const* path) {
        void* const handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!handle) std::fprintf(stderr, "%s\n", dlerror());
        check(handle != nullptr, "the library does not load");
        reinterpret_cast<void (*)(nvinfer1::ILoggerFinder*)>(dlsym(handle, "setLoggerFinder"))(&finder);
        int32_t count = 0;
        auto* const* creators =
            reinterpret_cast<nvinfer1::IPluginCreatorInterface* const* (*)(int32_t&)>(dlsym(handle, "getCreators"))(count);
        check(count == 1, "one creator is handed out");
        check(!std::strcmp(creators[0]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE"), "the creator makes V3 plugins");
        creator_ = static_cast<nvinfer1::IPluginCreatorV3One*>(creators[0]);
        check(!std::strcmp(creator_->getPluginName(), "LatentCrossAttention"), "the plugin's name is the node's");
        check(!std::strcmp(creator_->getPluginVersion(), "1"), "the plugin's version is the node's");
        check(!std::strcmp(creator_->getPluginNamespace(), "cellscribe"), "the plugin's namespace is the node's");
    }

    // With the fields that the creator asks for, those of `given`; null where it refuses.
    Plugin create(std::vector<ParsedField> const& given, nvinfer1::TensorRTPhase phase) {
        std::vector<nvinfer1::PluginField> fields;
        auto const* wanted = creator_->getFieldNames();
        for (int32_t i = 0; i < wanted->nbFields; ++i)
            for (auto const& one : given)
                if (one.name == wanted->fields[i].name) fields.push_back(one.field());
        return create(nvinfer1::PluginFieldCollection{int32_t(fields.size()), fields.data()}, phase);
    }
    Plugin create(nvinfer1::PluginFieldCollection const& fields, nvinfer1::TensorRTPhase phase) {
        return Plugin(creator_->createPlugin("latent_cross.0", &fields, phase));
    }
    Plugin build(int heads, int with_weights) {
        return create({{"num_heads", heads}, {"with_weights", with_weights}}, nvinfer1::TensorRTPhase::kBUILD);
    }

private:
    nvinfer1::IPluginCreatorV3One* creator_ = nullptr;
};
