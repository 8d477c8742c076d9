// Forward with time split over warps and blocks: for sequences too few to fill the chip by themselves.
//
// Tile: one chunk × 32 * V channels a block, one sub-chunk a warp, `stages` chunks under way in shared memory. A warp
// copies its own rows, folds them into (P, S), and replays the plain loop over the same shared memory once the carry is
// there; meanwhile the next chunks are coming in.
// Traffic: as marching, and 8 bytes a channel and chunk published, read by each block of the column through L2.
#pragma once

#include "scan_chain.cuh"
#include "scan_forward.cuh"

template <typename T, typename Out>
SCAN_DEVICE void scan_forward_chunked(const ScanForward& p) {
    typedef Tuning<T> G;
    const int V = G::VC, SUB = G::SUB, WARPS = G::CHUNK / SUB, LANES = 32 * V;
    const int WARP_BYTES = 4 * SUB * LANES * (int)sizeof(T), BYTES = WARPS * WARP_BYTES;
    SCAN_SHARED(shared);
    const int slots = (int)p.stages;
    float2* const exchange = reinterpret_cast<float2*>(shared + slots * BYTES);  // [2][WARPS][LANES]
    Published* const staged = reinterpret_cast<Published*>(exchange + 2 * WARPS * LANES);
    float* const entry = reinterpret_cast<float*>(staged + G::FOLD * LANES);
    scan_i64* const tickets = reinterpret_cast<scan_i64*>(entry + LANES);  // [8], by slot

    const scan_i64 channels = (scan_i64)p.channels, across = (channels + LANES - 1) / LANES;
    const scan_i64 columns = gridDim.x / p.workers, at = blockIdx.x % columns, row_index = at / across;
    const scan_i64 steps = walk_steps(p, G::CHUNK);
    Chain<LANES, G::FOLD> chain;
    chain.start(p, at, columns, steps, reinterpret_cast<char*>(staged));
    const int warp = chain.warp, lane = chain.lane;
    const Lanes l = Lanes::at<V>(at % across, channels, lane);
    const scan_i64 mine = l.channel + lane * V;
    const bool has_b = p.b != 0, has_c = forward_reads_c(p);
    const bool full = p.saved && (p.flags & SCAN_FULL_H), chunks = p.saved && !full;
    const bool vector = p.out_access >= V * type_size(p.out_type);

    auto copy = [&](scan_i64 k, int slot) {
        if (k < steps) {
            Chunk c = chunk_at(p, row_index, k, G::CHUNK, G::SAVE);
            int rows = c.len - warp * SUB;
            if (rows > 0) {
                forward_copy<T, V, SUB>(p, c.sequence, l, c.begin + warp * SUB, rows < SUB ? rows : SUB,
                                        shared + slot * BYTES + warp * WARP_BYTES, lane);
            }
        }
        copy_commit();
    };
    if (threadIdx.x == 0) {
        for (int i = 0; i < slots; i++) tickets[i] = chain.draw(i);
    }
    __syncthreads();
    for (int i = 0; i < slots; i++) copy(tickets[i], i);

    float carry[V];
#pragma unroll
    for (int i = 0; i < V; i++) carry[i] = 0.0f;
    int slot = 0, parity = 0;
    while (true) {
        const scan_i64 k = tickets[slot];
        if (k >= steps) break;
        const Chunk c = chunk_at(p, row_index, k, G::CHUNK, G::SAVE);
        const char* stage = shared + slot * BYTES + warp * WARP_BYTES;
        int rows = c.len - warp * SUB;
        rows = rows < 0 ? 0 : rows < SUB ? rows : SUB;
        const int subs = (c.len + SUB - 1) / SUB;
        float2* const swap = exchange + parity * WARPS * LANES;
        const scan_i64 state = c.sequence.index * channels + mine;
        float start[V];
        if (warp == 0 && c.first) load_state<V>(p.h0, state, l.mine, start);

        copy_wait(slots - 1);
        __syncwarp();
        float sub_p[V], sub_s[V];
#pragma unroll
        for (int i = 0; i < V; i++) {
            sub_p[i] = 1.0f;
            sub_s[i] = 0.0f;
        }
        auto gather = [&](int row) {
            ForwardRow<T, V, SUB> in;
            in.load(stage, row, lane, has_b, false);
#pragma unroll
            for (int i = 0; i < V; i++) {
                sub_s[i] = fmaf(in.a[i], sub_s[i], in.x[i]);
                sub_p[i] *= in.a[i];
            }
        };
        if (rows == SUB) {
#pragma unroll
            for (int row = 0; row < SUB; row++) gather(row);
        } else {
#pragma unroll 1
            for (int row = 0; row < rows; row++) gather(row);
        }
#pragma unroll
        for (int i = 0; i < V; i++) swap[warp * LANES + lane * V + i] = make_float2(sub_p[i], sub_s[i]);
        __syncthreads();

        Carry<V> whole;  // warp 0: the chunk's aggregate
        if (warp == 0) {
            float none[V];
#pragma unroll
            for (int i = 0; i < V; i++) none[i] = 0.0f;
            whole.start(none);
            for (int j = 0; j < subs; j++) {
                float jp[V], js[V];
#pragma unroll
                for (int i = 0; i < V; i++) {
                    float2 ps = swap[j * LANES + lane * V + i];
                    jp[i] = ps.x;
                    js[i] = ps.y;
                }
                whole.pass(jp, js, false);
            }
            if (chain.ticket) {
#pragma unroll
                for (int i = 0; i < V; i++) {
                    publish(chain.column + k * LANES + lane * V + i,
                            c.first ? publication(RESTART, fold(whole.p[i], start[i], whole.s[i]))
                            : c.exists ? publication(whole.p[i], whole.s[i])
                                       : publication(RESTART, 0.0f));
                }
            }
        }
        // Drawn here, since the wait for others hides the wait for the ticket.
        if (threadIdx.x == blockDim.x - 1) tickets[slot] = chain.draw(k + slots);
        if (c.first) {
            chain.followed = k;
        } else {
            chain.follow_to(k, carry);
        }
        if (warp == 0) {
            if (c.first) {
#pragma unroll
                for (int i = 0; i < V; i++) carry[i] = start[i];
            }
#pragma unroll
            for (int i = 0; i < V; i++) {
                entry[lane * V + i] = carry[i];
                carry[i] = fold(whole.p[i], carry[i], whole.s[i]);
            }
            if (c.last && p.ht) store_state<V>(p.ht, state, l.mine, carry);
        }
        chain.followed++;
        __syncthreads();

        float h[V];
#pragma unroll
        for (int i = 0; i < V; i++) h[i] = entry[lane * V + i];
        for (int j = 0; j < warp; j++) {
#pragma unroll
            for (int i = 0; i < V; i++) {
                float2 ps = swap[j * LANES + lane * V + i];
                h[i] = fold(ps.x, h[i], ps.y);
            }
        }
        if (rows > 0) {
            const scan_i64 t = c.begin + warp * SUB, stride = c.sequence.step * channels;
            scan_i64 element = c.sequence.row(t) * channels + mine;
            float after[V];
#pragma unroll
            for (int i = 0; i < V; i++) after[i] = fold(sub_p[i], h[i], sub_s[i]);
            if (chunks && t % G::SAVE == 0) {
                store_state<V>(p.saved, saved_element(p, c.sequence, t, G::SAVE) + mine, l.mine, h);
            }
            auto step = [&](int row) {
                ForwardRow<T, V, SUB> in;
                in.load(stage, row, lane, has_b, has_c);
                float y[V];
#pragma unroll
                for (int i = 0; i < V; i++) {
                    h[i] = fmaf(in.a[i], h[i], in.x[i]);
                    y[i] = has_c ? in.c[i] * h[i] : h[i];
                }
                if (p.y) OutStore<T, Out, V>::put(p.out_type, p.y, element, y, l.mine, vector);
                if (full) store_state<V>(p.saved, element, l.mine, h);
                element += stride;
            };
            if (rows == SUB && (p.y || full)) {
#pragma unroll
                for (int row = 0; row < SUB; row++) step(row);
            } else if (p.y || full) {
#pragma unroll 1
                for (int row = 0; row < rows; row++) step(row);
            }
            if (full) {
                if (warp == subs - 1) {
                    Carry<V> end;
                    float in[V];
#pragma unroll
                    for (int i = 0; i < V; i++) in[i] = entry[lane * V + i];
                    end.start(in);
                    for (int j = 0; j < subs; j++) {
                        float jp[V], js[V];
#pragma unroll
                        for (int i = 0; i < V; i++) {
                            float2 ps = swap[j * LANES + lane * V + i];
                            jp[i] = ps.x;
                            js[i] = ps.y;
                        }
                        end.pass(jp, js, j == subs - 1);
                    }
#pragma unroll
                    for (int i = 0; i < V; i++) after[i] = end.now[i];
                }
                store_state<V>(p.saved, element - stride, l.mine, after);
            }
        }
        __syncwarp();
        copy(tickets[slot], slot);
        slot = slot + 1 == slots ? 0 : slot + 1;
        parity ^= 1;
    }
}
