// Backward with time split over warps and blocks; the walk goes from the last chunk to the first.
//
// Tile and pipeline as in scan_forward_chunked. A warp folds its sub-chunk both ways: q for the carry, and h for the
// later sub-chunks of the same SAVE steps. What needs h alone (dc) is stored while the carry is on its way.
// Traffic: as marching, and 16 bytes a channel and chunk published, read by each block of the column through L2.
#pragma once

#include "scan_backward.cuh"
#include "scan_chain.cuh"

template <typename T, typename In>
SCAN_DEVICE void scan_backward_chunked(const ScanBackward& p) {
    typedef Tuning<T, In> G;
    const int V = G::VCB, SUB = G::SUB, WARPS = G::CHUNKB / SUB, LANES = 32 * V, INSIDE = G::SAVE / SUB;
    const int TENSOR = SUB * LANES * (int)sizeof(T);
    const int WARP_BYTES = 4 * TENSOR + SUB * LANES * DyRows<In, V, SUB>::SIZE, BYTES = WARPS * WARP_BYTES;
    SCAN_SHARED(shared);
    const int slots = (int)p.stages;
    // [WARPS][V][32] for q, then for h
    Aggregate* const exchanged = reinterpret_cast<Aggregate*>(shared + slots * BYTES);
    const Exchange<V, WARPS, false> exchange_h = {exchanged + WARPS * LANES};
    Published* const staged = reinterpret_cast<Published*>(exchanged + 2 * WARPS * LANES);
    typedef Pack<float, V> Entry;
    Entry* const entry = reinterpret_cast<Entry*>(staged + G::FOLDB * LANES);  // [WARPS][32]: carries into sub-chunks
    Chunk* const drawn = reinterpret_cast<Chunk*>(entry + WARPS * 32);  // [slots + 2], at most 6

    const scan_i64 channels = (scan_i64)p.channels, across = (channels + LANES - 1) / LANES;
    const scan_i64 columns = gridDim.x / p.workers, at = blockIdx.x % columns, row_index = at / across;
    const scan_i64 walk = walk_steps(p, G::CHUNKB);
    Chain<LANES, G::FOLDB, WARPS, 4, false> chain;
    chain.start(p, at, columns, walk, staged, reinterpret_cast<int*>(drawn + 6));
    const int warp = chain.warp, lane = chain.lane;
    const Lanes l = Lanes::at<V>(at % across, channels, lane);
    const scan_i64 mine = l.channel + lane * V;
    const BackwardNeeds need(p);

    auto copy = [&](const Chunk& c, int slot) {
        const int rows = c.len - warp * SUB;
        if (rows > 0) {
            backward_copy<T, In, V, SUB, G::FAST>(p, need, c.sequence, l, c.begin + warp * SUB,
                                                  rows < SUB ? rows : SUB, shared + slot * BYTES + warp * WARP_BYTES,
                                                  lane);
        }
        copy_commit();
    };
    // Whether the next chunk's rows are asked for as soon as this one's are taken, or once all aggregates have come. The
    // choice costs code, so it is left to the kernels that are there for speed, where it was measured.
    const bool few = p.workers == 1 ? !p.b && !p.c : p.workers <= chain.FEW;
    const bool soon = SCAN_ARCH < 90 || !G::FAST || few;
    auto place_chunk = [&](scan_i64 k, Chunk* to) {
        *to = chunk_at(p, row_index, k, walk, G::CHUNKB, G::SAVE, true);
    };
    if (threadIdx.x == 0) {
        for (int i = 0; i <= slots; i++) place_chunk(chain.draw(i), drawn + i);
    }
    __syncthreads();

    // Places: of this turn's chunk in drawn and in shared memory. The one drawn next goes before this turn's, whose
    // place is free by then.
    const int ring = slots + 2;
    int now = 2, slot = 0;
    // The first turns only copy.
#pragma unroll 1
    for (scan_i64 turn = -slots;; turn++) {
        const Chunk& c = drawn[now];
        const scan_i64 k = c.step;
        if (turn >= 0 && k >= walk) break;
        const char* const stage = shared + slot * BYTES + warp * WARP_BYTES;
        const int rest = c.len - warp * SUB;
        const bool complete = rest >= SUB;
        const int rows = complete ? SUB : rest < 0 ? 0 : rest;
        const int subs = (c.len + SUB - 1) / SUB;
        const Exchange<V, WARPS, true> exchange = {exchanged};
        const scan_i64 state = c.sequence.index * channels + mine;
        float start[V] = {}, h[V] = {};
        if (turn >= 0 && c.last) load_state<V>(p.dht, state, l.mine, start);
        auto begin = [&] { return (double)(chain.channel() == 0 ? start[0] : start[V - 1]); };
        if (turn >= 0 && need.h && rows > 0) {
            const scan_i64 t = c.begin + (warp - warp % INSIDE) * SUB;
            if (t == 0) {
                load_state<V>(p.h0, state, l.mine, h);
            } else {
                load_state<V>(p.saved, saved_element(p, c.sequence, t, G::SAVE) + mine, l.mine, h);
            }
        }

        GradientSteps<T, In, V, SUB> in;
        if (turn >= 0) {
            chain.look_ahead(c.last ? chain.followed : k);
            copy_wait(slots - 1 + (turn < slots ? (int)turn + 1 : slots));
            __syncwarp();
            in.load(stage, TENSOR, lane, need, p.out_type, rows, complete);
            __syncwarp();
        }
        const Chunk& following = drawn[now < 2 ? now + ring - 2 : now - 2];
        const int freed = slot;
        if (turn < 0 || soon) copy(following, freed);
        Chunk* const free_place = drawn + (now == 0 ? ring - 1 : now - 1);
        slot = slot + 1 == slots ? 0 : slot + 1;
        now = now + 1 == ring ? 0 : now + 1;
        if (turn < 0) continue;

        StepAggregate sub[V];
#pragma unroll
        for (int i = 0; i < V; i++) sub[i] = StepAggregate::none();
        in.aggregate(sub);
        exchange.put(warp, lane, sub);
        if (need.h && warp % INSIDE != INSIDE - 1) {
#pragma unroll
            for (int i = 0; i < V; i++) sub[i] = StepAggregate::none();
            in.aggregate_h(sub);
            exchange_h.put(warp, lane, sub);
        }
        __syncthreads();

        Aggregate whole;
        if (chain.leads()) {
            whole = exchange.whole(lane, chain.channel(), subs);
            chain.publish_chunk(k, whole, begin(), c.last, c.exists);
        }
        // Drawn here and looked up below, since the wait for others hides the wait for the ticket.
        scan_i64 ticket = 0;
        if (threadIdx.x == blockDim.x - 1) ticket = chain.draw(turn + slots + 1);

        in.stay_packed();
        float before[SUB][V] = {};
        const scan_i64 t = c.begin + warp * SUB;
        const GradientStore<T, V, SUB> to = {c.sequence.row(t) * channels + mine, c.sequence.step * channels, rows,
                                             l.mine};
        if (need.h && rows > 0) {
            double now[V];
#pragma unroll
            for (int i = 0; i < V; i++) now[i] = (double)h[i];
            for (int j = warp - warp % INSIDE; j < warp; j++) {
#pragma unroll
                for (int i = 0; i < V; i++) now[i] = exchange_h.get(j, lane, i).apply(now[i]);
            }
#pragma unroll
            for (int i = 0; i < V; i++) h[i] = (float)now[i];
            in.replay(h, before);
            to.states(p, in, before);
        }
        if (c.last) {
            chain.followed = k;
        } else {
            chain.follow_to(k, soon ? 1 : 0);
        }
        if (!soon) copy(following, freed);
        if (chain.leads()) {
            if (c.last) chain.carry = begin();
            exchange.carries(lane, chain.channel(), subs, chain.carry, entry);
            chain.carry = whole.apply(chain.carry);
        }
        if (warp == 0 && c.first && p.dh0 && subs == 0) store_state<V>(p.dh0, state, l.mine, start);
        chain.followed++;
        if (threadIdx.x == blockDim.x - 1) place_chunk(ticket, free_place);
        __syncthreads();

        in.stay_packed();
        if (rows > 0) {
            const Entry into = entry[warp * 32 + lane];
            float q[V];
#pragma unroll
            for (int i = 0; i < V; i++) q[i] = into.v[i];
            to.carried(p, in, before, q);
            // The plain loop's last, one rounding closer than the carry.
            if (c.first && warp == 0 && p.dh0) store_state<V>(p.dh0, state, l.mine, q);
        }
    }
}
