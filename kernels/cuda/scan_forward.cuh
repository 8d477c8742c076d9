// h[t] = a[t]·h[t-1] + b[t]·x[t], y[t] = c[t]·h[t], one warp marching along one sequence.
//
// Tile: 32 * V channels × STAGE rows a stage of the copy ring, `stages` of them under way. Each lane keeps its channels'
// state in registers; warps share nothing, so no barrier wider than a warp.
// Traffic: x, a, b, c read once, y written once, and one f32 row every SAVE steps. Bound by memory, as long as the
// (sequence, column) pairs fill the multiprocessors in whole waves; otherwise scan_forward_chunked does it.
#pragma once

#include "scan_copy.cuh"
#include "scan_grid.cuh"

// The full-size inputs in the order in which they lie in a stage.
enum { X, A, B, C, DY };

// Which of them a forward needs.
SCAN_DEVICE bool forward_reads_c(const ScanForward& p) { return p.c && p.y; }

// One step of V channels from one row of a stage.
template <typename T, int V, int ROWS>
struct ForwardRow {
    float x[V], a[V], b[V], c[V];

    SCAN_DEVICE void load(const char* stage, int row, int lane, bool has_b, bool has_c) {
        const int SEGMENT = 32 * V * sizeof(T), TENSOR = ROWS * SEGMENT;
        const char* at = stage + row * SEGMENT + lane * V * sizeof(T);
        load_shared<T, V>(at + X * TENSOR, x);
        load_shared<T, V>(at + A * TENSOR, a);
        if (has_b) {
            load_shared<T, V>(at + B * TENSOR, b);
#pragma unroll
            for (int i = 0; i < V; i++) x[i] *= b[i];
        }
        if (has_c) load_shared<T, V>(at + C * TENSOR, c);
    }
};

// Copies ROWS rows from scan time t of every input that forward needs.
template <typename T, int V, int ROWS>
SCAN_DEVICE void forward_copy(const ScanForward& p, const Sequence& s, const Lanes& l, scan_i64 t, int rows, char* to,
                              int lane) {
    const int SEGMENT = 32 * V * sizeof(T), TENSOR = ROWS * SEGMENT;
    scan_i64 stride = s.step * (scan_i64)p.channels * (int)sizeof(T);
    scan_i64 offset = (s.row(t) * (scan_i64)p.channels + l.channel) * (int)sizeof(T);
    int valid = l.valid * (int)sizeof(T);
    const scan_u64 from[4] = {p.x, p.a, p.b, forward_reads_c(p) ? p.c : 0};
#pragma unroll
    for (int q = 0; q < 4; q++) {
        if (from[q]) {
            copy_rows<SEGMENT, ROWS>(to + q * TENSOR, reinterpret_cast<const char*>(from[q] + offset), stride, rows,
                                     valid, lane, p.access);
        }
    }
}

template <typename T, typename Out>
SCAN_DEVICE void scan_forward_march(const ScanForward& p) {
    typedef Tuning<T> G;
    const int V = G::VM, STAGE = G::STAGE, BYTES = 4 * STAGE * 32 * V * (int)sizeof(T);
    SCAN_SHARED(ring);
    const int lane = threadIdx.x;
    const scan_i64 channels = (scan_i64)p.channels, columns = (channels + 32 * V - 1) / (32 * V);
    const Sequence s = sequence_at(p, blockIdx.x / columns, G::SAVE);
    const Lanes l = Lanes::at<V>(blockIdx.x % columns, channels, lane);
    const scan_i64 mine = l.channel + lane * V, state = s.index * channels + mine;
    const bool has_b = p.b != 0, has_c = forward_reads_c(p), plain = p.flags & SCAN_SEQUENTIAL;
    const bool full = p.saved && (p.flags & SCAN_FULL_H), chunks = p.saved && !full;
    const bool vector = p.out_access >= V * type_size(p.out_type);
    const int stages = (int)p.stages;
    const scan_i64 total = (s.len + STAGE - 1) / STAGE;

    auto copy = [&](scan_i64 stage, int slot) {
        if (stage < total) {
            scan_i64 t = stage * STAGE, left = s.len - t;
            forward_copy<T, V, STAGE>(p, s, l, t, left < STAGE ? (int)left : STAGE, ring + slot * BYTES, lane);
        }
        copy_commit();
    };
    for (int i = 0; i < stages; i++) copy(i, i);

    Carry<V> carry;
    float h[V], sub_p[V], sub_s[V];
    load_state<V>(p.h0, state, l.mine, h);
    carry.start(h);

    int slot = 0;
    for (scan_i64 stage = 0; stage < total; stage++) {
        const scan_i64 t = stage * STAGE;
        if (t % G::SUB == 0) {
#pragma unroll
            for (int i = 0; i < V; i++) {
                h[i] = carry.now[i];
                sub_p[i] = 1.0f;
                sub_s[i] = 0.0f;
            }
            if (chunks && t % G::SAVE == 0) store_state<V>(p.saved, saved_element(p, s, t, G::SAVE) + mine, l.mine, h);
        }
        copy_wait(stages - 1);
        __syncwarp();
        const char* at = ring + slot * BYTES;
        const int rows = s.len - t < STAGE ? (int)(s.len - t) : STAGE;
        scan_i64 element = s.row(t) * channels + mine;
        const scan_i64 stride = s.step * channels;

        auto step = [&](int row) {
            ForwardRow<T, V, STAGE> in;
            in.load(at, row, lane, has_b, has_c);
            float y[V];
#pragma unroll
            for (int i = 0; i < V; i++) {
                h[i] = fmaf(in.a[i], h[i], in.x[i]);
                sub_s[i] = fmaf(in.a[i], sub_s[i], in.x[i]);
                sub_p[i] *= in.a[i];
                y[i] = has_c ? in.c[i] * h[i] : h[i];
            }
            if (p.y) OutStore<T, Out, V>::put(p.out_type, p.y, element, y, l.mine, vector);
            if (full) store_state<V>(p.saved, element, l.mine, h);
            element += stride;
        };
        if (rows == STAGE) {
#pragma unroll
            for (int row = 0; row < STAGE; row++) step(row);
        } else {
#pragma unroll 1
            for (int row = 0; row < rows; row++) step(row);
        }

        const bool ends = t + STAGE >= s.len;
        if (ends || (t + STAGE) % G::SUB == 0) {
            if (plain) {
                carry.start(h);
            } else {
                carry.pass(sub_p, sub_s, ends || (t + STAGE) % G::CHUNK == 0);
            }
            // The last step of a sub-chunk holds the carry, so that backward finds the same state as in chunk states.
            if (full) store_state<V>(p.saved, element - stride, l.mine, carry.now);
        }
        __syncwarp();
        copy(stage + stages, slot);
        slot = slot + 1 == stages ? 0 : slot + 1;
    }
    if (p.ht) store_state<V>(p.ht, state, l.mine, carry.now);
}
