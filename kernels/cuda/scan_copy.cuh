// Copies of row segments from global to shared memory by one warp, asynchronous from compute capability 8.0 on.
//
// A segment is the part of a row that the warp's lanes cover, laid out in shared memory row after row without gaps,
// so the compute loops read it the same way whatever the alignment in global memory was. Alignment only decides the
// piece: 16, 8 or 4 bytes asynchronously, 2 bytes (odd channel counts in 16-bit types) through a register.
#pragma once

#include "scan_types.cuh"

#ifndef SCAN_HOST
template <int BYTES>
SCAN_DEVICE void copy_piece(char* to, const char* from) {
#if SCAN_ARCH >= 80
    unsigned int at = (unsigned int)__cvta_generic_to_shared(to);
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
    } else if constexpr (BYTES == 8) {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(at), "l"(from) : "memory");
    } else if constexpr (BYTES == 4) {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at), "l"(from) : "memory");
    } else {
        *reinterpret_cast<unsigned short*>(to) = __ldcs(reinterpret_cast<const unsigned short*>(from));
    }
#else
    if constexpr (BYTES == 16) {
        *reinterpret_cast<uint4*>(to) = __ldcs(reinterpret_cast<const uint4*>(from));
    } else if constexpr (BYTES == 8) {
        *reinterpret_cast<uint2*>(to) = __ldcs(reinterpret_cast<const uint2*>(from));
    } else if constexpr (BYTES == 4) {
        *reinterpret_cast<unsigned int*>(to) = __ldcs(reinterpret_cast<const unsigned int*>(from));
    } else {
        *reinterpret_cast<unsigned short*>(to) = __ldcs(reinterpret_cast<const unsigned short*>(from));
    }
#endif
}

SCAN_DEVICE void copy_commit() {
#if SCAN_ARCH >= 80
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int N>
SCAN_DEVICE void copy_wait_exactly() {
#if SCAN_ARCH >= 80
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// Waits until at most `left` of this lane's newest groups are under way. The instruction takes a constant.
SCAN_DEVICE void copy_wait(int left) {
    switch (left) {
        case 0: copy_wait_exactly<0>(); break;
        case 1: copy_wait_exactly<1>(); break;
        case 2: copy_wait_exactly<2>(); break;
        case 3: copy_wait_exactly<3>(); break;
        case 4: copy_wait_exactly<4>(); break;
        case 5: copy_wait_exactly<5>(); break;
        case 6: copy_wait_exactly<6>(); break;
        case 7: copy_wait_exactly<7>(); break;
        case 8: copy_wait_exactly<8>(); break;
        case 9: copy_wait_exactly<9>(); break;
        case 10: copy_wait_exactly<10>(); break;
        case 11: copy_wait_exactly<11>(); break;
        case 12: copy_wait_exactly<12>(); break;
        case 13: copy_wait_exactly<13>(); break;
        case 14: copy_wait_exactly<14>(); break;
        default: copy_wait_exactly<15>(); break;
    }
}
#endif

// Rows of several tensors with the same layout, those that are there: PIECE bytes at a time, SEGMENT bytes a row in
// shared memory, of which `valid` exist; `tensor` bytes from one tensor to the next in shared memory, `offset` to the
// first row in each, `stride` bytes from one row to the next, negative when time runs backwards.
template <int PIECE, int TENSORS, int SEGMENT, int ROWS>
SCAN_DEVICE void copy_tensors_by(char* to, int tensor, const scan_u64 (&from)[TENSORS], scan_i64 offset,
                                 scan_i64 stride, int rows, int valid, int lane) {
    const int PIECES = SEGMENT / PIECE;  // a power of two, as every factor is
    const int ROUNDS = (ROWS * PIECES + 31) / 32;
    const bool fast = PIECE == 16;  // only the widest piece is worth its code unrolled
#pragma unroll(fast ? ROUNDS : 1)
    for (int i = 0; i < ROUNDS; i++) {
        const int at = lane + 32 * i;
        const int row = at / PIECES, byte = at % PIECES * PIECE;
        if (row < rows && byte < valid) {
            const scan_i64 source = offset + row * stride + byte;
            char* const target = to + row * SEGMENT + byte;
#pragma unroll
            for (int q = 0; q < TENSORS; q++) {
                if (from[q]) copy_piece<PIECE>(target + q * tensor, reinterpret_cast<const char*>(from[q] + source));
            }
        }
    }
}

template <int TENSORS, int SEGMENT, int ROWS>
SCAN_DEVICE void copy_tensors(char* to, int tensor, const scan_u64 (&from)[TENSORS], scan_i64 offset, scan_i64 stride,
                              int rows, int valid, int lane, scan_u32 access) {
    if (access == 16) {
        copy_tensors_by<16, TENSORS, SEGMENT, ROWS>(to, tensor, from, offset, stride, rows, valid, lane);
    } else if (access == 8) {
        copy_tensors_by<8, TENSORS, SEGMENT, ROWS>(to, tensor, from, offset, stride, rows, valid, lane);
    } else if (access == 4) {
        copy_tensors_by<4, TENSORS, SEGMENT, ROWS>(to, tensor, from, offset, stride, rows, valid, lane);
    } else {
        copy_tensors_by<2, TENSORS, SEGMENT, ROWS>(to, tensor, from, offset, stride, rows, valid, lane);
    }
}
