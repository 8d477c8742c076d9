// Backward with time split over warps and blocks; the walk goes from the last chunk to the first.
//
// Tile and pipeline as in scan_forward_chunked. A warp folds its sub-chunk both ways: q for the carry, and h for the
// later sub-chunks of the same SAVE steps. What needs h alone (dc) is stored while the carry is on its way. What has to
// live through that wait in registers decides how long a chunk may be, and so how much a wait is worth.
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
    // [WARPS][V][32] for q, then for h
    Aggregate* const exchanged = reinterpret_cast<Aggregate*>(shared + BYTES);
    const Exchange<V, WARPS, true> exchange = {exchanged};
    const Exchange<V, WARPS, false> exchange_h = {exchanged + WARPS * LANES};
    Published* const staged = reinterpret_cast<Published*>(exchanged + 2 * WARPS * LANES);
    typedef Pack<float, V> Entry;
    Entry* const entry = reinterpret_cast<Entry*>(staged + G::FOLDB * LANES);  // [WARPS][32]: carries into sub-chunks
    Entry* const rebuilt = entry + WARPS * 32;  // [WARPS][32]: h before sub-chunks
    Chunk* const drawn = reinterpret_cast<Chunk*>(rebuilt + WARPS * 32);  // a ring of 3

    const scan_i64 channels = (scan_i64)p.channels, across = (channels + LANES - 1) / LANES;
    const scan_i64 columns = gridDim.x / p.workers, at = blockIdx.x % columns, row_index = at / across;
    const scan_i64 walk = walk_steps(p, G::CHUNKB);
    Chain<LANES, G::FOLDB, WARPS, 4, false> chain;
    chain.start(p, at, columns, walk, staged, reinterpret_cast<int*>(drawn + 3));
    const int warp = chain.warp, lane = chain.lane;
    const Lanes l = Lanes::at<V>(at % across, channels, lane);
    const scan_i64 mine = l.channel + lane * V;
    const BackwardNeeds need(p);
    const char* const stage = shared + warp * WARP_BYTES;

    auto copy = [&](const Chunk& c) {
        const int rows = c.len - warp * SUB;
        if (rows > 0) {
            backward_copy<T, In, V, SUB, G::FAST>(p, need, c.sequence, l, c.begin + warp * SUB,
                                                  rows < SUB ? rows : SUB, shared + warp * WARP_BYTES, lane);
        }
        copy_commit();
    };
    // Whether the next chunk's rows are asked for as soon as this one's are taken, or once all aggregates have come. The
    // choice costs code, so it is left to the kernels that are there for speed, where it was measured.
    const bool soon = SCAN_ARCH < 90 || !G::FAST || p.workers <= 2 * chain.FEW;
    const bool draws = threadIdx.x == blockDim.x - 1;
    auto place_chunk = [&](scan_i64 k, Chunk* to) {
        *to = chunk_at(p, row_index, k, walk, G::CHUNKB, G::SAVE, true);
    };
    if (threadIdx.x == 0) {
        place_chunk(chain.draw(0), drawn);
        place_chunk(chain.draw(1), drawn + 1);
    }
    __syncthreads();
    copy(drawn[0]);

    // Places in drawn: of this turn's chunk, of the next turn's, and of the one that this turn draws. What a chunk says is
    // read again where it is needed: across the wait for others every register is dear.
    int now = 0;
#pragma unroll 1
    for (;;) {
        const Chunk& c = drawn[now];
        const Chunk& next = drawn[now == 2 ? 0 : now + 1];
        Chunk* const later = drawn + (now ? now - 1 : 2);
        const scan_i64 k = c.step;
        if (k >= walk) break;
        auto rows_of = [&] {
            const int rest = c.len - warp * SUB;
            return rest < 0 ? 0 : rest < SUB ? rest : SUB;
        };
        auto store_at = [&] {
            const scan_i64 row = c.sequence.row(c.begin + warp * SUB);
            return GradientStore<T, V, SUB>{row * channels + mine, c.sequence.step * channels, rows_of(), l.mine};
        };
        auto state = [&] { return c.sequence.index * channels + mine; };
        const int subs = (c.len + SUB - 1) / SUB;
        float start[V] = {}, h[V] = {};
        if (c.last) {
            load_state<V>(p.dht, state(), l.mine, start);
            // An empty sequence.
            if (warp == 0 && c.first && p.dh0 && subs == 0) store_state<V>(p.dh0, state(), l.mine, start);
        }
        if (need.h && rows_of() > 0) {
            const scan_i64 t = c.begin + (warp - warp % INSIDE) * SUB;
            if (t == 0) {
                load_state<V>(p.h0, state(), l.mine, h);
            } else {
                load_state<V>(p.saved, saved_element(p, c.sequence, t, G::SAVE) + mine, l.mine, h);
            }
        }

        GradientSteps<T, In, V, SUB> in;
        chain.look_ahead(c.last ? chain.followed : k);
        copy_wait(1);
        __syncwarp();
        // Not rows == SUB for complete: ptxas 13.0 turns that, after a clamp, into a test with the wrong outcome.
        in.load(stage, TENSOR, lane, need, p.out_type, rows_of(), c.len - warp * SUB >= SUB);
        __syncwarp();
        if (soon) copy(next);

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
            const double begin = (double)(chain.channel() == 0 ? start[0] : start[V - 1]);
            whole = exchange.whole(lane, chain.channel(), subs);
            chain.publish_chunk(k, whole, begin, c.last, c.exists);
            if (c.last) chain.carry = begin;
        }
        // Drawn here and looked up below, since the wait for others hides the wait for the ticket.
        scan_i64 ticket = 0;
        if (draws) ticket = chain.draw(next.step + 1);

        in.stay_packed();
        if (need.h && rows_of() > 0) {
            double past[V];
#pragma unroll
            for (int i = 0; i < V; i++) past[i] = (double)h[i];
            for (int j = warp - warp % INSIDE; j < warp; j++) {
#pragma unroll
                for (int i = 0; i < V; i++) past[i] = exchange_h.get(j, lane, i).apply(past[i]);
            }
            Entry before;
#pragma unroll
            for (int i = 0; i < V; i++) before.v[i] = (float)past[i];
            rebuilt[warp * 32 + lane] = before;
            store_at().states(p, in, before.v);
        }
        if (c.last) {
            chain.followed = k;
        } else {
            chain.follow_to(k, soon ? 1 : 0);
        }
        if (!soon) copy(next);
        if (chain.leads()) {
            exchange.carries(lane, chain.channel(), subs, chain.carry, entry);
            chain.carry = whole.apply(chain.carry);
        }
        chain.followed++;
        if (draws) place_chunk(ticket, later);
        __syncthreads();

        in.stay_packed();
        if (rows_of() > 0) {
            Entry q = entry[warp * 32 + lane], before = {};
            if (need.h) before = rebuilt[warp * 32 + lane];
            store_at().carried(p, in, before.v, q.v);
            // The plain loop's last, one rounding closer than the carry.
            if (c.first && warp == 0 && p.dh0) store_state<V>(p.dh0, state(), l.mine, q.v);
        }
        now = now == 2 ? 0 : now + 1;
    }
}
