//! AVX2, FMA and F16C.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::lanes::Isa;

/// Only [`super::dispatch`] names this type, inside a function that enables the three features.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

// SAFETY of every block below: the code is inlined into a function that enables avx2, fma and f16c, which runs only where
// they were detected; loads and stores are unaligned ones over LANES elements that the caller gives.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one reason holds for all of them, above")]
impl Isa for Avx2 {
    type F32 = [__m256; 2];
    type F64 = [__m256d; 4];

    #[inline(always)]
    fn mul(a: Self::F32, b: Self::F32) -> Self::F32 {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn fma(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn grow(p: Self::F64, a: Self::F32) -> Self::F64 {
        let low = |v| unsafe { _mm256_cvtps_pd(_mm256_castps256_ps128(v)) };
        let high = |v| unsafe { _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(v)) };
        let a = [low(a[0]), high(a[0]), low(a[1]), high(a[1])];
        std::array::from_fn(|i| unsafe { _mm256_mul_pd(p[i], a[i]) })
    }

    #[inline(always)]
    fn fma_f64(a: f64, b: f64, c: f64) -> f64 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    unsafe fn load_f32(src: *const f32) -> Self::F32 {
        unsafe { [_mm256_loadu_ps(src), _mm256_loadu_ps(src.add(8))] }
    }

    #[inline(always)]
    unsafe fn load_f16(src: *const f16) -> Self::F32 {
        let half = |at| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(src.add(at).cast())) };
        [half(0), half(8)]
    }

    #[inline(always)]
    unsafe fn load_bf16(src: *const bf16) -> Self::F32 {
        let half = |at| unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(src.add(at).cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        };
        [half(0), half(8)]
    }

    #[inline(always)]
    unsafe fn store_f32(dst: *mut f32, v: Self::F32) {
        unsafe {
            _mm256_storeu_ps(dst, v[0]);
            _mm256_storeu_ps(dst.add(8), v[1]);
        }
    }

    #[inline(always)]
    unsafe fn store_f16(dst: *mut f16, v: Self::F32) {
        let half = |at, v| unsafe {
            _mm_storeu_si128(dst.add(at).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
        };
        half(0, v[0]);
        half(8, v[1]);
    }

    #[inline(always)]
    unsafe fn store_bf16(dst: *mut bf16, v: Self::F32) {
        let upper = |v| unsafe {
            let bits = _mm256_castps_si256(v);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            // Rounding could carry a NaN over to infinity or zero: keep it, quietly.
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
            _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan))
        };
        unsafe {
            // The pack works within 128-bit halves: bring the quarters back into order.
            let packed = _mm256_packus_epi32(upper(v[0]), upper(v[1]));
            _mm256_storeu_si256(dst.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }

    #[inline(always)]
    unsafe fn load_f64(src: *const f64) -> Self::F64 {
        std::array::from_fn(|i| unsafe { _mm256_loadu_pd(src.add(4 * i)) })
    }

    #[inline(always)]
    unsafe fn store_f64(dst: *mut f64, v: Self::F64) {
        for (i, v) in v.into_iter().enumerate() {
            unsafe { _mm256_storeu_pd(dst.add(4 * i), v) };
        }
    }
}
