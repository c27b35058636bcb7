// Fibers (ucontext) and the places where they meet. See cuda_runtime.h.
#include "cuda_runtime.h"

#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

dim3 threadIdx;
dim3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace
{
constexpr size_t kSharedBytes = 227 * 1024;  // the most that a block of any architecture has
constexpr size_t kWithoutOptIn = 48 * 1024;
constexpr size_t kStackBytes = 256 * 1024;
constexpr unsigned kThreadsMost = 1024;
constexpr unsigned char kRubbish = 0xCD;
}  // namespace

alignas(256) unsigned char dynamicShared[kSharedBytes];

namespace
{

struct Fiber
{
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    unsigned index;
    bool done;
    uint64_t received[32];  // what the other lanes brought
};

// Lanes of one mask that wait for each other.
struct Meeting
{
    unsigned arrived;
    char const* what;
    uint64_t values[32];
};

struct Block
{
    std::vector<Fiber*> ready;
    std::vector<Fiber*> atBarrier;
    std::map<std::pair<unsigned, unsigned>, Meeting> meetings;  // by warp and mask
    unsigned threads;
};

std::deque<Fiber> fibers;
Block block;
Fiber* current;
ucontext_t scheduler;
std::function<void()> const* body;
uint64_t state = 1;
int launched;

#ifdef __SANITIZE_ADDRESS__
void const* schedulerStack;
size_t schedulerStackBytes;
void* schedulerFake;
#endif

uint64_t random64()
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

[[noreturn]] void fail(char const* message)
{
    std::fprintf(stderr, "emulation: %s (block %u, thread %u)\n", message, blockIdx.x, threadIdx.x);
    std::abort();
}

void toScheduler(Fiber& fiber)
{
#ifdef __SANITIZE_ADDRESS__
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(fiber.done ? nullptr : &fake, schedulerStack, schedulerStackBytes);
#endif
    swapcontext(&fiber.context, &scheduler);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void toFiber(Fiber& fiber)
{
    current = &fiber;
    threadIdx = dim3(fiber.index);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&schedulerFake, fiber.stack.get(), kStackBytes);
#endif
    swapcontext(&scheduler, &fiber.context);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(schedulerFake, nullptr, nullptr);
#endif
}

void start()
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &schedulerStack, &schedulerStackBytes);
#endif
    (*body)();
    current->done = true;
    toScheduler(*current);
}

void prepare(Fiber& fiber, unsigned index)
{
    if (!fiber.stack)
    {
        fiber.stack.reset(new char[kStackBytes]);
    }
    fiber.index = index;
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, start, 0);
}

void runBlock(unsigned threads)
{
    std::memset(dynamicShared, kRubbish, sizeof(dynamicShared));
    block.ready.clear();
    block.atBarrier.clear();
    block.meetings.clear();
    block.threads = threads;
    while (fibers.size() < threads)
    {
        fibers.emplace_back();
    }
    for (unsigned index = 0; index < threads; ++index)
    {
        prepare(fibers[index], index);
        block.ready.push_back(&fibers[index]);
    }
    unsigned running = threads;
    while (!block.ready.empty())
    {
        auto& chosen = block.ready[random64() % block.ready.size()];
        Fiber& fiber = *chosen;
        chosen = block.ready.back();
        block.ready.pop_back();
        toFiber(fiber);
        running -= fiber.done ? 1 : 0;
    }
    if (running != 0)
    {
        fail("threads wait for others that do not come to the same barrier, shuffle or ballot");
    }
}

}  // namespace

namespace emulation
{

void setSeed(uint64_t seed)
{
    state = seed * 0x9E3779B97F4A7C15U + 1;
}

int launches()
{
    return launched;
}

unsigned lane()
{
    return threadIdx.x % 32;
}

cudaError_t run(cudaLaunchConfig_t const& config, std::function<void()> const& thread)
{
    ++launched;
    unsigned const threads = config.blockDim.x;
    if (config.gridDim.x == 0 || threads == 0 || threads > kThreadsMost || config.dynamicSmemBytes > kWithoutOptIn)
    {
        return cudaErrorInvalidConfiguration;
    }
    gridDim = config.gridDim;
    blockDim = config.blockDim;
    body = &thread;
#ifdef __SANITIZE_ADDRESS__
    ASAN_POISON_MEMORY_REGION(dynamicShared + config.dynamicSmemBytes, kSharedBytes - config.dynamicSmemBytes);
#endif
    std::vector<unsigned> order(config.gridDim.x);
    for (unsigned index = 0; index < config.gridDim.x; ++index)
    {
        order[index] = index;
    }
    for (size_t left = order.size(); left > 0; --left)
    {
        std::swap(order[left - 1], order[random64() % left]);
        blockIdx = dim3(order[left - 1]);
#ifdef __SANITIZE_ADDRESS__
        ASAN_UNPOISON_MEMORY_REGION(dynamicShared, kSharedBytes);
#endif
        runBlock(threads);
    }
    return cudaSuccess;
}

void barrier()
{
    Fiber& self = *current;
    block.atBarrier.push_back(&self);
    if (block.atBarrier.size() == block.threads)
    {
        block.ready.swap(block.atBarrier);
        block.atBarrier.clear();
    }
    toScheduler(self);
}

uint64_t const* meet(unsigned mask, uint64_t value, char const* what)
{
    Fiber& self = *current;
    unsigned const warp = self.index / 32;
    if ((mask >> lane() & 1U) == 0)
    {
        fail("a lane calls a warp function without being in its mask");
    }
    auto const key = std::make_pair(warp, mask);
    Meeting& meeting = block.meetings[key];
    if (meeting.arrived != 0 && meeting.what != what)
    {
        fail("lanes of one mask meet in different warp functions");
    }
    meeting.what = what;
    meeting.arrived |= 1U << lane();
    meeting.values[lane()] = value;
    if (meeting.arrived == mask)
    {
        for (unsigned other = 0; other < 32; ++other)
        {
            if ((mask >> other & 1U) != 0)
            {
                Fiber& fiber = fibers[warp * 32 + other];
                std::copy(std::begin(meeting.values), std::end(meeting.values), std::begin(fiber.received));
                block.ready.push_back(&fiber);
            }
        }
        meeting.arrived = 0;
    }
    toScheduler(self);
    return self.received;
}

}  // namespace emulation
