// The chunk grid, which fixes the bits of every result, and where a sequence's rows lie.
//
// Along a sequence, SUB steps make a sub-chunk and CHUNK steps a chunk, counted from scan time 0. Outputs come from the
// plain loop inside a sub-chunk. Across a sub-chunk the carry goes by its aggregate (P, S): the product of its gates and
// its scan from 0. Across a chunk it goes by the chunk's aggregate, folded from those of its sub-chunks, applied to the
// carry that entered the chunk. Aggregates of chunks are only ever applied, in order, to the exact carry, and never
// combined with each other; so it does not matter who applies them, how many at once, or when.
//
// Carries and products are float64, steps are float32: a state with a long memory passes thousands of chunks, and what
// each of them rounds to float32 would add up. A sub-chunk begins from its carry rounded to float32.
#pragma once

#include "scan_tuning.h"
#include "scan_types.cuh"

#define SCAN_TYPE_f32 float
#define SCAN_TYPE_f16 f16
#define SCAN_TYPE_bf16 bf16
// One specialisation a type, from the rows of this architecture.
template <int ARCH, typename T>
struct TuningRow;
#define SCAN_ROW(ARCH, TYPE, SUB_, CHUNK_, CHUNKB_, SAVE_, STAGE_, VM_, VC_, VCB_, SF_, SB_, FOLD_, FOLDB_)           \
    template <>                                                                                                       \
    struct TuningRow<ARCH, SCAN_TYPE_##TYPE> {                                                                        \
        static const int SUB = SUB_, CHUNK = CHUNK_, CHUNKB = CHUNKB_, SAVE = SAVE_, STAGE = STAGE_, VM = VM_,        \
                         VC = VC_, VCB = VCB_, FOLD = FOLD_, FOLDB = FOLDB_;                                          \
        static_assert(SUB % STAGE == 0 && SAVE % SUB == 0, "the grids nest");                                         \
        static_assert(CHUNK % SAVE == 0 && CHUNKB % SAVE == 0, "the grids nest");                                     \
        static_assert(CHUNK <= 32 * SUB && CHUNKB <= 32 * SUB, "a chunk fits a block");                               \
    };
SCAN_TUNING(SCAN_ROW)


// The _any entries take one channel a lane, so that they need no alignment past an element's and are small.
template <typename T, typename Out>
struct Tuning : TuningRow<SCAN_ARCH, T> {
    static const bool FAST = SCAN_ARCH >= 80;
};
template <typename T>
struct Tuning<T, AnyType> : TuningRow<SCAN_ARCH, T> {
    static const int VM = 1, VC = 1, VCB = 1;
    static const bool FAST = false;
};

// The aggregate of some steps: a product of gates and a scan from 0. Products stay finite, so that a zero carry stays
// out of an aggregate whatever was multiplied. Nothing is hidden by it: a gate that is NaN or infinite makes s NaN, as
// it makes the plain loop's state NaN or infinite.
struct alignas(16) Aggregate {
    double p, s;

    static SCAN_DEVICE Aggregate none() { return {1.0, 0.0}; }
    SCAN_DEVICE double apply(double carry) const { return fma(p, carry, s); }
};

// The aggregate of a chunk as its sub-chunks go by. Products are taken of 8 sub-chunks at a time, which cannot overflow,
// so that nothing in the chain has to look; `close` after each 8 and at the end of the chunk.
struct ChunkAggregate {
    double p, group, s;

    static SCAN_DEVICE ChunkAggregate none() { return {1.0, 1.0, 0.0}; }
    SCAN_DEVICE void append(const Aggregate& next, bool exists) {
        const double scanned = next.apply(s), product = group * next.p;
        s = exists ? scanned : s;
        group = exists ? product : group;
    }
    SCAN_DEVICE void close() {
        const double product = p * group, most = 1.7976931348623157e308;
        p = fabs(product) <= most ? product : copysign(most, product);
        group = 1.0;
    }
    SCAN_DEVICE Aggregate whole() const { return {p, s}; }
};

// The aggregate of a sub-chunk as its steps go by, in float32, with what rounding takes from the product. Where gates
// are constant, that error is the same in each sub-chunk and would add up like the carry's.
struct StepAggregate {
    float p, s, lo;

    static SCAN_DEVICE StepAggregate none() { return {1.0f, 0.0f, 0.0f}; }
    SCAN_DEVICE void multiply(float a) {
        const float next = p * a;
        lo = fmaf(lo, a, fmaf(p, a, -next));
        p = next;
    }
    SCAN_DEVICE Aggregate settled() const {
        const float most = 3.402823466e38f, high = fminf(fmaxf(p, -most), most), low = fabsf(lo) <= 1.0f ? lo : 0.0f;
        return {(double)high + (double)low, (double)s};
    }
};

// The carry of V channels on its way along the grid.
template <int V>
struct Carry {
    double now[V];       // at the last sub-chunk boundary
    double entry[V];     // at the last chunk boundary
    ChunkAggregate chunk[V];  // since then

    SCAN_DEVICE void start(const float (&c)[V]) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            now[i] = entry[i] = (double)c[i];
            chunk[i] = ChunkAggregate::none();
        }
    }
    // Past one more sub-chunk, which may be the last of its 8, and of its chunk.
    SCAN_DEVICE void pass(const StepAggregate (&sub)[V], bool closes, bool chunk_ends) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            const Aggregate last = sub[i].settled();
            now[i] = last.apply(now[i]);
            chunk[i].append(last, true);
            if (closes || chunk_ends) chunk[i].close();
            if (chunk_ends) {
                now[i] = entry[i] = chunk[i].whole().apply(entry[i]);
                chunk[i] = ChunkAggregate::none();
            }
        }
    }
    SCAN_DEVICE void take(float (&h)[V]) const {
#pragma unroll
        for (int i = 0; i < V; i++) h[i] = (float)now[i];
    }
};

// One sequence: scan time t lies in memory row first + step * t.
struct Sequence {
    scan_i64 index, first, step, len;
    scan_i64 saved;  // the row of its first chunk state

    SCAN_DEVICE scan_i64 row(scan_i64 t) const { return first + step * t; }
};

template <typename Params>
SCAN_DEVICE scan_i64 packed_offset(const Params& p, scan_i64 i) {
    return reinterpret_cast<const scan_i64*>(p.cu)[i];
}

template <typename Params>
SCAN_DEVICE Sequence sequence_at(const Params& p, scan_i64 index, int save) {
    Sequence s;
    scan_i64 begin;
    if (p.flags & SCAN_PACKED) {
        begin = packed_offset(p, index);
        s.len = packed_offset(p, index + 1) - begin;
        s.saved = begin / save + index;
    } else {
        s.len = (scan_i64)p.len;
        begin = index * s.len;
        s.saved = index * ((s.len + save - 1) / save);
    }
    s.index = index;
    s.step = p.flags & SCAN_REVERSE ? -1 : 1;
    s.first = p.flags & SCAN_REVERSE ? begin + s.len - 1 : begin;
    return s;
}

// Where saved holds the state before step t (a multiple of SAVE), in elements; all of h holds it at the step before.
template <typename Params>
SCAN_DEVICE scan_i64 saved_element(const Params& p, const Sequence& s, scan_i64 t, int save) {
    scan_i64 row = p.flags & SCAN_FULL_H ? s.row(t - 1) : s.saved + t / save;
    return row * (scan_i64)p.channels;
}

// The lanes' part of a row: the first channel, and how much of it exists.
struct Lanes {
    scan_i64 channel;  // of lane 0
    int valid;         // channels of this column
    int mine;          // of this lane's V

    template <int V>
    static SCAN_DEVICE Lanes at(scan_i64 column, scan_i64 channels, int lane) {
        Lanes l;
        l.channel = column * 32 * V;
        scan_i64 left = channels - l.channel;
        l.valid = left < 32 * V ? (int)left : 32 * V;
        int mine = l.valid - lane * V;
        l.mine = mine < 0 ? 0 : mine < V ? mine : V;
        return l;
    }
};
