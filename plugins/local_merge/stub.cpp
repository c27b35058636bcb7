// Stands in for libnvinfer when the registering library is linked on a machine without it: its name is what counts.
// It is never loaded where TensorRT is installed, and not installed itself.
extern "C" __attribute__((visibility("default"))) void* getPluginRegistry() noexcept
{
    return nullptr;
}
