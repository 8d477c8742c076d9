// g[t] = c[t]·dy[t] + q[t], q[t-1] = a[t]·g[t] from the last step to the first, with
// dx = b·g, db = x·g, dc = dy·h, da = h[t-1]·g, one warp marching along one sequence.
//
// Tile: SAVE rows × 32 * V channels, which have to lie in the ring at once: h is rebuilt forward through them from the
// saved state, then q runs back, freeing the ring stage by stage for the rows before. The state before each stage lies
// beside the ring, each lane's own.
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

template <typename T, typename In, int V, int ROWS, bool FAST>
SCAN_DEVICE void backward_copy(const ScanBackward& p, const BackwardNeeds& need, const Sequence& s, const Lanes& l,
                               scan_i64 t, int rows, char* to, int lane) {
    const int LANES = 32 * V, SEGMENT = LANES * sizeof(T), TENSOR = ROWS * SEGMENT;
    const scan_i64 stride = s.step * (scan_i64)p.channels, offset = s.row(t) * (scan_i64)p.channels + l.channel;
    const int size = DyRows<In, V, ROWS>::size(p.out_type);
    const bool alike = size == sizeof(T) && p.access == p.out_access;
    const scan_u64 from[5] = {need.x ? p.x : 0, p.a, need.b ? p.b : 0, need.c ? p.c : 0, alike ? p.dy : 0};
    copy_tensors<5, SEGMENT, ROWS, V * (int)sizeof(T), FAST>(to, TENSOR, from, offset * (int)sizeof(T),
                                                             stride * (int)sizeof(T), rows,
                                                             l.valid * (int)sizeof(T), lane, p.access);
    if (!alike) {
        const scan_u64 dy[1] = {p.dy};
        if (size == 4) {
            copy_tensors<1, LANES * 4, ROWS, 4, false>(to + DY * TENSOR, 0, dy, offset * 4, stride * 4, rows,
                                                    l.valid * 4, lane, p.out_access);
        } else {
            copy_tensors<1, LANES * 2, ROWS, 2, false>(to + DY * TENSOR, 0, dy, offset * 2, stride * 2, rows,
                                                    l.valid * 2, lane, p.out_access);
        }
    }
}

// What the gradients of ROWS steps take, in registers. Steps past the end pass q on as it is.
template <typename T, typename In, int V, int ROWS>
struct GradientSteps {
    Rows<T, V, ROWS> x, a, b, c;
    DyRows<In, V, ROWS> dy;

    SCAN_DEVICE void load(const char* stage, int tensor, int lane, const BackwardNeeds& need, scan_u32 dy_type,
                          int rows, bool complete) {
        a.load(stage + A * tensor, lane);
        dy.load(stage + DY * tensor, lane, dy_type);
        if (need.x) {
            x.load(stage + X * tensor, lane);
        } else {
            x.fill(0, zero<T>());
        }
        if (need.b) {
            b.load(stage + B * tensor, lane);
        } else {
            b.fill(0, one<T>());
        }
        if (need.c) {
            c.load(stage + C * tensor, lane);
        } else {
            c.fill(0, one<T>());
        }
        if (!complete) {
            a.fill(rows, one<T>());
            x.fill(rows, zero<T>());
            b.fill(rows, one<T>());
            c.fill(rows, zero<T>());
            dy.clear(rows);
        }
    }
    SCAN_DEVICE void stay_packed() {
        x.stay_packed();
        a.stay_packed();
        b.stay_packed();
        c.stay_packed();
        dy.stay_packed();
    }
    // Folds q over the steps, the last first.
    SCAN_DEVICE void aggregate(StepAggregate (&sub)[V]) const {
#pragma unroll
        for (int r = ROWS - 1; r >= 0; r--) {
#pragma unroll
            for (int i = 0; i < V; i++) {
                sub[i].s = a.get(r, i) * fmaf(c.get(r, i), dy.get(r, i), sub[i].s);
            }
        }
        multiply_gates<true>(sub, a);
    }
    // Folds h over the steps, the first first.
    SCAN_DEVICE void aggregate_h(StepAggregate (&sub)[V]) const {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
            for (int i = 0; i < V; i++) {
                sub[i].s = fmaf(a.get(r, i), sub[i].s, b.get(r, i) * x.get(r, i));
            }
        }
        multiply_gates<false>(sub, a);
    }
    // The state after step r, from the one before it.
    SCAN_DEVICE void step(int r, float (&h)[V]) const {
#pragma unroll
        for (int i = 0; i < V; i++) h[i] = fmaf(a.get(r, i), h[i], b.get(r, i) * x.get(r, i));
    }
};

// Where and how a lane stores the gradients of ROWS steps.
template <typename T, int V, int ROWS>
struct GradientStore {
    scan_i64 element, stride;
    int rows, valid;

    template <typename Row>
    SCAN_DEVICE void put(scan_u64 tensor, Row&& row) const {
        if (tensor) store_rows<T, V, ROWS>(tensor, element, stride, rows, valid, row);
    }
    // dc = dy·h, from the state before the first step.
    template <typename In>
    SCAN_DEVICE void states(const ScanBackward& p, const GradientSteps<T, In, V, ROWS>& in,
                            const float (&before)[V]) const {
        float h[V];
#pragma unroll
        for (int i = 0; i < V; i++) h[i] = before[i];
        put(p.dc, [&](int r, float (&out)[V]) {
            in.step(r, h);
#pragma unroll
            for (int i = 0; i < V; i++) out[i] = in.dy.get(r, i) * h[i];
        });
    }
    // dx, da, db, and q before the first step, from the h before the first. h is computed once more: to keep that of
    // every step takes registers, which are dearer.
    template <typename In>
    SCAN_DEVICE void carried(const ScanBackward& p, const GradientSteps<T, In, V, ROWS>& in, float (&h)[V],
                             float (&q)[V]) const {
        float g[ROWS][V];
#pragma unroll
        for (int r = ROWS - 1; r >= 0; r--) {
#pragma unroll
            for (int i = 0; i < V; i++) {
                g[r][i] = fmaf(in.c.get(r, i), in.dy.get(r, i), q[i]);
                q[i] = in.a.get(r, i) * g[r][i];
            }
        }
        put(p.da, [&](int r, float (&out)[V]) {
#pragma unroll
            for (int i = 0; i < V; i++) out[i] = h[i] * g[r][i];
            in.step(r, h);
        });
        put(p.dx, [&](int r, float (&out)[V]) {
#pragma unroll
            for (int i = 0; i < V; i++) out[i] = in.b.get(r, i) * g[r][i];
        });
        put(p.db, [&](int r, float (&out)[V]) {
#pragma unroll
            for (int i = 0; i < V; i++) out[i] = in.x.get(r, i) * g[r][i];
        });
    }
};

template <typename T, typename In>
SCAN_DEVICE void scan_backward_march(const ScanBackward& p) {
    typedef Tuning<T, In> G;
    const int V = G::VM, STAGE = G::STAGE, LANES = 32 * V, TENSOR = STAGE * LANES * (int)sizeof(T);
    const int BYTES = 4 * TENSOR + STAGE * LANES * DyRows<In, V, STAGE>::SIZE;
    SCAN_SHARED(ring);
    const int lane = threadIdx.x;
    const scan_i64 channels = (scan_i64)p.channels, columns = (channels + LANES - 1) / LANES;
    const Sequence s = sequence_at(p, blockIdx.x / columns, G::SAVE);
    const Lanes l = Lanes::at<V>(blockIdx.x % columns, channels, lane);
    const scan_i64 mine = l.channel + lane * V, state = s.index * channels + mine;
    const BackwardNeeds need(p);
    const bool plain = p.flags & SCAN_SEQUENTIAL;
    const int stages = (int)p.stages;
    const scan_i64 total = (s.len + STAGE - 1) / STAGE;
    Pack<float, V>* const kept = reinterpret_cast<Pack<float, V>*>(ring + stages * BYTES) + lane;

    // Stages come in from the last to the first; `order` counts them.
    auto copy = [&](scan_i64 order, int slot) {
        scan_i64 t = (total - 1 - order) * STAGE;
        if (t >= 0) {
            scan_i64 left = s.len - t;
            backward_copy<T, In, V, STAGE, G::FAST>(p, need, s, l, t, left < STAGE ? (int)left : STAGE,
                                                    ring + slot * BYTES, lane);
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
#pragma unroll 1
    for (int i = 0; i < stages; i++) copy(i, i);

    Carry<V> carry;
    float q[V], next[V];
    StepAggregate sub[V];
    load_state<V>(p.dht, state, l.mine, q);
    carry.start(q);
    scan_i64 tile = (s.len + G::SAVE - 1) / G::SAVE - 1;
    if (need.h && tile >= 0) saved(tile * G::SAVE, next);

    int slot = 0;
    scan_i64 order = 0;
#pragma unroll 1
    for (; tile >= 0; tile--) {
        const scan_i64 begin = tile * G::SAVE, end = begin + G::SAVE < s.len ? begin + G::SAVE : s.len;
        const int inside = (int)((end - begin + STAGE - 1) / STAGE);
        copy_wait(stages - inside);
        __syncwarp();
        if (need.h) {
            float h[V];
#pragma unroll
            for (int i = 0; i < V; i++) h[i] = next[i];
            if (tile > 0) saved(begin - G::SAVE, next);
            Carry<V> rebuilt;
            rebuilt.start(h);
            int from = slot + inside - 1;
#pragma unroll 1
            for (int k = 0; k < inside; k++, from--) {
                if (k * STAGE % G::SUB == 0) {
                    rebuilt.take(h);
#pragma unroll
                    for (int i = 0; i < V; i++) sub[i] = StepAggregate::none();
                }
                // What it makes of rows past the end is not used.
                Steps<T, V, STAGE> steps;
                steps.load(ring + (from >= stages ? from - stages : from) * BYTES, TENSOR, lane, need.b, STAGE, true);
                Pack<float, V> first;
#pragma unroll
                for (int i = 0; i < V; i++) first.v[i] = h[i];
                steps.aggregate(sub);
                steps.replay(h);
                kept[k * 32] = first;
                if ((k + 1) * STAGE % G::SUB == 0) {
                    if (plain) {
                        rebuilt.start(h);
                    } else {
                        rebuilt.pass(sub, false, false);
                    }
                }
            }
        }
        // Back through the stages, the last first.
#pragma unroll 1
        for (int k = inside - 1; k >= 0; k--) {
            const scan_i64 t = begin + k * STAGE;
            const bool complete = end - t >= STAGE;
            const int rows = complete ? STAGE : (int)(end - t);
            if (t + rows == s.len || (t + STAGE) % G::SUB == 0) {
                carry.take(q);
#pragma unroll
                for (int i = 0; i < V; i++) sub[i] = StepAggregate::none();
            }
            GradientSteps<T, In, V, STAGE> in;
            in.load(ring + slot * BYTES, TENSOR, lane, need, p.out_type, rows, complete);
            __syncwarp();
            copy(order + stages, slot);
            order++;
            slot = slot + 1 == stages ? 0 : slot + 1;

            Pack<float, V> state_before = {};
            if (need.h) state_before = kept[k * 32];
            in.aggregate(sub);
            GradientStore<T, V, STAGE> to = {s.row(t) * channels + mine, s.step * channels, rows, l.mine};
            to.states(p, in, state_before.v);
            to.carried(p, in, state_before.v, q);
            if (t % G::SUB == 0) {
                if (plain) {
                    carry.start(q);
                } else {
                    const int inside = G::CHUNKB - (int)(t % G::CHUNKB);
                    carry.pass(sub, inside % (8 * G::SUB) == 0, inside == G::CHUNKB);
                }
            }
        }
    }
    // The plain loop's last, one rounding closer than the carry.
    if (p.dh0) store_state<V>(p.dh0, state, l.mine, q);
}
