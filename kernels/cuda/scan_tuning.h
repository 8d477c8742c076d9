// Tile sizes, as data: one row an architecture and storage type. The host reads the same rows to size its launches.
// SUB, CHUNK and SAVE fix the numbers (together with the type, nothing else does); the rest only fixes the speed.
//
//   arch       compute capability that the PTX is compiled for, given to nvcc as -DSCAN_ARCH
//   SUB        steps a sub-chunk          CHUNK   steps a chunk             SAVE   steps between saved states
//   STAGE      rows a stage of March's copy ring
//   VM, VC     channels a lane in March and in Chunked: LANES = 32 * V
//   SF, SB     stages of March's ring, forward and backward (the default for long sequences)
//   CF, CB     chunks in flight in one Chunked block, forward and backward
#pragma once

//   FOLD       published chunks that a Chunked block stages in shared memory at once
//          arch type SUB CHUNK SAVE STAGE VM VC  SF SB CF CB FOLD
#define SCAN_TUNING(ROW) \
    ROW(    75,  f32,  16,   64,  32,    8, 1, 1,  4, 6, 1, 1,  32) \
    ROW(    75,  f16,  16,   64,  32,    8, 2, 1,  4, 6, 1, 1,  32) \
    ROW(    75, bf16,  16,   64,  32,    8, 2, 1,  4, 6, 1, 1,  32) \
    ROW(    80,  f32,  16,   64,  32,    8, 2, 1,  4, 5, 2, 2,  32) \
    ROW(    80,  f16,  16,   64,  32,    8, 2, 1,  6, 8, 2, 2,  32) \
    ROW(    80, bf16,  16,   64,  32,    8, 2, 1,  6, 8, 2, 2,  32) \
    ROW(    90,  f32,  16,  128,  32,    8, 2, 1,  6, 5, 3, 2,  96) \
    ROW(    90,  f16,  16,  256,  32,    8, 2, 1, 10, 8, 3, 2,  96) \
    ROW(    90, bf16,  16,  256,  32,    8, 2, 1, 10, 8, 3, 2,  96)
