// Forward with time split over warps and blocks: for sequences too few to fill the chip by themselves.
//
// Tile: one chunk × 32 * V channels a block, one sub-chunk a warp. A warp copies its own rows to shared memory, takes
// them into registers, lets the next rows come in behind them, folds them into (P, S), and once the carry is there
// replays the plain loop. So memory is busy while the block waits for a carry.
// Traffic: as marching, and 8 bytes a channel and chunk published, read by each block of the column through L2.
#pragma once

#include "scan_chain.cuh"
#include "scan_forward.cuh"

template <typename T, typename Out>
SCAN_DEVICE void scan_forward_chunked(const ScanForward& p) {
    typedef Tuning<T> G;
    const int V = G::VC, SUB = G::SUB, WARPS = G::CHUNK / SUB, LANES = 32 * V;
    const int TENSOR = SUB * LANES * (int)sizeof(T), WARP_BYTES = 4 * TENSOR, BYTES = WARPS * WARP_BYTES;
    SCAN_SHARED(shared);
    const int slots = (int)p.stages;
    typedef Exchanged<float2, V> Swap;
    Swap* const exchange = reinterpret_cast<Swap*>(shared + slots * BYTES);  // [2][WARPS][32]
    Published* const staged = reinterpret_cast<Published*>(exchange + 2 * WARPS * 32);
    float* const entry = reinterpret_cast<float*>(staged + G::FOLD * LANES);
    scan_i64* const tickets = reinterpret_cast<scan_i64*>(entry + LANES);  // [slots + 1], at most 7

    const scan_i64 channels = (scan_i64)p.channels, across = (channels + LANES - 1) / LANES;
    const scan_i64 columns = gridDim.x / p.workers, at = blockIdx.x % columns, row_index = at / across;
    const scan_i64 walk = walk_steps(p, G::CHUNK);
    Chain<LANES, G::FOLD> chain;
    chain.start(p, at, columns, walk, staged, reinterpret_cast<int*>(tickets + 7));
    const int warp = chain.warp, lane = chain.lane;
    const Lanes l = Lanes::at<V>(at % across, channels, lane);
    const scan_i64 mine = l.channel + lane * V;
    const bool has_b = p.b != 0, has_c = forward_reads_c(p);
    const bool full = p.saved && (p.flags & SCAN_FULL_H), chunks = p.saved && !full;
    const bool vector = V == 1 || p.out_access >= V * type_size(p.out_type);

    auto copy = [&](scan_i64 k, int slot) {
        if (k < walk) {
            const Chunk c = chunk_at(p, row_index, k, G::CHUNK, G::SAVE);
            const int rows = c.len - warp * SUB;
            if (rows > 0) {
                forward_copy<T, V, SUB>(p, c.sequence, l, c.begin + warp * SUB, rows < SUB ? rows : SUB,
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
        const Chunk c = chunk_at(p, row_index, k, G::CHUNK, G::SAVE);
        const char* const stage = shared + slot * BYTES + warp * WARP_BYTES;
        // Not rows == SUB for complete: ptxas 13.0 turns that, after a clamp, into a test with the wrong outcome.
        const int rest = c.len - warp * SUB;
        const bool complete = rest >= SUB;
        const int rows = complete ? SUB : rest < 0 ? 0 : rest;
        const int subs = (c.len + SUB - 1) / SUB;
        Swap* const swap = exchange + parity * WARPS * 32 + lane;
        const scan_i64 state = c.sequence.index * channels + mine;
        float start[V] = {};
        if (c.first) load_state<V>(p.h0, state, l.mine, start);

        copy_wait(slots - 1);
        __syncwarp();
        Steps<T, V, SUB> steps;
        steps.load(stage, TENSOR, lane, has_b, rows, complete);
        Rows<T, V, SUB> gate;
        if (has_c) gate.load(stage + C * TENSOR, lane);
        __syncwarp();
        copy(tickets[ahead], slot);

        float sub_p[V], sub_s[V];
#pragma unroll
        for (int i = 0; i < V; i++) {
            sub_p[i] = 1.0f;
            sub_s[i] = 0.0f;
        }
        steps.aggregate(sub_p, sub_s);
        Swap mine_out;
#pragma unroll
        for (int i = 0; i < V; i++) {
            sub_p[i] = finite(sub_p[i]);
            mine_out.v[i] = make_float2(sub_p[i], sub_s[i]);
        }
        swap[warp * 32] = mine_out;
        __syncthreads();

        Carry<V> whole;
        if (warp == 0 || full) chunk_aggregate<V, WARPS, false>(whole, swap, subs);
        if (warp == 0) chain.template publish_chunk<V>(k, whole, start, c.first, c.exists);
        // Drawn here, since the wait for others hides the wait for the ticket.
        scan_i64 drawn = 0;
        if (threadIdx.x == blockDim.x - 1) drawn = chain.draw(turn + slots + 1);
        if (c.first) {
            chain.followed = k;
        } else {
            chain.follow_to(k, carry);
        }
        if (threadIdx.x == blockDim.x - 1) tickets[now] = drawn;
        if (warp == 0) {
#pragma unroll
            for (int i = 0; i < V; i++) {
                if (c.first) carry[i] = start[i];
                entry[lane * V + i] = carry[i];
                carry[i] = fold(whole.p[i], carry[i], whole.s[i]);
            }
            if (c.last && p.ht) store_state<V>(p.ht, state, l.mine, carry);
        }
        chain.followed++;
        __syncthreads();

        float h[V], in[V];
#pragma unroll
        for (int i = 0; i < V; i++) h[i] = in[i] = entry[lane * V + i];
        carry_to<V, WARPS, false>(h, swap, warp, subs);
        if (rows > 0) {
            const scan_i64 t = c.begin + warp * SUB, stride = c.sequence.step * channels;
            const scan_i64 element = c.sequence.row(t) * channels + mine;
            if (chunks && t % G::SAVE == 0) {
                store_state<V>(p.saved, saved_element(p, c.sequence, t, G::SAVE) + mine, l.mine, h);
            }
            if (full) {
                // The last step of a sub-chunk holds the carry, so that backward finds the same state as in chunk states.
                float after[V];
#pragma unroll
                for (int i = 0; i < V; i++) {
                    after[i] = warp == subs - 1 ? fold(whole.p[i], in[i], whole.s[i]) : fold(sub_p[i], h[i], sub_s[i]);
                }
                steps.replay(h);
                store_rows<float, V, SUB>(p.saved, element, stride, steps.u, rows, complete, l.mine, false);
                store_state<V>(p.saved, element + (rows - 1) * stride, l.mine, after);
            } else {
                steps.replay(h);
            }
            if (p.y) {
                if (has_c) {
#pragma unroll
                    for (int r = 0; r < SUB; r++) {
#pragma unroll
                        for (int i = 0; i < V; i++) steps.u[r][i] *= gate.get(r, i);
                    }
                }
                OutRows<Out, V, SUB>::store(p.out_type, p.y, element, stride, steps.u, rows, complete, l.mine, vector);
            }
        }
        slot = slot + 1 == slots ? 0 : slot + 1;
        ahead = now;
        now = now == slots ? 0 : now + 1;
        parity ^= 1;
    }
}
