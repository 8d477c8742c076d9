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

// A block's share of a column: draws chunks, publishes, follows. FOLD rows fit into shared memory; of what was
// not asked for ahead, MOST loads of a thread are under way at once, as registers allow.
template <int LANES, int FOLD, int MOST>
struct Chain {
    static const int HALF = FOLD / 2;
    // Rows too new to be asked for ahead. Where all are few, it is worth a try.
    static const int FRESH = 20;

    scan_u32* ticket;      // of the column; absent with one worker
    Published* column;     // aggregates of the column by step
    Published* staged;     // shared, FOLD * LANES
    int* restart;          // shared: one past the last restart of each half of staged
    scan_i64 followed;     // steps that warp 0's carry has passed
    int ahead;             // rows after them that were asked for
    int warp, warps, lane;

    template <typename Params>
    SCAN_DEVICE void start(const Params& p, scan_i64 at, scan_i64 columns, scan_i64 steps, Published* shared,
                           int* shared_restart) {
        ticket = p.workers > 1 ? reinterpret_cast<scan_u32*>(p.work) + at : nullptr;
        column = reinterpret_cast<Published*>(p.work + (columns * 4 + 255) / 256 * 256) + at * steps * LANES;
        staged = shared;
        restart = shared_restart;
        if (threadIdx.x == 0) restart[0] = restart[1] = 0;
        followed = ahead = 0;
        warp = threadIdx.x / 32;
        warps = blockDim.x / 32;
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
            Published* const to = column + k * LANES + lane * V + i;
            publish(&to->p, first || !exists ? RESTART : half_bits(whole[i].p));
            publish(&to->s, half_bits(first ? whole[i].apply((double)start[i]) : exists ? whole[i].s : 0.0));
        }
    }

    // Asks for the first of what `follow_to(k)` will read, so that it comes while the chunk is loaded and summed: most of
    // it was published long ago. One group of copies.
    SCAN_DEVICE void look_ahead(scan_i64 k) {
        const scan_i64 rows = k - followed, old = rows > 2 * FRESH ? rows - FRESH : rows;
        ahead = ticket && old > 0 ? (int)(old < HALF ? old : HALF) : 0;
        const Published* const from = column + followed * LANES;
#pragma unroll 1
        for (int at = threadIdx.x; at < ahead * LANES; at += blockDim.x) {
            copy_piece<16>(reinterpret_cast<char*>(staged + at), reinterpret_cast<const char*>(from + at));
        }
        copy_commit();
    }

    // The carry after steps followed..k, from the carry before them. All threads call it; warp 0's carry counts. While
    // warp 0 folds what lies in one half of `staged`, the others bring more into the other.
    template <int V>
    SCAN_DEVICE void follow_to(scan_i64 k, double (&carry)[V]) {
        int half = 0;
        while (ticket && followed < k) {
            const int many = ahead ? ahead : k - followed < HALF ? (int)(k - followed) : HALF;
            const Published* const from = column + followed * LANES;
            Published* const to = staged + half * HALF * LANES;
            if (ahead) {
                // Where it was too early, once more; each thread looks at what it asked for.
                for (int at = threadIdx.x; at < many * LANES; at += blockDim.x) {
                    const Published early = to[at];
                    stage(from, to, at, early, half);
                }
                ahead = 0;
            } else if (warp > 0) {
                const int step = blockDim.x - 32;
                for (int at = threadIdx.x - 32; at < many * LANES; at += MOST * step) {
                    Published got[MOST];
#pragma unroll
                    for (int i = 0; i < MOST; i++) {
                        got[i] = {};
                        if (at + i * step < many * LANES) got[i] = peek(from + at + i * step);
                    }
#pragma unroll
                    for (int i = 0; i < MOST; i++) {
                        if (at + i * step < many * LANES) stage(from, to, at + i * step, got[i], half);
                    }
                }
            }
            __syncthreads();
            if (warp == 0) {
                // Nothing before the last restart counts.
                int e = restart[half];
                __syncwarp();
                if (lane == 0) restart[half] = 0;
#pragma unroll
                for (int i = 0; i < V; i++) {
                    if (e) carry[i] = __longlong_as_double((scan_i64)to[(e - 1) * LANES + lane * V + i].s);
                }
#pragma unroll 4
                for (; e < many; e++) {
#pragma unroll
                    for (int i = 0; i < V; i++) {
                        const Published a = to[e * LANES + lane * V + i];
                        const Aggregate passed = {__longlong_as_double((scan_i64)a.p),
                                                  __longlong_as_double((scan_i64)a.s)};
                        carry[i] = passed.apply(carry[i]);
                    }
                }
            }
            followed += many;
            half ^= 1;
        }
    }

private:
    // Waits for one publication and lays it down.
    SCAN_DEVICE void stage(const Published* from, Published* to, int at, Published got, int half) {
        while (got.p == NOT_YET || got.s == NOT_YET) {
            poll_pause();
            got = peek(from + at);
        }
        to[at] = got;
        if (got.p == RESTART) atomicMax(restart + half, at / LANES + 1);
    }
};
