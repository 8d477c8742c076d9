// A CUDA driver with two devices, both this host: memory is the heap, streams run at once, kernels go through the
// emulator. Whatever loads libcuda.so.1 at run time works on it unchanged, so that the host side of the launches is
// tested where no GPU is: parameter blocks, grids, workspaces, offsets. It refuses what a driver refuses (an empty grid,
// shared memory that was not asked for, a foreign handle), gives out memory full of NaN, and aborts when a write went
// past an allocation. It has only the functions that this project's tests reach.
//
// The environment can make it a worse device: SCAN_DRIVER_VERSION (12040), SCAN_DRIVER_DEVICES (2),
// SCAN_DRIVER_CAPABILITY (SCAN_ARCH, as 90), SCAN_DRIVER_MEMORY (bytes).
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

extern "C" int emulate(const char* entry, const void* params, unsigned grid, unsigned size, size_t shared_bytes);

namespace {
enum Status {
    OK = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    CAPTURE_UNSUPPORTED = 900
};

const size_t GUARD = 256;      // bytes before and after an allocation
const unsigned char MARK = 0xa5;

struct Module {
    std::string ptx;
};
struct Function {
    std::string name;
    size_t param_bytes;
    unsigned most_shared = 48 << 10;
};
using Work = std::function<int()>;
using Graph = std::vector<Work>;

std::mutex lock;
std::mutex one_kernel;  // the emulator's fibers share their state
std::map<uint64_t, size_t> memory;
size_t used = 0;
std::set<void*> streams = {nullptr};
std::map<void*, Graph*> captures;  // by stream
const int MOST_DEVICES = 8;
int contexts[MOST_DEVICES];  // the address of a device's is its context's handle
thread_local void* current_context = nullptr;

long setting(const char* name, long otherwise) {
    const char* text = std::getenv(name);
    return text ? std::atol(text) : otherwise;
}

int devices() { return (int)std::min(setting("SCAN_DRIVER_DEVICES", 2), (long)MOST_DEVICES); }

int allocate(uint64_t* to, size_t bytes) {
    std::lock_guard<std::mutex> hold(lock);
    if (bytes == 0) return INVALID_VALUE;
    if (used + bytes > (size_t)setting("SCAN_DRIVER_MEMORY", 4L << 30)) return OUT_OF_MEMORY;
    char* base = static_cast<char*>(std::aligned_alloc(GUARD, (bytes + 3 * GUARD - 1) / GUARD * GUARD));
    if (!base) return OUT_OF_MEMORY;
    std::memset(base, MARK, GUARD);
    std::memset(base + GUARD, 0xff, bytes);
    std::memset(base + GUARD + bytes, MARK, GUARD);
    *to = (uint64_t)(uintptr_t)(base + GUARD);
    memory[*to] = bytes;
    used += bytes;
    return OK;
}

int release(uint64_t at) {
    std::lock_guard<std::mutex> hold(lock);
    auto found = memory.find(at);
    if (found == memory.end()) return INVALID_VALUE;
    const unsigned char* base = (const unsigned char*)(uintptr_t)at;
    for (size_t i = 0; i < GUARD; i++) {
        if (base[-1 - (long)i] != MARK || base[found->second + i] != MARK) {
            std::fprintf(stderr, "a write went past an allocation of %zu bytes\n", found->second);
            std::abort();
        }
    }
    used -= found->second;
    memory.erase(found);
    std::free((void*)(uintptr_t)(at - GUARD));
    return OK;
}

// Whether so many bytes from an address on lie in one allocation.
bool inside(uint64_t at, size_t bytes) {
    std::lock_guard<std::mutex> hold(lock);
    auto next = memory.upper_bound(at);
    if (next == memory.begin()) return false;
    --next;
    return at + bytes <= next->first + next->second;
}

bool known(void* stream) {
    std::lock_guard<std::mutex> hold(lock);
    return streams.count(stream) != 0;
}
// What waits, allocates or touches host memory does not go into a graph.
bool capturing(void* stream) {
    std::lock_guard<std::mutex> hold(lock);
    return captures.count(stream) != 0;
}

int enqueue(void* stream, Work work) {
    if (!known(stream)) return INVALID_HANDLE;
    {
        std::lock_guard<std::mutex> hold(lock);
        auto graph = captures.find(stream);
        if (graph != captures.end()) {
            graph->second->push_back(std::move(work));
            return OK;
        }
    }
    return work();
}
}  // namespace

extern "C" {
int cuInit(unsigned) { return devices() > 0 ? OK : NO_DEVICE; }
int cuDriverGetVersion(int* version) {
    *version = setting("SCAN_DRIVER_VERSION", 12040);
    return OK;
}
int cuDeviceGetCount(int* count) {
    *count = devices();
    return OK;
}
int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < devices() ? OK : INVALID_DEVICE;
}
int cuDeviceGetName(char* name, int length, int) {
    std::snprintf(name, length, "emulated sm_%d", SCAN_ARCH);
    return OK;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
    long capability = setting("SCAN_DRIVER_CAPABILITY", SCAN_ARCH);
    switch (attribute) {
        case 16: *value = 4; break;                                  // multiprocessors: few, so that columns fill them
        case 39: *value = SCAN_ARCH < 80 ? 1024 : 2048; break;       // threads a multiprocessor
        case 75: *value = capability / 10; break;
        case 76: *value = capability % 10; break;
        case 81: *value = SCAN_ARCH < 80 ? 64 << 10 : SCAN_ARCH < 90 ? 164 << 10 : 228 << 10; break;
        case 97: *value = SCAN_ARCH < 80 ? 64 << 10 : SCAN_ARCH < 90 ? 163 << 10 : 227 << 10; break;
        case 106: *value = SCAN_ARCH < 80 ? 16 : 32; break;          // blocks a multiprocessor
        case 115: *value = 1; break;                                 // memory pools
        default: return INVALID_VALUE;
    }
    return OK;
}
int cuDevicePrimaryCtxRetain(void** to, int device) {
    *to = &contexts[device];
    return OK;
}
int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
int cuCtxGetCurrent(void** to) {
    *to = current_context;
    return OK;
}
int cuCtxSetCurrent(void* to) {
    current_context = to;
    return OK;
}
int cuCtxSynchronize() { return OK; }

int cuStreamCreate(void** to, unsigned) {
    std::lock_guard<std::mutex> hold(lock);
    *to = new int;
    streams.insert(*to);
    return OK;
}
int cuStreamDestroy_v2(void* stream) {
    std::lock_guard<std::mutex> hold(lock);
    if (!stream || !streams.erase(stream)) return INVALID_HANDLE;
    delete static_cast<int*>(stream);
    return OK;
}
int cuStreamSynchronize(void* stream) {
    if (capturing(stream)) return CAPTURE_UNSUPPORTED;
    return known(stream) ? OK : INVALID_HANDLE;
}
int cuStreamWaitEvent(void* stream, void*, unsigned) { return known(stream) ? OK : INVALID_HANDLE; }
int cuEventCreate(void** to, unsigned) {
    *to = new int;
    return OK;
}
int cuEventRecord(void*, void* stream) { return known(stream) ? OK : INVALID_HANDLE; }
int cuEventDestroy_v2(void* event) {
    delete static_cast<int*>(event);
    return OK;
}

int cuMemAlloc_v2(uint64_t* to, size_t bytes) { return allocate(to, bytes); }
int cuMemAllocAsync(uint64_t* to, size_t bytes, void* stream) {
    if (capturing(stream)) return CAPTURE_UNSUPPORTED;
    return known(stream) ? allocate(to, bytes) : INVALID_HANDLE;
}
int cuMemFree_v2(uint64_t at) { return release(at); }
int cuMemFreeAsync(uint64_t at, void* stream) { return known(stream) ? release(at) : INVALID_HANDLE; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    if (capturing(stream)) return CAPTURE_UNSUPPORTED;
    if (!known(stream) || !inside(to, bytes)) return INVALID_VALUE;
    std::memcpy((void*)(uintptr_t)to, from, bytes);
    return OK;
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
    if (capturing(stream)) return CAPTURE_UNSUPPORTED;
    if (!known(stream) || !inside(from, bytes)) return INVALID_VALUE;
    std::memcpy(to, (const void*)(uintptr_t)from, bytes);
    return OK;
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    if (!inside(from, bytes) || !inside(to, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] {
        std::memcpy((void*)(uintptr_t)to, (const void*)(uintptr_t)from, bytes);
        return (int)OK;
    });
}
int cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, void* stream) {
    if (!inside(at, bytes)) return INVALID_VALUE;
    return enqueue(stream, [=] {
        std::memset((void*)(uintptr_t)at, value, bytes);
        return (int)OK;
    });
}

int cuModuleLoadData(void** to, const void* image) {
    *to = new Module{static_cast<const char*>(image)};
    return OK;
}
int cuModuleUnload(void* module) {
    delete static_cast<Module*>(module);
    return OK;
}
int cuModuleGetFunction(void** to, void* module, const char* name) {
    std::string entry = std::string(".entry ") + name + "(";
    const std::string& ptx = static_cast<Module*>(module)->ptx;
    size_t at = ptx.find(entry);
    if (at == std::string::npos) return NOT_FOUND;
    size_t bytes = std::strtoul(ptx.c_str() + ptx.find('[', at) + 1, nullptr, 10);
    *to = new Function{name, bytes};  // as long as the process: a driver's functions live and die with their module
    return OK;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
    const int MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;
    int most = 0;
    cuDeviceGetAttribute(&most, 97, 0);
    if (attribute != MAX_DYNAMIC_SHARED_SIZE_BYTES || value > most) return INVALID_VALUE;
    static_cast<Function*>(function)->most_shared = value;
    return OK;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** params, void**) {
    const Function& f = *static_cast<Function*>(function);
    bool fits = gx > 0 && gx <= 0x7fffffffu && gy == 1 && gz == 1 && bx > 0 && bx <= 1024 && by == 1 && bz == 1;
    if (!fits || shared > f.most_shared) return INVALID_VALUE;
    // Copied, as a driver does.
    const char* block = static_cast<const char*>(params[0]);
    std::vector<char> copy(block, block + f.param_bytes);
    return enqueue(stream, [=, name = f.name] {
        std::lock_guard<std::mutex> hold(one_kernel);
        return emulate(name.c_str(), copy.data(), gx, bx, shared) == 0 ? (int)OK : (int)NOT_FOUND;
    });
}

int cuStreamBeginCapture_v2(void* stream, int) {
    if (!stream || !known(stream) || capturing(stream)) return INVALID_VALUE;
    std::lock_guard<std::mutex> hold(lock);
    captures[stream] = new Graph;
    return OK;
}
int cuStreamEndCapture(void* stream, void** graph) {
    if (!capturing(stream)) return INVALID_VALUE;
    std::lock_guard<std::mutex> hold(lock);
    *graph = captures[stream];
    captures.erase(stream);
    return OK;
}
int cuGraphInstantiateWithFlags(void** exec, void* graph, uint64_t) {
    *exec = new Graph(*static_cast<Graph*>(graph));
    return OK;
}
int cuGraphLaunch(void* exec, void* stream) {
    return enqueue(stream, [=] {
        for (const Work& work : *static_cast<Graph*>(exec)) {
            if (int status = work()) return status;
        }
        return (int)OK;
    });
}
int cuGraphExecDestroy(void* exec) {
    delete static_cast<Graph*>(exec);
    return OK;
}
int cuGraphDestroy(void* graph) { return cuGraphExecDestroy(graph); }

int cuGetErrorName(int, const char** text) {
    *text = "an error of the emulated driver";
    return OK;
}
int cuGetErrorString(int, const char** text) { return cuGetErrorName(0, text); }
}
