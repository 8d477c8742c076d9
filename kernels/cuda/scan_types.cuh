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

// Two at once, into one word; the last argument only picks the type.
SCAN_DEVICE void narrow_pair(float low, float high, scan_u32& to, f16) {
#if !defined(SCAN_HOST) && SCAN_ARCH >= 80
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(to) : "f"(high), "f"(low));
#endif
}
SCAN_DEVICE void narrow_pair(float low, float high, scan_u32& to, bf16) {
#if !defined(SCAN_HOST) && SCAN_ARCH >= 80
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(to) : "f"(high), "f"(low));
#endif
}

// V neighbouring channels, moved as one access and kept packed until used.
template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
    T v[V];
};

// Channel i of a pack. A pair of 16-bit values widens from its word, one instruction each.
template <typename T, int V>
SCAN_DEVICE float widen_at(const Pack<T, V>& p, int i) {
    return widen(p.v[i]);
}
#ifndef SCAN_HOST
template <int V>
SCAN_DEVICE float widen_at(const Pack<bf16, V>& p, int i) {
    if constexpr (V % 2 == 0) {
        const scan_u32 word = p.v[i / 2 * 2].bits | (scan_u32)p.v[i / 2 * 2 + 1].bits << 16;
        float out;
        if (i % 2) {
            asm("and.b32 %0, %1, 0xffff0000;" : "=f"(out) : "r"(word));
        } else {
            asm("shl.b32 %0, %1, 16;" : "=f"(out) : "r"(word));
        }
        return out;
    } else {
        return widen(p.v[i]);
    }
}
#endif

// A whole pack, rounded; pairs of 16-bit values at once where the chip can.
template <typename T, int V>
SCAN_DEVICE Pack<T, V> narrow_pack(const float (&v)[V]) {
    Pack<T, V> p;
#if defined(SCAN_HOST) || SCAN_ARCH < 80
    const bool PAIRS = false;
#else
    const bool PAIRS = sizeof(T) == 2 && V % 2 == 0;
#endif
#pragma unroll
    for (int i = 0; i < V; i += PAIRS ? 2 : 1) {
        if constexpr (PAIRS) {
            narrow_pair(v[i], v[i + 1], reinterpret_cast<scan_u32*>(&p)[i / 2], p.v[0]);
        } else {
            narrow(v[i], p.v[i]);
        }
    }
    return p;
}

template <typename T>
SCAN_DEVICE T one();
template <>
SCAN_DEVICE float one<float>() { return 1.0f; }
template <>
SCAN_DEVICE f16 one<f16>() { return {0x3c00}; }
template <>
SCAN_DEVICE bf16 one<bf16>() { return {0x3f80}; }
template <typename T>
SCAN_DEVICE T zero() { return T{}; }

template <typename T, int V>
SCAN_DEVICE void unpack(const Pack<T, V>& p, float (&out)[V]) {
#pragma unroll
    for (int i = 0; i < V; i++) out[i] = widen_at(p, i);
}

// Past the first-level cache: nothing written here is read again by the same kernel. Evict-first (`__stcs`) was 1% slower
// backward.
template <typename P>
SCAN_DEVICE void store_streaming(P* at, const P& p) {
#ifdef SCAN_HOST
    *at = p;
#else
    if constexpr (sizeof(P) == 16) {
        __stcg(reinterpret_cast<uint4*>(at), *reinterpret_cast<const uint4*>(&p));
    } else if constexpr (sizeof(P) == 8) {
        __stcg(reinterpret_cast<uint2*>(at), *reinterpret_cast<const uint2*>(&p));
    } else if constexpr (sizeof(P) == 4) {
        __stcg(reinterpret_cast<unsigned int*>(at), *reinterpret_cast<const unsigned int*>(&p));
    } else {
        __stcg(reinterpret_cast<unsigned short*>(at), *reinterpret_cast<const unsigned short*>(&p));
    }
#endif
}

SCAN_DEVICE scan_u32 type_size(scan_u32 type) { return type == SCAN_F32 ? 4 : 2; }

// One element of a type known at run time.
SCAN_DEVICE void store_any(scan_u32 type, scan_u64 tensor, scan_i64 element, float v) {
    if (type == SCAN_F32) {
        store_streaming(reinterpret_cast<float*>(tensor) + element, v);
    } else {
        f16 half;
        bf16 brain;
        narrow(v, half);
        narrow(v, brain);
        bf16 bits = {type == SCAN_F16 ? half.bits : brain.bits};
        store_streaming(reinterpret_cast<bf16*>(tensor) + element, bits);
    }
}

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
