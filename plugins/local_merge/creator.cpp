#include "fields.h"

#include <cstdio>
#include <cstring>
#include <exception>

namespace tsmerge
{
namespace
{

nvinfer1::ILoggerFinder* gLoggerFinder = nullptr;

// Fields named like ours; those that the parser adds (plugin_version, plugin_namespace) are not ours to judge.
bool ours(char const* name)
{
    for (FieldRange const& range : kRanges)
    {
        if (std::strcmp(range.name, name) == 0)
        {
            return true;
        }
    }
    return std::strcmp(kIndexBits, name) == 0;
}

bool readWhole(nvinfer1::PluginField const& field, int64_t& value)
{
    if (field.data == nullptr || field.length != 1)
    {
        return false;
    }
    if (field.type == nvinfer1::PluginFieldType::kINT32)
    {
        int32_t narrow = 0;
        std::memcpy(&narrow, field.data, sizeof(narrow));
        value = narrow;
        return true;
    }
    if (field.type == nvinfer1::PluginFieldType::kINT64)
    {
        std::memcpy(&value, field.data, sizeof(value));
        return true;
    }
    return false;
}

}  // namespace

void setLoggerSource(nvinfer1::ILoggerFinder* finder) noexcept
{
    gLoggerFinder = finder;
}

void logError(std::string const& message) noexcept
{
    nvinfer1::ILogger* const logger = gLoggerFinder == nullptr ? nullptr : gLoggerFinder->findLogger();
    if (logger != nullptr)
    {
        logger->log(nvinfer1::ILogger::Severity::kERROR, message.c_str());
        return;
    }
    std::fprintf(stderr, "%s\n", message.c_str());
}

std::string parseFields(nvinfer1::PluginFieldCollection const* fields, PluginSettings& settings)
{
    if (fields == nullptr || (fields->nbFields > 0 && fields->fields == nullptr))
    {
        return "no field collection";
    }
    for (int32_t n = 0; n < fields->nbFields; ++n)
    {
        nvinfer1::PluginField const& field = fields->fields[n];
        if (field.name == nullptr)
        {
            return "a field has no name";
        }
        int64_t value = 0;
        if (ours(field.name) && !readWhole(field, value))
        {
            return std::string{field.name} + " must be one whole number, int32 or int64";
        }
        if (std::strcmp(field.name, kIndexBits) == 0)
        {
            if (value != 32 && value != 64)
            {
                return std::string{kIndexBits} + "=" + std::to_string(value) + " must be 32 or 64";
            }
            settings.wideIndex = value == 64;
        }
        for (FieldRange const& range : kRanges)
        {
            if (std::strcmp(field.name, range.name) != 0)
            {
                continue;
            }
            if (value < range.least || value > range.most)
            {
                return std::string{range.name} + "=" + std::to_string(value) + " must be from "
                    + std::to_string(range.least) + " to " + std::to_string(range.most);
            }
            settings.merge.*range.member = value;
        }
    }
    Settings const& merge = settings.merge;
    if (merge.ratioNum > 0 && merge.r > 0)
    {
        return "r and ratio_num exclude each other; set one of them to 0";
    }
    if (2 * merge.ratioNum > merge.ratioDen)
    {
        return "ratio " + std::to_string(merge.ratioNum) + "/" + std::to_string(merge.ratioDen)
            + " must be at most 1/2";
    }
    return {};
}

LocalMergeCreator::LocalMergeCreator()
{
    for (FieldRange const& range : kRanges)
    {
        mFields.emplace_back(range.name, nullptr, nvinfer1::PluginFieldType::kINT32, 1);
    }
    mFields.emplace_back(kIndexBits, nullptr, nvinfer1::PluginFieldType::kINT32, 1);
    mCollection.nbFields = static_cast<int32_t>(mFields.size());
    mCollection.fields = mFields.data();
}

nvinfer1::IPluginV3* LocalMergeCreator::createPlugin(
    char const* name, nvinfer1::PluginFieldCollection const* fc, nvinfer1::TensorRTPhase /*phase*/) noexcept
{
    try
    {
        PluginSettings settings{};
        std::string const problem = parseFields(fc, settings);
        if (!problem.empty())
        {
            logError(std::string{"LocalMerge "} + (name == nullptr ? "" : name) + ": " + problem);
            return nullptr;
        }
        return new LocalMergePlugin{settings};
    }
    catch (std::exception const& error)
    {
        logError(std::string{"LocalMerge: "} + error.what());
        return nullptr;
    }
}

nvinfer1::PluginFieldCollection const* LocalMergeCreator::getFieldNames() noexcept
{
    return &mCollection;
}

char const* LocalMergeCreator::getPluginName() const noexcept
{
    return kName;
}

char const* LocalMergeCreator::getPluginVersion() const noexcept
{
    return kVersion;
}

char const* LocalMergeCreator::getPluginNamespace() const noexcept
{
    return kNamespace;
}

}  // namespace tsmerge
