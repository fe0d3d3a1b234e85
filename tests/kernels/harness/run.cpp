// Plays TensorRT: builds with a profile, keeps what an engine keeps, makes the plugin anew from it, runs it in a context.
//
//   run <library> <heads> <width> <with_weights> <bool_mask> <greatest sizes> <sizes>...
//
// Sizes are slots,tokens,kept,genes. Prints the greatest errors against a plain computation; ends with 1 where the plugin
// breaks a rule.

#include "expressions.h"
#include "library.h"
#include "memory.h"
#include "tensors.h"

namespace {

Sizes parse(char const* text) {
    Sizes n{};
    check(std::sscanf(text, "%d,%d,%d,%d", &n.slots, &n.tokens, &n.kept, &n.genes) == 4, "sizes are four numbers");
    return n;
}

void check_types(Case const& c, nvinfer1::IPluginV3OneBuild& build) {
    std::vector<nvinfer1::DataType> in, out(size_t(c.num_outputs()));
    for (int i = 0; i < 4; ++i) in.push_back(type_of(c, i));
    check(build.getNbOutputs() == c.num_outputs(), "the outputs are as many as asked for");
    check(!build.getOutputDataTypes(out.data(), c.num_outputs(), in.data(), 4), "the types are given");
    for (int i = 0; i < c.num_outputs(); ++i) check(out[size_t(i)] == type_of(c, 4 + i), "an output has its type");
}

void check_shapes(Case const& c, nvinfer1::IPluginV3OneBuild& build, Sizes const& n) {
    ExpressionBuilder builder;
    auto const wanted = dims_of(c, n);
    nvinfer1::DimsExprs in[4], out[3];
    for (int i = 0; i < 4; ++i) {
        in[i].nbDims = wanted[size_t(i)].nbDims;
        for (int axis = 0; axis < in[i].nbDims; ++axis) in[i].d[axis] = builder.variable(wanted[size_t(i)].d[axis]);
    }
    check(!build.getOutputShapes(in, 4, nullptr, 0, out, c.num_outputs(), builder), "the shapes are given");
    for (int i = 0; i < c.num_outputs(); ++i) {
        auto const& dims = wanted[size_t(4 + i)];
        check(out[i].nbDims == dims.nbDims, "an output has its axes");
        for (int axis = 0; axis < dims.nbDims; ++axis)
            check(out[i].d[axis] && Expression::value_of(out[i].d[axis]) == dims.d[axis], "an output has its shape");
    }
}

void check_formats(Case const& c, nvinfer1::IPluginV3OneBuild& build, Sizes const& greatest) {
    auto tensors = ranged(c, greatest);
    for (int i = 0; i < c.num_tensors(); ++i) {
        check(build.supportsFormatCombination(i, tensors.data(), 4, c.num_outputs()), "a tensor's format is taken");
        auto changed = tensors;
        changed[size_t(i)].desc.format = nvinfer1::TensorFormat::kCHW16;
        check(!build.supportsFormatCombination(i, changed.data(), 4, c.num_outputs()), "a packed format is refused");
        changed = tensors;
        changed[size_t(i)].desc.type = nvinfer1::DataType::kBF16;
        check(!build.supportsFormatCombination(i, changed.data(), 4, c.num_outputs()), "a strange type is refused");
    }
}

// Two plugins may share a measured time only where their attributes are equal.
void check_timing_identity(Case const& c, Library& library) {
    auto const id = [&](int heads, bool with_weights) {
        Plugin const plugin = library.build(heads, with_weights);
        char const* const name = build_of(plugin)->getTimingCacheID();
        check(name != nullptr, "the plugin can be in a timing cache");
        return std::string(name);
    };
    check(id(c.heads, c.with_weights) == id(c.heads, c.with_weights), "equal plugins have one identity");
    check(id(c.heads, true) != id(c.heads, false), "the outputs are part of the identity");
    check(id(1, true) != id(64, true), "the heads are part of the identity");
}

// What an engine file keeps of a plugin: copies of its fields.
std::vector<ParsedField> serialised(Plugin const& plugin) {
    auto const* fields = runtime_of(plugin)->getFieldsToSerialize();
    std::vector<ParsedField> kept;
    for (int32_t i = 0; i < fields->nbFields; ++i) {
        auto const& one = fields->fields[i];
        check(one.type == nvinfer1::PluginFieldType::kINT32 && one.length == 1, "a field is one number");
        kept.emplace_back(one.name, *static_cast<int32_t const*>(one.data));
    }
    return kept;
}

double greatest_error(std::vector<double> const& wanted, std::vector<double> const& got) {
    double worst = 0;
    for (size_t i = 0; i < wanted.size(); ++i) {
        double const error = std::fabs(wanted[i] - got[i]);
        worst = error <= worst ? worst : error;  // NaN stays
    }
    return worst;
}

std::vector<double> halves(Buffer const& buffer) {
    std::vector<double> all;
    for (uint16_t const x : buffer.read<uint16_t>()) all.push_back(from_half(x));
    return all;
}

std::vector<double> floats(Buffer const& buffer) {
    auto const read = buffer.read<float>();
    return {read.begin(), read.end()};
}

void run(Case const& c, Sizes const& n, nvinfer1::IPluginV3OneRuntime& runtime, Buffer& workspace) {
    Problem const problem(n, c.heads, c.width, 7);
    auto const descs = described(c, n);
    Buffer const query(problem.query), memory(problem.memory), bytes(problem.mask);
    Buffer const numbers(std::vector<int32_t>(problem.mask.begin(), problem.mask.end()));
    Buffer const kept(size_t(n.slots) * size_t(n.kept) * 8);
    Buffer const mixed(problem.query.size() * 2), mass(problem.mass.size() * 4), weights(problem.weights.size() * 4);
    void const* const in[] = {query.get(), memory.get(), (c.bool_mask ? bytes : numbers).get(), kept.get()};
    void* const out[] = {mixed.get(), mass.get(), weights.get()};
    check(!runtime.onShapeChange(descs.data(), 4, descs.data() + 4, c.num_outputs()), "the shapes are taken");
    check(!runtime.enqueue(descs.data(), descs.data() + 4, in, out, workspace.get(), nullptr), "the kernel runs");
    finish();
    std::printf("mixed %.3g mass %.3g", greatest_error(problem.mixed, halves(mixed)), greatest_error(problem.mass, floats(mass)));
    if (c.with_weights) std::printf(" weights %.3g", greatest_error(problem.weights, floats(weights)));
    std::printf("\n");
    for (auto const* one : {&mixed, &mass, &weights}) check(one->guard_is_whole(), "nothing is written behind an output");
    check(workspace.guard_is_whole(), "nothing is written behind the workspace");
}

}  // namespace

int main(int count, char** words) {
    check(count >= 8, "too few arguments");
    Case const c{std::atoi(words[2]), std::atoi(words[3]), std::atoi(words[4]) != 0, std::atoi(words[5]) != 0};
    Sizes const greatest = parse(words[6]);
    Library library(words[1]);

    Plugin built = library.build(c.heads, c.with_weights);
    check(built != nullptr, "a plugin is made");
    built = Plugin(built->clone());  // TensorRT works on clones
    auto& build = *build_of(built);
    check(!std::strcmp(core_of(built)->getPluginNamespace(), "cellscribe"), "the plugin names its namespace");
    check_types(c, build);
    check_shapes(c, build, greatest);
    check_formats(c, build, greatest);
    auto const tensors = ranged(c, greatest);
    check(!build.configurePlugin(tensors.data(), 4, tensors.data() + 4, c.num_outputs()), "the profile is taken");
    check_timing_identity(c, library);
    size_t const bytes = build.getWorkspaceSize(tensors.data(), 4, tensors.data() + 4, c.num_outputs());
    auto const kept = serialised(built);
    built.reset();

    Context context;
    Plugin const loaded = library.create(kept, nvinfer1::TensorRTPhase::kRUNTIME);
    check(loaded != nullptr, "a plugin is made from what an engine keeps");
    Plugin const attached(runtime_of(loaded)->attachToContext(&context));
    check(attached != nullptr && attached != loaded, "a context gets a plugin of its own");
    auto& runtime = *runtime_of(attached);
    check(!runtime.setTactic(0), "the default tactic is taken");
    Buffer workspace(bytes);
    for (int i = 7; i < count; ++i) run(c, parse(words[i]), runtime, workspace);
    check(context.recorder.errors.empty() && library.finder.logger.lines.empty(), "nothing is complained of");
    return 0;
}
