// Tile sizes, as data: one row an architecture and storage type. The host reads the same rows to size its launches.
// SUB, CHUNK and SAVE fix the numbers (together with the type, nothing else does); the rest only fixes the speed.
//
//   arch       compute capability that the PTX is compiled for, given to nvcc as -DSCAN_ARCH
//   SUB        steps a sub-chunk          SAVE    steps between saved states
//   CHUNK, CHUNKB  steps a chunk, forward and backward; report the larger as chunk_len
//   STAGE      rows a stage of March's copy ring
//   VM, VC, VCB    channels a lane in March, in Chunked forward and in Chunked backward: LANES = 32 * V
//   SF, SB     stages of March's ring, forward and backward (for long sequences)
//   FOLD, FOLDB    published chunks that a Chunked block stages in shared memory at once, forward and backward
#pragma once

//          arch type SUB CHUNK CHUNKB SAVE STAGE VM VC VCB SF SB FOLD FOLDB
#define SCAN_TUNING(ROW) \
    ROW(    75,  f32,   8,   64,    64,  32,    4, 1, 1,  1,  8, 12,  16,  16) \
    ROW(    75,  f16,   8,   64,    64,  32,    4, 1, 1,  1,  8, 12,   8,   8) \
    ROW(    75, bf16,   8,   64,    64,  32,    4, 1, 1,  1,  8, 12,   8,   8) \
    ROW(    80,  f32,   8,   64,    64,  32,    4, 2, 1,  1,  6, 10,  32,  32) \
    ROW(    80,  f16,   8,   64,    64,  32,    4, 2, 1,  1,  8, 12,  32,  32) \
    ROW(    80, bf16,   8,   64,    64,  32,    4, 2, 1,  1,  8, 12,  32,  32) \
    ROW(    90,  f32,  16,  256,   160,  32,    4, 2, 1,  1,  4,  9,  72,  72) \
    ROW(    90,  f16,  16,  256,   192,  32,    4, 2, 2,  2,  8,  9,  72,  72) \
    ROW(    90, bf16,  16,  256,   192,  32,    4, 2, 2,  2,  8,  9,  72,  72)
