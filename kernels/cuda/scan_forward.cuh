// h[t] = a[t]·h[t-1] + b[t]·x[t], y[t] = c[t]·h[t], one warp marching along one sequence.
//
// Tile: 32 * V channels × STAGE rows a stage of the copy ring, `stages` of them under way. Each lane keeps its channels'
// state in registers; warps share nothing, so no barrier is wider than a warp.
// Traffic: x, a, b, c read once, y written once, and one f32 row every SAVE steps. Bound by memory, as long as the
// (sequence, column) pairs fill the multiprocessors in whole waves; otherwise scan_forward_chunked does it.
#pragma once

#include "scan_rows.cuh"

// The full-size inputs in the order in which they lie in a stage.
enum { X, A, B, C, DY };

SCAN_DEVICE bool forward_reads_c(const ScanForward& p) { return p.c && p.y; }

// Gates and gated inputs of ROWS steps. Steps past the end leave a state as it is.
template <typename T, int V, int ROWS>
struct Steps {
    Rows<T, V, ROWS> a;
    float u[ROWS][V];

    // tensor: bytes from one tensor to the next.
    SCAN_DEVICE void load(const char* stage, int tensor, int lane, bool has_b, int rows, bool complete) {
        Rows<T, V, ROWS> x;
        x.load(stage + X * tensor, lane);
        a.load(stage + A * tensor, lane);
        if (has_b) {
            Rows<T, V, ROWS> b;
            b.load(stage + B * tensor, lane);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
#pragma unroll
                for (int i = 0; i < V; i++) u[r][i] = x.get(r, i) * b.get(r, i);
            }
        } else {
#pragma unroll
            for (int r = 0; r < ROWS; r++) unpack(x.at[r], u[r]);
        }
        if (!complete) {
            a.fill(rows, one<T>());
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
#pragma unroll
                for (int i = 0; i < V; i++) u[r][i] = r < rows ? u[r][i] : 0.0f;
            }
        }
    }
    SCAN_DEVICE void aggregate(StepAggregate (&sub)[V]) const {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
            for (int i = 0; i < V; i++) sub[i].s = fmaf(a.get(r, i), sub[i].s, u[r][i]);
        }
        multiply_gates<false>(sub, a);
    }
    // Leaves h after the last step; states after each where u was.
    SCAN_DEVICE void replay(float (&h)[V]) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
            for (int i = 0; i < V; i++) u[r][i] = h[i] = fmaf(a.get(r, i), h[i], u[r][i]);
        }
    }
};

// Copies `rows` of ROWS rows from scan time t of every input that forward needs.
template <typename T, int V, int ROWS, bool FAST>
SCAN_DEVICE void forward_copy(const ScanForward& p, const Sequence& s, const Lanes& l, scan_i64 t, int rows, char* to,
                              int lane) {
    const int SEGMENT = 32 * V * sizeof(T), TENSOR = ROWS * SEGMENT;
    scan_i64 stride = s.step * (scan_i64)p.channels * (int)sizeof(T);
    scan_i64 offset = (s.row(t) * (scan_i64)p.channels + l.channel) * (int)sizeof(T);
    const scan_u64 from[4] = {p.x, p.a, p.b, forward_reads_c(p) ? p.c : 0};
    copy_tensors<4, SEGMENT, ROWS, V * (int)sizeof(T), FAST>(to, TENSOR, from, offset, stride, rows,
                                                             l.valid * (int)sizeof(T), lane, p.access);
}

template <typename T, typename Out>
SCAN_DEVICE void scan_forward_march(const ScanForward& p) {
    typedef Tuning<T, Out> G;
    const int V = G::VM, STAGE = G::STAGE, TENSOR = STAGE * 32 * V * (int)sizeof(T), BYTES = 4 * TENSOR;
    SCAN_SHARED(ring);
    const int lane = threadIdx.x;
    const scan_i64 channels = (scan_i64)p.channels, columns = (channels + 32 * V - 1) / (32 * V);
    const Sequence s = sequence_at(p, blockIdx.x / columns, G::SAVE);
    const Lanes l = Lanes::at<V>(blockIdx.x % columns, channels, lane);
    const scan_i64 mine = l.channel + lane * V, state = s.index * channels + mine;
    const bool has_b = p.b != 0, has_c = forward_reads_c(p), plain = p.flags & SCAN_SEQUENTIAL;
    const bool full = p.saved && (p.flags & SCAN_FULL_H), chunks = p.saved && !full;
    const int stages = (int)p.stages;
    const scan_i64 total = (s.len + STAGE - 1) / STAGE;

    auto copy = [&](scan_i64 stage, int slot) {
        if (stage < total) {
            scan_i64 t = stage * STAGE, left = s.len - t;
            forward_copy<T, V, STAGE, G::FAST>(p, s, l, t, left < STAGE ? (int)left : STAGE, ring + slot * BYTES, lane);
        }
        copy_commit();
    };
#pragma unroll 1
    for (int i = 0; i < stages; i++) copy(i, i);

    Carry<V> carry;
    float h[V];
    StepAggregate sub[V];
    load_state<V>(p.h0, state, l.mine, h);
    carry.start(h);

    int slot = 0;
#pragma unroll 1
    for (scan_i64 stage = 0; stage < total; stage++) {
        const scan_i64 t = stage * STAGE;
        if (t % G::SUB == 0) {
            carry.take(h);
#pragma unroll
            for (int i = 0; i < V; i++) sub[i] = StepAggregate::none();
            if (chunks && t % G::SAVE == 0) store_state<V>(p.saved, saved_element(p, s, t, G::SAVE) + mine, l.mine, h);
        }
        copy_wait(stages - 1);
        __syncwarp();
        const bool complete = s.len - t >= STAGE;
        const int rows = complete ? STAGE : (int)(s.len - t);
        const char* at = ring + slot * BYTES;
        Steps<T, V, STAGE> steps;
        steps.load(at, TENSOR, lane, has_b, rows, complete);
        Rows<T, V, STAGE> c;
        if (has_c) c.load(at + C * TENSOR, lane);
        __syncwarp();
        copy(stage + stages, slot);

        steps.aggregate(sub);
        steps.replay(h);
        const scan_i64 element = s.row(t) * channels + mine, stride = s.step * channels;
        if (full) store_h<V, STAGE>(p.saved, element, stride, steps.u, rows, l.mine);
        if (has_c) {
#pragma unroll
            for (int r = 0; r < STAGE; r++) {
#pragma unroll
                for (int i = 0; i < V; i++) steps.u[r][i] *= c.get(r, i);
            }
        }
        if (p.y) {
            OutRows<Out, V, STAGE>::store(p.out_type, p.y, element, stride, steps.u, rows, l.mine);
        }

        const bool ends = t + STAGE >= s.len;
        if (ends || (t + STAGE) % G::SUB == 0) {
            if (plain) {
                carry.start(h);
            } else {
                carry.pass(sub, (t + STAGE) % (8 * G::SUB) == 0, ends || (t + STAGE) % G::CHUNK == 0);
            }
            // The last step of a sub-chunk is the carry, so that backward finds the same state as in chunk states.
            if (full && !ends) {
                float after[V];
                carry.take(after);
                store_state<V>(p.saved, element + (rows - 1) * stride, l.mine, after);
            }
        }
        slot = slot + 1 == stages ? 0 : slot + 1;
    }
    // The plain loop's last state, one rounding closer than the carry.
    if (p.ht) store_state<V>(p.ht, state, l.mine, h);
}
