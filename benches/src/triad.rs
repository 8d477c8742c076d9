//! The bandwidth of the CPU's memory: a kernel that reads n streams and writes m, and does nothing else.
//!
//! A scan forward reads x, a, b, c and writes y; backward reads five tensors and writes four. A plain copy or a
//! three-stream triad is faster or slower than that for reasons that have nothing to do with the scan (the number of
//! open pages, the share of writes), so the reference has the same number of streams of the same length, on the same
//! threads, each thread with one contiguous slab of every stream. Which store is faster, ordinary or non-temporal, and
//! whether prefetching helps, depends on the machine and on the size: every variant is tried first and the fastest is
//! the reference.
//!
//! The streams are bytes: words are combined by exclusive or, which no value slows down.

use std::time::Instant;

use rayon::prelude::*;

use crate::stats::quantile;

/// Words that every kernel below handles at once; streams are padded to whole lines.
const LINE: usize = 8;
/// How far ahead a prefetching pass asks: 2 KiB.
const PREFETCH_WORDS: usize = 256;
/// Streams beyond this are not needed by any scan.
const MOST_STREAMS: usize = 8;

/// How a pass goes over memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The calling thread alone, which is faster where waking the others takes longer than the work.
    pub serial: bool,
    /// Stores that go around the caches.
    pub non_temporal: bool,
    /// Loads that are asked for 2 KiB ahead.
    pub prefetch: bool,
}

impl Variant {
    /// Every variant; without AVX2 the first two are all there are.
    const ALL: [Self; 6] = [
        Self { serial: false, non_temporal: false, prefetch: false },
        Self { serial: true, non_temporal: false, prefetch: false },
        Self { serial: false, non_temporal: true, prefetch: false },
        Self { serial: false, non_temporal: false, prefetch: true },
        Self { serial: false, non_temporal: true, prefetch: true },
        Self { serial: true, non_temporal: false, prefetch: true },
    ];
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stores = if self.non_temporal { "non-temporal" } else { "ordinary" };
        write!(f, "{stores} stores{}", if self.prefetch { ", prefetched" } else { "" })?;
        f.write_str(if self.serial { ", one thread" } else { "" })
    }
}

/// The streams, and the fastest way over them.
#[derive(Debug)]
pub struct Triad {
    reads: Vec<Vec<u64>>,
    writes: Vec<Vec<u64>>,
    words: usize,
    variant: Variant,
}

impl Triad {
    /// `reads` and `writes` streams of `bytes` each, in the memory of the current rayon pool. Tries every variant.
    pub fn new(reads: usize, writes: usize, bytes: usize) -> Self {
        assert!(reads <= MOST_STREAMS && writes <= MOST_STREAMS, "more streams than a scan has");
        let words = bytes / 8;
        // Written by the threads that will read it, so that pages lie where those threads run.
        let stream = |seed: u64| -> Vec<u64> {
            (0..words.div_ceil(LINE) * LINE)
                .into_par_iter()
                .with_min_len(1 << 16)
                .map(|i| seed ^ i as u64)
                .collect()
        };
        let mut triad = Self {
            reads: (0..reads as u64).map(stream).collect(),
            writes: (0..writes as u64).map(stream).collect(),
            words,
            variant: Variant::ALL[0],
        };
        triad.variant = triad.fastest();
        triad
    }

    /// The variant that [`Triad::pass`] uses.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    fn fastest(&mut self) -> Variant {
        let distinct = if has_avx2() { &Variant::ALL[..] } else { &Variant::ALL[..2] };
        let mut times: Vec<(Variant, Vec<f64>)> = distinct.iter().map(|v| (*v, Vec::new())).collect();
        // The least of a few: what else runs on the machine only ever adds time.
        let least = |samples: &[f64]| quantile(samples, 0.0);
        for _ in 0..4 {
            for (variant, samples) in &mut times {
                let start = Instant::now();
                self.pass_as(*variant);
                samples.push(start.elapsed().as_secs_f64());
            }
        }
        let fastest = times.iter().min_by(|(_, s), (_, t)| least(s).total_cmp(&least(t)));
        fastest.map_or(Variant::ALL[0], |(variant, _)| *variant)
    }

    /// One pass over all streams, on every thread of the current rayon pool.
    pub fn pass(&mut self) {
        self.pass_as(self.variant);
    }

    fn pass_as(&mut self, variant: Variant) {
        let words = self.words.div_ceil(LINE) * LINE;
        let threads = if variant.serial { 1 } else { rayon::current_num_threads() };
        let piece = words.div_ceil(threads).next_multiple_of(LINE).max(LINE);
        let reads: Vec<&[u64]> = self.reads.iter().map(Vec::as_slice).collect();
        let mut pieces: Vec<(usize, Vec<&mut [u64]>)> =
            (0..words).step_by(piece).map(|at| (at, Vec::with_capacity(self.writes.len()))).collect();
        for stream in &mut self.writes {
            for ((_, outs), chunk) in pieces.iter_mut().zip(stream.chunks_mut(piece)) {
                outs.push(chunk);
            }
        }
        let pass = |(at, mut outs): (usize, Vec<&mut [u64]>)| {
            let len = outs.first().map_or(piece.min(words - at), |o| o.len());
            let ins: Vec<&[u64]> = reads.iter().map(|r| &r[at..at + len]).collect();
            stream_through(&ins, &mut outs, len, variant);
        };
        match variant.serial {
            true => pieces.into_iter().for_each(pass),
            false => pieces.into_par_iter().with_max_len(1).for_each(pass),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

fn stream_through(ins: &[&[u64]], outs: &mut [&mut [u64]], len: usize, variant: Variant) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        let ends_together = ins.iter().all(|s| s.len() == len) && outs.iter().all(|s| s.len() == len);
        assert!(ends_together && len.is_multiple_of(LINE), "streams of whole lines, all of one length");
        let aligned = outs.iter().all(|o| o.as_ptr().addr() % 32 == outs[0].as_ptr().addr() % 32);
        // SAFETY: AVX2 was just detected, and every stream has `len` words, whole lines.
        unsafe {
            let non_temporal = variant.non_temporal && aligned;
            match variant.prefetch {
                true => avx2::stream_through::<PREFETCH_WORDS>(ins, outs, len, non_temporal),
                false => avx2::stream_through::<0>(ins, outs, len, non_temporal),
            }
        }
        return;
    }
    let _ = variant;
    portable(ins, outs, len);
}

fn portable(ins: &[&[u64]], outs: &mut [&mut [u64]], len: usize) {
    for at in (0..len).step_by(LINE) {
        let mut line = [0u64; LINE];
        for stream in ins {
            for (word, other) in line.iter_mut().zip(&stream[at..]) {
                *word ^= other;
            }
        }
        for stream in outs.iter_mut() {
            stream[at..at + LINE].copy_from_slice(&line);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _MM_HINT_T0, _mm_prefetch, _mm_sfence, _mm256_loadu_si256, _mm256_setzero_si256,
        _mm256_storeu_si256, _mm256_stream_si256, _mm256_xor_si256,
    };

    use super::LINE;

    /// # Safety
    ///
    /// AVX2 is there, and every stream has `len` words, a multiple of [`LINE`].
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn stream_through<const AHEAD: usize>(
        ins: &[&[u64]],
        outs: &mut [&mut [u64]],
        len: usize,
        non_temporal: bool,
    ) {
        // SAFETY: passed on to the caller.
        unsafe {
            match (ins.len(), outs.len()) {
                (4, 1) => fixed::<4, 1, AHEAD>(ins, outs, len, non_temporal),
                (5, 4) => fixed::<5, 4, AHEAD>(ins, outs, len, non_temporal),
                (2, 1) => fixed::<2, 1, AHEAD>(ins, outs, len, non_temporal),
                (3, 2) => fixed::<3, 2, AHEAD>(ins, outs, len, non_temporal),
                _ => super::portable(ins, outs, len),
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn fixed<const R: usize, const W: usize, const AHEAD: usize>(
        ins: &[&[u64]],
        outs: &mut [&mut [u64]],
        len: usize,
        non_temporal: bool,
    ) {
        let ins: [*const u64; R] = std::array::from_fn(|i| ins[i].as_ptr());
        let outs: [*mut u64; W] = std::array::from_fn(|i| outs[i].as_mut_ptr());
        if non_temporal && W > 0 {
            // A Vec is 16-byte aligned at least: words up to the first aligned vector are written one by one.
            let peel = (outs[0].align_offset(32)).min(len);
            let body = peel + (len - peel) / LINE * LINE;
            // SAFETY: 0..peel, peel..body and body..len lie within the streams; from `peel` on stores are aligned.
            unsafe {
                words(&ins, &outs, 0..peel);
                lines::<R, W, true, AHEAD>(&ins, &outs, peel..body);
                words(&ins, &outs, body..len);
            }
            _mm_sfence();
        } else {
            // SAFETY: the caller's word that all streams have `len` words, whole lines.
            unsafe { lines::<R, W, false, AHEAD>(&ins, &outs, 0..len) };
        }
    }

    #[inline]
    unsafe fn words<const R: usize, const W: usize>(
        ins: &[*const u64; R],
        outs: &[*mut u64; W],
        range: std::ops::Range<usize>,
    ) {
        for i in range {
            // SAFETY: the range lies within every stream.
            unsafe {
                let word = ins.iter().fold(0, |word, stream| word ^ *stream.add(i));
                outs.iter().for_each(|stream| *stream.add(i) = word);
            }
        }
    }

    /// Whole lines of 64 bytes; with `NT` every output is 32-byte aligned at the start of the range.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn lines<const R: usize, const W: usize, const NT: bool, const AHEAD: usize>(
        ins: &[*const u64; R],
        outs: &[*mut u64; W],
        range: std::ops::Range<usize>,
    ) {
        for at in range.step_by(LINE) {
            let (mut low, mut high) = (_mm256_setzero_si256(), _mm256_setzero_si256());
            for stream in ins {
                if AHEAD > 0 {
                    // A hint: an address past the end is ignored.
                    _mm_prefetch::<_MM_HINT_T0>(stream.wrapping_add(at + AHEAD).cast());
                }
                // SAFETY: eight words from `at` lie within the stream.
                unsafe {
                    low = _mm256_xor_si256(low, _mm256_loadu_si256(stream.add(at).cast()));
                    high = _mm256_xor_si256(high, _mm256_loadu_si256(stream.add(at + 4).cast()));
                }
            }
            for stream in outs {
                // SAFETY: as above, and aligned where `NT` needs it.
                unsafe {
                    store::<NT>(stream.add(at).cast(), low);
                    store::<NT>(stream.add(at + 4).cast(), high);
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store<const NT: bool>(to: *mut __m256i, value: __m256i) {
        // SAFETY: the caller's word that `to` is writable, and aligned for `NT`.
        unsafe { if NT { _mm256_stream_si256(to, value) } else { _mm256_storeu_si256(to, value) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_writes_every_word() {
        for (reads, writes) in [(4, 1), (5, 4), (2, 1), (3, 2), (1, 3)] {
            let mut triad = Triad::new(reads, writes, 8 * 1003);
            for variant in Variant::ALL {
                triad.writes.iter_mut().for_each(|w| w.fill(u64::MAX));
                triad.pass_as(variant);
                for (i, _) in triad.reads[0].iter().enumerate() {
                    let want = triad.reads.iter().fold(0, |word, r| word ^ r[i]);
                    assert!(
                        triad.writes.iter().all(|w| w[i] == want),
                        "{variant}, {reads} to {writes}, word {i}"
                    );
                }
            }
        }
    }
}
