// What the host and the kernels agree on: parameter blocks, flags, entry names and launch rules.
//
// Every kernel takes exactly one parameter, one of the blocks below, by value. Addresses and sizes are 64-bit;
// an address of 0 means absent. The Rust side mirrors the blocks with repr(C); scan_tuning.h holds the tile sizes.
//
// Terms. A sequence is walked in scan time t = 0..len; with REVERSE, t runs from its last row to its first.
//   sub-chunk  SUB steps, what one warp folds into (P, S): gate product and local scan from h = 0
//   chunk      CHUNK steps = CHUNK / SUB sub-chunks; the unit that Chunked publishes; report it as chunk_len, since
//              it is the window over which a gate product must stay in range
//   saved      one f32 state row (D) every SAVE steps of every sequence, the state before the step
//              (backward has its own, CHUNKB)
//   column     the channels that one warp's lanes cover: LANES = 32 * V, the last column may be partial
//
// Entry names: scan_{op}_{algorithm}_{type}[_any], 31 a module:
//   op         forward | backward
//   algorithm  march | chunked          Sequential is march with the flag SEQUENTIAL
//   type       f32 | f16 | bf16         storage of x, a, b, c and their gradients
//   _any       y or dy has another type than the storage: out_type says which; without the suffix it is ignored
//   scan_step_{type}[_any]              ScanStep
//   scan_put                            ScanPut
//
// March: one warp a (sequence, column), a block is one warp.
//   grid  (sequences * columns, 1, 1) with columns = ceil(channels / LANES)    block (32, 1, 1)
//   dynamic shared memory: see scan_march_smem below. work is unused, no workspace.
//
// Chunked: a block holds one chunk of one column at a time, one sub-chunk a warp.
//   rows = packed ? 1 : sequences        columns = rows * ceil(channels / LANES)
//   grid  (columns * workers, 1, 1)      block (32 * CHUNK / SUB, 1, 1), CHUNKB and VCB for CHUNK and V in backward
//   dynamic shared memory: see scan_chunked_smem below.
//   workers = 1: each block walks its column alone, no workspace (work = 0).
//   workers > 1: workspace of scan_chunked_work bytes, 16-byte aligned, and before every launch, on the same stream,
//   cuMemsetD8Async(work, 0xff, bytes). Blocks draw chunks by ticket, so any number of resident blocks makes progress.
//   Best when columns * workers is at most the number of multiprocessors times the blocks that fit on one.
//
// Step: grid (ceil(batch * channels / 128), 1, 1), block (128, 1, 1), no shared memory.
//
// Put: writes cu_seqlens (or any increasing i64 table) into device memory from parameters, which a captured graph
//   keeps: grid (1, 1, 1), block (256, 1, 1). More than SCAN_PUT_MAX values, or an offset past u32, take more launches.
//
// Launch nothing when batch, channels or sequences is 0. len = 0 is fine (hT = h0, dh0 = dhT). Slack rows of a packed
// batch (cu[N]..len) are contiguous in every output and are not touched here: cuMemsetD8Async them to 0.
#pragma once

typedef unsigned int scan_u32;
typedef unsigned long long scan_u64;

#define SCAN_REVERSE 1u     // time runs from the last row to the first
#define SCAN_PACKED 2u      // cu holds sequences + 1 offsets, batch is 1
#define SCAN_SEQUENTIAL 4u  // march only: no chunk grid, the plain loop from end to end
#define SCAN_FULL_H 8u      // saved is h (batch, len, channels) f32 instead of chunk states

#define SCAN_F32 0u
#define SCAN_F16 1u
#define SCAN_BF16 2u

// saved, where FULL_H is not set: row s of sequence i lies at saved[(base(i) + s) * channels], with
//   base(i) = i * ceil(len / SAVE)        not packed; batch * ceil(len / SAVE) rows in all
//   base(i) = cu[i] / SAVE + i            packed (integer division); len / SAVE + sequences rows in all
// FULL_H: h[t] of the row itself, in memory order.

// x, a, b, c (batch, len, channels) storage; h0, ht (sequences, channels) f32; y (batch, len, channels) out type.
// b absent: b = 1. c absent: y = h. y absent: only states and ht are written, c is not read (the carry pass that
// precedes a backward which kept nothing).
typedef struct {
    scan_u64 x, a, b, c, h0, y, ht, saved;
    scan_u64 cu;    // i64[sequences + 1] on the device, when PACKED
    scan_u64 work;  // Chunked with workers > 1
    scan_u64 batch, len, channels, sequences;
    scan_u32 flags;
    scan_u32 access;      // 16, 8, 4 or 2: the largest of these that divides the address of x, a, b and c that are
                          // present, and channels * storage size
    scan_u32 out_access;  // the same for y alone, with the size of the out type
    scan_u32 out_type;    // SCAN_F32 ...
    scan_u32 workers;     // Chunked: blocks a column
    scan_u32 stages;      // March: stages of the copy ring, see scan_march_smem
} ScanForward;

// As above; dht, dh0 (sequences, channels) f32. What is absent among dx, da, db, dc, dh0 is not computed.
// saved is needed when da or dc is wanted. access covers x, a, b, c, dx, da, db, dc; out_access covers dy.
typedef struct {
    scan_u64 x, a, b, c, h0, saved, dy, dht, dx, da, db, dc, dh0;
    scan_u64 cu;
    scan_u64 work;
    scan_u64 batch, len, channels, sequences;
    scan_u32 flags;
    scan_u32 access;
    scan_u32 out_access;
    scan_u32 out_type;
    scan_u32 workers;
    scan_u32 stages;
} ScanBackward;

// state (batch, channels) f32 is read, then written. The plain loop over len.
typedef struct {
    scan_u64 x, a, b, c, y, state;
    scan_u64 batch, len, channels;
    scan_u32 out_type;
    scan_u32 pad;
} ScanStep;

#define SCAN_PUT_MAX 1000
// to[i] = base + offsets[i] for i < count.
typedef struct {
    scan_u64 to, base;
    scan_u32 count;
    scan_u32 pad;
    scan_u32 offsets[SCAN_PUT_MAX];
} ScanPut;

// Dynamic shared memory in bytes. size: bytes of the storage type; dy_size: bytes of dy's type, 4 under _any;
// the other arguments are the columns of the tuning row. Ask the driver for it where it is past 48 KB.
// stages: at least 1 forward, at least SAVE / STAGE + 1 backward, at most 16. Fewer serve short sequences (then more
// blocks fit): min(default, ceil(len / STAGE)) forward; backward max(SAVE / STAGE + 1, min(default, ceil(len / STAGE))).
static inline scan_u64 scan_march_smem(int backward, scan_u64 size, scan_u64 dy_size, scan_u64 v, scan_u64 stages,
                                       scan_u64 stage, scan_u64 save) {
    scan_u64 row = 32 * v * (4 * size + (backward ? dy_size : 0));
    return stages * stage * row + (backward ? save / stage * 32 * v * 4 : 0);
}

// fold: FOLD or FOLDB.
static inline scan_u64 scan_chunked_smem(int backward, scan_u64 size, scan_u64 dy_size, scan_u64 v, scan_u64 sub,
                                         scan_u64 chunk, scan_u64 fold) {
    scan_u64 row = 32 * v * (4 * size + (backward ? dy_size : 0));
    scan_u64 warps = chunk / sub, kinds = backward ? 2 : 1;  // of aggregates and of states of sub-chunks
    return chunk * row + (kinds * warps + fold) * 32 * v * 16 + kinds * warps * 32 * v * 4 + 512;
}

// rows of (P, S) a column: the chunks of the longest walk along it.
static inline scan_u64 scan_chunked_steps(int packed, scan_u64 len, scan_u64 sequences, scan_u64 chunk) {
    return packed ? len / chunk + sequences : (len + chunk - 1) / chunk + (len == 0);
}
// A column's ticket and its newest carry, then all aggregates, and in forward all carries.
static inline scan_u64 scan_chunked_work(int backward, scan_u64 columns, scan_u64 steps, scan_u64 v) {
    return (columns * 8 + 255) / 256 * 256 + columns * steps * 32 * v * (backward ? 16 : 24);
}
