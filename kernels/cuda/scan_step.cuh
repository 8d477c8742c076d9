// The next tokens on a state that the caller holds: the plain loop over len, one thread a channel.
//
// No tile: len is a few, and what bounds it is the launch. The state is read once and written once.
#pragma once

#include "scan_rows.cuh"

template <typename T, typename Out>
SCAN_DEVICE void scan_step(const ScanStep& p) {
    const scan_i64 channels = (scan_i64)p.channels, id = (scan_i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (id >= (scan_i64)p.batch * channels) return;
    const scan_i64 len = (scan_i64)p.len;
    const T* const x = reinterpret_cast<const T*>(p.x);
    const T* const a = reinterpret_cast<const T*>(p.a);
    const T* const b = reinterpret_cast<const T*>(p.b);
    const T* const c = reinterpret_cast<const T*>(p.c);
    scan_i64 element = id / channels * len * channels + id % channels;
    float h = reinterpret_cast<float*>(p.state)[id];
    for (scan_i64 t = 0; t < len; t++, element += channels) {
        float u = widen(x[element]);
        if (b) u *= widen(b[element]);
        h = fmaf(widen(a[element]), h, u);
        const float y[1][1] = {{c ? widen(c[element]) * h : h}};
        OutRows<Out, 1, 1>::store(p.out_type, p.y, element, 0, y, 1, 1);
    }
    reinterpret_cast<float*>(p.state)[id] = h;
}

SCAN_DEVICE void scan_put_values(const ScanPut& p) {
    scan_i64* const to = reinterpret_cast<scan_i64*>(p.to);
    for (scan_u32 i = threadIdx.x; i < p.count; i += blockDim.x) to[i] = (scan_i64)(p.base + p.offsets[i]);
}
