//! The instruction set that every target has: arrays and plain arithmetic, which the compiler vectorises for SSE2, NEON
//! or simd128. Conversions are branch-free bit operations, so that they vectorise too.

use half::{bf16, f16};

use super::lanes::{Isa, LANES};

#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Isa for Portable {
    type F32 = [f32; LANES];
    type F64 = [f64; LANES];

    #[inline(always)]
    fn mul(a: Self::F32, b: Self::F32) -> Self::F32 {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn fma(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        // Every AArch64 fuses; elsewhere a fused product would be a library call for each element. Going through f64, where
        // the product is exact, is not free either, but without it two outputs in cancellation miss the error contract.
        if cfg!(target_arch = "aarch64") {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        } else {
            std::array::from_fn(|i| (f64::from(a[i]) * f64::from(b[i]) + f64::from(c[i])) as f32)
        }
    }

    #[inline(always)]
    fn grow(p: Self::F64, a: Self::F32) -> Self::F64 {
        std::array::from_fn(|i| p[i] * f64::from(a[i]))
    }

    #[inline(always)]
    fn fma_f64(a: f64, b: f64, c: f64) -> f64 {
        if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
    }

    #[inline(always)]
    unsafe fn load_f32(src: *const f32) -> Self::F32 {
        // SAFETY: the caller gives LANES elements.
        unsafe { src.cast::<Self::F32>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_f16(src: *const f16) -> Self::F32 {
        // SAFETY: the caller gives LANES elements, each two bytes.
        let bits = unsafe { src.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(widen_f16)
    }

    #[inline(always)]
    unsafe fn load_bf16(src: *const bf16) -> Self::F32 {
        // SAFETY: the caller gives LANES elements, each two bytes.
        let bits = unsafe { src.cast::<[u16; LANES]>().read_unaligned() };
        bits.map(|b| f32::from_bits(u32::from(b) << 16))
    }

    #[inline(always)]
    unsafe fn store_f32(dst: *mut f32, v: Self::F32) {
        // SAFETY: the caller gives room for LANES elements.
        unsafe { dst.cast::<Self::F32>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn store_f16(dst: *mut f16, v: Self::F32) {
        // SAFETY: the caller gives room for LANES elements, each two bytes.
        unsafe { dst.cast::<[u16; LANES]>().write_unaligned(v.map(narrow_f16)) }
    }

    #[inline(always)]
    unsafe fn store_bf16(dst: *mut bf16, v: Self::F32) {
        // SAFETY: the caller gives room for LANES elements, each two bytes.
        unsafe { dst.cast::<[u16; LANES]>().write_unaligned(v.map(narrow_bf16)) }
    }

    #[inline(always)]
    unsafe fn load_f64(src: *const f64) -> Self::F64 {
        // SAFETY: the caller gives LANES elements.
        unsafe { src.cast::<Self::F64>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_f64(dst: *mut f64, v: Self::F64) {
        // SAFETY: the caller gives room for LANES elements.
        unsafe { dst.cast::<Self::F64>().write_unaligned(v) }
    }
}

/// Exact. The exponent is moved by a multiplication, which normalises subnormals on the way.
#[inline(always)]
fn widen_f16(h: u16) -> f32 {
    let magnitude = u32::from(h & 0x7fff) << 13;
    // 2^112 is the difference of the exponents' biases.
    let scaled = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
    let special = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled | special | (u32::from(h & 0x8000) << 16))
}

/// To nearest, ties to even. After F. Giesen, "float->half variants".
#[inline(always)]
fn narrow_f16(v: f32) -> u16 {
    let bits = v.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Adding 0.5 puts the last bit of a subnormal f16 at the last bit of the mantissa: the addition rounds.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let odd = (magnitude >> 13) & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    let special = if magnitude > 0x7f80_0000 { 0x7e00 } else { 0x7c00 };
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    let half = if magnitude >= 143 << 23 { special } else { finite };
    (half | sign) as u16
}

/// To nearest, ties to even.
#[inline(always)]
fn narrow_bf16(v: f32) -> u16 {
    let bits = v.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    // Rounding could carry a NaN over to infinity or zero: keep it, quietly.
    let nan = bits & 0x7fff_ffff > 0x7f80_0000;
    ((if nan { bits | 0x0040_0000 } else { rounded }) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_widens_as_it_should() {
        for bits in 0..=u16::MAX {
            let (got, want) = (widen_f16(bits), f16::from_bits(bits).to_f32());
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:#06x}");
        }
    }

    /// Every pair of neighbours in the narrow type, what lies between them, and every exponent.
    #[test]
    fn narrowing_rounds_to_nearest_even() {
        // A stride prime to 2^32 that visits every exponent and every rounding position.
        for i in 0..1u32 << 22 {
            let v = f32::from_bits(i.wrapping_mul(0x9e37_79b1));
            let (h, b) = (f16::from_f32(v), bf16::from_f32(v));
            assert!(narrow_f16(v) == h.to_bits() || v.is_nan(), "{v:e}");
            assert!(narrow_bf16(v) == b.to_bits() || v.is_nan(), "{v:e}");
            assert_eq!(f16::from_bits(narrow_f16(v)).is_nan(), v.is_nan());
            assert_eq!(bf16::from_bits(narrow_bf16(v)).is_nan(), v.is_nan());
        }
        for bits in 0..0x7c00u16 {
            let at = f16::from_bits(bits).to_f32();
            let next = if bits == 0x7bff { 65536.0 } else { f16::from_bits(bits + 1).to_f32() };
            let middle = (at + next) / 2.0;
            for v in [at, middle.next_down(), middle, middle.next_up()] {
                assert_eq!(narrow_f16(v), f16::from_f32(v).to_bits(), "{v:e}");
                assert_eq!(narrow_f16(-v), f16::from_f32(-v).to_bits(), "{v:e}");
            }
        }
    }
}
