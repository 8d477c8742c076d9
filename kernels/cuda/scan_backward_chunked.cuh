// Backward with time split over warps and blocks; the walk goes from the last chunk to the first.
//
// Tile and pipeline as in scan_forward_chunked. A warp folds its sub-chunk both ways: q for the carry, and h for the
// later sub-chunks of the same SAVE steps. What needs h alone (dc) is stored while the carry is on its way.
// Traffic: as marching, and 8 bytes a channel and chunk published, read by each block of the column through L2.
#pragma once

#include "scan_backward.cuh"
#include "scan_chain.cuh"

template <typename T, typename In>
SCAN_DEVICE void scan_backward_chunked(const ScanBackward& p) {
    typedef Tuning<T> G;
    const int V = G::VCB, SUB = G::SUB, WARPS = G::CHUNKB / SUB, LANES = 32 * V, INSIDE = G::SAVE / SUB;
    const int TENSOR = SUB * LANES * (int)sizeof(T);
    const int WARP_BYTES = 4 * TENSOR + SUB * LANES * DyRows<In, V, SUB>::SIZE, BYTES = WARPS * WARP_BYTES;
    SCAN_SHARED(shared);
    const int slots = (int)p.stages;
    float4* const exchange = reinterpret_cast<float4*>(shared + slots * BYTES);  // [2][WARPS][LANES]: P, S, h's P, S
    Published* const staged = reinterpret_cast<Published*>(exchange + 2 * WARPS * LANES);
    float* const entry = reinterpret_cast<float*>(staged + G::FOLD * LANES);
    scan_i64* const tickets = reinterpret_cast<scan_i64*>(entry + LANES);  // [slots + 1]

    const scan_i64 channels = (scan_i64)p.channels, across = (channels + LANES - 1) / LANES;
    const scan_i64 columns = gridDim.x / p.workers, at = blockIdx.x % columns, row_index = at / across;
    const scan_i64 walk = walk_steps(p, G::CHUNKB);
    Chain<LANES, G::FOLD> chain;
    chain.start(p, at, columns, walk, staged);
    const int warp = chain.warp, lane = chain.lane;
    const Lanes l = Lanes::at<V>(at % across, channels, lane);
    const scan_i64 mine = l.channel + lane * V;
    const BackwardNeeds need(p);
    const bool vector = V == 1 || p.access >= V * sizeof(T);

    auto copy = [&](scan_i64 k, int slot) {
        if (k < walk) {
            const Chunk c = chunk_at(p, row_index, walk - 1 - k, G::CHUNKB, G::SAVE);
            const int rows = c.len - warp * SUB;
            if (rows > 0) {
                backward_copy<T, In, V, SUB>(p, need, c.sequence, l, c.begin + warp * SUB, rows < SUB ? rows : SUB,
                                             shared + slot * BYTES + warp * WARP_BYTES, lane);
            }
        }
        copy_commit();
    };
    if (threadIdx.x == 0) {
        for (int i = 0; i <= slots; i++) tickets[i] = chain.draw(i);
    }
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < slots; i++) copy(tickets[i], i);

    float carry[V] = {};
    int slot = 0, parity = 0, now = 0, ahead = slots;  // places in tickets: this chunk's, the next to copy
#pragma unroll 1
    for (scan_i64 turn = 0;; turn++) {
        const scan_i64 k = tickets[now];
        if (k >= walk) break;
        const Chunk c = chunk_at(p, row_index, walk - 1 - k, G::CHUNKB, G::SAVE);
        const char* const stage = shared + slot * BYTES + warp * WARP_BYTES;
        const int rest = c.len - warp * SUB;
        const bool complete = rest >= SUB;
        const int rows = complete ? SUB : rest < 0 ? 0 : rest;
        const int subs = (c.len + SUB - 1) / SUB;
        float4* const swap = exchange + parity * WARPS * LANES;
        const scan_i64 state = c.sequence.index * channels + mine;
        float start[V] = {}, h[V] = {};
        if (c.last) load_state<V>(p.dht, state, l.mine, start);
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
        GradientSteps<T, In, V, SUB> in;
        in.load(stage, TENSOR, lane, need, p.out_type, rows, complete);
        __syncwarp();
        copy(tickets[ahead], slot);

        float sub_p[V], sub_s[V], h_p[V], h_s[V];
#pragma unroll
        for (int i = 0; i < V; i++) {
            sub_p[i] = h_p[i] = 1.0f;
            sub_s[i] = h_s[i] = 0.0f;
        }
        in.aggregate(sub_p, sub_s);
        if (need.h && warp % INSIDE != INSIDE - 1) in.aggregate_h(h_p, h_s);
#pragma unroll
        for (int i = 0; i < V; i++) {
            swap[warp * LANES + lane * V + i] = make_float4(finite(sub_p[i]), sub_s[i], finite(h_p[i]), h_s[i]);
        }
        __syncthreads();

        Carry<V> whole;
        if (warp == 0) {
            chunk_aggregate<V, WARPS, true>(whole, swap + lane * V, subs, LANES);
            chain.template publish_chunk<V>(k, whole, start, c.last, c.exists);
        }
        // Drawn here, since the wait for others hides the wait for the ticket.
        if (threadIdx.x == blockDim.x - 1) tickets[now] = chain.draw(turn + slots + 1);

        float before[SUB][V] = {};
        const scan_i64 t = c.begin + warp * SUB;
        const GradientStore<T, V, SUB> to = {c.sequence.row(t) * channels + mine, c.sequence.step * channels, rows,
                                             l.mine, complete, vector};
        if (need.h && rows > 0) {
            for (int j = warp - warp % INSIDE; j < warp; j++) {
#pragma unroll
                for (int i = 0; i < V; i++) {
                    float4 ps = swap[j * LANES + lane * V + i];
                    h[i] = fold(ps.z, h[i], ps.w);
                }
            }
            in.replay(h, before);
            to.states(p, in, before);
        }
        if (c.last) {
            chain.followed = k;
        } else {
            chain.follow_to(k, carry);
        }
        if (warp == 0) {
#pragma unroll
            for (int i = 0; i < V; i++) {
                if (c.last) carry[i] = start[i];
                entry[lane * V + i] = carry[i];
                carry[i] = fold(whole.p[i], carry[i], whole.s[i]);
            }
            if (c.first && p.dh0) store_state<V>(p.dh0, state, l.mine, carry);
        }
        chain.followed++;
        __syncthreads();

        if (rows > 0) {
            float q[V];
#pragma unroll
            for (int i = 0; i < V; i++) q[i] = entry[lane * V + i];
#pragma unroll
            for (int j = WARPS - 1; j > 0; j--) {
#pragma unroll
                for (int i = 0; i < V; i++) {
                    float4 ps = swap[j * LANES + lane * V + i];
                    if (j > warp && j < subs) q[i] = fold(ps.x, q[i], ps.y);
                }
            }
            to.carried(p, in, before, q);
        }
        slot = slot + 1 == slots ? 0 : slot + 1;
        ahead = now;
        now = now == slots ? 0 : now + 1;
        parity ^= 1;
    }
}
