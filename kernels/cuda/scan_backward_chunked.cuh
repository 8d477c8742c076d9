// Backward with time split over warps and blocks; the walk goes from the last chunk to the first.
//
// Tile and pipeline as in scan_forward_chunked. In its first pass a warp folds its sub-chunk both ways: q for the
// carry, and h where its sub-chunk does not begin at a saved state but a later one of the same SAVE steps does.
// Traffic: as marching, and 8 bytes a channel and chunk published, read by each block of the column through L2.
#pragma once

#include "scan_backward.cuh"
#include "scan_chain.cuh"

template <typename T, typename In>
SCAN_DEVICE void scan_backward_chunked(const ScanBackward& p) {
    typedef Tuning<T> G;
    const int V = G::VC, SUB = G::SUB, WARPS = G::CHUNK / SUB, LANES = 32 * V, INSIDE = G::SAVE / SUB;
    const int WARP_BYTES = SUB * LANES * (4 * (int)sizeof(T) + DyLoad<In, V>::SIZE), BYTES = WARPS * WARP_BYTES;
    SCAN_SHARED(shared);
    const int slots = (int)p.stages;
    float4* const exchange = reinterpret_cast<float4*>(shared + slots * BYTES);  // [2][WARPS][LANES]: P, S, h's P, S
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
    const BackwardNeeds need(p);
    const BackwardRow<T, In, V, SUB> row_of = {p, need, lane, l.mine, p.access >= V * sizeof(T)};

    auto copy = [&](scan_i64 k, int slot) {
        if (k < steps) {
            Chunk c = chunk_at(p, row_index, steps - 1 - k, G::CHUNK, G::SAVE);
            int rows = c.len - warp * SUB;
            if (rows > 0) {
                backward_copy<T, In, V, SUB>(p, need, c.sequence, l, c.begin + warp * SUB, rows < SUB ? rows : SUB,
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
        const Chunk c = chunk_at(p, row_index, steps - 1 - k, G::CHUNK, G::SAVE);
        const char* stage = shared + slot * BYTES + warp * WARP_BYTES;
        int rows = c.len - warp * SUB;
        rows = rows < 0 ? 0 : rows < SUB ? rows : SUB;
        const int subs = (c.len + SUB - 1) / SUB;
        float4* const swap = exchange + parity * WARPS * LANES;
        const scan_i64 state = c.sequence.index * channels + mine;
        float start[V], h[V];
        if (warp == 0 && c.last) load_state<V>(p.dht, state, l.mine, start);
        if (need.h && rows > 0) {
            const scan_i64 t = c.begin + (warp - warp % INSIDE) * SUB;
            if (t == 0) {
                load_state<V>(p.h0, state, l.mine, h);
            } else {
                load_state<V>(p.saved, saved_element(p, c.sequence, t, G::SAVE) + mine, l.mine, h);
            }
        }

        copy_wait(slots - 1);
        __syncwarp();
        float sub_p[V], sub_s[V], h_p[V], h_s[V];
#pragma unroll
        for (int i = 0; i < V; i++) {
            sub_p[i] = h_p[i] = 1.0f;
            sub_s[i] = h_s[i] = 0.0f;
        }
        const bool h_wanted = need.h && warp % INSIDE != INSIDE - 1;
        auto rebuild = [&](int row) {
            ForwardRow<T, V, SUB> in;
            in.load(stage, row, lane, need.b, false);
#pragma unroll
            for (int i = 0; i < V; i++) {
                h_s[i] = fmaf(in.a[i], h_s[i], in.x[i]);
                h_p[i] *= in.a[i];
            }
        };
        if (rows == SUB) {
#pragma unroll
            for (int row = SUB - 1; row >= 0; row--) row_of.aggregate(stage, row, sub_p, sub_s);
            if (h_wanted) {
#pragma unroll
                for (int row = 0; row < SUB; row++) rebuild(row);
            }
        } else {
            // A sub-chunk cut short is its sequence's last, so no other one needs h past it.
#pragma unroll 1
            for (int row = rows - 1; row >= 0; row--) row_of.aggregate(stage, row, sub_p, sub_s);
        }
#pragma unroll
        for (int i = 0; i < V; i++) {
            swap[warp * LANES + lane * V + i] = make_float4(sub_p[i], sub_s[i], h_p[i], h_s[i]);
        }
        __syncthreads();

        Carry<V> whole;  // warp 0: the chunk's aggregate
        if (warp == 0) {
            float none[V];
#pragma unroll
            for (int i = 0; i < V; i++) none[i] = 0.0f;
            whole.start(none);
            for (int j = subs - 1; j >= 0; j--) {
                float jp[V], js[V];
#pragma unroll
                for (int i = 0; i < V; i++) {
                    float4 ps = swap[j * LANES + lane * V + i];
                    jp[i] = ps.x;
                    js[i] = ps.y;
                }
                whole.pass(jp, js, false);
            }
            if (chain.ticket) {
#pragma unroll
                for (int i = 0; i < V; i++) {
                    publish(chain.column + k * LANES + lane * V + i,
                            c.last     ? publication(RESTART, fold(whole.p[i], start[i], whole.s[i]))
                            : c.exists ? publication(whole.p[i], whole.s[i])
                                       : publication(RESTART, 0.0f));
                }
            }
        }
        // Drawn here, since the wait for others hides the wait for the ticket.
        if (threadIdx.x == blockDim.x - 1) tickets[slot] = chain.draw(k + slots);
        if (c.last) {
            chain.followed = k;
        } else {
            chain.follow_to(k, carry);
        }
        if (warp == 0) {
            if (c.last) {
#pragma unroll
                for (int i = 0; i < V; i++) carry[i] = start[i];
            }
#pragma unroll
            for (int i = 0; i < V; i++) {
                entry[lane * V + i] = carry[i];
                carry[i] = fold(whole.p[i], carry[i], whole.s[i]);
            }
            if (c.first && p.dh0) store_state<V>(p.dh0, state, l.mine, carry);
        }
        chain.followed++;
        __syncthreads();

        if (rows > 0) {
            float q[V], before[SUB][V];
#pragma unroll
            for (int i = 0; i < V; i++) q[i] = entry[lane * V + i];
            for (int j = subs - 1; j > warp; j--) {
#pragma unroll
                for (int i = 0; i < V; i++) {
                    float4 ps = swap[j * LANES + lane * V + i];
                    q[i] = fold(ps.x, q[i], ps.y);
                }
            }
            if (need.h) {
                for (int j = warp - warp % INSIDE; j < warp; j++) {
#pragma unroll
                    for (int i = 0; i < V; i++) {
                        float4 ps = swap[j * LANES + lane * V + i];
                        h[i] = fold(ps.z, h[i], ps.w);
                    }
                }
            }
#pragma unroll
            for (int row = 0; row < SUB; row++) {
#pragma unroll
                for (int i = 0; i < V; i++) before[row][i] = need.h ? h[i] : 0.0f;
                if (need.h && row < rows) {
                    ForwardRow<T, V, SUB> in;
                    in.load(stage, row, lane, need.b, false);
#pragma unroll
                    for (int i = 0; i < V; i++) h[i] = fmaf(in.a[i], h[i], in.x[i]);
                }
            }
            const scan_i64 stride = c.sequence.step * channels;
            scan_i64 element = c.sequence.row(c.begin + warp * SUB + SUB - 1) * channels + mine;
#pragma unroll
            for (int row = SUB - 1; row >= 0; row--) {
                if (row < rows) row_of.step(stage, row, before[row], q, element);
                element -= stride;
            }
        }
        __syncwarp();
        copy(tickets[slot], slot);
        slot = slot + 1 == slots ? 0 : slot + 1;
        parity ^= 1;
    }
}
