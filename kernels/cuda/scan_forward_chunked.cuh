// Forward with time split over warps and blocks: for sequences too few to fill the chip by themselves.
//
// Tile: one chunk × 32 * V channels a block, one sub-chunk a warp. A warp copies its own rows to shared memory, takes
// them into registers, folds them into (P, S), and once the carry is there replays the plain loop. The next rows come in
// behind these: while the block waits for the carry, where few blocks share a column, and while it replays.
// Traffic: as marching, and for each channel and chunk the 16 bytes of its aggregate, published and read through L2 by every
// block of the column, or by those that find no newer carry: 8 bytes more where blocks are many.
#pragma once

#include "scan_chain.cuh"
#include "scan_forward.cuh"

template <typename T, typename Out>
SCAN_DEVICE void scan_forward_chunked(const ScanForward& p) {
    typedef Tuning<T, Out> G;
    const int V = G::VC, SUB = G::SUB, WARPS = G::CHUNK / SUB, LANES = 32 * V;
    const int TENSOR = SUB * LANES * (int)sizeof(T), WARP_BYTES = 4 * TENSOR, BYTES = WARPS * WARP_BYTES;
    SCAN_SHARED(shared);
    Aggregate* const exchanged = reinterpret_cast<Aggregate*>(shared + BYTES);  // [WARPS][V][32]
    const Exchange<V, WARPS, false> exchange = {exchanged};
    Published* const staged = reinterpret_cast<Published*>(exchanged + WARPS * LANES);
    typedef Pack<float, V> Entry;
    Entry* const entry = reinterpret_cast<Entry*>(staged + G::FOLD * LANES);  // [WARPS][32]: carries into sub-chunks
    Chunk* const drawn = reinterpret_cast<Chunk*>(entry + WARPS * 32);  // a ring of 3

    const scan_i64 channels = (scan_i64)p.channels, across = (channels + LANES - 1) / LANES;
    const scan_i64 columns = gridDim.x / p.workers, at = blockIdx.x % columns, row_index = at / across;
    const scan_i64 walk = walk_steps(p, G::CHUNK);
    // With one channel a lane aggregates are half the bytes, and asking for them early is worth more.
    const bool SKIPS = SCAN_ARCH >= 90 && G::FAST && V > 1;
    Chain<LANES, G::FOLD, WARPS, V == 1 ? 4 : 2, SKIPS> chain;
    chain.start(p, at, columns, walk, staged, reinterpret_cast<int*>(drawn + 3));
    const int warp = chain.warp, lane = chain.lane;
    const Lanes l = Lanes::at<V>(at % across, channels, lane);
    const scan_i64 mine = l.channel + lane * V;
    const bool has_b = p.b != 0, has_c = forward_reads_c(p);
    const bool full = p.saved && (p.flags & SCAN_FULL_H), chunks = p.saved && !full;
    const char* const stage = shared + warp * WARP_BYTES;

    auto copy = [&](const Chunk& c) {
        const int rows = c.len - warp * SUB;
        if (rows > 0) {
            forward_copy<T, V, SUB, G::FAST>(p, c.sequence, l, c.begin + warp * SUB, rows < SUB ? rows : SUB,
                                             shared + warp * WARP_BYTES, lane);
        }
        copy_commit();
    };
    // Whether the next chunk's rows are asked for before the aggregates have come, or behind them. The choice costs code,
    // so it is left to the kernels that are there for speed, where it was measured.
    const bool soon = SCAN_ARCH < 90 || !G::FAST || p.workers <= chain.FEW;
    const bool skips = SKIPS && !soon && p.workers > chain.MANY;
    const bool draws = threadIdx.x == blockDim.x - 1, scout = skips && draws;
    auto place_chunk = [&](scan_i64 k, Chunk* to) {
        *to = chunk_at(p, row_index, k, walk, G::CHUNK, G::SAVE, false);
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
        auto state = [&] { return c.sequence.index * channels + mine; };
        const int subs = (c.len + SUB - 1) / SUB;
        float start[V] = {};
        if (c.first) {
            load_state<V>(p.h0, state(), l.mine, start);
            // An empty sequence.
            if (warp == 0 && c.last && p.ht && subs == 0) store_state<V>(p.ht, state(), l.mine, start);
        }

        Steps<T, V, SUB> steps;
        Rows<T, V, SUB> gate;
        chain.look_ahead(c.first || skips ? chain.followed : k);
        copy_wait(1);
        __syncwarp();
        int newest = -1;
        if (scout) newest = peek(chain.newest);
        // Not rows == SUB for complete: ptxas 13.0 turns that, after a clamp, into a test with the wrong outcome.
        steps.load(stage, TENSOR, lane, has_b, rows_of(), c.len - warp * SUB >= SUB);
        if (has_c) gate.load(stage + C * TENSOR, lane);
        __syncwarp();
        StepAggregate sub[V];
#pragma unroll
        for (int i = 0; i < V; i++) sub[i] = StepAggregate::none();
        steps.aggregate(sub);
        exchange.put(warp, lane, sub);
        if (scout) *chain.known = newest + 1;
        __syncthreads();

        Aggregate whole;
        if (chain.leads()) {
            const double begin = (double)(chain.channel() == 0 ? start[0] : start[V - 1]);
            whole = exchange.whole(lane, chain.channel(), subs);
            chain.publish_chunk(k, whole, begin, c.first, c.exists);
            if (c.first) chain.carry = begin;
        }
        copy_wait(0);
        if (skips && !c.first) chain.skip(k);
        if (!c.first) chain.look_again(k);
        if (soon) copy(next);
        // Drawn here and looked up below, since the wait for others hides the wait for the ticket.
        scan_i64 ticket = 0;
        if (draws) ticket = chain.draw(next.step + 1);
        if (c.first) {
            chain.followed = k;
        } else {
            chain.follow_to(k, soon ? 1 : 0);
        }
        if (!soon) copy(next);
        if (chain.leads()) {
            if (skips) chain.publish_carry(k, whole.apply(chain.carry));
            exchange.carries(lane, chain.channel(), subs, chain.carry, entry);
            chain.carry = whole.apply(chain.carry);
        }
        chain.followed++;
        if (draws) place_chunk(ticket, later);
        __syncthreads();

        steps.a.stay_packed();
        gate.stay_packed();
        const int rows = rows_of();
        if (rows > 0) {
            Entry h = entry[warp * 32 + lane];
            const scan_i64 t = c.begin + warp * SUB, stride = c.sequence.step * channels;
            const scan_i64 element = c.sequence.row(t) * channels + mine;
            const bool ends = c.last && c.len - warp * SUB <= SUB;
            if (chunks && t % G::SAVE == 0) {
                store_state<V>(p.saved, saved_element(p, c.sequence, t, G::SAVE) + mine, l.mine, h.v);
            }
            // The last step of a sub-chunk is the carry, which whoever begins from it knows.
            if (full && t > 0) store_state<V>(p.saved, element - stride, l.mine, h.v);
            steps.replay(h.v);
            if (full) store_h<V, SUB>(p.saved, element, stride, steps.u, ends ? rows : rows - 1, l.mine);
            // The plain loop's last state, one rounding closer than the carry.
            if (p.ht && ends) store_state<V>(p.ht, state(), l.mine, h.v);
            if (p.y) {
                if (has_c) {
#pragma unroll
                    for (int r = 0; r < SUB; r++) {
#pragma unroll
                        for (int i = 0; i < V; i++) steps.u[r][i] *= gate.get(r, i);
                    }
                }
                OutRows<Out, V, SUB>::store(p.out_type, p.y, element, stride, steps.u, rows, l.mine);
            }
        }
        now = now == 2 ? 0 : now + 1;
    }
}
