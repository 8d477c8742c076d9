// g[t] = c[t]·dy[t] + q[t], q[t-1] = a[t]·g[t] from the last step to the first, with
// dx = b·g, db = x·g, dc = dy·h, da = h[t-1]·g, one warp marching along one sequence.
//
// Tile: SAVE rows × 32 * V channels, which have to lie in the ring at once: h is rebuilt forward through them from the
// saved state, then q runs back, freeing the ring stage by stage for the rows before. The states before each step
// lie beside the ring, each lane's own.
// Traffic: x, a, b, c, dy read once, dx, da, db, dc written once, one f32 row every SAVE steps. Bound by memory.
#pragma once

#include "scan_forward.cuh"

// What a backward needs, from what is asked of it.
struct BackwardNeeds {
    bool h, x, b, c;
    SCAN_DEVICE explicit BackwardNeeds(const ScanBackward& p) {
        h = p.da || p.dc;
        x = h || p.db;
        b = p.b && (h || p.dx);
        c = p.c != 0;
    }
};

template <typename T, typename In, int V, int ROWS>
SCAN_DEVICE void backward_copy(const ScanBackward& p, const BackwardNeeds& need, const Sequence& s, const Lanes& l,
                               scan_i64 t, int rows, char* to, int lane) {
    const int LANES = 32 * V, SEGMENT = LANES * sizeof(T), TENSOR = ROWS * SEGMENT;
    scan_i64 stride = s.step * (scan_i64)p.channels;
    scan_i64 offset = s.row(t) * (scan_i64)p.channels + l.channel;
    const scan_u64 from[4] = {need.x ? p.x : 0, p.a, need.b ? p.b : 0, need.c ? p.c : 0};
#pragma unroll
    for (int q = 0; q < 4; q++) {
        if (from[q]) {
            copy_rows<SEGMENT, ROWS>(to + q * TENSOR, reinterpret_cast<const char*>(from[q] + offset * (int)sizeof(T)),
                                     stride * (int)sizeof(T), rows, l.valid * (int)sizeof(T), lane, p.access);
        }
    }
    const int size = DyLoad<In, V>::size(p.out_type);
    const char* dy = reinterpret_cast<const char*>(p.dy + offset * size);
    if (size == 4) {
        copy_rows<LANES * 4, ROWS>(to + 4 * TENSOR, dy, stride * 4, rows, l.valid * 4, lane, p.out_access);
    } else {
        copy_rows<LANES * 2, ROWS>(to + 4 * TENSOR, dy, stride * 2, rows, l.valid * 2, lane, p.out_access);
    }
}

// The gradients of one step: q comes in as q[t] and leaves as q[t-1]; (sub_p, sub_s) go along.
template <typename T, typename In, int V, int ROWS>
struct BackwardRow {
    const ScanBackward& p;
    const BackwardNeeds& need;
    int lane, mine;
    bool vector;

    SCAN_DEVICE void step(const char* stage, int row, const float (&before)[V], float (&q)[V], scan_i64 element) const {
        const int SEGMENT = 32 * V * sizeof(T), TENSOR = ROWS * SEGMENT;
        const char* at = stage + row * SEGMENT + lane * V * sizeof(T);
        float x[V], a[V], b[V], c[V], dy[V], dx[V], da[V], db[V], dc[V];
        load_shared<T, V>(at + A * TENSOR, a);
        DyLoad<In, V>::get(p.out_type, stage + 4 * TENSOR + row * 32 * V * DyLoad<In, V>::size(p.out_type), lane, dy);
        if (need.x) load_shared<T, V>(at + X * TENSOR, x);
        if (need.b) load_shared<T, V>(at + B * TENSOR, b);
        if (need.c) load_shared<T, V>(at + C * TENSOR, c);
#pragma unroll
        for (int i = 0; i < V; i++) {
            float g = need.c ? fmaf(c[i], dy[i], q[i]) : dy[i] + q[i];
            float h = fmaf(a[i], before[i], need.b ? b[i] * x[i] : x[i]);
            dx[i] = need.b ? b[i] * g : g;
            db[i] = x[i] * g;
            dc[i] = dy[i] * h;
            da[i] = before[i] * g;
            q[i] = a[i] * g;
        }
        if (p.dx) store_lane<T, V>(p.dx, element, dx, mine, vector);
        if (p.da) store_lane<T, V>(p.da, element, da, mine, vector);
        if (p.db) store_lane<T, V>(p.db, element, db, mine, vector);
        if (p.dc) store_lane<T, V>(p.dc, element, dc, mine, vector);
    }

    // The aggregate of the same steps: gate product and q from 0.
    SCAN_DEVICE void aggregate(const char* stage, int row, float (&sub_p)[V], float (&sub_s)[V]) const {
        const int SEGMENT = 32 * V * sizeof(T), TENSOR = ROWS * SEGMENT;
        const char* at = stage + row * SEGMENT + lane * V * sizeof(T);
        float a[V], c[V], dy[V];
        load_shared<T, V>(at + A * TENSOR, a);
        DyLoad<In, V>::get(p.out_type, stage + 4 * TENSOR + row * 32 * V * DyLoad<In, V>::size(p.out_type), lane, dy);
        if (need.c) load_shared<T, V>(at + C * TENSOR, c);
#pragma unroll
        for (int i = 0; i < V; i++) {
            sub_s[i] = a[i] * (need.c ? fmaf(c[i], dy[i], sub_s[i]) : dy[i] + sub_s[i]);
            sub_p[i] *= a[i];
        }
    }
};

template <typename T, typename In>
SCAN_DEVICE void scan_backward_march(const ScanBackward& p) {
    typedef Tuning<T> G;
    const int V = G::VM, STAGE = G::STAGE, LANES = 32 * V;
    const int BYTES = STAGE * LANES * (4 * (int)sizeof(T) + DyLoad<In, V>::SIZE);
    SCAN_SHARED(ring);
    const int lane = threadIdx.x;
    const scan_i64 channels = (scan_i64)p.channels, columns = (channels + LANES - 1) / LANES;
    const Sequence s = sequence_at(p, blockIdx.x / columns, G::SAVE);
    const Lanes l = Lanes::at<V>(blockIdx.x % columns, channels, lane);
    const scan_i64 mine = l.channel + lane * V, state = s.index * channels + mine;
    const BackwardNeeds need(p);
    const bool plain = p.flags & SCAN_SEQUENTIAL;
    const bool vector = p.access >= V * sizeof(T);
    const int stages = (int)p.stages;
    const scan_i64 total = (s.len + STAGE - 1) / STAGE;
    Pack<float, V>* const before = reinterpret_cast<Pack<float, V>*>(ring + stages * BYTES) + lane;
    const BackwardRow<T, In, V, STAGE> row_of = {p, need, lane, l.mine, vector};

    // Stages come in from the last to the first; `order` counts them.
    auto copy = [&](scan_i64 order, int slot) {
        scan_i64 t = (total - 1 - order) * STAGE;
        if (t >= 0) {
            scan_i64 left = s.len - t;
            backward_copy<T, In, V, STAGE>(p, need, s, l, t, left < STAGE ? (int)left : STAGE, ring + slot * BYTES,
                                           lane);
        }
        copy_commit();
    };
    // The state before step t, a multiple of SAVE.
    auto saved = [&](scan_i64 t, float (&h)[V]) {
        if (t == 0) {
            load_state<V>(p.h0, state, l.mine, h);
        } else {
            load_state<V>(p.saved, saved_element(p, s, t, G::SAVE) + mine, l.mine, h);
        }
    };
    for (int i = 0; i < stages; i++) copy(i, i);

    Carry<V> carry;
    float q[V], h[V], next[V], sub_p[V], sub_s[V];
    load_state<V>(p.dht, state, l.mine, q);
    carry.start(q);
    scan_i64 tile = (s.len + G::SAVE - 1) / G::SAVE - 1;
    if (need.h && tile >= 0) saved(tile * G::SAVE, next);

    int slot = 0;
    scan_i64 order = 0;
    for (; tile >= 0; tile--) {
        const scan_i64 begin = tile * G::SAVE, end = begin + G::SAVE < s.len ? begin + G::SAVE : s.len;
        const int inside = (int)((end - begin + STAGE - 1) / STAGE);
        copy_wait(stages - inside);
        __syncwarp();
        if (need.h) {
#pragma unroll
            for (int i = 0; i < V; i++) h[i] = next[i];
            if (tile > 0) saved(begin - G::SAVE, next);
            Carry<V> rebuilt;
            rebuilt.start(h);
            int from = slot + inside - 1;
#pragma unroll 1
            for (int k = 0; k < inside; k++, from--) {
                const char* at = ring + (from >= stages ? from - stages : from) * BYTES;
                const int row0 = k * STAGE;
                const int rows = end - begin - row0 < STAGE ? (int)(end - begin) - row0 : STAGE;
                if (row0 % G::SUB == 0) {
#pragma unroll
                    for (int i = 0; i < V; i++) {
                        h[i] = rebuilt.now[i];
                        sub_p[i] = 1.0f;
                        sub_s[i] = 0.0f;
                    }
                }
                auto step = [&](int row) {
                    ForwardRow<T, V, STAGE> in;
                    in.load(at, row, lane, need.b, false);
                    Pack<float, V> keep;
#pragma unroll
                    for (int i = 0; i < V; i++) {
                        keep.v[i] = h[i];
                        h[i] = fmaf(in.a[i], h[i], in.x[i]);
                        sub_s[i] = fmaf(in.a[i], sub_s[i], in.x[i]);
                        sub_p[i] *= in.a[i];
                    }
                    before[(row0 + row) * 32] = keep;
                };
                if (rows == STAGE) {
#pragma unroll
                    for (int row = 0; row < STAGE; row++) step(row);
                } else {
#pragma unroll 1
                    for (int row = 0; row < rows; row++) step(row);
                }
                if ((row0 + STAGE) % G::SUB == 0) {
                    if (plain) {
                        rebuilt.start(h);
                    } else {
                        rebuilt.pass(sub_p, sub_s, false);
                    }
                }
            }
        }
        // Back through the stages, the last first.
#pragma unroll 1
        for (int k = inside - 1; k >= 0; k--) {
            const char* at = ring + slot * BYTES;
            const scan_i64 t = begin + k * STAGE;
            const int rows = end - t < STAGE ? (int)(end - t) : STAGE;
            if (t + rows == s.len || (t + STAGE) % G::SUB == 0) {
#pragma unroll
                for (int i = 0; i < V; i++) {
                    q[i] = carry.now[i];
                    sub_p[i] = 1.0f;
                    sub_s[i] = 0.0f;
                }
            }
            const scan_i64 element = s.row(t) * channels + mine, stride = s.step * channels;
            auto step = [&](int row) {
                float h_before[V];
                Pack<float, V> kept = {};
                if (need.h) kept = before[(k * STAGE + row) * 32];
#pragma unroll
                for (int i = 0; i < V; i++) h_before[i] = kept.v[i];
                row_of.aggregate(at, row, sub_p, sub_s);
                row_of.step(at, row, h_before, q, element + row * stride);
            };
            if (rows == STAGE) {
#pragma unroll
                for (int row = STAGE - 1; row >= 0; row--) step(row);
            } else {
#pragma unroll 1
                for (int row = rows - 1; row >= 0; row--) step(row);
            }
            if (t % G::SUB == 0) {
                if (plain) {
                    carry.start(q);
                } else {
                    carry.pass(sub_p, sub_s, t % G::CHUNK == 0);
                }
            }
            __syncwarp();
            copy(order + stages, slot);
            order++;
            slot = slot + 1 == stages ? 0 : slot + 1;
        }
    }
    if (p.dh0) store_state<V>(p.dh0, state, l.mine, carry.now);
}
