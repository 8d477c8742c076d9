//! The parameter blocks of kernels/cuda/scan_abi.h, field for field. abi_tests.rs holds the two together.

use ssm_core::DType;

/// A block that a kernel takes by value as its only parameter.
///
/// # Safety
///
/// The layout is that of the C struct of the same name in scan_abi.h.
pub(crate) unsafe trait Block: Copy {
    /// The C struct's name.
    #[cfg(test)]
    const NAME: &'static str;
    /// Each field: name, offset and size in bytes.
    #[cfg(test)]
    const FIELDS: &'static [(&'static str, usize, usize)];
}

macro_rules! blocks {
    ($($(#[$doc:meta])* struct $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }

        // SAFETY: repr(C) with the fields of scan_abi.h; abi_tests.rs compares every offset with the C compiler's.
        unsafe impl Block for $name {
            #[cfg(test)]
            const NAME: &'static str = stringify!($name);
            #[cfg(test)]
            const FIELDS: &'static [(&'static str, usize, usize)] = &[$((
                stringify!($field),
                std::mem::offset_of!($name, $field),
                size_of::<$type>(),
            )),*];
        }
    )*};
}

blocks! {
    /// Forward, and the carry pass of a backward that kept nothing.
    #[derive(Default)]
    struct ScanForward {
        x: u64, a: u64, b: u64, c: u64, h0: u64, y: u64, ht: u64, saved: u64,
        cu: u64,
        work: u64,
        batch: u64, len: u64, channels: u64, sequences: u64,
        flags: u32,
        access: u32,
        out_access: u32,
        out_type: u32,
        workers: u32,
        stages: u32,
    }

    /// Backward.
    #[derive(Default)]
    struct ScanBackward {
        x: u64, a: u64, b: u64, c: u64, h0: u64, saved: u64, dy: u64, dht: u64,
        dx: u64, da: u64, db: u64, dc: u64, dh0: u64,
        cu: u64,
        work: u64,
        batch: u64, len: u64, channels: u64, sequences: u64,
        flags: u32,
        access: u32,
        out_access: u32,
        out_type: u32,
        workers: u32,
        stages: u32,
    }

    /// Step.
    #[derive(Default)]
    struct ScanStep {
        x: u64, a: u64, b: u64, c: u64, y: u64, state: u64,
        batch: u64, len: u64, channels: u64,
        out_type: u32,
        pad: u32,
    }

    /// Host values into device memory, through the parameters.
    struct ScanPut {
        to: u64, base: u64,
        count: u32,
        pad: u32,
        offsets: [u32; PUT_MAX],
    }
}

/// Values one [`ScanPut`] carries.
pub(crate) const PUT_MAX: usize = 1000;
/// Time runs from the last row to the first.
pub(crate) const REVERSE: u32 = 1;
/// `cu` holds sequences + 1 offsets.
pub(crate) const PACKED: u32 = 2;
/// The plain loop from end to end.
pub(crate) const SEQUENTIAL: u32 = 4;
/// `saved` is all of h.
pub(crate) const FULL_H: u32 = 8;

/// The tag of a storage type.
pub(crate) const fn type_tag(dtype: DType) -> Option<u32> {
    match dtype {
        DType::F32 => Some(0),
        DType::F16 => Some(1),
        DType::Bf16 => Some(2),
        DType::F64 => None,
    }
}

/// The largest of 16, 8, 4 and 2 that divides everything in `bits` (addresses and row bytes, or-ed together).
pub(crate) const fn access(bits: u64) -> u32 {
    match bits.trailing_zeros() {
        0 | 1 => 2,
        2 => 4,
        3 => 8,
        _ => 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_the_widest_that_divides_all() {
        assert_eq!(access(0x7000_0000 | (64 * 4)), 16);
        assert_eq!(access(0x7000_0000 | (63 * 4)), 4);
        assert_eq!(access(0x7000_0008 | (64 * 4)), 8);
        assert_eq!(access(0x7000_0000 | (63 * 2)), 2);
        assert_eq!(access(0), 16);
    }
}
