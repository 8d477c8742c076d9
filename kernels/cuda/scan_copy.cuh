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

// `rows` of ROWS rows of several tensors with the same layout, those that are there. SEGMENT bytes a row in shared
// memory, of which `valid` exist; `tensor` bytes from one tensor to the next in shared memory, `offset` to the first
// row in each, `stride` bytes from one row to the next, negative when time runs backwards. FAST unrolls the copies in
// pieces of 16 bytes. `access` is LEAST or more.
template <int TENSORS, int SEGMENT, int ROWS, int LEAST, bool FAST>
SCAN_DEVICE void copy_tensors(char* to, int tensor, const scan_u64 (&from)[TENSORS], scan_i64 offset, scan_i64 stride,
                              int rows, int valid, int lane, int access) {
    if (FAST && access == 16) {
        const int PIECES = SEGMENT / 16, ROUNDS = (ROWS * PIECES + 31) / 32;  // PIECES is a power of two
#pragma unroll
        for (int i = 0; i < ROUNDS; i++) {
            const int row = (lane + 32 * i) / PIECES, byte = lane % PIECES * 16;
            if (row < rows && byte < valid) {
                const scan_i64 source = offset + row * stride + byte;
#pragma unroll
                for (int q = 0; q < TENSORS; q++) {
                    if (from[q]) {
                        copy_piece<16>(to + q * tensor + row * SEGMENT + byte,
                                       reinterpret_cast<const char*>(from[q] + source));
                    }
                }
            }
        }
    } else if (SCAN_ARCH >= 90 && SEGMENT == 32 * LEAST && access == LEAST) {
        // A lane has one piece of every row. Pieces of 2 bytes come through registers: all loads before the first store, so
        // that they wait for memory together. The code is left to the architecture where it was measured.
        const int FEW = LEAST == 2 && TENSORS > 1 ? 2 : 1;
        char* const place = to + lane * LEAST;
        const scan_i64 source = offset + lane * LEAST;
#pragma unroll 1
        for (int row = 0; row < rows && lane * LEAST < valid; row += FEW) {
            unsigned short held[FEW][TENSORS];
            auto each = [&](auto&& act) {
#pragma unroll
                for (int i = 0; i < FEW; i++) {
#pragma unroll
                    for (int q = 0; q < TENSORS; q++) {
                        if (from[q] && row + i < rows) act(place + q * tensor + (row + i) * SEGMENT, i, q);
                    }
                }
            };
            each([&](char* piece, int i, int q) {
                copy_piece<LEAST>(LEAST == 2 ? reinterpret_cast<char*>(&held[i][q]) : piece,
                                  reinterpret_cast<const char*>(from[q] + source + (row + i) * stride));
            });
            if (LEAST == 2) {
                each([&](char* piece, int i, int q) { *reinterpret_cast<unsigned short*>(piece) = held[i][q]; });
            }
        }
    } else {
#pragma unroll 1
        for (int at = lane * access; at < rows * SEGMENT; at += 32 * access) {
            const int row = at / SEGMENT, byte = at % SEGMENT;
            if (byte < valid) {
                const scan_i64 source = offset + row * stride + byte;
#pragma unroll
                for (int q = 0; q < TENSORS; q++) {
                    if (from[q]) {
                        char* const piece = to + q * tensor + at;
                        const char* const there = reinterpret_cast<const char*>(from[q] + source);
                        if (!FAST && access == 16) {
                            copy_piece<16>(piece, there);
                        } else if (LEAST == 8 || access == 8) {
                            copy_piece<8>(piece, there);
                        } else if (LEAST == 4 || access == 4) {
                            copy_piece<4>(piece, there);
                        } else {
                            copy_piece<2>(piece, there);
                        }
                    }
                }
            }
        }
    }
}
