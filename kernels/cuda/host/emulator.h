// Just enough of CUDA to run the kernels on a host, so that their arithmetic, carries and tails are checked where no
// GPU is. Every thread of every block is a fiber; a fiber runs until it waits, so all interleavings that the kernels
// rely on occur, blocks that wait for each other included. Asynchronous copies happen no earlier than their wait, which
// shows a wait that is missing. What it cannot show: races on shared memory between waits, and speed.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define SCAN_DEVICE inline
#define SCAN_SHARED(name) char* const name = emulated::shared()

struct alignas(8) float2 {
    float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }

namespace emulated {
struct Index {
    unsigned x;
};
extern Index thread, block, threads, blocks;
char* shared();
void yield();
void sync_block();
void sync_warp();
void copy(char* to, const char* from, int bytes);
void copy_commit();
void copy_wait(int left);
}  // namespace emulated

#define threadIdx emulated::thread
#define blockIdx emulated::block
#define blockDim emulated::threads
#define gridDim emulated::blocks

inline void __syncthreads() { emulated::sync_block(); }
inline void __syncwarp() { emulated::sync_warp(); }
inline unsigned atomicAdd(unsigned* at, unsigned v) {
    unsigned old = *at;
    *at += v;
    return old;
}
inline int atomicMax(int* at, int v) {
    int old = *at;
    if (v > old) *at = v;
    return old;
}
inline float __uint_as_float(unsigned v) {
    float f;
    std::memcpy(&f, &v, 4);
    return f;
}
inline unsigned __float_as_uint(float v) {
    unsigned u;
    std::memcpy(&u, &v, 4);
    return u;
}
inline float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

template <int BYTES>
inline void copy_piece(char* to, const char* from) {
    if (BYTES > 2) {
        emulated::copy(to, from, BYTES);
    } else {
        std::memcpy(to, from, BYTES);
    }
}
inline void copy_commit() { emulated::copy_commit(); }
inline void copy_wait(int left) { emulated::copy_wait(left); }
inline void publish(unsigned long long* at, unsigned long long v) { *at = v; }
inline void poll_pause() { emulated::yield(); }
