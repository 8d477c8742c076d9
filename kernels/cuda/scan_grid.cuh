// The chunk grid, which fixes the bits of every result, and where a sequence's rows lie.
//
// Along a sequence, SUB steps make a sub-chunk and CHUNK steps a chunk, counted from scan time 0. Outputs come from the
// plain loop inside a sub-chunk. Across a sub-chunk the carry goes by its aggregate (P, S): the product of its gates and
// its scan from 0. Across a chunk it goes by the chunk's aggregate, folded from those of its sub-chunks, applied to the
// carry that entered the chunk. Aggregates of chunks are only ever applied, in order, to an exact carry, and never
// combined with each other; so it does not matter who applies them, how many at once, or when.
#pragma once

#include "scan_tuning.h"
#include "scan_types.cuh"

#define SCAN_TYPE_f32 float
#define SCAN_TYPE_f16 f16
#define SCAN_TYPE_bf16 bf16
// One specialisation a type, from the rows of this architecture.
template <int ARCH, typename T>
struct TuningRow;
#define SCAN_ROW(ARCH, TYPE, SUB_, CHUNK_, CHUNKB_, SAVE_, STAGE_, VM_, VC_, VCB_, SF_, SB_, CF_, CB_, FOLD_)       \
    template <>                                                                                                       \
    struct TuningRow<ARCH, SCAN_TYPE_##TYPE> {                                                                        \
        static const int SUB = SUB_, CHUNK = CHUNK_, CHUNKB = CHUNKB_, SAVE = SAVE_, STAGE = STAGE_, VM = VM_,        \
                         VC = VC_, VCB = VCB_, FOLD = FOLD_;                                                          \
        static_assert(SUB % STAGE == 0 && SAVE % SUB == 0, "the grids nest");                                         \
        static_assert(CHUNK % SAVE == 0 && CHUNKB % SAVE == 0, "the grids nest");                                     \
        static_assert(CHUNK <= 32 * SUB && CHUNKB <= 32 * SUB, "a chunk fits a block");                               \
    };
SCAN_TUNING(SCAN_ROW)


// The _any entries take one channel a lane, so that they need no alignment past an element's and are small.
template <typename T, typename Out>
struct Tuning : TuningRow<SCAN_ARCH, T> {
    static const bool FAST = SCAN_ARCH >= 80, EXACT = sizeof(T) == 4;
};
template <typename T>
struct Tuning<T, AnyType> : TuningRow<SCAN_ARCH, T> {
    static const int VM = 1, VC = 1, VCB = 1;
    static const bool FAST = false, EXACT = sizeof(T) == 4;
};

// The aggregate of some steps: a product of gates and a scan from 0. Products stay finite, so that a zero carry stays
// out of an aggregate whatever was multiplied. Nothing is hidden by it: a gate that is NaN or infinite makes s NaN, as
// it makes the plain loop's state NaN or infinite.
SCAN_DEVICE float finite(float p) { return fminf(fmaxf(p, -3.402823466e38f), 3.402823466e38f); }

// EXACT keeps what rounding takes from the product. Where gates are constant, that error is the same in every chunk and
// adds up over a long memory. Not worth it where the results are rounded to 16 bits.
template <bool EXACT>
struct alignas(16) Aggregate {
    float p, s, lo;

    static SCAN_DEVICE Aggregate none() { return {1.0f, 0.0f, 0.0f}; }
    SCAN_DEVICE void multiply(float a) {
        const float next = p * a;
        lo = fmaf(lo, a, fmaf(p, a, -next));
        p = next;
    }
    SCAN_DEVICE void settle() {
        p = finite(p);
        lo = fabsf(lo) <= 1.0f ? lo : 0.0f;
    }
    SCAN_DEVICE float apply(float carry) const { return fmaf(p, carry, fmaf(lo, carry, s)); }
    // Goes on with the steps of `next`, if there are any.
    SCAN_DEVICE void append(const Aggregate& next, bool exists) {
        const float scanned = next.apply(s), product = p * next.p;
        const float rest = fmaf(p, next.lo, fmaf(lo, next.p, fmaf(p, next.p, -product)));
        s = exists ? scanned : s;
        p = exists ? product : p;
        lo = exists ? rest : lo;
        settle();
    }
    // A chunk's product, as it is published and applied.
    SCAN_DEVICE float product() const { return finite(p + lo); }
};
template <>
struct alignas(8) Aggregate<false> {
    float p, s;

    static SCAN_DEVICE Aggregate none() { return {1.0f, 0.0f}; }
    SCAN_DEVICE void multiply(float a) { p *= a; }
    SCAN_DEVICE void settle() { p = finite(p); }
    SCAN_DEVICE float apply(float carry) const { return fmaf(p, carry, s); }
    SCAN_DEVICE void append(const Aggregate& next, bool exists) {
        const float scanned = next.apply(s), product = finite(p * next.p);
        s = exists ? scanned : s;
        p = exists ? product : p;
    }
    SCAN_DEVICE float product() const { return p; }
};

// Applies a chunk's aggregate to a carry.
SCAN_DEVICE float fold(float p, float carry, float s) { return fmaf(p, carry, s); }

// The carry of V channels on its way along the grid.
template <int V, bool EXACT>
struct Carry {
    float now[V];        // at the last sub-chunk boundary
    float entry[V];      // at the last chunk boundary
    Aggregate<EXACT> chunk[V];  // since then

    SCAN_DEVICE void start(const float (&c)[V]) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            now[i] = entry[i] = c[i];
            chunk[i] = Aggregate<EXACT>::none();
        }
    }
    // Past one more sub-chunk, which may be the last of its chunk.
    SCAN_DEVICE void pass(Aggregate<EXACT> (&sub)[V], bool chunk_ends) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            sub[i].settle();
            now[i] = sub[i].apply(now[i]);
            chunk[i].append(sub[i], true);
            if (chunk_ends) {
                now[i] = entry[i] = fold(chunk[i].product(), entry[i], chunk[i].s);
                chunk[i] = Aggregate<EXACT>::none();
            }
        }
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
