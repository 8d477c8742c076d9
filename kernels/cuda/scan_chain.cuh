// The carry across blocks, for the Chunked kernels: every block of a column follows the column's chunks for itself.
//
// A block that holds a chunk publishes its aggregate (P, S), which depends on the block's inputs alone, before it waits
// for anything. To find the carry into its chunk it applies all aggregates since the last chunk it held, in order. So
// there is no chain of blocks handing a carry on: one store and one load lie between the slowest aggregate and everyone
// who needs it. The first chunk of a sequence knows its entry, so it publishes its end as a restart.
//
// No deadlock: chunks are drawn by ticket, so all chunks before one that is drawn are drawn too, by blocks that run;
// and of the drawn chunks that are not published, the one with the lowest ticket waits for nothing. A publication is
// one aligned 64-bit store which carries its own flag (all bits set means not yet), so nothing has to be fenced.
#pragma once

#include "scan_copy.cuh"
#include "scan_grid.cuh"

typedef scan_u64 Published;  // P in the upper half, S in the lower
struct alignas(16) PublishedPair {
    Published x, y;
};
const scan_u32 RESTART = 0xfffffffeu;  // in place of P: the carry after this chunk is S

// P is finite, so neither RESTART nor "not yet" can come out as one.
SCAN_DEVICE Published publication_bits(scan_u32 p, float s) {
    return ((Published)p << 32) | __float_as_uint(s);
}
#ifndef SCAN_HOST
SCAN_DEVICE void publish(Published* at, Published v) {
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(at), "l"(v) : "memory");
}
// Each half is read whole; the two need not be of one moment.
SCAN_DEVICE PublishedPair peek(const Published* at) {
    PublishedPair v;
    asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(v.x), "=l"(v.y) : "l"(at) : "memory");
    return v;
}
SCAN_DEVICE void poll_pause() {}
#else
SCAN_DEVICE PublishedPair peek(const Published* at) { return {at[0], at[1]}; }
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

// What a warp leaves in shared memory of its sub-chunk, for V channels a lane.
template <int V, bool EXACT>
struct alignas(V * (EXACT ? 16 : 8) > 8 ? 16 : 8) Exchanged {
    Aggregate<EXACT> v[V];
};

// A chunk's aggregate as it is published and applied.
struct Whole {
    float p, s;
};

// The aggregate of one chunk, from those of its sub-chunks. BACK takes the last first.
// No branches: the loads go out together, and only the chain of products is waited for.
template <int V, int WARPS, bool BACK, bool EXACT>
SCAN_DEVICE void chunk_aggregate(Whole (&whole)[V], const Exchanged<V, EXACT>* swap, int subs) {
    Aggregate<EXACT> sum[V];
#pragma unroll
    for (int i = 0; i < V; i++) sum[i] = Aggregate<EXACT>::none();
#pragma unroll 4
    for (int n = 0; n < WARPS; n++) {
        const int j = BACK ? WARPS - 1 - n : n;
        const Exchanged<V, EXACT> from = swap[j * 32];
#pragma unroll
        for (int i = 0; i < V; i++) sum[i].append(from.v[i], j < subs);
    }
#pragma unroll
    for (int i = 0; i < V; i++) whole[i] = {sum[i].product(), sum[i].s};
}

// The carries into all sub-chunks, from the one into the chunk: one warp finds them, the others pick theirs up.
template <int V, int WARPS, bool BACK, bool EXACT>
SCAN_DEVICE void carries_in(Pack<float, V>* entry, const float (&carry)[V], const Exchanged<V, EXACT>* swap, int subs) {
    Pack<float, V> c;
#pragma unroll
    for (int i = 0; i < V; i++) c.v[i] = carry[i];
#pragma unroll 4
    for (int n = 0; n < WARPS; n++) {
        const int j = BACK ? WARPS - 1 - n : n;
        entry[j * 32] = c;
        const Exchanged<V, EXACT> from = swap[j * 32];
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float next = from.v[i].apply(c.v[i]);
            c.v[i] = !BACK || j < subs ? next : c.v[i];
        }
    }
}

// A block's share of a column: draws chunks, publishes, follows.
template <int LANES, int FOLD>
struct Chain {
    scan_u32* ticket;      // of the column; absent with one worker
    Published* column;     // aggregates of the column by step
    Published* staged;     // shared, FOLD * LANES
    int* restart;          // shared: one past the last staged restart
    scan_i64 followed;     // steps that warp 0's carry has passed
    int warp, warps, lane;

    template <typename Params>
    SCAN_DEVICE void start(const Params& p, scan_i64 at, scan_i64 columns, scan_i64 steps, Published* shared,
                           int* shared_restart) {
        ticket = p.workers > 1 ? reinterpret_cast<scan_u32*>(p.work) + at : nullptr;
        column = reinterpret_cast<Published*>(p.work + (columns * 4 + 255) / 256 * 256) + at * steps * LANES;
        staged = shared;
        restart = shared_restart;
        if (threadIdx.x == 0) *restart = 0;
        followed = 0;
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
    SCAN_DEVICE void publish_chunk(scan_i64 k, const Whole (&whole)[V], const float (&start)[V], bool first,
                                   bool exists) const {
        if (!ticket) return;
#pragma unroll
        for (int i = 0; i < V; i++) {
            publish(column + k * LANES + lane * V + i,
                    first    ? publication_bits(RESTART, fold(whole[i].p, start[i], whole[i].s))
                    : exists ? publication_bits(__float_as_uint(whole[i].p), whole[i].s)
                             : publication_bits(RESTART, 0.0f));
        }
    }

    // The carry after steps followed..k, from the carry before them. All threads call it; warp 0's carry counts.
    template <int V>
    SCAN_DEVICE void follow_to(scan_i64 k, float (&carry)[V]) {
        while (ticket && followed < k) {
            const int many = k - followed < FOLD ? (int)(k - followed) : FOLD;
            const int MOST = V == 1 ? 4 : 2;  // loads of a thread under way at once, as registers allow
            const int pairs = many * (LANES / 2);
            const Published* const from = column + followed * LANES;
            for (int at = threadIdx.x; at < pairs; at += MOST * blockDim.x) {
                PublishedPair got[MOST];
#pragma unroll
                for (int i = 0; i < MOST; i++) {
                    const int pair = at + i * blockDim.x;
                    got[i] = {};
                    if (pair < pairs) got[i] = peek(from + 2 * pair);
                }
#pragma unroll
                for (int i = 0; i < MOST; i++) {
                    const int pair = at + i * blockDim.x;
                    while (got[i].x == ~0ull || got[i].y == ~0ull) {
                        poll_pause();
                        got[i] = peek(from + 2 * pair);
                    }
                    if (pair < pairs) {
                        reinterpret_cast<PublishedPair*>(staged)[pair] = got[i];
                        if ((scan_u32)(got[i].x >> 32) == RESTART) atomicMax(restart, 2 * pair / LANES + 1);
                    }
                }
            }
            __syncthreads();
            if (warp == 0) {
                // Nothing before the last restart counts.
                int e = *restart;
                __syncwarp();
                if (lane == 0) *restart = 0;
#pragma unroll
                for (int i = 0; i < V; i++) {
                    if (e) carry[i] = __uint_as_float((scan_u32)staged[(e - 1) * LANES + lane * V + i]);
                }
#pragma unroll 4
                for (; e < many; e++) {
#pragma unroll
                    for (int i = 0; i < V; i++) {
                        const Published a = staged[e * LANES + lane * V + i];
                        carry[i] = fold(__uint_as_float((scan_u32)(a >> 32)), carry[i], __uint_as_float((scan_u32)a));
                    }
                }
            }
            followed += many;
            if (followed < k) __syncthreads();
        }
    }
};
