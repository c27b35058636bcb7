// What TensorRT expects of the plugin, without TensorRT: types, shapes by a fake IExprBuilder, serialisation, clones,
// workspace, and enqueue by way of the emulation. Prints what fails; the exit code is the number of failures.
#include "contract_fakes.h"

namespace
{

void testNames()
{
    IPluginCreatorV3One& maker = creator();
    check(std::string{maker.getPluginName()} == "LocalMerge", "creator: name");
    check(std::string{maker.getPluginVersion()} == "1", "creator: version");
    check(std::string{maker.getPluginNamespace()}.empty(), "creator: namespace");
    PluginFieldCollection const& names = *maker.getFieldNames();
    check(names.nbFields == 8, "creator: eight fields");
    Plugin const plugin = create(PluginFieldCollection{});
    auto& core = capability<IPluginV3OneCore>(*plugin, PluginCapabilityType::kCORE);
    check(std::string{core.getPluginName()} == maker.getPluginName(), "plugin: name");
    check(std::string{core.getPluginVersion()} == maker.getPluginVersion(), "plugin: version");
    check(build(*plugin).getNbOutputs() == 4, "plugin: four outputs");
}

void testBadFields(Logger& logger)
{
    struct Bad
    {
        std::vector<std::pair<char const*, int32_t>> fields;
        char const* says;
    };
    for (Bad const& bad : std::vector<Bad>{
             {{{"k", -1}}, "k=-1 must be from 0"},
             {{{"r", 1000000001}}, "r=1000000001"},
             {{{"ratio_den", 0}}, "ratio_den=0"},
             {{{"ratio_num", 2}, {"ratio_den", 3}}, "at most 1/2"},
             {{{"ratio_num", 1}, {"ratio_den", 4}, {"r", 3}}, "exclude each other"},
             {{{"min_tokens", -5}}, "min_tokens=-5"},
             {{{"protect_first", -1}}, "protect_first=-1"},
             {{{"protect_last", -1}}, "protect_last=-1"},
             {{{"index_bits", 16}}, "index_bits=16 must be 32 or 64"},
         })
    {
        Fields fields;
        for (auto const& [name, value] : bad.fields)
        {
            fields.add(name, value);
        }
        logger.last.clear();
        check(create(fields.collection()) == nullptr, std::string{"refused: "} + bad.says);
        check(logger.last.find(bad.says) != std::string::npos, std::string{"says "} + bad.says + ": " + logger.last);
    }
    float const half = 0.5F;
    PluginField const wrongType{"r", &half, PluginFieldType::kFLOAT32, 1};
    check(create(PluginFieldCollection{1, &wrongType}) == nullptr, "a float is no whole number");
    int32_t const two[2] = {1, 2};
    PluginField const twoValues{"r", two, PluginFieldType::kINT32, 2};
    check(create(PluginFieldCollection{1, &twoValues}) == nullptr, "two numbers are not one");
    check(creator().createPlugin("layer", nullptr, TensorRTPhase::kBUILD) == nullptr, "no fields at all");
    int64_t const wide = 7;
    PluginField const fields[] = {{"r", &wide, PluginFieldType::kINT64, 1}, {"plugin_version", "1", PluginFieldType::kCHAR, 1}};
    check(create(PluginFieldCollection{2, fields}) != nullptr, "int64 and foreign fields are taken");
}

void testTypes()
{
    for (int32_t bits : {32, 64})
    {
        Fields fields;
        fields.add("index_bits", bits);
        Plugin const plugin = create(fields.collection());
        DataType const index = bits == 64 ? DataType::kINT64 : DataType::kINT32;
        std::vector<DataType> const all{DataType::kFLOAT, DataType::kHALF, DataType::kBF16, DataType::kINT32,
            DataType::kINT64, DataType::kINT8, DataType::kBOOL};
        for (DataType x : kFloats)
        {
            for (DataType metric : kFloats)
            {
                DataType const given[] = {x, metric, DataType::kFLOAT};
                DataType made[4] = {};
                check(build(*plugin).getOutputDataTypes(made, 4, given, 3) == 0, "output types");
                check(made[0] == x && made[1] == DataType::kFLOAT && made[2] == index && made[3] == index,
                    "y has the type of x, indices that of index_bits");
                DataType const right[] = {x, metric, DataType::kFLOAT, x, DataType::kFLOAT, index, index};
                DynamicPluginTensorDesc inOut[7] = {};
                for (int32_t pos = 0; pos < 7; ++pos)
                {
                    inOut[pos].desc = tensor({1}, right[pos]);
                }
                for (int32_t pos = 0; pos < 7; ++pos)
                {
                    for (DataType type : all)
                    {
                        bool const isFloat = type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
                        bool const wanted = pos < 2 ? isFloat : type == right[pos];
                        inOut[pos].desc.type = type;
                        check(build(*plugin).supportsFormatCombination(pos, inOut, 3, 4) == wanted,
                            "supported types at position " + std::to_string(pos));
                    }
                    inOut[pos].desc.type = right[pos];
                    inOut[pos].desc.format = TensorFormat::kCHW4;
                    check(!build(*plugin).supportsFormatCombination(pos, inOut, 3, 4), "linear format only");
                    inOut[pos].desc.format = TensorFormat::kLINEAR;
                }
            }
        }
        DataType const wrong[] = {DataType::kINT8, DataType::kFLOAT, DataType::kFLOAT};
        DataType made[4] = {};
        check(build(*plugin).getOutputDataTypes(made, 4, wrong, 3) != 0, "int8 tokens are refused");
    }
}

void testShapes()
{
    struct Amount
    {
        std::vector<std::pair<char const*, int32_t>> fields;
        tsmerge::Settings settings;
    };
    for (Amount const& amount : std::vector<Amount>{
             {{}, {1, 0, 0, 1, 0, 0, 0}},
             {{{"r", 3}}, {1, 3, 0, 1, 0, 0, 0}},
             {{{"ratio_num", 1}, {"ratio_den", 3}, {"min_tokens", 5}}, {1, 0, 1, 3, 5, 0, 0}},
             {{{"r", 100}, {"protect_first", 2}, {"protect_last", 1}, {"k", 0}}, {0, 100, 0, 1, 0, 2, 1}},
         })
    {
        Fields fields;
        for (auto const& [name, value] : amount.fields)
        {
            fields.add(name, value);
        }
        Plugin const plugin = create(fields.collection());
        for (int64_t tokens : {1, 2, 3, 7, 8, 4096})
        {
            FakeBuilder builder;
            DimsExprs inputs[3] = {};
            inputs[0].nbDims = inputs[1].nbDims = 3;
            inputs[2].nbDims = 2;
            for (DimsExprs& input : inputs)
            {
                input.d[0] = builder.variable(5);
                input.d[1] = builder.variable(tokens);
                input.d[2] = builder.constant(&input == &inputs[0] ? 16 : 4);
            }
            DimsExprs outputs[4] = {};
            check(build(*plugin).getOutputShapes(inputs, 3, nullptr, 0, outputs, 4, builder) == 0, "output shapes");
            int64_t const left = tokens - tsmerge::removedTokens(amount.settings, tokens);
            std::vector<std::vector<int64_t>> const wanted{{5, left, 16}, {5, left}, {5, left}, {5, tokens}};
            for (size_t n = 0; n < 4; ++n)
            {
                check(outputs[n].nbDims == static_cast<int32_t>(wanted[n].size()), "rank of output");
                for (size_t axis = 0; axis < wanted[n].size(); ++axis)
                {
                    check(outputs[n].d[axis]->getConstantValue() == wanted[n][axis],
                        "dim " + std::to_string(axis) + " of output " + std::to_string(n));
                }
            }
            inputs[2].nbDims = 3;
            check(build(*plugin).getOutputShapes(inputs, 3, nullptr, 0, outputs, 4, builder) != 0, "size of rank 3");
        }
    }
}

// Six tokens on a line, two features: pairs (0, 1) and (4, 5) are equal, (2, 3) is not; r = 1 takes the first.
void enqueueOnce(IPluginV3& plugin, DataType x, DataType metric, DataType index, int64_t batch, int64_t removed)
{
    std::vector<float> const row{1, 0, 3, 0, 1, 0, 0, 1, 2, 2, 4, 4};
    std::vector<float> values;
    for (int64_t b = 0; b < batch; ++b)
    {
        values.insert(values.end(), row.begin(), row.end());
    }
    int64_t const left = 6 - removed;
    PluginTensorDesc const in[] = {
        tensor({batch, 6, 2}, x), tensor({batch, 6, 2}, metric), tensor({batch, 6}, DataType::kFLOAT)};
    PluginTensorDesc const out[] = {tensor({batch, left, 2}, x), tensor({batch, left}, DataType::kFLOAT),
        tensor({batch, left}, index), tensor({batch, 6}, index)};
    check(runtime(plugin).onShapeChange(in, 3, out, 4) == 0, "shapes are taken");
    std::vector<unsigned char> const tokens = bytesOf(values, x);
    std::vector<unsigned char> const features = bytesOf(values, metric);
    std::vector<float> const size(static_cast<size_t>(batch) * 6, 1.0F);
    size_t const indexBytes = index == DataType::kINT64 ? 8 : 4;
    auto const count = [&](int64_t each) { return static_cast<size_t>(batch * each); };
    std::vector<unsigned char> y(count(left * 2) * (x == DataType::kFLOAT ? 4 : 2));
    std::vector<float> sizeOut(count(left));
    std::vector<unsigned char> kept(count(left) * indexBytes);
    std::vector<unsigned char> target(count(6) * indexBytes);
    DynamicPluginTensorDesc dynamic[3] = {};
    for (size_t n = 0; n < 3; ++n)
    {
        dynamic[n].desc = in[n];
        dynamic[n].max = in[n].dims;
    }
    std::vector<unsigned char> workspace(build(plugin).getWorkspaceSize(dynamic, 3, nullptr, 4));
    void const* const inputs[] = {tokens.data(), features.data(), size.data()};
    void* const outputs[] = {y.data(), sizeOut.data(), kept.data(), target.data()};
    check(runtime(plugin).enqueue(in, out, inputs, outputs, workspace.data(), nullptr) == 0, "enqueue");

    std::vector<float> want{2, 0, 1, 0, 0, 1, 2, 2, 4, 4};
    std::vector<float> wantSize{2, 1, 1, 1, 1};
    std::vector<int64_t> wantKept{1, 2, 3, 4, 5};
    std::vector<int64_t> wantTarget{0, 0, 1, 2, 3, 4};
    if (removed == 0)
    {
        want = row;
        wantSize.assign(6, 1.0F);
        wantKept = wantTarget = {0, 1, 2, 3, 4, 5};
    }
    auto const number = [&](std::vector<unsigned char> const& bytes, size_t n)
    {
        int64_t wide = 0;
        int32_t narrow = 0;
        std::memcpy(indexBytes == 8 ? static_cast<void*>(&wide) : &narrow, bytes.data() + n * indexBytes, indexBytes);
        return indexBytes == 8 ? wide : narrow;
    };
    std::vector<unsigned char> const wantBytes = bytesOf(want, x);
    for (size_t b = 0; b < static_cast<size_t>(batch); ++b)
    {
        check(std::memcmp(y.data() + b * wantBytes.size(), wantBytes.data(), wantBytes.size()) == 0, "values of y");
        for (size_t m = 0; m < static_cast<size_t>(left); ++m)
        {
            check(sizeOut[b * static_cast<size_t>(left) + m] == wantSize[m], "size_out");
            check(number(kept, b * static_cast<size_t>(left) + m) == wantKept[m], "kept");
        }
        for (size_t n = 0; n < 6; ++n)
        {
            check(number(target, b * 6 + n) == wantTarget[n], "target");
        }
    }
}

void testLife()
{
    for (int32_t k : {1, 3, 0})
    {
        for (int32_t bits : {32, 64})
        {
            DataType const index = bits == 64 ? DataType::kINT64 : DataType::kINT32;
            Fields fields;
            fields.add("k", k);
            fields.add("r", 1);
            fields.add("index_bits", bits);
            Plugin built = create(fields.collection());
            // Serialised fields are copied, as the engine file does; then the plugin that gave them is destroyed.
            Plugin copy{built->clone()};
            built.reset();
            PluginFieldCollection const& written = *runtime(*copy).getFieldsToSerialize();
            check(written.nbFields == 8, "eight fields are serialised");
            Fields file;
            for (int32_t n = 0; n < written.nbFields; ++n)
            {
                check(written.fields[n].type == PluginFieldType::kINT32, "fields are int32");
                file.add(written.fields[n].name, *static_cast<int32_t const*>(written.fields[n].data));
            }
            copy.reset();
            Plugin restored = create(file.collection(), TensorRTPhase::kRUNTIME);
            Plugin const attached{runtime(*restored).attachToContext(nullptr)};
            restored.reset();
            for (DataType x : kFloats)
            {
                for (DataType metric : kFloats)
                {
                    for (int64_t batch : {0, 1, 3})
                    {
                        enqueueOnce(*attached, x, metric, index, batch, 1);
                    }
                }
            }
        }
    }
    Plugin const nothing = create(PluginFieldCollection{});
    enqueueOnce(*nothing, DataType::kFLOAT, DataType::kFLOAT, DataType::kINT64, 2, 0);
    PluginTensorDesc const in[] = {tensor({2, 6, 2}, DataType::kFLOAT), tensor({2, 5, 2}, DataType::kFLOAT),
        tensor({2, 6}, DataType::kFLOAT)};
    check(runtime(*nothing).onShapeChange(in, 3, in, 4) != 0, "a metric of another length is refused");
}

void testWorkspace()
{
    for (int64_t k : {1, 4, 5, 0})
    {
        tsmerge::Settings settings{};
        settings.k = k;
        settings.r = 1;
        size_t before = 0;
        for (int64_t tokens = 1; tokens < 40000; tokens = tokens * 5 / 4 + 1)
        {
            size_t const bytes = tsmerge::workspaceBytes(settings, 3, tokens);
            check(bytes >= before, "workspace does not fall with tokens");
            check(tsmerge::workspaceBytes(settings, 4, tokens) >= bytes, "workspace does not fall with batch");
            before = bytes;
        }
    }
}

}  // namespace

int main()
{
    Logger logger;
    Finder finder{logger};
    setLoggerFinder(&finder);
    testNames();
    testBadFields(logger);
    testTypes();
    testShapes();
    testLife();
    testWorkspace();
    std::printf("%s\n", failures == 0 ? "contract: ok" : "contract: failed");
    return failures;
}
