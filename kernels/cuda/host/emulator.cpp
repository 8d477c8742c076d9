// Runs entries of scan.cu on the host: emulate("scan_forward_march_f32", &params, blocks, threads, shared bytes).
#define SCAN_HOST
#include <setjmp.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../scan.cu"  // its parameter blocks and every kernel

namespace emulated {
Index thread, block, threads, blocks;

namespace {
struct Copy {
    char* to;
    const char* from;
    int bytes;
};
struct Barrier {
    unsigned waiting = 0, generation = 0;
};
struct Block {
    std::vector<char> shared;
    Barrier all;
    std::vector<Barrier> warps;
    char* base;
};
// A context starts a fiber; from then on a jump takes less, since it leaves the signal mask alone: two calls into the
// system each way otherwise, and barriers are all that fibers do.
struct Fiber {
    ucontext_t context;
    jmp_buf at;
    bool started = false;
    std::unique_ptr<char[]> stack;  // from the pool, not cleared: launches of many blocks would do little else
    std::vector<std::vector<Copy>> groups;
    std::vector<Copy> open;
    Index thread, block;
    std::shared_ptr<Block> home;  // a block's shared memory goes with its last fiber
    bool done = false;
};
const size_t STACK = 64 << 10;
std::vector<std::unique_ptr<char[]>> pool;
ucontext_t scheduler;
jmp_buf turn;  // where the scheduler goes on
Fiber* current;
std::function<void()> kernel;

std::unique_ptr<char[]> take_stack() {
    if (pool.empty()) return std::unique_ptr<char[]>(new char[STACK]);
    auto stack = std::move(pool.back());
    pool.pop_back();
    return stack;
}
void enter() {
    kernel();
    current->done = true;
    _longjmp(turn, 1);
}
// Until it yields or ends.
void resume(Fiber& f) {
    if (_setjmp(turn)) return;
    if (f.started) _longjmp(f.at, 1);
    f.started = true;
    swapcontext(&scheduler, &f.context);
}
void wait(Barrier& b, unsigned many) {
    unsigned generation = b.generation;
    if (++b.waiting == many) {
        b.waiting = 0;
        b.generation++;
    }
    while (b.generation == generation) yield();
}
void land(std::vector<Copy>& group) {
    for (const Copy& c : group) std::memcpy(c.to, c.from, c.bytes);
}
}  // namespace

char* shared() { return current->home->base; }
void yield() {
    if (!_setjmp(current->at)) _longjmp(turn, 1);
}
void sync_block() { wait(current->home->all, threads.x); }
void sync_warp() { wait(current->home->warps[current->thread.x / 32], 32); }
void copy(char* to, const char* from, int bytes) { current->open.push_back({to, from, bytes}); }
void copy_commit() {
    current->groups.push_back(std::move(current->open));
    current->open.clear();
}
void copy_wait(int left) {
    auto& groups = current->groups;
    while ((int)groups.size() > left) {
        land(groups.front());
        groups.erase(groups.begin());
    }
}

void run(unsigned grid, unsigned size, size_t shared_bytes, const std::function<void()>& body) {
    kernel = body;
    threads = {size};
    blocks = {grid};
    // Few blocks at a time, as on a device; the rest start as these end, in order.
    const unsigned RESIDENT = 3;
    std::vector<std::unique_ptr<Fiber>> live;
    unsigned next = 0;
    while (next < grid || !live.empty()) {
        while (next < grid && live.size() + size <= (size_t)RESIDENT * size) {
            auto home = std::make_shared<Block>();
            home->shared.assign(shared_bytes + 128, (char)0xff);
            home->base = home->shared.data() + (128 - (uintptr_t)home->shared.data() % 128) % 128;
            home->warps.resize((size + 31) / 32);
            for (unsigned i = 0; i < size; i++) {
                auto f = std::make_unique<Fiber>();
                f->stack = take_stack();
                f->thread = {i};
                f->block = {next};
                f->home = home;
                getcontext(&f->context);
                f->context.uc_stack.ss_sp = f->stack.get();
                f->context.uc_stack.ss_size = STACK;
                f->context.uc_link = nullptr;
                makecontext(&f->context, enter, 0);
                live.push_back(std::move(f));
            }
            next++;
        }
        for (auto& f : live) {
            current = f.get();
            thread = f->thread;
            block = f->block;
            resume(*f);
        }
        std::erase_if(live, [](const auto& f) {
            if (f->done) pool.push_back(std::move(f->stack));
            return f->done;
        });
    }
}
}  // namespace emulated

// 0 on success, 1 for an entry that does not exist.
extern "C" int emulate(const char* entry, const void* params, unsigned grid, unsigned size, size_t shared_bytes) {
    std::function<void()> body;
#define TRY(NAME, PARAMS) \
    if (std::string(entry) == #NAME) body = [=] { NAME(*static_cast<const PARAMS*>(params)); };
#define TRY_ALL(T)                                 \
    TRY(scan_forward_march_##T, ScanForward)       \
    TRY(scan_forward_chunked_##T, ScanForward)     \
    TRY(scan_backward_march_##T, ScanBackward)     \
    TRY(scan_backward_chunked_##T, ScanBackward)   \
    TRY(scan_step_##T, ScanStep)
    TRY_ALL(f32)
    TRY_ALL(f32_any)
    TRY_ALL(f16)
    TRY_ALL(f16_any)
    TRY_ALL(bf16)
    TRY_ALL(bf16_any)
    TRY(scan_put, ScanPut)
    if (!body) return 1;
    emulated::run(grid, size, shared_bytes, body);
    return 0;
}
