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

template <typename T>
struct Tuning;

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


template <typename T>
struct Tuning : TuningRow<SCAN_ARCH, T> {};

// Products of gates stay finite, so that a zero carry stays out of an aggregate whatever was multiplied. Nothing is
// hidden by it: a gate that is NaN or infinite makes S NaN, as it makes the plain loop's state NaN or infinite.
SCAN_DEVICE float finite(float p) { return fminf(fmaxf(p, -3.402823466e38f), 3.402823466e38f); }

// Applies an aggregate, whose product is finite, to a carry.
SCAN_DEVICE float fold(float p, float carry, float s) { return fmaf(p, carry, s); }

// The carry of V channels on its way along the grid.
template <int V>
struct Carry {
    float now[V];    // at the last sub-chunk boundary
    float entry[V];  // at the last chunk boundary
    float p[V], s[V];  // of the chunk so far

    SCAN_DEVICE void start(const float (&c)[V]) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            now[i] = entry[i] = c[i];
            p[i] = 1.0f;
            s[i] = 0.0f;
        }
    }
    // Past one more sub-chunk inside a chunk, if there is one.
    SCAN_DEVICE void gather(const float (&sub_p)[V], const float (&sub_s)[V], bool exists) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float next = fold(sub_p[i], s[i], sub_s[i]);
            s[i] = exists ? next : s[i];
            p[i] = finite(p[i] * (exists ? sub_p[i] : 1.0f));
        }
    }
    // Past one more sub-chunk, which may be the last of its chunk. sub_p is finite.
    SCAN_DEVICE void pass(const float (&sub_p)[V], const float (&sub_s)[V], bool chunk_ends) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            now[i] = fold(sub_p[i], now[i], sub_s[i]);
            s[i] = fold(sub_p[i], s[i], sub_s[i]);
            p[i] = finite(p[i] * sub_p[i]);
            if (chunk_ends) {
                now[i] = entry[i] = fold(p[i], entry[i], s[i]);
                p[i] = 1.0f;
                s[i] = 0.0f;
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
