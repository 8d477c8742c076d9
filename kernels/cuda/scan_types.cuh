// Storage types as the kernels see them: packed until used, f32 in between, rounded once on the way out.
#pragma once

#include "scan_abi.h"

// The architecture that is compiled for; the tuning rows are picked by it.
#ifndef SCAN_ARCH
#ifdef __CUDA_ARCH__
#define SCAN_ARCH (__CUDA_ARCH__ / 10)
#else
#define SCAN_ARCH 90
#endif
#endif

#ifdef SCAN_HOST
#include "host/emulator.h"
#else
#define SCAN_DEVICE __device__ __forceinline__
#define SCAN_SHARED(name) extern __shared__ __align__(128) char name[]
#endif

typedef long long scan_i64;

struct f16 {
    unsigned short bits;
};
struct bf16 {
    unsigned short bits;
};
// An output whose type is known at run time only.
struct AnyType {};

SCAN_DEVICE float widen(float v) { return v; }
SCAN_DEVICE float widen(bf16 v) { return __uint_as_float(scan_u32(v.bits) << 16); }

SCAN_DEVICE void narrow(float v, float& to) { to = v; }

#ifdef SCAN_HOST
SCAN_DEVICE float widen(f16 v) { return (float)__builtin_bit_cast(_Float16, v.bits); }
SCAN_DEVICE void narrow(float v, f16& to) { to.bits = __builtin_bit_cast(unsigned short, (_Float16)v); }
SCAN_DEVICE void narrow(float v, bf16& to) {
    scan_u32 u = __float_as_uint(v);
    to.bits = v == v ? (unsigned short)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16) : (unsigned short)0x7fffu;
}
#else
SCAN_DEVICE float widen(f16 v) {
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(v.bits));
    return out;
}
SCAN_DEVICE void narrow(float v, f16& to) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(v)); }
SCAN_DEVICE void narrow(float v, bf16& to) {
#if SCAN_ARCH >= 90
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(v));
#elif SCAN_ARCH >= 80
    scan_u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(0.0f), "f"(v));
    to.bits = (unsigned short)pair;
#else
    scan_u32 u = __float_as_uint(v);
    to.bits = v == v ? (unsigned short)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16) : (unsigned short)0x7fffu;
#endif
}
#endif

// V neighbouring channels, moved as one access.
template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
    T v[V];
};

template <typename T, int V>
SCAN_DEVICE void load_shared(const char* at, float (&out)[V]) {
    Pack<T, V> p = *reinterpret_cast<const Pack<T, V>*>(at);
#pragma unroll
    for (int i = 0; i < V; i++) out[i] = widen(p.v[i]);
}

// Streaming store: nothing written here is read again by the same kernel.
template <typename P>
SCAN_DEVICE void store_streaming(P* at, const P& p) {
#ifdef SCAN_HOST
    *at = p;
#else
    if constexpr (sizeof(P) == 16) {
        __stcs(reinterpret_cast<uint4*>(at), *reinterpret_cast<const uint4*>(&p));
    } else if constexpr (sizeof(P) == 8) {
        __stcs(reinterpret_cast<uint2*>(at), *reinterpret_cast<const uint2*>(&p));
    } else if constexpr (sizeof(P) == 4) {
        __stcs(reinterpret_cast<unsigned int*>(at), *reinterpret_cast<const unsigned int*>(&p));
    } else {
        __stcs(reinterpret_cast<unsigned short*>(at), *reinterpret_cast<const unsigned short*>(&p));
    }
#endif
}

// Where a lane writes: its first channel's address in row 0, and how much of the V channels exists.
template <typename T, int V>
SCAN_DEVICE void store_lane(scan_u64 tensor, scan_i64 element, const float (&v)[V], int valid, bool vector) {
    T* at = reinterpret_cast<T*>(tensor) + element;
    Pack<T, V> p;
#pragma unroll
    for (int i = 0; i < V; i++) narrow(v[i], p.v[i]);
    if (vector) {
        if (valid == V) store_streaming(reinterpret_cast<Pack<T, V>*>(at), p);
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) {
            if (i < valid) store_streaming(at + i, p.v[i]);
        }
    }
}

// y, whose type may differ from the storage type T.
template <typename T, typename Out, int V>
struct OutStore {
    static const int SIZE = sizeof(Out);
    static SCAN_DEVICE void put(scan_u32, scan_u64 y, scan_i64 element, const float (&v)[V], int valid, bool vector) {
        store_lane<Out, V>(y, element, v, valid, vector);
    }
};
template <typename T, int V>
struct OutStore<T, AnyType, V> {
    static SCAN_DEVICE void put(scan_u32 type, scan_u64 y, scan_i64 element, const float (&v)[V], int valid,
                                bool vector) {
        if (type == SCAN_F32) {
            store_lane<float, V>(y, element, v, valid, vector);
        } else if (type == SCAN_F16) {
            store_lane<f16, V>(y, element, v, valid, vector);
        } else {
            store_lane<bf16, V>(y, element, v, valid, vector);
        }
    }
};

// dy in shared memory, whose type may differ from the storage type.
template <typename In, int V>
struct DyLoad {
    static const int SIZE = sizeof(In);  // bytes reserved an element
    static SCAN_DEVICE int size(scan_u32) { return sizeof(In); }
    static SCAN_DEVICE void get(scan_u32, const char* row, int lane, float (&out)[V]) {
        load_shared<In, V>(row + lane * V * sizeof(In), out);
    }
};
template <int V>
struct DyLoad<AnyType, V> {
    static const int SIZE = 4;
    static SCAN_DEVICE int size(scan_u32 type) { return type == SCAN_F32 ? 4 : 2; }
    static SCAN_DEVICE void get(scan_u32 type, const char* row, int lane, float (&out)[V]) {
        if (type == SCAN_F32) {
            load_shared<float, V>(row + lane * V * 4, out);
        } else if (type == SCAN_F16) {
            load_shared<f16, V>(row + lane * V * 2, out);
        } else {
            load_shared<bf16, V>(row + lane * V * 2, out);
        }
    }
};

SCAN_DEVICE scan_u32 type_size(scan_u32 type) { return type == SCAN_F32 ? 4 : 2; }

// V values of an (N, D) f32 tensor; absent or past the last channel: 0.
template <int V>
SCAN_DEVICE void load_state(scan_u64 tensor, scan_i64 element, int valid, float (&out)[V]) {
#pragma unroll
    for (int i = 0; i < V; i++) {
        out[i] = tensor && i < valid ? reinterpret_cast<const float*>(tensor)[element + i] : 0.0f;
    }
}
template <int V>
SCAN_DEVICE void store_state(scan_u64 tensor, scan_i64 element, int valid, const float (&v)[V]) {
#pragma unroll
    for (int i = 0; i < V; i++) {
        if (i < valid) reinterpret_cast<float*>(tensor)[element + i] = v[i];
    }
}
