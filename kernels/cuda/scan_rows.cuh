// ROWS rows of V channels in registers: taken from shared memory all at once, so that the loads overlap and nothing
// that is stored later stands between them.
#pragma once

#include "scan_copy.cuh"
#include "scan_grid.cuh"

SCAN_DEVICE void load_matrices(const char* from, scan_u32 (&to)[4]) {
#ifndef SCAN_HOST
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"((unsigned int)__cvta_generic_to_shared(from))
                 : "memory");
#endif
}

template <typename T, int V, int ROWS>
struct Rows {
    Pack<T, V> at[ROWS];
#ifdef SCAN_HOST
    static const bool MATRICES = false;
#else
    static const bool MATRICES = sizeof(T) == 2 && V == 2 && ROWS % 4 == 0;
#endif

    // From `segments`, rows of 32 * V channels without gaps.
    SCAN_DEVICE void load(const char* segments, int lane) {
        if constexpr (MATRICES) {
            // A row of 4 bytes a lane is what the instruction calls a matrix, its 16-byte pieces the matrix's rows: four
            // rows for the price of one load.
#pragma unroll
            for (int r = 0; r < ROWS; r += 4) {
                scan_u32 word[4];
                load_matrices(segments + lane * 16 + r * 128, word);
#pragma unroll
                for (int i = 0; i < 4; i++) at[r + i] = reinterpret_cast<const Pack<T, V>&>(word[i]);
            }
        } else {
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                at[r] = *reinterpret_cast<const Pack<T, V>*>(segments + (r * 32 + lane) * V * (int)sizeof(T));
            }
        }
    }
    // Rows from `rows` on.
    SCAN_DEVICE void fill(int rows, T value) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (r >= rows) {
#pragma unroll
                for (int i = 0; i < V; i++) at[r].v[i] = value;
            }
        }
    }
    // Keeps packed what is packed: without it the compiler widens once and holds twice the registers till the next use.
    SCAN_DEVICE void stay_packed() {
#ifndef SCAN_HOST
        if constexpr (sizeof(T) == 2 && V == 2) {
#pragma unroll
            for (int r = 0; r < ROWS; r++) asm volatile("" : "+r"(reinterpret_cast<scan_u32&>(at[r])));
        }
#endif
    }
    SCAN_DEVICE float get(int r, int i) const { return widen_at(at[r], i); }
};

// Takes the gates of ROWS steps into the products, BACK the last first. Two 16-bit gates have an exact product in float32, which saves half of
// what keeping the rounding costs.
template <bool BACK, typename T, int V, int ROWS>
SCAN_DEVICE void multiply_gates(StepAggregate (&sub)[V], const Rows<T, V, ROWS>& a) {
    const int TOGETHER = sizeof(T) == 2 ? 2 : 1;
    static_assert(ROWS % TOGETHER == 0, "steps go in pairs");
#pragma unroll
    for (int n = 0; n < ROWS; n += TOGETHER) {
        const int r = BACK ? ROWS - TOGETHER - n : n;
#pragma unroll
        for (int i = 0; i < V; i++) {
            sub[i].multiply(TOGETHER == 2 ? a.get(r, i) * a.get(r + TOGETHER - 1, i) : a.get(r, i));
        }
    }
}

// dy in registers; its type may be known at run time only, then it is widened at once.
template <typename In, int V, int ROWS>
struct DyRows : Rows<In, V, ROWS> {
    static const int SIZE = sizeof(In);  // bytes reserved an element
    static SCAN_DEVICE int size(scan_u32) { return sizeof(In); }
    SCAN_DEVICE void load(const char* segments, int lane, scan_u32) { Rows<In, V, ROWS>::load(segments, lane); }
    SCAN_DEVICE void clear(int rows) { this->fill(rows, zero<In>()); }
};
template <int V, int ROWS>
struct DyRows<AnyType, V, ROWS> : Rows<float, V, ROWS> {
    static const int SIZE = 4;
    static SCAN_DEVICE int size(scan_u32 type) { return type_size(type); }
    template <typename In>
    SCAN_DEVICE void load_as(const char* segments, int lane) {
        Rows<In, V, ROWS> in;
        in.load(segments, lane);
#pragma unroll
        for (int r = 0; r < ROWS; r++) unpack(in.at[r], this->at[r].v);
    }
    SCAN_DEVICE void load(const char* segments, int lane, scan_u32 type) {
        if (type == SCAN_F32) {
            load_as<float>(segments, lane);
        } else if (type == SCAN_F16) {
            load_as<f16>(segments, lane);
        } else {
            load_as<bf16>(segments, lane);
        }
    }
    SCAN_DEVICE void clear(int rows) { this->fill(rows, 0.0f); }
};

// Stores `rows` of ROWS rows of a lane that has its channels; V of them are aligned as one. `row` makes row r: one by one,
// so that none has to wait in registers for another.
template <typename T, int V, int ROWS, typename Row>
SCAN_DEVICE void store_rows(scan_u64 tensor, scan_i64 element, scan_i64 stride, int rows, int valid, Row&& row) {
    T* at = reinterpret_cast<T*>(tensor) + element;
    const int end = valid ? rows : 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++, at += stride) {
        float out[V];
        row(r, out);
        if (r < end) store_streaming(reinterpret_cast<Pack<T, V>*>(at), narrow_pack<T, V>(out));
    }
}

// h, all of it: f32 beside 16-bit tensors, so aligned to single elements only.
template <int V, int ROWS>
SCAN_DEVICE void store_h(scan_u64 h, scan_i64 element, scan_i64 stride, const float (&v)[ROWS][V], int rows,
                         int valid) {
    float* at = reinterpret_cast<float*>(h) + element;
#pragma unroll
    for (int r = 0; r < ROWS; r++, at += stride) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            if (r < rows && i < valid) store_streaming(at + i, v[r][i]);
        }
    }
}

// The same for y, whose type may be known at run time only.
template <typename Out, int V, int ROWS>
struct OutRows {
    static SCAN_DEVICE void store(scan_u32, scan_u64 y, scan_i64 element, scan_i64 stride, const float (&v)[ROWS][V],
                                  int rows, int valid) {
        store_rows<Out, V, ROWS>(y, element, stride, rows, valid, [&](int r, float (&out)[V]) {
#pragma unroll
            for (int i = 0; i < V; i++) out[i] = v[r][i];
        });
    }
};
template <int ROWS>
struct OutRows<AnyType, 1, ROWS> {
    static SCAN_DEVICE void store(scan_u32 type, scan_u64 y, scan_i64 element, scan_i64 stride,
                                  const float (&v)[ROWS][1], int rows, int valid) {
        const int end = valid ? rows : 0;
#pragma unroll
        for (int r = 0; r < ROWS; r++, element += stride) {
            if (r < end) store_any(type, y, element, v[r][0]);
        }
    }
};
