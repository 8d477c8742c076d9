// The carry across blocks, for the Chunked kernels: every block of a column follows the column's chunks for itself.
//
// A block that holds a chunk publishes its aggregate (P, S), which depends on the block's inputs alone, before it waits
// for anything. To find the carry into its chunk it applies all aggregates since the last chunk it held, in order. So
// there is no chain of blocks handing a carry on: one store and one load lie between the slowest aggregate and everyone
// who needs it. The first chunk of a sequence knows its entry, so it publishes its end as a restart. Where blocks are many
// they publish their carries too, and who comes later begins from the newest that is known instead of its own: nobody
// waits for one, and what lies before it need not be read.
//
// No deadlock: chunks are drawn by ticket, so all chunks before one that is drawn are drawn too, by blocks that run;
// and of the drawn chunks that are not published, the one with the lowest ticket waits for nothing. A publication is
// two aligned 64-bit stores, each of which carries its own flag (all bits set means not yet), so nothing has to be fenced.
#pragma once

#include "scan_copy.cuh"
#include "scan_grid.cuh"

// Half an aggregate: P or S, all bits set while it is not there. Each half is read whole; the two need not be of one
// moment. RESTART in place of P: the carry after this chunk is S.
typedef scan_u64 Half;
struct alignas(16) Published {
    Half p, s;
};
const Half NOT_YET = ~0ull, RESTART = ~0ull - 1;

// P is finite. S may be NaN, but not the NaN of NOT_YET.
SCAN_DEVICE Half half_bits(double v) {
    return v == v ? (Half)__double_as_longlong(v) : 0x7fffffffffffffffull;
}
#ifndef SCAN_HOST
SCAN_DEVICE void publish(Half* at, Half v) {
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(at), "l"(v) : "memory");
}
SCAN_DEVICE Half peek(const Half* at) {
    Half v;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(v) : "l"(at) : "memory");
    return v;
}
SCAN_DEVICE int peek(const int* at) {
    int v;
    asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(v) : "l"(at) : "memory");
    return v;
}
SCAN_DEVICE Published peek(const Published* at) {
    Published v;
    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(v.p), "=l"(v.s) : "l"(at) : "memory");
    return v;
}
SCAN_DEVICE void poll_pause() {}
#else
template <typename T>
SCAN_DEVICE T peek(const T* at) {
    return *at;
}
#endif

// One chunk of the walk along a column.
struct Chunk {
    Sequence sequence;
    scan_i64 step;   // of the walk; there is nothing in a chunk past its end
    scan_i64 begin;  // scan time
    int len;         // 0 past the end of a packed sequence's share of the walk, and for an empty sequence
    bool exists;     // an empty sequence has one chunk, of no steps
    bool first, last;  // in scan time
};

// Where step k of the walk lies, which has `walk` steps; `back` walks from the last chunk to the first. Packed sequences
// share one walk, sequence i beginning at step cu[i] / CHUNK + i of the way forward.
template <typename Params>
SCAN_DEVICE Chunk chunk_at(const Params& p, scan_i64 row, scan_i64 step, scan_i64 walk, int chunk, int save,
                           bool back) {
    Chunk c = {};
    c.step = step;
    if (step >= walk) return c;
    const scan_i64 k = back ? walk - 1 - step : step;
    scan_i64 index = row, first = 0;
    if (p.flags & SCAN_PACKED) {
        scan_i64 low = 0, high = (scan_i64)p.sequences - 1;
#pragma unroll 1
        while (low < high) {
            scan_i64 middle = (low + high + 1) / 2;
            if (packed_offset(p, middle) / chunk + middle <= k) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        index = low;
        first = packed_offset(p, index) / chunk + index;
    }
    c.sequence = sequence_at(p, index, save);
    c.begin = (k - first) * chunk;
    scan_i64 left = c.sequence.len - c.begin;
    c.len = left < 0 ? 0 : left < chunk ? (int)left : chunk;
    c.first = c.begin == 0;
    c.exists = c.len > 0 || c.first;
    c.last = c.exists && left <= chunk;
    return c;
}

template <typename Params>
SCAN_DEVICE scan_i64 walk_steps(const Params& p, int chunk) {
    scan_i64 len = (scan_i64)p.len;
    if (p.flags & SCAN_PACKED) return len / chunk + (scan_i64)p.sequences;
    return len ? (len + chunk - 1) / chunk : 1;
}

// What the warps of a block tell each other of their sub-chunks, in shared memory: of V channels a lane.
template <int V, int WARPS, bool BACK>
struct Exchange {
    Aggregate* of;  // [WARPS][V][32], of lane 0

    SCAN_DEVICE void put(int warp, int lane, const StepAggregate (&sub)[V]) const {
#pragma unroll
        for (int i = 0; i < V; i++) of[(warp * V + i) * 32 + lane] = sub[i].settled();
    }
    SCAN_DEVICE Aggregate get(int warp, int lane, int i) const { return of[(warp * V + i) * 32 + lane]; }

    // The chunk's aggregate, of channel i of a lane. BACK takes the last first. Most chunks are full, and where nothing is
    // chosen between the products are all that is waited for; that costs code, which is left to where it was measured.
    SCAN_DEVICE Aggregate whole(int lane, int i, int subs) const {
        return SCAN_ARCH >= 90 && subs == WARPS ? whole_of<true>(lane, i, subs) : whole_of<false>(lane, i, subs);
    }
    // No branches: the loads go out together.
    template <bool FULL>
    SCAN_DEVICE Aggregate whole_of(int lane, int i, int subs) const {
        const int GROUP = WARPS < 8 ? WARPS : 8, AT_ONCE = WARPS % GROUP ? WARPS / GROUP + 1 : 1;
        ChunkAggregate chunk = ChunkAggregate::none();
#pragma unroll AT_ONCE
        for (int n = 0; n < WARPS; n += GROUP) {
#pragma unroll
            for (int k = n; k < n + GROUP; k++) {
                if (WARPS % GROUP && k >= WARPS) break;
                const int j = BACK ? WARPS - 1 - k : k;
                chunk.append(get(j, lane, i), FULL || j < subs);
            }
            chunk.close();
        }
        return chunk.whole();
    }
    // The carries into all sub-chunks, from the one into the chunk: one warp a channel finds them, the others pick theirs
    // up. A few at a time, loads before stores, so that the loads overlap.
    SCAN_DEVICE void carries(int lane, int i, int subs, double carry, Pack<float, V>* entry) const {
        const int FEW = WARPS % 8 == 0 ? 8 : WARPS % 4 == 0 ? 4 : 2;
        static_assert(WARPS % FEW == 0, "sub-chunks go in pairs");
#pragma unroll 1
        for (int n = 0; n < WARPS; n += FEW) {
            Aggregate from[FEW];
            float into[FEW];
#pragma unroll
            for (int k = 0; k < FEW; k++) from[k] = get(BACK ? WARPS - 1 - n - k : n + k, lane, i);
#pragma unroll
            for (int k = 0; k < FEW; k++) {
                into[k] = (float)carry;
                const double next = from[k].apply(carry);
                carry = !BACK || WARPS - 1 - n - k < subs ? next : carry;
            }
#pragma unroll
            for (int k = 0; k < FEW; k++) entry[(BACK ? WARPS - 1 - n - k : n + k) * 32 + lane].v[i] = into[k];
        }
    }
};

// A block's share of a column: draws chunks, publishes, follows. What goes from chunk to chunk is a chain for each
// channel, which one warp has for a channel of every lane: `leads` says whether this one does, and of which channel. FOLD
// rows of aggregates fit into shared memory, in two halves: one is folded by those warps while the others bring the next
// rows into the other. SKIPS: carries are published too.
template <int LANES, int FOLD, int WARPS, int MOST, bool SKIPS>
struct Chain {
    static const int HALF = FOLD / 2, V = LANES / 32, OTHERS = 32 * (WARPS - V);  // threads that do not lead
    // Where so few blocks share a column, aggregates are there by the time that they are asked for. Among more, what is
    // asked for behind the next chunk's rows comes late, and late for all: there the rows wait.
    static const int FEW = 4;
    // Among so many a carry is published before most of them begin to look for theirs.
    static const int MANY = 16;
    // Rows too new to be asked for before this block has published. Where all are few, it is worth a try.
    static const int FRESH = 20;
    // How many of the others are asked for ahead. Of 16-bit rows more blocks share a column, and there are more.
    static const int AHEAD = V > 1 && !SKIPS ? FOLD : HALF;

    scan_u32* ticket;      // of the column; absent with one worker
    int* newest;           // of the column: the newest step after which the carry is known, -1 before there is one
    Published* column;     // aggregates of the column by step
    Half* carried;         // the carries after them, if SKIPS
    Published* staged;     // shared, FOLD * LANES
    int* restart;          // shared, 2 * V: for each that leads, one past the last restart of each half of staged
    int* known;            // shared: steps before the newest known carry
    int skipped;           // as many, if `followed` was moved there, or 0
    Half from;             // that carry, of the warps that lead; it may be on its way
    double carry;          // past the steps before `followed`, of the warps that lead
    scan_i64 followed;
    int asked;             // rows after them that were asked for
    int warp, lane;

    template <typename Params>
    SCAN_DEVICE void start(const Params& p, scan_i64 at, scan_i64 columns, scan_i64 steps, Published* shared,
                           int* shared_restart) {
        ticket = p.workers > 1 ? reinterpret_cast<scan_u32*>(p.work) + at : nullptr;
        newest = reinterpret_cast<int*>(p.work) + columns + at;
        column = reinterpret_cast<Published*>(p.work + (columns * 8 + 255) / 256 * 256);
        carried = reinterpret_cast<Half*>(column + columns * steps * LANES) + at * steps * LANES;
        column += at * steps * LANES;
        staged = shared;
        restart = shared_restart;
        known = restart + 2 * V;
        if (threadIdx.x < 2 * V) restart[threadIdx.x] = 0;
        followed = asked = skipped = 0;
        carry = 0.0;
        warp = threadIdx.x / 32;
        lane = threadIdx.x % 32;
    }
    // The next step of the walk; `alone` is which one that is for a block without company. The host filled the tickets
    // with ones, so that the first is 0.
    SCAN_DEVICE scan_i64 draw(scan_i64 alone) {
        return ticket ? (scan_i64)(scan_u32)(atomicAdd(ticket, 1u) + 1u) : alone;
    }

    SCAN_DEVICE bool leads() const { return warp < V; }
    SCAN_DEVICE int channel() const { return warp; }

    // Publishes step k. `start` is the carry into a chunk that is the first of its walk.
    SCAN_DEVICE void publish_chunk(scan_i64 k, const Aggregate& whole, double start, bool first, bool exists) const {
        if (!ticket) return;
        Published* const to = column + k * LANES + place(lane);
        publish(&to->p, first || !exists ? RESTART : half_bits(whole.p));
        publish(&to->s, half_bits(first ? whole.apply(start) : exists ? whole.s : 0.0));
    }

    // The carry after step k, for the blocks that have still to find theirs. `newest` may be seen before it: it has a flag.
    SCAN_DEVICE void publish_carry(scan_i64 k, double after) const {
        publish(carry_after(k), half_bits(after));
        if (threadIdx.x == 0) atomicMax(newest, (int)k);
    }
    // Moves `followed` to the newest known carry on the way to step k. Behind a restart a later one may be known.
    SCAN_DEVICE void skip(scan_i64 k) {
        skipped = *known > followed && *known <= k ? *known : 0;
        if (!skipped) return;
        followed = skipped;
        if (leads()) from = peek(carry_after(skipped - 1));
    }

    // Asks for the first of what `follow_to(k)` will read, so that it comes while the chunk is loaded and summed: most of
    // it was published long ago. One group of copies.
    SCAN_DEVICE void look_ahead(scan_i64 k) {
        const scan_i64 rows = k - followed, old = rows > 2 * FRESH ? rows - FRESH : rows;
        asked = ticket && old > 0 ? (int)(old < AHEAD ? old : AHEAD) : 0;
        each(0, asked, [&](int at) { ask(at, at); });
        copy_commit();
    }
    // Asks for as much of the rest as there is room for, and again for what was asked for too early. For this block has
    // published, and nothing has been asked for since: what comes behind the next chunk's rows is slow. One group.
    SCAN_DEVICE void look_again(scan_i64 k) {
        const scan_i64 rows = k - followed;
        const int many = !ticket || rows < 0 ? 0 : rows < FOLD ? (int)rows : FOLD;
        each(0, asked, [&](int at) {
            if (missing(staged[at])) ask(at, at);
        });
        each(asked, many, [&](int at) { ask(at, at); });
        asked = many;
        copy_commit();
    }

    // Takes the carry past the steps before k. All threads call it. `newer` groups of copies were begun since look_again.
    SCAN_DEVICE void follow_to(scan_i64 k, int newer) {
        if (SKIPS && skipped && leads()) {
            while (from == NOT_YET) {
                poll_pause();
                from = peek(carry_after(skipped - 1));
            }
            carry = __longlong_as_double((scan_i64)from);
            skipped = 0;
        }
        int half = 0;
        while (ticket && followed < k) {
            const scan_i64 next = asked > 0 ? asked : k - followed;
            const int many = next < HALF ? (int)next : HALF, base = half * HALF * LANES;
            if (asked > 0) {
                copy_wait(newer);
                each_of(base, base + many * LANES, [&](int at) { settle(at, at - base, half); });
            } else if (!leads()) {
                const int end = many * LANES;
                for (int at = (int)threadIdx.x - 32 * V; at < end; at += MOST * OTHERS) {
                    Published got[MOST];
#pragma unroll
                    for (int i = 0; i < MOST; i++) {
                        got[i] = {};
                        if (at + i * OTHERS < end) got[i] = peek(published(at + i * OTHERS));
                    }
#pragma unroll
                    for (int i = 0; i < MOST; i++) {
                        if (at + i * OTHERS < end) {
                            staged[base + at + i * OTHERS] = got[i];
                            settle(base + at + i * OTHERS, at + i * OTHERS, half);
                        }
                    }
                }
            }
            __syncthreads();
            if (leads()) fold(staged + base, many, half);
            followed += many;
            if (asked > 0) asked -= many;
            half ^= 1;
        }
    }

private:
    SCAN_DEVICE Half* carry_after(scan_i64 k) const { return carried + k * LANES + place(lane); }
    // Where a row holds this warp's channel of a lane: neighbours in memory for neighbouring lanes.
    SCAN_DEVICE int place(int lane) const { return 32 * channel() + lane; }
    static SCAN_DEVICE bool missing(const Published& got) { return got.p == NOT_YET || got.s == NOT_YET; }
    // The places from row `from` to `to` of staged that are this thread's; warps that lead have none.
    template <typename Do>
    SCAN_DEVICE void each(int from, int to, Do&& act) const {
        each_of(from * LANES, to * LANES, act);
    }
    template <typename Do>
    SCAN_DEVICE void each_of(int from, int to, Do&& act) const {
        const int own = (int)threadIdx.x - 32 * V;
        if (own < 0) return;
        const int skip = from > own ? (from - own + OTHERS - 1) / OTHERS : 0;
#pragma unroll 1
        for (int at = own + skip * OTHERS; at < to; at += OTHERS) act(at);
    }
    // The publication that lies `ahead` places after the first that is not followed yet.
    SCAN_DEVICE const Published* published(int ahead) const { return column + followed * LANES + ahead; }
    SCAN_DEVICE void ask(int at, int ahead) const {
        copy_piece<16>(reinterpret_cast<char*>(staged + at), reinterpret_cast<const char*>(published(ahead)));
    }
    // Waits for what was asked for too early.
    SCAN_DEVICE void settle(int at, int ahead, int half) const {
        Published got = staged[at];
        if (missing(got)) {
            do {
                poll_pause();
                got = peek(published(ahead));
            } while (missing(got));
            staged[at] = got;
        }
        if (got.p == RESTART) {
#pragma unroll
            for (int i = 0; i < V; i++) atomicMax(restart + 2 * i + half, ahead / LANES + 1);
        }
    }
    SCAN_DEVICE void fold(const Published* from, int many, int half) {
        // Nothing before the last restart counts.
        int* const last = restart + 2 * channel() + half;
        int e = *last;
        __syncwarp();
        if (lane == 0) *last = 0;
        if (e) carry = __longlong_as_double((scan_i64)from[(e - 1) * LANES + place(lane)].s);
#pragma unroll 8
        for (; e < many; e++) {
            const Published a = from[e * LANES + place(lane)];
            const Aggregate passed = {__longlong_as_double((scan_i64)a.p), __longlong_as_double((scan_i64)a.s)};
            carry = passed.apply(carry);
        }
    }
};
