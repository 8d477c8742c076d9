//! The order of combination, checked exactly.
//!
//! Wrapping integer affine maps h → p·h + s compose associatively and do not commute, with no rounding to hide behind:
//! a fold that swaps, drops or repeats a chunk gives another integer.

/// h → multiply·h + add, modulo 2⁶⁴.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    /// The product of the gates.
    pub multiply: u64,
    /// What the chunk adds.
    pub add: u64,
}

impl Affine {
    /// Changes nothing.
    pub const IDENTITY: Self = Self { multiply: 1, add: 0 };

    /// This map, and the later one after it.
    #[must_use]
    pub const fn then(self, later: Self) -> Self {
        Self {
            multiply: later.multiply.wrapping_mul(self.multiply),
            add: later.multiply.wrapping_mul(self.add).wrapping_add(later.add),
        }
    }

    /// The map at h.
    #[must_use]
    pub const fn apply(self, h: u64) -> u64 {
        self.multiply.wrapping_mul(h).wrapping_add(self.add)
    }
}

/// A fold that is not the one in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("after chunk {chunk} of {chunks} the fold is {got:?}, in order it is {expected:?}")]
pub struct OutOfOrder {
    /// The first chunk whose result is wrong.
    pub chunk: usize,
    /// How many there were.
    pub chunks: usize,
    /// All maps up to this one, in order.
    pub expected: Affine,
    /// What came; `None` when the fold returned too few.
    pub got: Option<Affine>,
}

/// Feeds `chunks` maps to an inclusive fold (result i: maps 0 to i, in order) and checks every result.
///
/// # Errors
///
/// [`OutOfOrder`] at the first chunk that differs.
pub fn check_fold(chunks: usize, fold: impl Fn(&[Affine]) -> Vec<Affine>) -> Result<(), OutOfOrder> {
    // Odd multipliers: the low bits of a product never die.
    let map = |i: u64| {
        let mixed = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Affine { multiply: mixed | 1, add: mixed.rotate_left(29) }
    };
    let maps: Vec<Affine> = (0..chunks as u64).map(map).collect();
    let results = fold(&maps);
    let mut expected = Affine::IDENTITY;
    for (chunk, map) in maps.into_iter().enumerate() {
        expected = expected.then(map);
        let got = results.get(chunk).copied();
        if got != Some(expected) {
            return Err(OutOfOrder { chunk, chunks, expected, got });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_order(maps: &[Affine]) -> Vec<Affine> {
        let step = |so_far: &mut Affine, map: &Affine| {
            *so_far = so_far.then(*map);
            Some(*so_far)
        };
        maps.iter().scan(Affine::IDENTITY, step).collect()
    }

    #[test]
    fn the_fold_in_order_passes() {
        for chunks in [0, 1, 2, 3, 64, 1000] {
            assert_eq!(check_fold(chunks, in_order), Ok(()));
        }
    }

    #[test]
    fn a_swap_a_drop_and_a_repeat_are_caught() {
        let bend = |change: fn(&mut Vec<Affine>)| {
            check_fold(9, |maps| {
                let mut maps = maps.to_vec();
                change(&mut maps);
                in_order(&maps)
            })
        };
        assert_eq!(bend(|m| m.swap(4, 5)).unwrap_err().chunk, 4);
        assert_eq!(bend(|m| m[6] = Affine::IDENTITY).unwrap_err().chunk, 6);
        assert_eq!(bend(|m| m[8] = m[7]).unwrap_err().chunk, 8);
        assert_eq!(bend(|m| m.truncate(8)).unwrap_err().got, None);
    }
}
