//! AVX-512: F, BW and VL.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::lanes::Isa;

/// Only [`super::dispatch`] names this type, inside a function that enables the features.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

// SAFETY of every block below: the code is inlined into a function that enables the features, which runs only where they
// were detected; loads and stores are unaligned ones over LANES elements that the caller gives.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one reason holds for all of them, above")]
impl Isa for Avx512 {
    type F32 = __m512;
    type F64 = [__m512d; 2];

    #[inline(always)]
    fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn grow(p: Self::F64, a: __m512) -> Self::F64 {
        unsafe {
            let low = _mm512_cvtps_pd(_mm512_castps512_ps256(a));
            let high = _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(a))));
            [_mm512_mul_pd(p[0], low), _mm512_mul_pd(p[1], high)]
        }
    }

    #[inline(always)]
    fn fma_f64(a: f64, b: f64, c: f64) -> f64 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    unsafe fn stream_line(src: *const u8, dst: *mut u8) {
        unsafe { _mm512_stream_si512(dst.cast(), _mm512_loadu_si512(src.cast())) }
    }

    #[inline(always)]
    unsafe fn load_f32(src: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(src) }
    }

    #[inline(always)]
    unsafe fn load_f16(src: *const f16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(src.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(src: *const bf16) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(src.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn store_f32(dst: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(dst, v) }
    }

    #[inline(always)]
    unsafe fn store_f16(dst: *mut f16, v: __m512) {
        unsafe { _mm256_storeu_si256(dst.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }

    // The instruction that converts to bf16 takes subnormals for zero, so the rounding is done on the bits.
    #[inline(always)]
    unsafe fn store_bf16(dst: *mut bf16, v: __m512) {
        unsafe {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            // Rounding could carry a NaN over to infinity or zero: keep it, quietly.
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x0040_0000));
            _mm256_storeu_si256(dst.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(kept)));
        }
    }

    #[inline(always)]
    unsafe fn load_f64(src: *const f64) -> Self::F64 {
        unsafe { [_mm512_loadu_pd(src), _mm512_loadu_pd(src.add(8))] }
    }

    #[inline(always)]
    unsafe fn store_f64(dst: *mut f64, v: Self::F64) {
        unsafe {
            _mm512_storeu_pd(dst, v[0]);
            _mm512_storeu_pd(dst.add(8), v[1]);
        }
    }
}
