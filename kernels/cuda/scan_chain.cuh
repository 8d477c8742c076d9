// The carry across blocks, for the Chunked kernels: every block of a column follows the column's chunks for itself.
//
// A block that holds a chunk publishes its aggregate (P, S), which depends on the block's inputs alone, before it waits
// for anything. To find the carry into its chunk it applies all aggregates since the last chunk it held, in order. So
// there is no chain of blocks handing a carry on: one store and one load lie between the slowest aggregate and everyone
// who needs it. The first chunk of a sequence knows its entry, so it publishes its end as a restart.
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
SCAN_DEVICE Published peek(const Published* at) {
    Published v;
    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(v.p), "=l"(v.s) : "l"(at) : "memory");
    return v;
}
SCAN_DEVICE void poll_pause() {}
#else
SCAN_DEVICE Published peek(const Published* at) { return *at; }
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

    // The chunk's aggregate. BACK takes the last first. No branches: the loads go out together, and only the chain of
    // products is waited for.
    SCAN_DEVICE void whole(int lane, int subs, Aggregate (&sum)[V]) const {
        const int GROUP = WARPS < 8 ? WARPS : 8;
        ChunkAggregate chunk[V];
#pragma unroll
        for (int i = 0; i < V; i++) chunk[i] = ChunkAggregate::none();
#pragma unroll 1
        for (int n = 0; n < WARPS; n += GROUP) {
#pragma unroll
            for (int k = n; k < n + GROUP; k++) {
                const int j = BACK ? WARPS - 1 - k : k;
#pragma unroll
                for (int i = 0; i < V; i++) chunk[i].append(get(j, lane, i), j < subs);
            }
#pragma unroll
            for (int i = 0; i < V; i++) chunk[i].close();
        }
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] = chunk[i].whole();
    }
    // The carries into all sub-chunks, from the one into the chunk: one warp finds them, the others pick theirs up. A few
    // at a time, loads before stores, so that the loads overlap.
    SCAN_DEVICE void carries(int lane, int subs, const double (&carry)[V], Pack<float, V>* entry) const {
        const int FEW = 4;
        double c[V];
#pragma unroll
        for (int i = 0; i < V; i++) c[i] = carry[i];
#pragma unroll 1
        for (int n = 0; n < WARPS; n += FEW) {
            Aggregate from[FEW][V];
            Pack<float, V> into[FEW];
#pragma unroll
            for (int k = 0; k < FEW; k++) {
#pragma unroll
                for (int i = 0; i < V; i++) from[k][i] = get(BACK ? WARPS - 1 - n - k : n + k, lane, i);
            }
#pragma unroll
            for (int k = 0; k < FEW; k++) {
#pragma unroll
                for (int i = 0; i < V; i++) {
                    into[k].v[i] = (float)c[i];
                    const double next = from[k][i].apply(c[i]);
                    c[i] = !BACK || WARPS - 1 - n - k < subs ? next : c[i];
                }
            }
#pragma unroll
            for (int k = 0; k < FEW; k++) entry[(BACK ? WARPS - 1 - n - k : n + k) * 32 + lane] = into[k];
        }
    }
};

// A block's share of a column: draws chunks, publishes, follows. FOLD rows of aggregates fit into shared memory, in two
// halves: one is folded by warp 0 while the other warps bring the next rows into the other.
template <int LANES, int FOLD, int WARPS, int MOST>
struct Chain {
    static const int HALF = FOLD / 2, OTHERS = 32 * (WARPS - 1);  // threads but warp 0's
    // Where so few blocks share a column, aggregates are there by the time that they are asked for. Among more, what is
    // asked for behind the next chunk's rows comes late, and late for all: there the rows wait.
    static const int FEW = 4;
    // Rows too new to be asked for before this block has published. Where all are few, it is worth a try.
    static const int FRESH = 20;

    scan_u32* ticket;      // of the column; absent with one worker
    Published* column;     // aggregates of the column by step
    Published* staged;     // shared, FOLD * LANES
    int* restart;          // shared: one past the last restart of each half of staged
    scan_i64 followed;     // steps that warp 0's carry has passed
    int asked;             // rows after them that were asked for
    int warp, lane;

    template <typename Params>
    SCAN_DEVICE void start(const Params& p, scan_i64 at, scan_i64 columns, scan_i64 steps, Published* shared,
                           int* shared_restart) {
        ticket = p.workers > 1 ? reinterpret_cast<scan_u32*>(p.work) + at : nullptr;
        column = reinterpret_cast<Published*>(p.work + (columns * 4 + 255) / 256 * 256) + at * steps * LANES;
        staged = shared;
        restart = shared_restart;
        if (threadIdx.x == 0) restart[0] = restart[1] = 0;
        followed = asked = 0;
        warp = threadIdx.x / 32;
        lane = threadIdx.x % 32;
    }
    // The next step of the walk; `alone` is which one that is for a block without company. The host filled the tickets
    // with ones, so that the first is 0.
    SCAN_DEVICE scan_i64 draw(scan_i64 alone) {
        return ticket ? (scan_i64)(scan_u32)(atomicAdd(ticket, 1u) + 1u) : alone;
    }

    // Publishes step k. `start` is the carry into a chunk that is the first of its walk.
    template <int V>
    SCAN_DEVICE void publish_chunk(scan_i64 k, const Aggregate (&whole)[V], const float (&start)[V], bool first,
                                   bool exists) const {
        if (!ticket) return;
#pragma unroll
        for (int i = 0; i < V; i++) {
            Published* const to = column + k * LANES + place(lane, i);
            publish(&to->p, first || !exists ? RESTART : half_bits(whole[i].p));
            publish(&to->s, half_bits(first ? whole[i].apply((double)start[i]) : exists ? whole[i].s : 0.0));
        }
    }

    // Asks for the first of what `follow_to(k)` will read, so that it comes while the chunk is loaded and summed: most of
    // it was published long ago. One group of copies.
    SCAN_DEVICE void look_ahead(scan_i64 k) {
        const scan_i64 rows = k - followed, old = rows > 2 * FRESH ? rows - FRESH : rows;
        asked = ticket && old > 0 ? (int)(old < HALF ? old : HALF) : 0;
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

    // The carry after steps followed..k, from the carry before them. All threads call it; warp 0's carry counts. `newer`
    // groups of copies were begun since look_again.
    template <int V>
    SCAN_DEVICE void follow_to(scan_i64 k, double (&carry)[V], int newer) {
        int half = 0;
        while (ticket && followed < k) {
            const scan_i64 next = asked > 0 ? asked : k - followed;
            const int many = next < HALF ? (int)next : HALF, base = half * HALF * LANES;
            if (asked > 0) {
                copy_wait(newer);
                each_of(base, base + many * LANES, [&](int at) { settle(at, at - base, half); });
            } else if (warp > 0) {
                const int end = many * LANES;
                for (int at = (int)threadIdx.x - 32; at < end; at += MOST * OTHERS) {
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
            if (warp == 0) fold(staged + base, many, half, carry);
            followed += many;
            if (asked > 0) asked -= many;
            half ^= 1;
        }
    }

private:
    // Where a row holds channel i of a lane: neighbours in memory for neighbouring lanes.
    static SCAN_DEVICE int place(int lane, int i) { return 32 * i + lane; }
    static SCAN_DEVICE bool missing(const Published& got) { return got.p == NOT_YET || got.s == NOT_YET; }
    // The places from row `from` to `to` of staged that are this thread's; warp 0 has none.
    template <typename Do>
    SCAN_DEVICE void each(int from, int to, Do&& act) const {
        each_of(from * LANES, to * LANES, act);
    }
    template <typename Do>
    SCAN_DEVICE void each_of(int from, int to, Do&& act) const {
        const int own = (int)threadIdx.x - 32;
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
        if (got.p == RESTART) atomicMax(restart + half, ahead / LANES + 1);
    }
    template <int V>
    SCAN_DEVICE void fold(const Published* from, int many, int half, double (&carry)[V]) const {
        // Nothing before the last restart counts.
        int e = restart[half];
        __syncwarp();
        if (lane == 0) restart[half] = 0;
#pragma unroll
        for (int i = 0; i < V; i++) {
            if (e) carry[i] = __longlong_as_double((scan_i64)from[(e - 1) * LANES + place(lane, i)].s);
        }
#pragma unroll 4
        for (; e < many; e++) {
#pragma unroll
            for (int i = 0; i < V; i++) {
                const Published a = from[e * LANES + place(lane, i)];
                const Aggregate passed = {__longlong_as_double((scan_i64)a.p), __longlong_as_double((scan_i64)a.s)};
                carry[i] = passed.apply(carry[i]);
            }
        }
    }
};
